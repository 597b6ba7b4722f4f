package e2e

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// The passwords before and after a change.
const passwordBefore, passwordAfter = "the old password", "the new password"

// writes are all writes of both APIs, of the identities and of Rolecall's own API.
var writes = []*write{
	{
		name: "create user", action: "user.create", answer: 200, again: 422,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			return createUser(w, name, passwordAfter), func(t *testing.T) bool {
				if !w.hasRole(t, name) {
					return false
				}
				w.logsIn(t, name, passwordAfter)
				if !w.is(t, "postgres", `SELECT pg_has_role(oid, 'everybody', 'MEMBER')
					AND shobj_description(oid, 'pg_authid') LIKE '%"attempt":%' FROM pg_roles WHERE rolname = $1`, name) {
					t.Errorf("%s is half made", name)
				}
				return true
			}
		},
	},
	{
		name: "set password", action: "user.password", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			r := request{"PATCH", w.user(name), `{"properties":{"password":"` + passwordAfter + `"}}`, nil}
			return r, func(t *testing.T) bool {
				was, is := w.pg.Login(name, passwordBefore) == nil, w.pg.Login(name, passwordAfter) == nil
				if was == is {
					t.Errorf("%s logs in with its old password: %v; with its new one: %v", name, was, is)
				}
				return is
			}
		},
	},
	{
		name: "limits", action: "user.limits", answer: 200, again: 200, unknowable: true, // whether sessions were ended
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			r := request{"PATCH", "/rolecall/v1/clusters/" + w.cluster + "/users/" + url.PathEscape(name),
				`{"connectionLimit":7,"validUntil":"2099-01-01T00:00:00Z","endSessions":true}`, nil}
			return r, func(t *testing.T) bool {
				w.logsIn(t, name, passwordBefore)
				set := w.query(t, "postgres", `SELECT (rolconnlimit = 7)::text || (rolvaliduntil IS NOT NULL)::text FROM pg_roles
					WHERE rolname = $1`, name)[0]
				if set != "truetrue" && set != "falsefalse" {
					t.Errorf("%s is half limited", name)
				}
				return set == "truetrue"
			}
		},
	},
	{
		name: "set roles", action: "user.roles", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			r := request{"PUT", "/rolecall/v1/clusters/" + w.cluster + "/users/" + url.PathEscape(name) + "/roles",
				`{"roles":["readers"]}`, nil}
			return r, func(t *testing.T) bool {
				return w.is(t, "postgres", `pg_has_role($1, 'readers', 'MEMBER')`, name)
			}
		},
	},
	{
		name: "grant role", action: "user.roles", answer: 204, again: 204,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			r := request{"PUT", "/rolecall/v1/clusters/" + w.cluster + "/users/" + url.PathEscape(name) + "/roles/readers", "", nil}
			return r, func(t *testing.T) bool {
				return w.is(t, "postgres", `pg_has_role($1, 'readers', 'MEMBER')`, name)
			}
		},
	},
	{
		name: "delete user", action: "user.delete", answer: 204, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			return request{"DELETE", w.user(name), "", nil}, func(t *testing.T) bool { return w.goneOrWhole(t, name) }
		},
	},
	{
		name: "delete user with rights", action: "user.delete", answer: 204, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			w.query(t, "elsewhere", `GRANT USAGE ON SCHEMA public TO `+quoted(name))
			w.query(t, "elsewhere", `GRANT CONNECT ON DATABASE elsewhere TO `+quoted(name))
			return request{"DELETE", w.user(name), "", nil}, func(t *testing.T) bool { return w.goneOrWhole(t, name) }
		},
	},
	{
		name: "delete user and reassign", action: "user.delete", answer: 204, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			owns(t, w, name)
			return request{"DELETE", w.user(name) + "?reassignTo=heir", "", nil}, func(t *testing.T) bool {
				if rows := w.query(t, "elsewhere", `SELECT x::text FROM `+quoted(name)); !slices.Equal(rows, []string{"1"}) {
					t.Errorf("the table of %s holds %s", name, rows)
				}
				return w.goneOrWhole(t, name)
			}
		},
	},
	{
		name: "disable user", action: "user.delete", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			owns(t, w, name)
			return request{"DELETE", w.user(name) + "?onBlocked=disable", "", nil}, func(t *testing.T) bool {
				if !w.is(t, "postgres", `SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = $1`, name) {
					w.goneOrWhole(t, name)
					return false
				}
				return w.is(t, "postgres", `SELECT NOT rolcanlogin AND shobj_description(oid, 'pg_authid') LIKE '%"state":"disabled"%'
					FROM pg_authid WHERE rolname = $1`, name)
			}
		},
	},
	{
		name: "create user with all", action: "user.create", answer: 201, again: 409,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.shop(t)
			r := request{"POST", w.own("users"), object(map[string]any{"username": name, "password": passwordAfter,
				"roles": []string{"readers"}, "connectionLimit": 7,
				"access": []map[string]string{{"database": "shop", "level": "own"}}}), nil}
			return r, func(t *testing.T) bool {
				if !w.hasRole(t, name) {
					return false
				}
				w.logsIn(t, name, passwordAfter)
				if !w.is(t, "postgres", `SELECT pg_has_role(oid, 'readers', 'MEMBER') AND pg_has_role(oid, 'shop_owner', 'MEMBER')
					AND rolconnlimit = 7 AND EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = r.oid)
					FROM pg_roles r WHERE rolname = $1`, name) {
					t.Errorf("%s is half made", name)
				}
				return true
			}
		},
	},
	{
		name: "set level", action: "user.access", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.shop(t)
			w.want(t, nil, 201, request{"POST", w.own("users"), object(map[string]any{"username": name,
				"access": []map[string]string{{"database": "shop", "level": "read"}}}), nil})
			r := request{"PUT", w.own("users", name, "access", "shop"), `{"level":"own"}`, nil}
			return r, func(t *testing.T) bool {
				has := w.query(t, "postgres", `SELECT pg_has_role(oid, 'shop_owner', 'MEMBER')::text
					|| pg_has_role(oid, 'shop_read', 'MEMBER') || EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = r.oid)
					FROM pg_roles r WHERE rolname = $1`, name)[0]
				if has != "truefalsetrue" && has != "falsetruefalse" {
					t.Errorf("%s has half a level: %s", name, has)
				}
				return has == "truefalsetrue"
			}
		},
	},
	{
		name: "forbid login", action: "user.disable", answer: 200, again: 200, unknowable: true, // whether sessions were ended
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			return request{"POST", w.own("users", name, "disable"), "", nil}, func(t *testing.T) bool {
				disabled := w.is(t, "postgres", `SELECT shobj_description(oid, 'pg_authid') LIKE '%"state":"disabled"%'
					FROM pg_roles WHERE rolname = $1`, name)
				if logsIn := w.pg.Login(name, passwordBefore) == nil; logsIn == disabled {
					t.Errorf("%s logs in: %v; is disabled: %v", name, logsIn, disabled)
				}
				return disabled
			}
		},
	},
	{
		name: "create lease", action: "lease.create", answer: 201, again: 201,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			return createLease(w, name), func(t *testing.T) bool {
				w.leasesEnd(t)
				return w.is(t, "postgres", `EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname, $1 || '_'))`, name)
			}
		},
	},
	{
		name: "renew lease", action: "lease.renew", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			l := takeLease(t, w, name)
			r := request{"POST", "/rolecall/v1/leases/" + l.ID + "/renew", `{"ttl":"3h"}`, nil}
			return r, func(t *testing.T) bool {
				w.leasesEnd(t)
				w.logsIn(t, l.Username, l.Password)
				return w.is(t, "postgres", `EXISTS (SELECT FROM pg_roles WHERE rolname = $1
					AND rolvaliduntil > now() + interval '2 h')`, l.Username)
			}
		},
	},
	{
		name: "end lease", action: "lease.end", answer: 204, again: 204,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			l := takeLease(t, w, name)
			return request{"DELETE", "/rolecall/v1/leases/" + l.ID, "", nil}, func(t *testing.T) bool {
				w.leasesEnd(t)
				return !w.hasRole(t, l.Username)
			}
		},
	},
	{
		name: "end lease that owns", action: "lease.end", answer: 204, again: 204,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			l := takeLease(t, w, name)
			owns(t, w, l.Username)
			w.query(t, "elsewhere", `GRANT USAGE ON SCHEMA public TO `+quoted(l.Username))
			return request{"DELETE", "/rolecall/v1/leases/" + l.ID, "", nil}, func(t *testing.T) bool {
				w.leasesEnd(t)
				if w.hasRole(t, l.Username) {
					return false
				}
				if !w.is(t, "elsewhere", `EXISTS (SELECT FROM pg_class WHERE relname = $2
					AND pg_get_userbyid(relowner) = $1)`, name, l.Username) {
					t.Errorf("the table of %s belongs to another than %s", l.Username, name)
				}
				return true
			}
		},
	},
	{
		name: "create database", action: "database.create", answer: 200, again: 422,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			return createDatabase(w, name), func(t *testing.T) bool {
				is := w.query(t, "postgres", `SELECT pg_get_userbyid(datdba) || ' '
					|| (coalesce(shobj_description(oid, 'pg_database'), '') LIKE '%"attempt":%')::text
					FROM pg_database WHERE datname = $1`, name)
				if len(is) > 0 && is[0] != name+" true" {
					t.Errorf("%s is half made: its owner, and whether it has a comment, is %s", name, is[0])
				}
				return len(is) > 0
			}
		},
	},
	{
		name: "delete database", action: "database.delete", answer: 204, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 200, createUser(w, name, passwordBefore))
			w.want(t, nil, 200, createDatabase(w, name))
			r := request{"DELETE", "/databases/postgresql/clusters/" + w.cluster + "/databases/" + url.PathEscape(name), "", nil}
			return r, func(t *testing.T) bool {
				return !w.is(t, "postgres", `EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name)
			}
		},
	},
	{
		name: "create shop", action: "database.create", answer: 201, again: 409, long: true,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			return createShop(w, name), func(t *testing.T) bool { return w.shopOrNothing(t, name) }
		},
	},
	{
		name: "complete access roles", action: "database.access", answer: 200, again: 200, long: true,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 201, request{"POST", w.own("databases"), object(map[string]any{"name": name}), nil})
			return request{"PUT", w.own("databases", name, "access-roles"), "", nil}, func(t *testing.T) bool {
				return w.accessRoles(t, name)
			}
		},
	},
	{
		name: "remove access roles", action: "database.access.remove", answer: 204, again: 404, long: true,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 201, createShop(w, name))
			r := request{"DELETE", w.own("databases", name, "access-roles") + "?reassignTo=heir", "", nil}
			return r, func(t *testing.T) bool { return !w.hasRole(t, name+"_owner") }
		},
	},
	{
		name: "delete shop", action: "database.delete", answer: 204, again: 404, long: true,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 201, createShop(w, name))
			return request{"DELETE", w.own("databases", name), "", nil}, func(t *testing.T) bool {
				// Until it is dropped it may belong to the administering role already.
				return !w.is(t, "postgres", `EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name) && !w.shopOrNothing(t, name)
			}
		},
	},
	{
		name: "register cluster", action: "cluster.register", answer: 201, again: 409, lost: 422,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.forgetOther(t)
			return request{"POST", "/rolecall/v1/clusters", registration(name, w.other), nil}, func(t *testing.T) bool {
				return w.is(t, "control", `EXISTS (SELECT FROM rolecall.clusters WHERE display_name = $1)`, name)
			}
		},
	},
	{
		name: "change cluster", action: "cluster.update", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			r := request{"PATCH", "/rolecall/v1/clusters/" + w.registerOther(t, name),
				`{"location":"changed","access":{"manage":["team=` + strings.ReplaceAll(name, " ", "-") + `"]}}`, nil}
			return r, func(t *testing.T) bool {
				return w.is(t, "control", `EXISTS (SELECT FROM rolecall.clusters WHERE display_name = $1 AND location = 'changed'
					AND cardinality(manage) = 1)`, name)
			}
		},
	},
	{
		name: "change connection", action: "cluster.update", answer: 200, again: 200, lost: 422,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			id := w.registerOther(t, name)
			w.other.Exec(t, `ALTER ROLE rolecall_admin PASSWORD 'another'`)
			t.Cleanup(func() { w.other.Exec(t, `ALTER ROLE rolecall_admin PASSWORD 'administrator'`) })
			r := request{"PATCH", "/rolecall/v1/clusters/" + id, `{"connection":{"password":"another"}}`, nil}
			return r, func(t *testing.T) bool {
				return w.is(t, "control", `EXISTS (SELECT FROM rolecall.clusters WHERE id = $1::text::uuid AND revision > 1)`, id)
			}
		},
	},
	{
		name: "rotate credential", action: "cluster.rotate", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			id := w.registerOther(t, name)
			t.Cleanup(func() { w.other.Exec(t, `ALTER ROLE rolecall_admin PASSWORD 'administrator'`) })
			return request{"POST", "/rolecall/v1/clusters/" + id + "/rotate-credential", "", nil}, func(t *testing.T) bool {
				w.want(t, nil, 200, request{"GET", "/databases/postgresql/clusters/" + id + "/users", "", nil})
				if w.is(t, "control", `EXISTS (SELECT FROM rolecall.clusters WHERE id = $1::text::uuid AND pending IS NOT NULL)`, id) {
					t.Errorf("%s: two passwords are left", name)
				}
				return w.other.Login("rolecall_admin", "administrator") != nil
			}
		},
	},
	{
		name: "remove cluster", action: "cluster.remove", answer: 204, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			id := w.registerOther(t, name)
			return request{"DELETE", "/rolecall/v1/clusters/" + id, "", nil}, func(t *testing.T) bool {
				return !w.is(t, "control", `EXISTS (SELECT FROM rolecall.clusters WHERE id = $1::text::uuid)`, id)
			}
		},
	},
	{
		name: "create identity", action: "account.create", answer: 201, again: 409,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			r := request{"POST", "/uaa/Users", object(map[string]any{"userName": name, "password": passwordAfter}), nil}
			return r, func(t *testing.T) bool { return w.hasAccount(t, `username = $1`, name) }
		},
	},
	{
		name: "change identity", action: "account.update", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			r := request{"PUT", "/uaa/Users/" + guid, object(map[string]any{"userName": name,
				"name": map[string]any{"givenName": "new", "familyName": "name"}}), []string{"If-Match: *"}}
			return r, func(t *testing.T) bool {
				return w.hasAccount(t, `guid = $1 AND given_name = 'new' AND family_name = 'name'`, guid)
			}
		},
	},
	{
		name: "offboard", action: "account.offboard", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			// A database user that the account has made, as its record says.
			w.query(t, "postgres", `CREATE ROLE "`+name+`" LOGIN`)
			w.query(t, "postgres", `COMMENT ON ROLE "`+name+`" IS 'rolecall:v1 {"created":"2026-01-01T00:00:00Z","createdBy":"`+guid+
				`","revision":1,"attempt":"0199c2a4-7d3e-7c51-a0de-5f4b8e21c963"}'`)
			r := request{"POST", "/rolecall/v1/accounts/" + guid + "/offboard", `{"users":{"default":"endSessions"}}`, nil}
			return r, func(t *testing.T) bool {
				done := w.query(t, "control", `
					SELECT (SELECT NOT active FROM rolecall.accounts WHERE guid = $1)::text
					UNION ALL SELECT EXISTS (SELECT FROM rolecall.offboardings WHERE account_guid = $1)::text
					UNION ALL SELECT EXISTS (SELECT FROM rolecall.offboardings b JOIN rolecall.operations o ON o.id = b.operation
					  JOIN rolecall.operation_items i ON i.operation_id = o.id
					  WHERE b.account_guid = $1 AND i.name = $2)::text`, guid, name)
				if len(slices.Compact(slices.Clone(done))) != 1 {
					t.Errorf("%s is half done: inactive, reported, and in an operation are %q", name, done)
				}
				if done[0] == "true" { // the audit log does not have the attempt of the record
					w.query(t, "postgres", `DROP ROLE IF EXISTS "`+name+`"`)
				}
				return done[0] == "true"
			}
		},
	},
	{
		name: "account's password", action: "account.password", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			was := w.query(t, "control", `SELECT password_hash FROM rolecall.accounts WHERE guid = $1`, guid)[0]
			r := request{"PUT", "/uaa/Users/" + guid + "/password", object(map[string]any{"password": passwordAfter}), nil}
			return r, func(t *testing.T) bool { return w.hasAccount(t, `guid = $1 AND password_hash <> $2`, guid, was) }
		},
	},
	{
		name: "give scope", action: "account.grant", answer: 201, again: 409,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			r := request{"POST", "/uaa/Groups/" + w.group(t) + "/members",
				object(map[string]any{"value": guid, "origin": "uaa", "type": "USER"}), nil}
			return r, func(t *testing.T) bool {
				return w.hasAccount(t, `guid = $1 AND 'cloud_controller.admin' = ANY (scopes)`, guid)
			}
		},
	},
	{
		name: "take scope", action: "account.revoke", answer: 200, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			members := "/uaa/Groups/" + w.group(t) + "/members"
			w.want(t, nil, 201, request{"POST", members, object(map[string]any{"value": guid, "origin": "uaa", "type": "USER"}), nil})
			return request{"DELETE", members + "/" + guid, "", nil}, func(t *testing.T) bool {
				return !w.hasAccount(t, `guid = $1 AND 'cloud_controller.admin' = ANY (scopes)`, guid)
			}
		},
	},
	{
		name: "delete identity", action: "account.delete", answer: 200, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			return request{"DELETE", "/uaa/Users/" + guid, "", nil}, func(t *testing.T) bool {
				return !w.hasAccount(t,
					`username = $1`, name)
			}
		},
	},
	{
		name: "create platform user", action: "account.create", answer: 201, again: 422,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			r := request{"POST", "/v3/users", object(map[string]any{"guid": guid}), nil}
			return r, func(t *testing.T) bool { return w.hasAccount(t, `guid = $1 AND platform_created_at IS NOT NULL`, guid) }
		},
	},
	{
		name: "label platform user", action: "account.update", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createPlatformUser(t, w, name)
			r := request{"PATCH", "/v3/users/" + guid,
				`{"presentation_name":"new name","metadata":{"labels":{"team":"new"},"annotations":{"note":"new"}}}`, nil}
			return r, func(t *testing.T) bool {
				return w.hasAccount(t, `guid = $1 AND presentation_name = 'new name' AND labels->>'team' = 'new'
					AND annotations->>'note' = 'new'`, guid)
			}
		},
	},
	{
		name: "delete platform user", action: "account.delete", answer: 202, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createPlatformUser(t, w, name)
			return request{"DELETE", "/v3/users/" + guid, "", nil}, func(t *testing.T) bool {
				return !w.hasAccount(t, `guid = $1 AND platform_created_at IS NOT NULL`, guid)
			}
		},
	},
	{
		name: "create client", action: "account.create", answer: 201, again: 409,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			return createClient(name), func(t *testing.T) bool { return w.hasAccount(t, `guid = $1 AND program`, id(name)) }
		},
	},
	{
		name: "client's secret", action: "account.password", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 201, createClient(name))
			was := w.query(t, "control", `SELECT password_hash FROM rolecall.accounts WHERE guid = $1`, id(name))[0]
			r := request{"PUT", "/uaa/oauth/clients/" + id(name) + "/secret", object(map[string]any{"secret": passwordAfter}), nil}
			return r, func(t *testing.T) bool { return w.hasAccount(t, `guid = $1 AND password_hash <> $2`, id(name), was) }
		},
	},
	{
		name: "delete client", action: "account.delete", answer: 200, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 201, createClient(name))
			return request{"DELETE", "/uaa/oauth/clients/" + id(name), "", nil},
				func(t *testing.T) bool { return !w.hasAccount(t, `guid = $1 AND program`, id(name)) }
		},
	},
	{
		name: "sign in", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			r := tokenRequest("cf", "", url.Values{"grant_type": {"password"}, "username": {name}, "password": {passwordBefore}})
			return r, func(t *testing.T) bool {
				return w.hasAccount(t, `guid = $1 AND id IN (SELECT account_id FROM rolecall.refresh_tokens)`, guid)
			}
		},
	},
	{
		name: "first use", action: "account.create", answer: 200, again: 200, // of a token makes the platform user
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			guid := createIdentity(t, w, name)
			var granted struct {
				Token string `json:"access_token"`
			}
			w.want(t, &granted, 200, tokenRequest("cf", "", url.Values{"grant_type": {"password"}, "username": {name},
				"password": {passwordBefore}}))
			r := request{"GET", "/rolecall/v1/whoami", "", []string{"Authorization: Bearer " + granted.Token}}
			return r, func(t *testing.T) bool { return w.hasAccount(t, `guid = $1 AND platform_created_at IS NOT NULL`, guid) }
		},
	},
	{
		name: "refresh token", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.want(t, nil, 201, createClient(name))
			var granted struct {
				Refresh string `json:"refresh_token"`
			}
			w.want(t, &granted, 200, tokenRequest(id(name), passwordBefore,
				url.Values{"grant_type": {"password"}, "username": {"admin"}, "password": {adminPassword}}))
			r := tokenRequest(id(name), passwordBefore, url.Values{"grant_type": {"refresh_token"},
				"refresh_token": {granted.Refresh}})
			return r, func(t *testing.T) bool {
				is := w.query(t, "control", `SELECT count(replaced_at) || ' of ' || count(*) FROM rolecall.refresh_tokens
					WHERE client_id = $1`, id(name))[0]
				if is == "0 of 1" {
					return false
				}
				if is != "1 of 2" && is != "1 of 3" { // the same again makes a third one
					t.Errorf("replaced are %s refresh tokens", is)
				}
				return true
			}
		},
	},
	{
		name: "create personal token", action: "token.create", answer: 201, again: 409,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.query(t, "control", `DELETE FROM rolecall.personal_tokens`)
			r := request{"POST", "/rolecall/v1/tokens", object(map[string]any{"name": name, "readOnly": true}), nil}
			return r, func(t *testing.T) bool {
				return w.is(t, "control", `EXISTS (SELECT FROM rolecall.personal_tokens WHERE name = $1)`, name)
			}
		},
	},
	{
		name: "revoke personal token", action: "token.revoke", answer: 204, again: 404,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			var made struct{ ID string }
			w.want(t, &made, 201, request{"POST", "/rolecall/v1/tokens", object(map[string]any{"name": name}), nil})
			return request{"DELETE", "/rolecall/v1/tokens/" + made.ID, "", nil}, func(t *testing.T) bool {
				return !w.is(t, "control", `EXISTS (SELECT FROM rolecall.personal_tokens WHERE name = $1)`, name)
			}
		},
	},
	{
		name: "rotate keys", action: "keys.rotate", answer: 200, again: 200,
		arrange: func(t *testing.T, w *world, name string) (request, func(*testing.T) bool) {
			w.query(t, "control", `DELETE FROM rolecall.signing_keys WHERE created_at > (SELECT min(created_at)
				FROM rolecall.signing_keys)`)
			slices.Reverse(w.keys)
			w.restart(t)
			was := w.query(t, "control", `SELECT encode(substr(credential, 1, 9), 'hex') FROM rolecall.clusters
				WHERE display_name = 'main'`)[0]
			return request{"POST", "/rolecall/v1/keys/rotate", `{"signingKey":true}`, nil}, func(t *testing.T) bool {
				seals := w.query(t, "control", `
					SELECT DISTINCT encode(substr(sealed, 1, 9), 'hex') FROM (
					  SELECT private_key FROM rolecall.signing_keys UNION ALL
					  SELECT credential FROM rolecall.clusters UNION ALL SELECT key FROM rolecall.audit_keys) all_of (sealed)`)
				if len(seals) == 2 && slices.Contains(seals, was) && w.is(t, "control",
					`EXISTS (SELECT FROM rolecall.clusters WHERE display_name = 'main' AND encode(substr(credential, 1, 9), 'hex') = $1)`,
					was) {
					return false // and signing keys of before, which
				}
				if len(seals) != 1 {
					t.Errorf("there are seals of %d master keys", len(seals))
				}
				return seals[0] != was
			}
		},
	},
}

func createUser(w *world, name, password string) request {
	return request{"POST", "/databases/postgresql/clusters/" + w.cluster + "/users",
		object(map[string]any{"properties": map[string]string{"username": name, "password": password}}), nil}
}

func createLease(w *world, name string) request {
	return request{"POST", "/rolecall/v1/clusters/" + w.cluster + "/leases", object(map[string]any{"for": name, "note": name}),
		nil}
}

type takenLease struct{ ID, Username, Password string }

// takeLease takes a lease for a new user.
func takeLease(t *testing.T, w *world, name string) (l takenLease) {
	t.Helper()
	w.want(t, nil, 200, createUser(w, name, passwordBefore))
	w.want(t, &l, 201, createLease(w, name))
	return l
}

// leasesEnd checks that there is no role of a lease without an end, in the cluster itself and by a task.
func (w *world) leasesEnd(t *testing.T) {
	t.Helper()
	endless := w.query(t, "postgres", `SELECT rolname FROM pg_roles
		WHERE shobj_description(oid, 'pg_authid') LIKE '%"lease":%' AND rolvaliduntil IS NULL`)
	if len(endless) > 0 {
		t.Errorf("the leases %q have no end", endless)
	}
	ids := w.query(t, "postgres", `SELECT substring(shobj_description(oid, 'pg_authid') FROM '"lease":"([^"]*)"') FROM pg_roles
		WHERE shobj_description(oid, 'pg_authid') LIKE '%"lease":%'`)
	for _, id := range ids {
		if !w.is(t, "control", `EXISTS (SELECT FROM rolecall.leases l JOIN rolecall.tasks t ON t.key = l.id
			WHERE t.kind = 'lease.end' AND l.id = $1::text::uuid AND l.state <> 'ended')`, id) {
			t.Errorf("the role of the lease %s has no task that ends it", id)
		}
	}
	if lost := w.query(t, "control", `SELECT l.id::text FROM rolecall.leases l WHERE l.state <> 'ended'
		AND NOT EXISTS (SELECT FROM rolecall.tasks t WHERE t.key = l.id AND t.kind = 'lease.end')`); len(lost) > 0 {
		t.Errorf("the leases %q have no task", lost)
	}
}

func createDatabase(w *world, name string) request {
	return request{"POST", "/databases/postgresql/clusters/" + w.cluster + "/databases",
		object(map[string]any{"properties": map[string]string{"name": name, "owner": name}}), nil}
}

// own is a path of Rolecall's own API about the cluster.
func (w *world) own(parts ...string) string {
	path := "/rolecall/v1/clusters/" + w.cluster
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}

// createShop makes a database with access roles.
func createShop(w *world, name string) request {
	return request{"POST", w.own("databases"), object(map[string]any{"name": name, "accessRoles": true}), nil}
}

// shop makes the database shop with access roles, which is there once for all.
func (w *world) shop(t *testing.T) {
	t.Helper()
	if !w.is(t, "postgres", `EXISTS (SELECT FROM pg_database WHERE datname = 'shop')`) {
		w.want(t, nil, 201, createShop(w, "shop"))
	}
}

// accessRoles reports whether a database has access roles. It has all of them, which may do what they are for, or none.
func (w *world) accessRoles(t *testing.T, name string) bool {
	t.Helper()
	is := w.query(t, "postgres", `SELECT count(*) || ' ' || count(*) FILTER (WHERE has_database_privilege(oid, $1, 'CONNECT')
		AND shobj_description(oid, 'pg_authid') LIKE '%"access":%')
		FROM pg_roles WHERE rolname IN ($1 || '_owner', $1 || '_write', $1 || '_read')`, name)[0]
	if is != "0 0" && is != "3 3" {
		t.Errorf("%s has half its access roles: %s", name, is)
	}
	return is == "3 3"
}

// shopOrNothing reports whether there is a database with access roles, of which one owns it. Without it there are none.
func (w *world) shopOrNothing(t *testing.T, name string) bool {
	t.Helper()
	if w.is(t, "postgres", `EXISTS (SELECT FROM pg_database WHERE datname = $1 AND pg_get_userbyid(datdba) = $1 || '_owner')`,
		name) {
		if !w.accessRoles(t, name) {
			t.Errorf("%s has no access roles", name)
		}
		return true
	}
	if w.is(t, "postgres", `EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname, $1 || '_'))
		OR EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name) {
		t.Errorf("something of %s is left", name)
	}
	return false
}

// user is the path of a database user.
func (w *world) user(name string) string {
	return "/databases/postgresql/clusters/" + w.cluster + "/users/" + url.PathEscape(name)
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// owns makes a table of a database user's, with one row.
func owns(t *testing.T, w *world, name string) {
	t.Helper()
	w.query(t, "elsewhere", fmt.Sprintf(`CREATE TABLE %s AS SELECT 1 AS x`, quoted(name)))
	w.query(t, "elsewhere", fmt.Sprintf(`ALTER TABLE %s OWNER TO %[1]s`, quoted(name)))
}

func (w *world) hasRole(t *testing.T, name string) bool {
	t.Helper()
	return w.is(t, "postgres", `EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, name)
}

func (w *world) logsIn(t *testing.T, name, password string) {
	t.Helper()
	if err := w.pg.Login(name, password); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// goneOrWhole reports whether a user is gone. One that is not either logs in, or its deletion has begun and it does not.
func (w *world) goneOrWhole(t *testing.T, name string) bool {
	t.Helper()
	if !w.hasRole(t, name) {
		return true
	}
	deleting := w.is(t, "postgres",
		`SELECT shobj_description(oid, 'pg_authid') LIKE '%"state":"deleting"%' FROM pg_roles WHERE rolname = $1`, name)
	if logsIn := w.pg.Login(name, passwordBefore) == nil; logsIn == deleting {
		t.Errorf("%s logs in: %v; is being deleted: %v", name, logsIn, deleting)
	}
	return false
}

// forgetOther ends the registration of the second cluster, if it is registered.
func (w *world) forgetOther(t *testing.T) {
	t.Helper()
	for _, id := range w.query(t, "control", `SELECT id::text FROM rolecall.clusters WHERE display_name <> 'main'`) {
		w.want(t, nil, 204, request{"DELETE", "/rolecall/v1/clusters/" + id, "", nil})
	}
}

// registerOther registers the second cluster again.
func (w *world) registerOther(t *testing.T, name string) (id string) {
	t.Helper()
	w.forgetOther(t)
	w.other.Exec(t, `ALTER ROLE rolecall_admin PASSWORD 'administrator'`)
	var made struct{ ID string }
	w.want(t, &made, 201, request{"POST", "/rolecall/v1/clusters", registration(name, w.other), nil})
	return made.ID
}

func (w *world) hasAccount(t *testing.T, where string, args ...any) bool {
	t.Helper()
	return w.is(t, "control", `EXISTS (SELECT FROM rolecall.accounts WHERE `+where+`)`, args...)
}

func createIdentity(t *testing.T, w *world, name string) (guid string) {
	t.Helper()
	var made struct{ ID string }
	w.want(t, &made, 201, request{"POST", "/uaa/Users", object(map[string]any{"userName": name, "password": passwordBefore}),
		nil})
	return made.ID
}

func createPlatformUser(t *testing.T, w *world, name string) (guid string) {
	t.Helper()
	guid = createIdentity(t, w, name)
	w.want(t, nil, 201, request{"POST", "/v3/users", object(map[string]any{"guid": guid}), nil})
	return guid
}

// id is a name as the id of a client.
func id(name string) string { return strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "") }

func createClient(name string) request {
	return request{"POST", "/uaa/oauth/clients", object(map[string]any{
		"client_id": id(name), "client_secret": passwordBefore, "authorized_grant_types": []string{"password", "refresh_token",
			"client_credentials"},
		"scope": []string{"cloud_controller.read"}, "authorities": []string{"cloud_controller.read"},
	}), nil}
}

// group is the id of the group of admins.
func (w *world) group(t *testing.T) string {
	t.Helper()
	var groups struct {
		Resources []struct{ ID, DisplayName string }
	}
	w.want(t, &groups, 200, request{"GET", "/uaa/Groups?count=100", "", nil})
	for _, g := range groups.Resources {
		if g.DisplayName == "cloud_controller.admin" {
			return g.ID
		}
	}
	t.Fatal("there is no group of admins")
	return ""
}
