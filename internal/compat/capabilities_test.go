package compat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/adminapi"
	"rolecall/internal/apitest"
	"rolecall/internal/dbaas"
	"rolecall/internal/pgtest"
)

const (
	password    = "the-first-password"
	newPassword = "the-second-password"
)

// capabilities are the rows of the table, in the order in which they are tried. What try returns is the cell.
var capabilities = []struct {
	name string
	try  func(t *testing.T, c *cluster) string
}{
	{"register the cluster", register},
	{"what its probe says is missing", probe},
	{"list users, foreign ones too", list},
	{"create a user", create},
	{"change its password", repassword},
	{"let its password expire, and take that back", expire},
	{"limit its connections", limitConnections},
	{"end its sessions", endSessions},
	{"see how its password is stored", passwordKind},
	{"PostgreSQL's own membership in a new user, after such changes", implicitMembership},
	{"make it a member of a foreign role", grant(false)},
	{"… with ADMIN OPTION on that role", grant(true)},
	{"adopt a foreign user with a new password", adopt(false)},
	{"… with ADMIN OPTION", adopt(true)},
	{"attributes, settings and memberships of the adopted", adopted},
	{"limit a foreign user", limitForeign(false)},
	{"… with ADMIN OPTION", limitForeign(true)},
	{"end the sessions of a foreign user", endForeignSessions},
	{"change a user that was renamed with SQL", renamed},
	{"change a superuser, the administering role, a member of `rds_superuser`", changeProtected},
	{"create a database for a user", createDatabase},
	{"delete that database", deleteDatabase},
	{"delete a database of a foreign user", deleteForeignDatabase},
	{"delete a user", deleteUser},
	{"… with live sessions", deleteWithSessions},
	{"… that was granted privileges by other users, in three databases", deleteWithGrants},
	{"… that was granted a privilege by a superuser", deleteWithForeignGrant},
	{"… that owns objects", deleteOwner},
	{"… with `onBlocked=disable`", deleteOrDisable},
	{"… with `reassignTo`, in two databases", reassign},
	{"see what a deletion would do", plan},
	{"delete a foreign user", deleteForeign(false)},
	{"… with ADMIN OPTION", deleteForeign(true)},
	{"list users for PgBouncer", userlist},
	{"list weak passwords", passwordProblems},
	{"rotate the administering credential", rotate},
	{"unregister, and leave all as it is", unregister},
}

// clients speak to the two APIs.
type clients struct{ admin, dbaas *apitest.Client }

// cluster is one that is managed under an administering role.
type cluster struct {
	*pgtest.Cluster
	clients
	role string
	id   string
}

// name is a name that no other administering role of the cluster meets.
func (c *cluster) name(name string) string { return c.role + "_" + name }

// users sends a request about the cluster to the DBaaS API.
func (c *cluster) users(t *testing.T, method, path string, properties map[string]any) apitest.Answer {
	t.Helper()
	body := ""
	if properties != nil {
		body = encode(t, map[string]any{"properties": properties})
	}
	return c.send(t, c.dbaas, method, dbaas.Prefix+"/clusters/"+c.id+path, body)
}

// manage sends a request about the cluster to Rolecall's own API.
func (c *cluster) manage(t *testing.T, method, path string, fields map[string]any) apitest.Answer {
	t.Helper()
	body := ""
	if fields != nil {
		body = encode(t, fields)
	}
	return c.send(t, c.admin, method, adminapi.Prefix+"/clusters"+strings.TrimSuffix("/"+c.id, "/")+path, body)
}

func (c *cluster) send(t *testing.T, client *apitest.Client, method, path, body string) apitest.Answer {
	t.Helper()
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth("root", "root-password")
	a := client.Send(t, method, path, body, "Authorization: "+req.Header.Get("Authorization"))
	if a.Status >= 500 {
		t.Errorf("%s %s: got %d %s", method, path, a.Status, a.Body)
	}
	return a
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// reasons are what a refusal can be put down to: words of its message, and how the table says it.
var reasons = []struct{ words, text string }{
	{"ADMIN OPTION", "needs ADMIN OPTION"},
	{"to be able to grant itself", "needs ADMIN OPTION"},
	{"only a superuser may", "superusers only"},
	{"is a system", "a system user"},
	{"belongs to the system role", "a system role's"},
	{"were granted by", "names the grantor"},
	{"It owns", "names the objects"},
	{"owns", "names the objects"},
}

// cell is the status with what was seen after a success, or with the reason of a refusal, which must give one.
func cell(t *testing.T, a apitest.Answer, seen func() string) string {
	t.Helper()
	if a.Status < 300 {
		return fmt.Sprintf("%d, %s", a.Status, seen())
	}
	for _, r := range reasons {
		if strings.Contains(a.Body, r.words) {
			return fmt.Sprintf("%d, %s", a.Status, r.text)
		}
	}
	t.Errorf("a refusal without a known reason: %d %s", a.Status, a.Body)
	return ""
}

func must(t *testing.T, status int, a apitest.Answer) apitest.Answer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("got %d %s, want %d", a.Status, a.Body, status)
	}
	return a
}

// made creates a user through the API and returns its name.
func (c *cluster) made(t *testing.T, name string) string {
	t.Helper()
	must(t, 200, c.users(t, "POST", "/users", map[string]any{"username": c.name(name), "password": password}))
	return c.name(name)
}

// foreign creates a role with SQL, on which the administering role has ADMIN OPTION or not.
func (c *cluster) foreign(t *testing.T, name, attributes string, admin bool) string {
	t.Helper()
	if admin {
		name += "_admin"
	}
	c.Exec(t, fmt.Sprintf(`CREATE ROLE %s %s`, c.name(name), attributes))
	if admin {
		c.Exec(t, fmt.Sprintf(`GRANT %s TO %s WITH ADMIN OPTION`, c.name(name), c.role))
	}
	return c.name(name)
}

// connect connects as a user with the first password.
func (c *cluster) connect(t *testing.T, user, db string) *pgx.Conn {
	t.Helper()
	return c.Connect(t, user, password, db)
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// which is yes or no, in words.
func which(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func (c *cluster) logsIn(user, password string) bool { return c.Login(user, password) == nil }

func (c *cluster) exists(t *testing.T, role string) bool {
	t.Helper()
	return pgtest.Value[bool](t, c.Cluster, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, role)
}

// attributes are all that a role is, but for its password and the provenance in its comment.
func (c *cluster) attributes(t *testing.T, role string) string {
	t.Helper()
	return pgtest.Value[string](t, c.Cluster, `
		SELECT concat(to_jsonb(r) - 'rolpassword',
		              (SELECT jsonb_agg(to_jsonb(s)) FROM pg_db_role_setting s WHERE s.setrole = r.oid),
		              regexp_replace(shobj_description(r.oid, 'pg_authid'), '\n?rolecall:v1 .*', ''))
		FROM pg_authid r WHERE rolname = $1`, role) + c.memberships(t, role)
}

// memberships are those in a role, and those of it.
func (c *cluster) memberships(t *testing.T, role string) string {
	t.Helper()
	return pgtest.Value[string](t, c.Cluster, `
		SELECT coalesce(jsonb_agg(to_jsonb(m) ORDER BY m.roleid, m.member, m.grantor)::text, 'none')
		FROM pg_auth_members m WHERE $1::regrole IN (m.roleid, m.member)`, role)
}

func register(t *testing.T, c *cluster) string {
	a := c.manage(t, "POST", "", map[string]any{
		"displayName": fmt.Sprintf("%d %s", c.Major, c.role),
		"connection": map[string]any{
			"url":      fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", c.role, c.Port),
			"password": rolePassword,
			"tls":      map[string]any{"mode": "disable"},
		},
	})
	var made struct{ ID, Version string }
	must(t, 201, a).Into(t, &made)
	c.id = made.ID
	return cell(t, a, func() string { return which(made.Version == c.Version, "its version is seen", "another version") })
}

func probe(t *testing.T, c *cluster) string {
	c.foreign(t, "older", "LOGIN", false)
	a := c.manage(t, "POST", "/probe", nil)
	return cell(t, a, func() string {
		var found struct {
			Capabilities struct{ ManageUsers, CreateDatabase, ForeignRoles, SignalBackend, ReadVerifiers bool }
		}
		a.Into(t, &found)
		var missing []string
		for _, m := range []struct {
			there bool
			name  string
		}{
			{found.Capabilities.ManageUsers, "users"}, {found.Capabilities.CreateDatabase, "databases"},
			{found.Capabilities.ForeignRoles, "foreign users"},
			{found.Capabilities.SignalBackend, "sessions"}, {found.Capabilities.ReadVerifiers, "verifiers"},
		} {
			if !m.there {
				missing = append(missing, m.name)
			}
		}
		return which(missing == nil, "nothing", strings.Join(missing, ", "))
	})
}

func list(t *testing.T, c *cluster) string {
	foreign := c.foreign(t, "listed", "LOGIN", false)
	a := c.users(t, "GET", "/users", nil)
	return cell(t, a, func() string {
		var users struct {
			Items []struct {
				Metadata   struct{ CreatedBy string }
				Properties struct{ Username string }
			}
		}
		a.Into(t, &users)
		for _, u := range users.Items {
			if u.Properties.Username == foreign && strings.HasSuffix(u.Metadata.CreatedBy, "_unmanaged_") {
				return "unmanaged"
			}
		}
		return "not there"
	})
}

func create(t *testing.T, c *cluster) string {
	a := c.users(t, "POST", "/users", map[string]any{"username": c.name("created"), "password": password})
	return cell(t, a, func() string { return which(c.logsIn(c.name("created"), password), "logs in", "does not log in") })
}

func repassword(t *testing.T, c *cluster) string {
	user := c.made(t, "repassword")
	return c.setPassword(t, user)
}

// setPassword sets the second password.
func (c *cluster) setPassword(t *testing.T, user string) string {
	t.Helper()
	a := c.users(t, "PATCH", "/users/"+user, map[string]any{"password": newPassword})
	return cell(t, a, func() string {
		return which(c.logsIn(user, newPassword) && !c.logsIn(user, password), "logs in with the new one only", "not in force")
	})
}

func expire(t *testing.T, c *cluster) string {
	user := c.made(t, "expired")
	a := c.manage(t, "PATCH", "/users/"+user, map[string]any{"validUntil": "2020-01-01T00:00:00Z"})
	return cell(t, a, func() string {
		if c.logsIn(user, password) {
			return "logs in"
		}
		must(t, 200, c.manage(t, "PATCH", "/users/"+user, map[string]any{"validUntil": nil}))
		return which(c.logsIn(user, password), "in force, taken back", "stays expired")
	})
}

func limitConnections(t *testing.T, c *cluster) string {
	return c.limitConnections(t, c.made(t, "limited"))
}

// limitConnections limits a user with the first password to one connection.
func (c *cluster) limitConnections(t *testing.T, user string) string {
	t.Helper()
	a := c.manage(t, "PATCH", "/users/"+user, map[string]any{"connectionLimit": 1})
	return cell(t, a, func() string {
		c.connect(t, user, "postgres")
		return which(c.logsIn(user, password), "not in force", "in force")
	})
}

func endSessions(t *testing.T, c *cluster) string {
	return c.endSessions(t, c.made(t, "session"))
}

// endSessions ends a session of a user with the first password.
func (c *cluster) endSessions(t *testing.T, user string) string {
	t.Helper()
	conn := c.connect(t, user, "postgres")
	a := c.manage(t, "PATCH", "/users/"+user, map[string]any{"endSessions": true})
	return cell(t, a, func() string { return which(conn.Ping(t.Context()) == nil, "they go on", "ended") })
}

func passwordKind(t *testing.T, c *cluster) string {
	a := c.manage(t, "GET", "/users/"+c.name("created"), nil)
	return cell(t, a, func() string {
		var user struct{ PasswordKind string }
		a.Into(t, &user)
		return user.PasswordKind
	})
}

// implicitMembership looks at the membership in a new role that PostgreSQL gives its creator from 16 on.
func implicitMembership(t *testing.T, c *cluster) string {
	user := c.made(t, "implicit")
	before := c.memberships(t, user)
	must(t, 200, c.manage(t, "PATCH", "/users/"+user, map[string]any{"connectionLimit": 5, "endSessions": true}))
	must(t, 200, c.users(t, "PATCH", "/users/"+user, map[string]any{"password": newPassword}))
	if c.memberships(t, user) != before {
		return "changed"
	}
	return pgtest.Value[string](t, c.Cluster, `
		SELECT coalesce((SELECT 'as it was: ' || concat_ws(', ', CASE WHEN to_jsonb(m)->>'admin_option' = 'true' THEN 'ADMIN' END,
		                        CASE WHEN to_jsonb(m)->>'inherit_option' = 'true' THEN 'INHERIT' END, CASE WHEN
		                          to_jsonb(m)->>'set_option' = 'true' THEN 'SET' END)
		                 FROM pg_auth_members m WHERE roleid = $1::regrole AND member = $2::regrole),
		                   'there is none')`, user, c.role)
}

func grant(admin bool) func(t *testing.T, c *cluster) string {
	return func(t *testing.T, c *cluster) string {
		group := c.foreign(t, "group", "", admin)
		user := c.made(t, which(admin, "member_admin", "member"))
		must(t, 200, c.manage(t, "PATCH", "", map[string]any{"grantable": []string{group}}))
		a := c.manage(t, "PUT", "/users/"+user+"/roles", map[string]any{"roles": []string{group}})
		return cell(t, a, func() string {
			member := pgtest.Value[bool](t, c.Cluster, `SELECT pg_has_role($1, $2, 'USAGE')`, user, group)
			return which(member, "a member", "no member")
		})
	}
}

// change tries a change of a foreign user, which must not do anything when it is refused.
func (c *cluster) change(t *testing.T, user string, try func() string) string {
	t.Helper()
	before := c.attributes(t, user)
	seen := try()
	if !strings.HasPrefix(seen, "4") {
		return seen
	}
	if after := c.attributes(t, user); after != before {
		t.Errorf("what was refused has changed %s from\n%s to\n%s", user, before, after)
	}
	return seen
}

const foreignUser = `LOGIN PASSWORD '` + password + `'`

func adopt(admin bool) func(t *testing.T, c *cluster) string {
	return func(t *testing.T, c *cluster) string {
		user := c.foreign(t, "adopt", foreignUser, admin)
		return c.change(t, user, func() string { return c.setPassword(t, user) })
	}
}

func adopted(t *testing.T, c *cluster) string {
	group := c.foreign(t, "adopted_group", "", false)
	user := c.foreign(t, "adopted",
		foreignUser+` NOINHERIT CREATEDB CONNECTION LIMIT 7 VALID UNTIL '2099-01-01' IN ROLE `+group, true)
	c.Exec(t, fmt.Sprintf(`ALTER ROLE %s SET work_mem = '5MB'; COMMENT ON ROLE %[1]s IS 'made by hand'`, user))
	before := c.attributes(t, user)
	a := c.users(t, "PATCH", "/users/"+user, map[string]any{"password": newPassword})
	return cell(t, a, func() string { return which(c.attributes(t, user) == before, "unchanged", "changed") })
}

func limitForeign(admin bool) func(t *testing.T, c *cluster) string {
	return func(t *testing.T, c *cluster) string {
		user := c.foreign(t, "limit", foreignUser, admin)
		return c.change(t, user, func() string { return c.limitConnections(t, user) })
	}
}

func endForeignSessions(t *testing.T, c *cluster) string {
	user := c.foreign(t, "session_foreign", foreignUser, false)
	return c.change(t, user, func() string { return c.endSessions(t, user) })
}

func renamed(t *testing.T, c *cluster) string {
	user := c.made(t, "renamed")
	c.Exec(t, fmt.Sprintf(`ALTER ROLE %s RENAME TO %[1]s_now`, user))
	var u struct{ Metadata struct{ CreatedBy string } }
	must(t, 404, c.users(t, "GET", "/users/"+user, nil))
	must(t, 200, c.users(t, "GET", "/users/"+user+"_now", nil)).Into(t, &u)
	if strings.HasSuffix(u.Metadata.CreatedBy, "_") {
		return "its provenance is lost"
	}
	return c.setPassword(t, user+"_now")
}

func changeProtected(t *testing.T, c *cluster) string {
	var seen []string
	for _, user := range []string{c.User, c.role, "cloud_user"} {
		seen = append(seen, c.change(t, user, func() string { return c.setPassword(t, user) }))
	}
	return strings.Join(slices.Compact(seen), "; ")
}

// databases makes databases through the API that belong to a new user.
func (c *cluster) databases(t *testing.T, owner string, n int) (user string, databases []string) {
	t.Helper()
	user = c.made(t, owner)
	for i := range n {
		name := fmt.Sprintf("%s_%d", user, i)
		must(t, 200, c.users(t, "POST", "/databases", map[string]any{"name": name, "owner": user}))
		databases = append(databases, name)
	}
	return user, databases
}

func createDatabase(t *testing.T, c *cluster) string {
	user := c.made(t, "db")
	a := c.users(t, "POST", "/databases", map[string]any{"name": user, "owner": user})
	return cell(t, a, func() string {
		owner := pgtest.Value[string](t, c.Cluster, `SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1`, user)
		return which(owner == user, "belongs to the user", "belongs to "+owner)
	})
}

func deleteDatabase(t *testing.T, c *cluster) string {
	return c.deleteDatabase(t, c.name("db"))
}

func (c *cluster) deleteDatabase(t *testing.T, name string) string {
	t.Helper()
	a := c.users(t, "DELETE", "/databases/"+name, nil)
	return cell(t, a, func() string {
		there := pgtest.Value[bool](t, c.Cluster, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name)
		return which(there, "still there", "gone")
	})
}

func deleteForeignDatabase(t *testing.T, c *cluster) string {
	user := c.foreign(t, "db_foreign", "LOGIN", false)
	c.Exec(t, fmt.Sprintf(`CREATE DATABASE %s OWNER %[1]s`, user))
	return c.deleteDatabase(t, user)
}

// delete tries to delete a user. One that is refused must be as it was.
func (c *cluster) delete(t *testing.T, user, query string) string {
	t.Helper()
	return c.change(t, user, func() string {
		a := c.users(t, "DELETE", "/users/"+user+query, nil)
		return cell(t, a, func() string { return which(c.exists(t, user), "still there", "gone") })
	})
}

func deleteUser(t *testing.T, c *cluster) string { return c.delete(t, c.made(t, "delete"), "") }

func deleteForeign(admin bool) func(t *testing.T, c *cluster) string {
	return func(t *testing.T, c *cluster) string {
		return c.delete(t, c.foreign(t, "delete_foreign", foreignUser, admin), "")
	}
}

func deleteWithSessions(t *testing.T, c *cluster) string {
	user := c.made(t, "delete_session")
	conn := c.connect(t, user, "postgres")
	run(t, conn, `BEGIN`, `CREATE TEMPORARY TABLE busy ()`)
	seen := c.delete(t, user, "")
	return seen + which(conn.Ping(t.Context()) == nil, ", its session goes on", ", its session ended")
}

func deleteWithGrants(t *testing.T, c *cluster) string {
	owner, databases := c.databases(t, "grantor", 3)
	user := c.made(t, "grantee")
	for _, db := range databases {
		conn := c.connect(t, owner, db)
		run(t, conn, `CREATE TABLE t ()`, `GRANT SELECT ON t TO `+user, `GRANT CONNECT ON DATABASE `+db+` TO `+user,
			`CREATE SCHEMA s`, `ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO `+user)
	}
	return c.delete(t, user, "")
}

func deleteWithForeignGrant(t *testing.T, c *cluster) string {
	user := c.made(t, "foreign_grantee")
	c.Exec(t, `GRANT SELECT ON pg_authid TO `+user)
	return c.delete(t, user, "")
}

// owner is a user that owns a table in each of two databases of another user's.
func (c *cluster) owner(t *testing.T, name string) (user, other string, databases []string) {
	t.Helper()
	other, databases = c.databases(t, name+"_db", 2)
	user = c.made(t, name)
	for _, db := range databases {
		run(t, c.connect(t, other, db), `CREATE SCHEMA s`, `GRANT ALL ON SCHEMA s TO `+user)
		run(t, c.connect(t, user, db), `CREATE TABLE s.t ()`)
	}
	return user, other, databases
}

func deleteOwner(t *testing.T, c *cluster) string {
	user, _, _ := c.owner(t, "owner")
	return c.delete(t, user, "") + which(c.logsIn(user, password), ", still logs in", ", logs in no more")
}

func deleteOrDisable(t *testing.T, c *cluster) string {
	user := c.name("owner")
	a := c.users(t, "DELETE", "/users/"+user+"?onBlocked=disable", nil)
	return cell(t, a, func() string {
		if c.logsIn(user, password) {
			return "logs in"
		}
		must(t, 200, c.users(t, "PATCH", "/users/"+user, map[string]any{"password": password}))
		return which(c.logsIn(user, password), "disabled; a new password enables it", "disabled for ever")
	})
}

func plan(t *testing.T, c *cluster) string {
	a := c.manage(t, "GET", "/users/"+c.name("owner")+"/deletion-plan", nil)
	return cell(t, a, func() string {
		var found struct{ Blockers []string }
		a.Into(t, &found)
		return which(len(found.Blockers) == 2, "names the objects in both databases", fmt.Sprintf("%q", found.Blockers))
	})
}

func reassign(t *testing.T, c *cluster) string {
	user, other, databases := c.owner(t, "reassigned")
	seen := c.delete(t, user, "?reassignTo="+url.QueryEscape(other))
	for _, db := range databases {
		var owner string
		err := c.connect(t, other, db).QueryRow(t.Context(), `SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = `+
			`'s.t'::regclass`).Scan(&owner)
		if err != nil || owner != other {
			return fmt.Sprintf("%s, but in %s the table belongs to %s (%v)", seen, db, owner, err)
		}
	}
	return seen + ", its tables belong to the other"
}

func userlist(t *testing.T, c *cluster) string {
	user := c.made(t, "listed_for_pgbouncer")
	a := c.manage(t, "GET", "/pgbouncer/userlist", nil)
	return cell(t, a, func() string {
		return which(strings.Contains(a.Body, fmt.Sprintf(`"%s" "SCRAM-SHA-256$`, user)), "with verifiers", "without it")
	})
}

func passwordProblems(t *testing.T, c *cluster) string {
	user := c.foreign(t, "md5", `LOGIN PASSWORD 'md5`+strings.Repeat("0", 32)+`'`, false)
	a := c.manage(t, "GET", "/password-problems?limit=1000", nil)
	return cell(t, a, func() string { return which(strings.Contains(a.Body, `"`+user+`"`), "names one in md5", "without it") })
}

func rotate(t *testing.T, c *cluster) string {
	a := c.manage(t, "POST", "/rotate-credential", nil)
	return cell(t, a, func() string {
		if c.logsIn(c.role, rolePassword) {
			return "the old password logs in"
		}
		c.made(t, "after_rotation")
		return "works on, the old password does not log in"
	})
}

func unregister(t *testing.T, c *cluster) string {
	a := c.manage(t, "DELETE", "", nil)
	return cell(t, a, func() string {
		return which(c.exists(t, c.name("created")) && c.logsIn(c.name("created"), password), "its users log in",
			"its users are gone")
	})
}
