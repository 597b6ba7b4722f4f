package pgrole_test

import (
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// The access roles of a database go with it, and nobody has access to another database of that name. What would keep one of
// them from being dropped keeps the database.
func TestDropDatabaseWithAccessRoles(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		ctx := t.Context()
		databaseWith(t, c, s, name)
		mustCreate(t, s, name+"_m")
		if _, err := s.SetAccess(ctx, name+"_m", pgrole.Access{Database: name, Level: pgrole.Own}, nil, actor()); err != nil {
			t.Fatal(err)
		}
		elsewhere := database(t, c, name+"_x", "")
		for what, sql := range map[string][2]string{
			"granted": {`GRANT CREATE ON SCHEMA public TO ` + name + `_write`, `REVOKE CREATE ON SCHEMA public FROM ` + name +
				`_write`},
			"owned": {`CREATE TABLE kept (); ALTER TABLE kept OWNER TO ` + name + `_owner`, `DROP TABLE kept`},
			"granted on a database": {`GRANT CONNECT ON DATABASE ` + name + `_x TO ` + name + `_read`,
				`REVOKE CONNECT ON DATABASE ` + name + `_x FROM ` + name + `_read`},
		} {
			exec(t, elsewhere, sql[0])
			err := s.DropDatabase(ctx, name, actor())
			refused(t, err, fault.InUse, name+"_x", "Nothing was changed")
			if _, err := s.AccessRoles(ctx, name); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			exec(t, elsewhere, sql[1])
		}
		if err := s.DropDatabase(ctx, name, actor()); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"_owner", "_write", "_read"} {
			if exists(t, c, name+suffix) {
				t.Errorf("%s is still there", name+suffix)
			}
		}
		d, err := s.Details(ctx, name+"_m")
		if err != nil || len(d.MemberOf) > 0 {
			t.Errorf("the member is %+v, %v", d, err)
		}
		refused(t, s.DropDatabase(ctx, name, actor()), fault.NotFound)
	})
}

// A call that was cut off once the database was gone is finished by the next one. The access roles of a database that has
// another name now are in use, and stay.
func TestDropDatabaseCutOff(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		databaseWith(t, c, s, name)
		c.Exec(t, `ALTER DATABASE `+name+` RENAME TO `+name+`_now`)
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+`_now`) })
		refused(t, s.DropDatabase(t.Context(), name, actor()), fault.NotFound)
		if !exists(t, c, name+"_owner") || !exists(t, c, name+"_read") {
			t.Error("an access role is gone")
		}
		c.Exec(t, `DROP DATABASE `+name+`_now`)
		if err := s.DropDatabase(t.Context(), name, actor()); err != nil {
			t.Error(err)
		}
		if exists(t, c, name+"_owner") {
			t.Error("an access role is left")
		}
	})
}

// What a deleted user owned goes to the access role of own, whoever deletes it, and to none of another level.
func TestReassignToAccessRole(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		databaseWith(t, c, s, name)
		mustCreate(t, s, name+"_m")
		db := c.Connect(t, c.User, c.Password, name)
		exec(t, db, `CREATE TABLE kept (); ALTER TABLE kept OWNER TO `+name+`_m`)
		db.Close(t.Context())
		manager := *s
		manager.Reassignable = []string{}
		for _, level := range []string{"_read", "_write"} {
			_, err := manager.Delete(t.Context(), name+"_m", name+level, nil, actor())
			refused(t, err, fault.Invalid, name+level, name+"_owner")
			_, err = manager.Plan(t.Context(), name+"_m", name+level)
			refused(t, err, fault.Invalid, name+"_owner")
		}
		if _, err := manager.Delete(t.Context(), name+"_m", name+"_owner", nil, actor()); err != nil {
			t.Error(err)
		}
	})
}
