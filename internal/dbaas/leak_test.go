package dbaas_test

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"rolecall/internal/pgtest"
)

// A hundred passwords go every way that a password can go, and are found nowhere afterwards. PostgreSQL logs all
// statements and their durations, as careless as an operator can set it.
func TestNoPasswordLeaks(t *testing.T) {
	f := fixtureOn(t, ownService(t), 10_000)
	// Another test of this process may have made it.
	f.PG.Exec(t, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`)
	f.PG.LogStatements(t)
	down := pgtest.New(t, nil)
	down.LogStatements(t)
	downID := f.register(t, "leak-down", down)
	f.want(t, 200, "GET", "/clusters/"+downID+"/users", "")
	down.Stop(t)

	var passwords []string
	var answers strings.Builder
	user := f.users("leak")
	do := func(method, path, body string, headers ...string) {
		t.Helper()
		a := f.do(t, method, path, body, headers...)
		fmt.Fprintln(&answers, a.Status, a.Header, a.Body)
	}
	ways := []func(pw string){
		func(pw string) { do("PATCH", user, passwordBody(pw)) },
		func(pw string) { do("POST", f.users(), userBody("leak-"+rand.Text(), pw)) },
		func(pw string) { do("POST", f.users(), userBody("leak", pw)) },
		func(pw string) { do("POST", f.users(), userBody("pg_leak", pw)) },
		func(pw string) { do("PATCH", user, passwordBody(pw), `If-Match: "0"`) },
		func(pw string) { do("PATCH", user, passwordBody(pw), `If-Match: "`+pw+`"`) },
		func(pw string) { do("PATCH", f.users("postgres"), passwordBody(pw)) },
		func(pw string) { do("PATCH", f.users("leak-none"), passwordBody(pw)) },
		func(pw string) { do("PATCH", "/clusters/unknown/users/leak", passwordBody(pw)) },
		func(pw string) { do("PATCH", user, passwordBody(strings.Repeat(pw, 5))) },
		func(pw string) { do("PATCH", user, passwordBody(pw+"\x00")) },
		func(pw string) { do("PATCH", user, `{"properties":{"password":["`+pw+`"]}}`) },
		func(pw string) { do("PATCH", user, `{"properties":"`+pw+`"}`) },
		func(pw string) { do("PATCH", user, `"`+pw+`"`) },
		func(pw string) { do("PATCH", user, `{"properties":{"password":"`+pw) },
		func(pw string) { do("PATCH", user, `{"properties":{"password":`+pw+`}}`) },
		func(pw string) { do("PATCH", user, `{"`+pw+`":1,"`+pw+`":2}`) },
		func(pw string) { do("PATCH", user, `{"properties":{"`+pw+`":null}}`) },
		func(pw string) { do("PATCH", user, `{"properties":{"password":"`+pw+`\ud83d"}}`) },
		func(pw string) { do("PATCH", user, passwordBody(pw)+" "+strings.Repeat("x", 100_000)) },
		func(pw string) { do("PATCH", user, "password="+pw, "Content-Type: application/x-www-form-urlencoded") },
		func(pw string) { do("PUT", user, passwordBody(pw)) },
		func(pw string) { do("GET", user+"?password="+pw, passwordBody(pw)) },
		func(pw string) { do("GET", f.users()+"?limit="+pw, "") },
		func(pw string) { do("GET", f.users()+"?system="+pw, "") },
		func(pw string) { do("POST", "/clusters/"+downID+"/users", userBody("leak", pw)) },
		func(pw string) { do("PATCH", "/clusters/"+downID+"/users/leak", passwordBody(pw)) },
		func(pw string) {
			a := f.as(t, "", "PATCH", user, passwordBody(pw), "Authorization: "+basic("guess-"+rand.Text(), pw))
			fmt.Fprintln(&answers, a.Header, a.Body)
		},
		func(pw string) {
			a := f.as(t, "", "PATCH", user, passwordBody(pw), "Authorization: Bearer "+pw)
			fmt.Fprintln(&answers, a.Header, a.Body)
		},
		func(pw string) {
			control := f.PG.Connect(t, f.PG.User, f.PG.Password, f.DB.Identity.Database)
			defer control.Close(t.Context())
			mustExec(t, control, `ALTER TABLE rolecall.audit RENAME TO elsewhere`)
			do("PATCH", user, passwordBody(pw))
			mustExec(t, control, `ALTER TABLE rolecall.elsewhere RENAME TO audit`)
		},
		func(pw string) {
			// A statement that fails is logged with its text.
			f.PG.Exec(t, `ALTER ROLE leak RENAME TO "leak-away"`)
			do("POST", f.users(), userBody("leak-away", pw))
			f.PG.Exec(t, `ALTER ROLE "leak-away" RENAME TO leak`)
		},
		func(pw string) {
			// So is one whose backend is ended while it waits; the next try waits, too.
			other := f.PG.Connect(t, f.PG.User, f.PG.Password, "postgres")
			defer other.Close(t.Context())
			mustExec(t, other, `BEGIN; ALTER ROLE leak CONNECTION LIMIT 9`)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				do("PATCH", user, passwordBody(pw))
			}()
			const waiting = ` FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER ROLE "leak"%'`
			waitUntil(t, f.PG, `SELECT EXISTS (SELECT`+waiting+`)`)
			pid := strconv.Itoa(pgtest.Value[int](t, f.PG, `SELECT pid`+waiting))
			f.PG.Exec(t, `SELECT pg_terminate_backend(`+pid+`)`)
			waitUntil(t, f.PG, `SELECT EXISTS (SELECT`+waiting+` AND pid <> `+pid+`)`)
			mustExec(t, other, `COMMIT`)
			<-ended
		},
		func(pw string) { do("PATCH", user, passwordBody("e\u0301\u2168"+pw)) },
		func(pw string) { do("PATCH", user, passwordBody(`'"\`+pw)) },
		func(pw string) { do("PATCH", user, passwordBody("md5"+pw)) },
	}
	f.create(t, "leak")
	for i := range 100 {
		pw := rand.Text()
		passwords = append(passwords, pw)
		ways[i%len(ways)](pw)
	}

	places := map[string]string{
		"answers":            answers.String(),
		"log":                f.Log.String(),
		"PostgreSQL's log":   f.PG.ReadLog(t),
		"stopped server's":   down.ReadLog(t),
		"pg_stat_statements": pgtest.Value[string](t, f.PG, `SELECT string_agg(query, E'\n') FROM pg_stat_statements`),
		"roles": pgtest.Value[string](t, f.PG,
			`SELECT string_agg(concat(rolname, rolpassword, shobj_description(oid, 'pg_authid')), E'\n') FROM pg_authid`),
		"audit":               controlText(t, f, "audit"),
		"failed sign-ins":     controlText(t, f, "failed_sign_ins"),
		"clusters and others": controlText(t, f, "clusters"),
	}
	// That a place has nothing must not be because nothing gets there.
	for name, marker := range map[string]string{
		"answers": "Rolecall-Warning", "log": "users/leak", "PostgreSQL's log": "due to administrator command",
		"pg_stat_statements": `ALTER ROLE "leak"`,
		"roles":              "SCRAM-SHA-256$", "audit": "user.password", "failed sign-ins": "unknown",
	} {
		if !strings.Contains(places[name], marker) {
			t.Errorf("%s lacks %q", name, marker)
		}
	}
	for name, text := range places {
		for i, pw := range passwords {
			if found := pgtest.Leak(text, pw); found != "" {
				t.Errorf("%s has the password of way %d: %s", name, i%len(ways), found)
			}
		}
	}
	for _, name := range []string{"answers", "log", "audit"} {
		if strings.Contains(places[name], "SCRAM-SHA-256$") {
			t.Errorf("%s has a verifier", name)
		}
	}
}

// controlText is all rows of a table of the control database.
func controlText(t testing.TB, f *fixture, table string) (text string) {
	t.Helper()
	err := f.DB.Pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(t::text, E'\n'), '') FROM `+table+` t`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
