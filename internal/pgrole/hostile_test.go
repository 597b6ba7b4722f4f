package pgrole_test

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// The keys of our advisory locks are no secret, so a user could take its own and never be changed again.
func TestSquatterOnTheLock(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "squatter")
	c.Exec(t, `ALTER ROLE squatter PASSWORD 'squatter-password'`)
	sum := sha256.Sum256([]byte("rolecall role squatter"))
	squat := c.Connect(t, "squatter", "squatter-password", "postgres")
	exec(t, squat, `SET lock_timeout = 0`)
	if _, err := squat.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, int64(binary.BigEndian.Uint64(sum[:]))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetPassword(t.Context(), "squatter", "another-password", nil, stamp()); err != nil {
		t.Fatal(err)
	}
	if err := squat.Ping(t.Context()); err == nil {
		t.Error("its session lives on")
	}
	mayLogin(t, c, "squatter", "another-password")
}

// The owner of a database writes its comment, and its settings for whoever connects.
func TestHostileOwnerOfDatabase(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "hostile", "hostile_victim")
	conn := database(t, c, "hostile_db", "OWNER hostile")
	exec(t, conn, `CREATE SCHEMA s`, `GRANT USAGE ON SCHEMA s TO hostile_victim`)
	for _, comment := range []string{
		`rolecall:v1 {"created":"9999-12-31T23:59:59-23:59","createdBy":"x","revision":1,"attempt":"a"}`,
		`rolecall:v1 {"createdBy":"` + strings.Repeat("x", 201) + `","revision":1,"attempt":"a"}`,
		strings.Repeat("long ", 1_000_000),
	} {
		c.Exec(t, `COMMENT ON DATABASE hostile_db IS '`+comment+`'`)
		d, err := s.Database(t.Context(), "hostile_db")
		if err != nil || d.Provenance.Managed() {
			t.Errorf("%.60s: %+v, %v", comment, d, err)
		}
		if _, _, err := s.Databases(t.Context(), pgrole.Page{Limit: 1000}); err != nil {
			t.Errorf("%.60s: %v", comment, err)
		}
	}
	c.Exec(t, `ALTER DATABASE hostile_db SET default_transaction_read_only = on`)
	c.Exec(t, `ALTER DATABASE hostile_db SET role = 'hostile'`)
	if err := remove(t, s, "hostile_victim", "", nil, stamp()); err != nil {
		t.Error(err)
	}
}

// What belongs to a system role cannot have been given to it here, and is not dropped here.
func TestDropDatabaseOfSystemRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	c.Exec(t, `CREATE ROLE other_super SUPERUSER`)
	database(t, c, "of_other_super", "OWNER other_super")
	refused(t, superuser(t, c).DropDatabase(t.Context(), "of_other_super"), fault.Forbidden, "other_super")
}
