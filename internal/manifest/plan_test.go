package manifest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rolecall/internal/client"
	"rolecall/internal/manifest"
)

// The guids of the accounts in observed.
const (
	me       = "guid-me"
	somebody = "guid-else"
)

// observed is a fleet with a cluster c. It has the databases shop, with access roles, plain and, made by SQL, foreign. Its
// users are app, which has all that a user can have, theirs, sql, idle, root, leased and going.
func observed() *manifest.Observed {
	until := time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)
	user := func(name, by string) client.User {
		return client.User{Username: name, State: "active", ConnectionLimit: -1, CreatedBy: by, ModifiedBy: by, ETag: `"` +
			name + `"`}
	}
	app := user("app", me)
	app.ValidUntil, app.ConnectionLimit, app.MemberOf = &until, 5, []string{"readers", "shop_write", "everyone", "unmanaged"}
	idle, root, leased, going := user("idle", me), user("root", ""), user("leased", me), user("going", me)
	idle.State, root.System, going.State = "disabled", true, "deleting"
	leased.Lease = &struct {
		ID        string    `json:"id"`
		For       string    `json:"for"`
		ExpiresAt time.Time `json:"expiresAt"`
	}{}
	c := &manifest.ObservedCluster{
		ETag: `"7"`,
		Databases: []client.Database{{Name: "shop", Owner: "shop_owner", AccessRoles: true, CreatedBy: me},
			{Name: "plain", Owner: "dba", CreatedBy: me}, {Name: "foreign", Owner: "dba"}, {Name: "postgres", Owner: "root",
				System: true}},
		Users: []client.User{app, user("theirs", somebody), user("sql", ""), idle, root, leased, going},
		Credentials: []client.Credential{{Name: "stored", For: "app", RotateEvery: "720h", Overlap: "1h", CreatedBy: me,
			Window: &client.Window{Days: []string{"sat", "sun"}, From: "02:00", To: "04:00", Timezone: "UTC"}}},
		CredentialTags: map[string]string{"stored": `"3"`},
		Deletions:      map[string][]string{"sql": {"It owns 1 object."}},
	}
	var roles client.AccessRoles
	if err := json.Unmarshal([]byte(`{"schemas": ["*"], "complete": true, "roles": [{"level": "own", "role": "shop_owner"},
		{"level": "write", "role": "shop_write", "members": ["app"]}, {"level": "read", "role": "shop_read"}]}`),
		&roles); err != nil {
		panic(err)
	}
	c.AccessRoles = map[string]*client.AccessRoles{"shop": &roles}
	c.ID, c.Name, c.Location, c.Reachable = "id-c", "c", "de", true
	c.Access.Manage, c.Grantable, c.MemberOf = []string{"team=a"}, []string{"readers", "writers", "everyone"},
		[]string{"everyone"}
	c.SystemRoles = []string{"postgres"}
	c.Leases = client.LeaseLimits{DefaultTTL: "1h", MaxTTL: "24h", MaxPerAccount: 100}
	c.Connection.URL = "postgres://r@h/postgres"
	return &manifest.Observed{Me: me, Clusters: []*manifest.ObservedCluster{c}, Accounts: []client.Account{
		{GUID: me, Username: "admin", Origin: "uaa", Active: true, Scopes: []string{"cloud_controller.admin"}},
		{GUID: somebody, Username: "Alice", Origin: "uaa", Active: true, Scopes: []string{"a", "b"},
			Labels:       map[string]string{"team": "x", "role": "dba", "group.a": "true"},
			LabelSources: map[string]string{"group.a": "corp"}, Annotations: map[string]string{"note": "n"}},
		{GUID: "guid-client", Username: "", OAuthClient: true},
	}}
}

// summary is a plan in short: a line for each step, with its calls, for each conflict and each thing that is not listed.
func summary(p *manifest.Plan) string {
	var lines []string
	for i := range p.Steps {
		s := &p.Steps[i]
		var calls []string
		for _, c := range s.Calls {
			text := c.Method + " " + strings.Join(c.Segments, "/")
			if len(c.Query) > 0 {
				text += "?" + c.Query.Encode()
			}
			if c.Body != nil {
				body, err := json.Marshal(c.Body)
				if err != nil {
					panic(err)
				}
				text += " " + string(body)
			}
			if c.Match {
				text += " if"
			}
			calls = append(calls, text)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s: %s", s.Action, s.Kind, s.Name, strings.Join(calls, "; ")))
	}
	for _, c := range p.Conflicts {
		lines = append(lines, fmt.Sprintf("conflict %s %s: %s", c.Kind, c.Name, c.Problem))
	}
	for _, u := range p.Unlisted {
		lines = append(lines, "unlisted "+u.Kind+" "+u.Name)
	}
	return strings.Join(lines, "\n")
}

func plan(t *testing.T, text string, o *manifest.Observed) *manifest.Plan {
	t.Helper()
	m, err := manifest.Parse("fleet.yaml", []byte(text), "")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return manifest.MakePlan(m, []byte(text), o)
}

// TestPlan: what each mode does for a part of a file: of a cluster c, or of the whole. "=" is the same as before.
func TestPlan(t *testing.T) {
	for _, test := range []struct{ file, additive, adopt, authoritative string }{
		// Users.
		{"users: [{name: app}]", "", "", "unlisted user theirs\nunlisted user sql\nunlisted user idle\nunlisted user going"},
		{"users: [{name: app, access: {shop: write}, roles: [readers], validUntil: 2030-01-31, connectionLimit: 5, " +
			"disabled: false}]",
			"", "", "..."},
		{"users: [{name: new, access: {shop: read, plain: own}, roles: [writers], validUntil: 2030-01-31, " +
			"connectionLimit: 1}]",
			`create user new: POST users {"access":[{"database":"plain","level":"own"},{"database":"shop","level":"read"}],` +
				`"connectionLimit":1,"roles":["writers"],"username":"new","validUntil":"2030-01-31T00:00:00Z"}`, "=", "=..."},
		{"users: [{name: new, disabled: true, validUntil: never, connectionLimit: none}]",
			`create user new: POST users {"username":"new"}; POST users/new/disable if`, "=", "=..."},
		{"users: [{name: new, password: keep}]",
			"conflict user new: there is no such user whose password could be kept; write password: generate", "=", "=..."},
		{"users: [{name: app, validUntil: never, connectionLimit: none}]",
			`change user app: PATCH users/app {"connectionLimit":-1,"validUntil":null} if`, "=", "=..."},
		{"users: [{name: app, access: {shop: own}}]", `change user app: PUT users/app/access/shop {"level":"own"} if`, "=",
			"=..."},
		{"users: [{name: app, access: {plain: read}}]", `change user app: PUT users/app/access/plain {"level":"read"} ` +
			`if`, "=",
			`change user app: PUT users/app/access/plain {"level":"read"} if; DELETE users/app/access/shop if` + "..."},
		{"users: [{name: app, access: {}, roles: []}]", "", "",
			`change user app: DELETE users/app/access/shop if; PUT users/app/roles {"roles":["everyone"]} if` + "..."},
		{"users: [{name: app, roles: [writers]}]", "change user app: PUT users/app/roles/writers if", "=",
			`change user app: PUT users/app/roles {"roles":["writers","everyone"]} if` + "..."},
		{"users: [{name: app, roles: [unmanaged, readers]}]", "", "", "..."},
		{"users: [{name: app, roles: [missing]}]",
			`conflict user app: the role "missing" is not in the cluster's list grantable; add it there`, "=", "=..."},
		{"users: [{name: app, roles: [shop_read]}]",
			`conflict user app: "shop_read" is an access role; give the level with access`,
			"=", "=..."},
		{"grantable: [added]\n  users: [{name: idle, roles: [added]}]",
			`change cluster c: PATCH  {"grantable":["readers","writers","everyone","added"]} if` + "\n" +
				"change user idle: PUT users/idle/roles/added if", "=",
			`change cluster c: PATCH  {"grantable":["added"]} if` + "\n" +
				`change user idle: PUT users/idle/roles {"roles":["added"]} if...`},
		{"users: [{name: app, disabled: true, connectionLimit: 9}]",
			`change user app: POST users/app/disable if; PATCH users/app {"connectionLimit":9} if`, "=", "=..."},
		{"users: [{name: idle, disabled: false}]", "change user idle: POST users/idle/enable if", "=", "=..."},
		{"users: [{name: idle}]", "", "", "..."},
		// What others have made.
		{"users: [{name: theirs, connectionLimit: none}]", "", "", "..."},
		{"users: [{name: theirs, connectionLimit: 1}]",
			`conflict user theirs: it differs, and was created by the account "Alice"; ` +
				"to take it over, write mode: adopt, or use --mode adopt",
			`change user theirs: PATCH users/theirs {"connectionLimit":1} if`,
			"=..."},
		{"users: [{name: sql, disabled: true}]",
			"conflict user sql: it differs, and was not created by Rolecall; to take it over, " +
				"write mode: adopt, or use --mode adopt", "change user sql: POST users/sql/disable if", "=..."},
		{"users: [{name: root, connectionLimit: 1}]", "conflict user root: it is a system user, which cannot be changed here",
			"=", "=..."},
		{"users: [{name: leased, connectionLimit: 1}]",
			"conflict user leased: it belongs to a lease, which ends by itself; remove it from the file", "=", "=..."},
		{"users: [{name: going, connectionLimit: 1}]",
			"conflict user going: it is being deleted; complete that first: rolecall users delete", "=", "=..."},
		{"databases: [{name: foreign, accessRoles: {}}]",
			"conflict accessRoles foreign: it differs, and was not created by Rolecall; " +
				"to take it over, write mode: adopt, or use --mode adopt",
			"create accessRoles foreign: PUT databases/foreign/access-roles {}",
			"=..."},
		// Databases.
		{"databases: [{name: shop, accessRoles: {schemas: ['*'], adopt: false}}, {name: plain, owner: dba}, {name: foreign}]",
			"", "", ""},
		{"databases: [{name: new, owner: o, accessRoles: {schemas: [a]}}]",
			`create database new: POST databases {"accessRoles":true,"name":"new","owner":"o"}; ` +
				`PUT databases/new/access-roles {"schemas":["a"]}`, "=", "=..."},
		{"databases: [{name: shop, accessRoles: {schemas: [a], adopt: true}}]",
			`change accessRoles shop: PUT databases/shop/access-roles {"adopt":true,"schemas":["a"]}`, "=", "=..."},
		{"databases: [{name: plain, owner: other}]",
			`conflict database plain: its owner is "dba"; an existing database keeps its ` +
				"owner: change it in the file, or by ALTER DATABASE", "=", "=..."},
		{"databases: [{name: postgres, accessRoles: {}}]",
			"conflict accessRoles postgres: it is a system database, which has no access roles", "=", "=..."},
		// Credentials.
		{"credentials: [{name: stored, for: app, rotateEvery: 30d, overlap: 60m}]", "", "",
			`change credential stored: PUT credentials/stored {"for":"app","overlap":"1h","rotateEvery":"720h"} if`},
		{"credentials: [{name: new, for: app, rotateEvery: 1d}]",
			`create credential new: PUT credentials/new {"for":"app","overlap":"0s","rotateEvery":"24h"}`, "=", "=..."},
		{"credentials: [{name: stored, for: app, rotateEvery: 1d, overlap: 1h}]",
			`change credential stored: PUT credentials/stored {"for":"app","overlap":"1h","rotateEvery":"24h","window":` +
				`{"days":["sat","sun"],"from":"02:00","to":"04:00","timezone":"UTC"}} if`, "=",
			`change credential stored: PUT credentials/stored {"for":"app","overlap":"1h","rotateEvery":"24h"} if`},
		{"credentials: [{name: stored, for: app, rotateEvery: 30d, overlap: 1h, window: {days: [sun, sat], from: " +
			"'02:00', to: " +
			"'04:00', timezone: UTC}}]", "", "", ""},
		// Clusters.
		{"location: de\n  access: {manage: [team=a], view: []}\n  synchronousCommit: default\n  leases: {defaultTtl: " +
			"60m, maxTtl: 1d, " +
			"maxPerAccount: 100}\n  connection: {url: 'postgres://r@h/postgres'}", "", "", ""},
		{"location: fr\n  access: {manage: [team=b]}\n  synchronousCommit: on\n  leases: {maxTtl: 2d}\n  connection: {url: " +
			"'postgres://r@i/postgres'}", `change cluster c: PATCH  {"access":{"manage":["team=a","team=b"]},"connection":` +
			`{"url":"postgres://r@i/postgres"},"leases":{"maxTtl":"48h"},"location":"fr","synchronousCommit":"on"} if`, "=",
			`change cluster c: PATCH  {"access":{"manage":["team=b"]},"connection":{"url":"postgres://r@i/postgres"},` +
				`"leases":{"maxTtl":"48h"},"location":"fr","synchronousCommit":"on"} if`},
		{"systemRoles: []\n  memberOf: []", "", "", `change cluster c: PATCH  {"memberOf":[],"systemRoles":[]} if`},
	} {
		before := ""
		for i, want := range []string{test.additive, test.adopt, test.authoritative} {
			text := "version: 1\nmode: " + manifest.Modes[i] + "\nclusters:\n- name: c\n  " + test.file + "\n"
			got := summary(plan(t, text, observed()))
			want, unlisted := strings.CutSuffix(want, "...") // whatever is not listed follows
			if rest, same := strings.CutPrefix(want, "="); same {
				want = before + rest
			}
			if at := strings.Index(got, "unlisted"); unlisted && at >= 0 {
				got = strings.TrimSuffix(got[:at], "\n")
			}
			if got != want {
				t.Errorf("%s\nhas the plan\n%s\nwant\n%s", text, got, want)
			}
			before = got
		}
	}
}

// TestPlanOfFleets: accounts, other clusters, and what is retired.
func TestPlanOfFleets(t *testing.T) {
	for text, want := range map[string]string{
		"accounts: [{username: ALICE, labels: {team: x}, scopes: [b]}]": "",
		"accounts: [{username: alice, labels: {group.a: 'true'}}]":      "", // an issuer has set it to that already
		"accounts: [{username: alice, labels: {team: b, new: z}, scopes: [c], annotations: {}, active: " +
			"false}]": "change account " +
			`alice: PATCH guid-else {"active":false,"labels":{"new":"z","team":"b"},"scopes":["a","b","c"]} if`,
		"mode: authoritative\naccounts: [{username: admin}, {username: alice, labels: {team: x}, scopes: [b], " +
			"annotations: {}}]": "" +
			`change account alice: PATCH guid-else {"annotations":{"note":null},"labels":{"role":null},"scopes":["b"]} if`,
		"mode: authoritative\naccounts: []":          "unlisted account admin\nunlisted account Alice",
		"mode: authoritative\nclusters: [{name: c}]": "",
		"accounts: [{username: admin, active: false}]": "conflict account admin: this is the account that you are " +
			"signed in as; it cannot deactivate itself here",
		"mode: authoritative\naccounts: [{username: admin, scopes: []}, {username: alice}]": "" +
			"conflict account admin: this is the " +
			"account that you are signed in as; it cannot lose scopes here",
		"accounts: [{username: new, password: keep}]": "conflict account new: there is no such account whose password " +
			"could be kept; write password: generate",
		"accounts: [{username: alice, origin: corp, labels: {a: b}}]": `create account alice: POST  ` +
			`{"labels":{"a":"b"},"origin":"corp","username":"alice"}`,
		"accounts: [{username: new, active: false}]": `create account new: POST  {"origin":"uaa","username":"new"}; ` +
			`PATCH  {"active":false} if`,
		"clusters: [{name: other}]": "conflict cluster other: there is no such cluster that you may view; to register " +
			"it, write its connection",
		"clusters: [{name: C}]": "conflict cluster C: there is no such cluster that you may view; to register it, write " +
			"its connection",
		"clusters: [{name: other, connection: {url: 'postgres://r@h/d'}}]": "conflict cluster other: it is not " +
			"registered, and " +
			"connection.password is missing; write {env: NAME} or {file: PATH}",
		"clusters: [{name: other, connection: {url: 'postgres://r@h/d', password: {env: X}}, grantable: [r], users: " +
			"[{name: u, roles: [r]}]}]": "" +
			`register cluster other: POST  ` +
			`{"connection":{"tls":{},"url":"postgres://r@h/d"},"displayName":"other","grantable":["r"]}` +
			"\n" + `create user u: POST users {"roles":["r"],"username":"u"}`,
		"mode: authoritative\nclusters: [{name: c}]\nretired: [{account: eve}, {cluster: c, user: u}, {cluster: c, " +
			"database: d, " +
			"destroyData: true}, {cluster: c, credential: x}]": "",
		"mode: authoritative\nclusters: [{name: c}]\nretired: [{account: alice}, {cluster: c, database: plain, " +
			"destroyData: true}, " +
			"{cluster: c, user: sql, reassignTo: app}, {cluster: c, credential: stored}]": "delete credential stored: DELETE " +
			"credentials/stored if\ndelete user sql: DELETE users/sql?reassignTo=app if\ndelete database plain: DELETE " +
			"databases/plain\n" +
			"delete account alice: DELETE guid-else if",
		"mode: authoritative\nclusters: [{name: c}]\nretired: [{account: admin}, {cluster: c, database: postgres, " +
			"destroyData: true}, " +
			"{cluster: c, user: root}, {cluster: c, user: leased}]": "conflict account admin: this is the account that you " +
			"are signed in " +
			"as; it cannot delete itself here\nconflict database postgres: it is a system database, which cannot be " +
			"deleted here\n" +
			"conflict user root: it is a system user or belongs to a lease, so it cannot be deleted here\n" +
			"conflict user leased: it is a system user or belongs to a lease, so it cannot be deleted here",
	} {
		if got := summary(plan(t, "version: 1\n"+text+"\n", observed())); got != want {
			t.Errorf("%s\nhas the plan\n%s\nwant\n%s", text, got, want)
		}
	}
	away := observed()
	away.Clusters[0].Problem, away.Clusters[0].Users = "it does not answer", nil
	const text = "version: 1\nclusters: [{name: c, location: fr, users: [{name: app}]}]\n"
	const want = `change cluster c: PATCH  {"location":"fr"} if` + "\n" +
		"conflict cluster c: it could not be read, so nothing in it is planned: it does not answer"
	if got := summary(plan(t, text, away)); got != want {
		t.Errorf("a cluster that does not answer has the plan\n%s\nwant\n%s", got, want)
	}
}

// TestPlanNotes: names that differ in case only, and what blocks a deletion.
func TestPlanNotes(t *testing.T) {
	p := plan(t, "version: 1\nmode: authoritative\nclusters: [{name: c, users: [{name: App}]}]\nretired: [{cluster: "+
		"c, user: sql}]\n",
		observed())
	if got := p.Steps[0].Notes; !slices.Equal(got, []string{`there is a user "app", whose name differs in case only`}) {
		t.Errorf("the notes are %q", got)
	}
	if got := p.Steps[1].Blockers; !slices.Equal(got, []string{"It owns 1 object."}) {
		t.Errorf("the blockers are %q", got)
	}
}

// TestDigest: the digest changes with whatever the plan depends on, and with nothing else.
func TestDigest(t *testing.T) {
	const text = "version: 1\naccounts: [{username: alice}]\nclusters: [{name: c, users: [{name: app}], databases: " +
		"[{name: shop}], " +
		"credentials: [{name: stored, for: app, rotateEvery: 30d, overlap: 1h}]}]\n"
	before := plan(t, text, observed())
	for what, change := range map[string]func(o *manifest.Observed){
		"the user's tag":    func(o *manifest.Observed) { o.Clusters[0].Users[0].ETag = `"9"` },
		"its membership":    func(o *manifest.Observed) { o.Clusters[0].Users[0].MemberOf = nil },
		"its level":         func(o *manifest.Observed) { o.Clusters[0].AccessRoles["shop"].Roles[1].Members = nil },
		"its absence":       func(o *manifest.Observed) { o.Clusters[0].Users = o.Clusters[0].Users[1:] },
		"the cluster's tag": func(o *manifest.Observed) { o.Clusters[0].ETag = `"8"` },
		"its absence too":   func(o *manifest.Observed) { o.Clusters = nil },
		"an unread cluster": func(o *manifest.Observed) { o.Clusters[0].Problem = "x" },
		"the database":      func(o *manifest.Observed) { o.Clusters[0].Databases[0].Owner = "x" },
		"its schemas":       func(o *manifest.Observed) { o.Clusters[0].AccessRoles["shop"].Schemas = nil },
		"the credential":    func(o *manifest.Observed) { o.Clusters[0].Credentials[0].For = "x" },
		"the account":       func(o *manifest.Observed) { o.Accounts[1].Labels = nil },
		"the caller":        func(o *manifest.Observed) { o.Me = somebody },
	} {
		o := observed()
		change(o)
		if plan(t, text, o).Digest == before.Digest {
			t.Errorf("%s does not change the digest", what)
		}
	}
	o := observed()
	o.Clusters[0].Users[2].ETag = "x"        // of a user that the file does not name
	o.Clusters[0].Users[0].Comment = "x"     // of which the file cannot speak
	o.Clusters[0].Users[0].State = "expired" // by the clock alone
	if plan(t, text, o).Digest != before.Digest {
		t.Error("what the plan does not depend on changes the digest")
	}
	if plan(t, text+"# a comment\n", observed()).Digest == before.Digest {
		t.Error("the text of the file does not change the digest")
	}
}

// TestExportOfObserved: the export of whatever there is changes nothing in any mode, and is a file for the schema, too.
func TestExportOfObserved(t *testing.T) {
	o := observed()
	odd := []string{"no", "1e3", "2027-01-31", "a: b", "# x", "- y", "*z", "&z", "!z", "it's", `"q"`, "ü\u202e",
		"line\nbreak", "tab\t", "~",
		"<<", "=", "{a}", "[a]", "%x", "@x", "`x", "|", "null", "True", " lead", "trail ", "\u00a0", "Case", "case", "a\x01b",
		"\u2028", "0x10",
		"\ufeff", "\x7f", "\u0085", "😀"}
	for _, name := range odd {
		o.Clusters[0].Users = append(o.Clusters[0].Users, client.User{Username: name, State: "active", ConnectionLimit: 3,
			ETag:     "x",
			MemberOf: []string{"readers"}})
		o.Clusters[0].Databases = append(o.Clusters[0].Databases, client.Database{Name: name, Owner: name})
		o.Accounts[1].Annotations[name] = name
		o.Clusters[0].Grantable = append(o.Clusters[0].Grantable, name)
	}
	text, err := manifest.Export(o, "https://rolecall.example.org", true)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "# yaml-language-server: "+
		"$schema=https://rolecall.example.org/rolecall/v1/fleet.schema.json\n") {
		t.Errorf("the export begins with %.100s", text)
	}
	for _, mode := range manifest.Modes {
		m, err := manifest.Parse("export.yaml", text, mode)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if p := manifest.MakePlan(m, text, o); !p.Empty() {
			t.Errorf("%s: the export has the plan\n%s", mode, summary(p))
		}
	}
	if err := compiled(t).Validate(generic(t, string(text))); err != nil {
		t.Errorf("%v in\n%s", err, text)
	}
	for _, name := range []string{"root", "leased", "guid-client"} {
		if strings.Contains(string(text), name) {
			t.Errorf("the export has %s", name)
		}
	}
}
