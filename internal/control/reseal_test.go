package control_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
)

// notSealed are the columns of bytes that hold no secret.
var notSealed = []string{
	"refresh_tokens.token_hash", "personal_tokens.secret_hash", "console_sessions.secret_hash", // hashes
	"authorization_codes.code_hash", "passcodes.code_hash", "device_codes.code_hash", "device_codes.user_hash",
	"audit.writer_mac", "audit_seals.mac", "audit_checkpoint.mac", "audit_checkpoint.proof", // HMACs
	"followers.mac",
	"observations.recorded", "observations.good", "observations.fingerprint",
	"observations.name", // HMACs, and a name in any encoding
}

// Every column of bytes is either sealed anew or known to be no secret.
func TestResealForgetsNothing(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	pg.Exec(t, `CREATE DATABASE reseal_columns`)
	db := mustOpen(t, pg.URL("reseal_columns"))
	rows, err := db.Pool.Query(t.Context(), `
		SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'rolecall'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
		  AND a.atttypid IN ('bytea'::regtype, 'bytea[]'::regtype)`)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(control.SealedColumns()), notSealed...)
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("the columns of bytes are\n%q, but known are\n%q; put a sealed one into reseal.go", found, want)
	}
}

func TestReseal(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	pg.Exec(t, `CREATE DATABASE reseal`)
	db := mustOpen(t, pg.URL("reseal"))
	old, first := control.NewMasterKey(), control.NewMasterKey()
	const id = "4c2f0d5e-8a5b-4c1e-9d0a-6f1f2b7c9e21"
	// A credential, its lease and the next one.
	const current = "credentials/00000000-0000-4000-8000-000000000001/00000000-0000-7000-8000-000000000002/password"
	const next = "credentials/00000000-0000-4000-8000-000000000001/00000000-0000-7000-8000-000000000003/password"
	secrets := map[string]string{
		"signing_keys/a/private_key": "one", "clusters/" + id + "/credential": "two", "clusters/" + id + "/pending": "three",
		"audit_keys/1/key": "four", "audit_keys/2/key": "five",
		current: "six", next: "seven", "fingerprint_keys/1/key": "eight",
	}
	sealed := func(place string) []byte { return db.Keys.Seal(place, []byte(secrets[place])) }
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := db.Pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	db.Keys = keyring(t, old)
	exec(`INSERT INTO signing_keys VALUES ('a', $1)`, sealed("signing_keys/a/private_key"))
	exec(`INSERT INTO clusters (id, display_name, url, tls, credential, pending, system_identifier, updated_at) VALUES ($1, `+
		`'x', '', '{}', $2, $3, '', 'epoch')`,
		id, sealed("clusters/"+id+"/credential"), sealed("clusters/"+id+"/pending"))
	exec(`INSERT INTO credentials (id, cluster_id, name, for_role, rotate_every, overlap, lease_id, password, next_lease_id, `+
		`next_password, created_by) VALUES ('00000000-0000-4000-8000-000000000001', $1, 'x', 'y', '1h', '1m', `+
		`'00000000-0000-7000-8000-000000000002', $2, '00000000-0000-7000-8000-000000000003', $3, '')`,
		id, sealed(current), sealed(next))
	exec(`UPDATE audit_keys SET key = $1 WHERE id = 1`, sealed("audit_keys/1/key"))
	exec(`UPDATE fingerprint_keys SET key = $1`, sealed("fingerprint_keys/1/key"))
	db.Keys = keyring(t, first, old)
	exec(`INSERT INTO audit_keys VALUES (2, $1)`, sealed("audit_keys/2/key"))
	stored := func() map[string]string {
		t.Helper()
		rows, err := db.Pool.Query(t.Context(), `
			SELECT 'signing_keys/' || kid || '/private_key', private_key FROM signing_keys
			UNION ALL SELECT 'clusters/' || id || '/credential', credential FROM clusters
			UNION ALL SELECT 'clusters/' || id || '/pending', pending FROM clusters
			UNION ALL SELECT 'credentials/' || id || '/' || lease_id || '/password', password FROM credentials
			UNION ALL SELECT 'credentials/' || id || '/' || next_lease_id || '/password', next_password FROM credentials
			UNION ALL SELECT 'audit_keys/' || id || '/key', key FROM audit_keys
			UNION ALL SELECT 'fingerprint_keys/' || id || '/key', key FROM fingerprint_keys`)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		var place string
		var value []byte
		if _, err := pgx.ForEachRow(rows, []any{&place, &value},
			func() error { all[place] = string(value); return nil }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := stored()
	nothing := func(pgx.Tx, *control.Resealed) error { return nil }
	unchanged := func() {
		t.Helper()
		for place, value := range stored() {
			if before[place] != value {
				t.Errorf("%s was changed", place)
			}
		}
	}

	// All or nothing: without the old key, and when it cannot be recorded.
	db.Keys = keyring(t, first)
	if _, err := db.Reseal(t.Context(), nothing); !fault.Is(err, fault.Invalid) ||
		!strings.Contains(err.Error(), "signing_keys/a/private_key is encrypted with the master key") {
		t.Errorf("without the old key: %v", err)
	}
	unchanged()
	db.Keys = keyring(t, first, old)
	refusal := errors.New("not recorded")
	if _, err := db.Reseal(t.Context(), func(pgx.Tx, *control.Resealed) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("not recorded: %v", err)
	}
	unchanged()

	done, err := db.Reseal(t.Context(), nothing)
	if err != nil {
		t.Fatal(err)
	}
	if done.Total() != 7 || done.Counts["audit_keys.key"] != 1 || done.Counts["credentials.next_password"] != 1 ||
		done.Counts["clusters.pending"] != 1 || len(done.Key) != 16 {
		t.Errorf("done was %+v", done)
	}
	after := stored()
	for place, secret := range secrets {
		if opened, err := keyring(t, first).Open(place, []byte(after[place])); err != nil || string(opened) != secret {
			t.Errorf("%s opens as %q: %v", place, opened, err)
		}
		if _, err := keyring(t, old).Open(place, []byte(after[place])); err == nil ||
			!strings.Contains(err.Error(), "master key "+done.Key) {
			t.Errorf("%s with the old key: %v", place, err)
		}
	}
	if place := "audit_keys/2/key"; after[place] != before[place] {
		t.Error("what had the first key's seal was sealed anew")
	}
	var same bool
	if err := db.Pool.QueryRow(t.Context(), `SELECT revision = 1 AND updated_at = 'epoch' FROM clusters`).
		Scan(&same); err != nil || !same {
		t.Errorf("the cluster counts as changed: %v", err)
	}
	if done, err = db.Reseal(t.Context(), nothing); err != nil || done.Total() != 0 {
		t.Errorf("a second time: %+v, %v", done, err)
	}
}
