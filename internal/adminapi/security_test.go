package adminapi_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/adminapi"
	"rolecall/internal/cfapi"
	"rolecall/internal/dbaas"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/event"
	"rolecall/internal/fleet"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/uaa"
	"rolecall/internal/vaultapi"
)

// everything is all that one PostgreSQL knows of roles, and who owns what.
const everything = `
	SELECT string_agg(line, E'\n' ORDER BY line) FROM (
		SELECT format('role %s %s', a, shobj_description(a.oid, 'pg_authid')) FROM pg_authid a
		UNION ALL SELECT format('member %s', m) FROM pg_auth_members m
		UNION ALL SELECT format('setting %s', s) FROM pg_db_role_setting s
		UNION ALL SELECT format('database %s %s %s', datname, datdba::regrole, datacl) FROM pg_database
		UNION ALL SELECT format('depends %s', d) FROM pg_shdepend d
	) AS of (line)`

// An account that may manage one cluster walks every route of every dialect, with all that it could hope to become or to
// take: superusers, roles that lead to one, Rolecall's own roles and database, another cluster, other accounts. A route that
// has no attempt here fails the test.
func TestManagerStaysInPlace(t *testing.T) {
	pg, others := pgtest.New(t, nil), pgtest.New(t, nil)
	own := role(t, pg, "rolecall_itself", "SUPERUSER") // so it is never PostgreSQL that refuses
	s := servicetest.NewAs(t, pg, own, rolePassword)
	f := fixtureOn(t, s, 10_000)
	root := s.Admin(t, "root")
	foreign := s.Register(t, "unseen-cluster", others, others.User, others.Password)
	manager := s.Account(t, "manager", account.DefaultScopes, map[string]string{"team": "a"})
	s.Access(t, s.ClusterID, []string{"team=a"}, nil)
	s.Access(t, foreign, []string{"team=b"}, nil)
	pg.Exec(t, `
		CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'x'; CREATE ROLE in_boss LOGIN NOINHERIT IN ROLE boss; CREATE ROLE bosses
		  NOLOGIN IN ROLE boss;
		CREATE ROLE creator LOGIN CREATEROLE; CREATE ROLE replicator LOGIN REPLICATION; CREATE ROLE bypass LOGIN BYPASSRLS;
		CREATE ROLE executes LOGIN IN ROLE pg_execute_server_program; CREATE ROLE in_itself LOGIN IN ROLE rolecall_itself; CREATE
		  ROLE admin LOGIN;
		CREATE ROLE vault NOLOGIN; CREATE ROLE readers NOLOGIN; CREATE ROLE victim LOGIN;
		CREATE TABLE secrets (); ALTER TABLE secrets OWNER TO victim; COMMENT ON ROLE victim IS 'somebody''s'`)
	pg.Exec(t, `CREATE DATABASE of_boss OWNER boss`)
	others.Exec(t, `CREATE ROLE victim LOGIN; CREATE ROLE boss LOGIN SUPERUSER`)
	// An admin's mistake must not open the way either.
	f.want(t, 200, "PATCH", "/clusters/"+s.ClusterID, `{"grantable":["readers","bosses","boss","rolecall_itself",`+
		`"pg_execute_server_program"]}`)
	protected := []string{pg.User, own, "boss", "in_boss", "creator", "replicator", "bypass", "executes", "in_itself", "admin"}

	type attempt struct {
		path, body string
		statuses   []int
	}
	attempts := map[string][]attempt{}
	try := func(route, path, body string, statuses ...int) {
		attempts[route] = append(attempts[route], attempt{path, body, statuses})
	}
	const db, own1 = dbaas.Prefix, adminapi.Prefix
	for _, id := range []string{s.ClusterID, foreign} {
		view, change, admin := 200, 403, 403
		if id == foreign {
			view, change, admin = 404, 404, 404
		}
		at, atOwn := db+"/clusters/"+id, own1+"/clusters/"+id
		try("GET "+db+"/clusters/{clusterId}", at, "", view)
		try("GET "+db+"/clusters/{clusterId}/versions", at+"/versions", "", view)
		try("GET "+db+"/clusters/{clusterId}/postgresversions", at+"/postgresversions", "", view)
		try("GET "+db+"/clusters/{clusterId}/users", at+"/users", "", view)
		try("GET "+db+"/clusters/{clusterId}/users", at+"/users?system=true", "", view)
		try("GET "+db+"/clusters/{clusterId}/databases", at+"/databases", "", view)
		try("GET "+db+"/clusters/{clusterId}/databases/{databaseName...}", at+"/databases/of_boss", "", view)
		try("GET "+db+"/clusters/{clusterId}/databases/{databaseName...}", at+"/databases/"+s.DB.Identity.Database, "", 404)
		for _, name := range slices.Concat(protected, []string{"pg_monitor", "pg_execute_server_program", "public", "none",
			"session_user"}) {
			taken := 422
			if id == foreign {
				taken = 404
			}
			try("POST "+db+"/clusters/{clusterId}/users", at+"/users",
				fmt.Sprintf(`{"properties":{"username":%q,"password":"a-good-password"}}`, name), taken)
			try("POST "+db+"/clusters/{clusterId}/databases", at+"/databases",
				fmt.Sprintf(`{"properties":{"name":"mine","owner":%q}}`, name), change, taken)
			try("DELETE "+db+"/clusters/{clusterId}/users/{username...}", at+"/users/victim?reassignTo="+name, "", change, taken)
			try("GET "+own1+"/clusters/{clusterId}/users/{username}/deletion-plan",
				atOwn+"/users/victim/deletion-plan?reassignTo="+name, "", change, taken)
		}
		try("GET "+own1+"/clusters/{clusterId}/users", atOwn+"/users?system=true", "", view)
		try("GET "+db+"/clusters/{clusterId}/backups", at+"/backups", "", view)
		try("GET "+db+"/clusters/{clusterId}/logs", at+"/logs", "", view)
		for _, name := range protected {
			at, atOwn := at+"/users/"+name, atOwn+"/users/"+name
			try("GET "+db+"/clusters/{clusterId}/users/{username...}", at, "", view)
			try("PATCH "+db+"/clusters/{clusterId}/users/{username...}", at, `{"properties":{"password":"a-good-password"}}`, change)
			try("PATCH "+db+"/clusters/{clusterId}/users/{username...}", at, `{"properties":{}}`, change)
			try("DELETE "+db+"/clusters/{clusterId}/users/{username...}", at, "", change)
			try("DELETE "+db+"/clusters/{clusterId}/users/{username...}", at+"?reassignTo=victim", "", change)
			try("DELETE "+db+"/clusters/{clusterId}/users/{username...}", at+"?onBlocked=disable", "", change)
			try("GET "+own1+"/clusters/{clusterId}/users/{username}", atOwn, "", view)
			try("PATCH "+own1+"/clusters/{clusterId}/users/{username}", atOwn, `{"validUntil":"2020-01-01T00:00:00Z"}`, change)
			try("PATCH "+own1+"/clusters/{clusterId}/users/{username}", atOwn, `{"connectionLimit":0,"endSessions":true}`, change)
			try("PATCH "+own1+"/clusters/{clusterId}/users/{username}", atOwn, `{"endSessions":true}`, change)
			try("PUT "+own1+"/clusters/{clusterId}/users/{username}/roles", atOwn+"/roles", `{"roles":["readers"]}`, change)
			try("PUT "+own1+"/clusters/{clusterId}/users/{username}/roles", atOwn+"/roles", `{"roles":[]}`, change)
			for _, method := range []string{"PUT", "DELETE"} {
				try(method+" "+own1+"/clusters/{clusterId}/users/{username}/roles/{role}", atOwn+"/roles/readers", "", change)
			}
			for _, query := range []string{"", "?reassignTo=victim", "?onBlocked=disable"} {
				try("DELETE "+own1+"/clusters/{clusterId}/users/{username}", atOwn+query, "", change)
			}
			try("GET "+own1+"/clusters/{clusterId}/users/{username}/deletion-plan", atOwn+"/deletion-plan", "", change)
			for _, action := range []string{"password", "disable", "enable"} {
				try("POST "+own1+"/clusters/{clusterId}/users/{username}/"+action, atOwn+"/"+action, "", change)
			}
			try("GET "+own1+"/clusters/{clusterId}/users/{username}/access", atOwn+"/access", "", view)
			const level = own1 + "/clusters/{clusterId}/users/{username}/access/{database}"
			try("PUT "+level, atOwn+"/access/of_boss", `{"level":"own"}`, change)
			try("DELETE "+level, atOwn+"/access/of_boss", "", change)
		}
		for _, name := range []string{"bosses", "boss", "rolecall_itself", "pg_execute_server_program"} {
			try("PUT "+own1+"/clusters/{clusterId}/users/{username}/roles", atOwn+"/users/victim/roles",
				fmt.Sprintf(`{"roles":[%q]}`, name), change)
			try("POST "+own1+"/clusters/{clusterId}/users", atOwn+"/users", fmt.Sprintf(`{"username":"mine","roles":[%q]}`, name),
				change)
			for _, method := range []string{"PUT", "DELETE"} {
				try(method+" "+own1+"/clusters/{clusterId}/users/{username}/roles/{role}", atOwn+"/users/victim/roles/"+name, "", change)
			}
		}
		for _, name := range []string{"vault", "in_boss", "victim", "pg_monitor", "absent"} {
			status := 422
			if id == foreign {
				status = 404
			}
			try("PUT "+own1+"/clusters/{clusterId}/users/{username}/roles", atOwn+"/users/victim/roles",
				fmt.Sprintf(`{"roles":["readers",%q]}`, name), status)
			for _, method := range []string{"PUT", "DELETE"} {
				try(method+" "+own1+"/clusters/{clusterId}/users/{username}/roles/{role}", atOwn+"/users/victim/roles/"+name, "", status)
			}
		}
		try("DELETE "+db+"/clusters/{clusterId}/users/{username...}", at+"/users/victim?reassignTo=vault", "", change)
		try("DELETE "+db+"/clusters/{clusterId}/users/{username...}", at+"/users/victim", "", change, 422)
		try("DELETE "+own1+"/clusters/{clusterId}/users/{username}", atOwn+"/users/victim?reassignTo=vault", "", change)
		try("DELETE "+own1+"/clusters/{clusterId}/users/{username}", atOwn+"/users/victim", "", change, 409)
		for _, name := range []string{"of_boss", "postgres", "template0", "template1", s.DB.Identity.Database} {
			try("DELETE "+db+"/clusters/{clusterId}/databases/{databaseName...}", at+"/databases/"+name, "", change, 404, 422)
			const one = own1 + "/clusters/{clusterId}/databases/{database}"
			try("DELETE "+one, atOwn+"/databases/"+name, "", change, 404)
			try("GET "+one, atOwn+"/databases/"+name, "", view, 404)
			try("GET "+one+"/access-roles", atOwn+"/databases/"+name+"/access-roles", "", 404)
			try("DELETE "+one+"/access-roles", atOwn+"/databases/"+name+"/access-roles", "", 404)
			if name != "of_boss" {
				try("PUT "+one+"/access-roles", atOwn+"/databases/"+name+"/access-roles", `{"adopt":true}`, change, 404)
			}
			try("PUT "+one+"/access-roles", atOwn+"/databases/"+name+"/access-roles?plan=true", "", change, 404, view)
			try("POST "+own1+"/clusters/{clusterId}/users", atOwn+"/users",
				fmt.Sprintf(`{"username":"mine","access":[{"database":%q,"level":"own"}]}`, name), 404, 422)
		}
		try("GET "+own1+"/clusters/{clusterId}/databases", atOwn+"/databases", "", view)
		for _, owner := range protected {
			try("POST "+own1+"/clusters/{clusterId}/databases", atOwn+"/databases", fmt.Sprintf(`{"name":"mine","owner":%q}`, owner),
				change)
		}
		try("POST "+own1+"/clusters/{clusterId}/databases", atOwn+"/databases",
			`{"name":"`+s.DB.Identity.Database+`","accessRoles":true}`, 404, 422)
		try("POST "+db+"/clusters/{clusterId}/databases", at+"/databases",
			`{"properties":{"name":"`+s.DB.Identity.Database+`","owner":"victim"}}`, 404, 422)

		try("GET "+own1+"/clusters/{clusterId}", atOwn, "", view)
		for _, body := range []string{
			`{"access":{"manage":["team=a"]}}`, `{"systemRoles":[]}`, `{"grantable":["boss"]}`, `{"memberOf":["boss"]}`,
			`{"displayName":"mine"}`, `{"connection":{"password":"x"}}`,
			fmt.Sprintf(`{"connection":{"url":"postgres://evil@127.0.0.1:%d/postgres"}}`, others.Port), `{}`,
		} {
			try("PATCH "+own1+"/clusters/{clusterId}", atOwn, body, admin)
		}
		try("DELETE "+own1+"/clusters/{clusterId}", atOwn, "", admin)
		try("POST "+own1+"/clusters/{clusterId}/probe", atOwn+"/probe", "", admin)
		try("POST "+own1+"/clusters/{clusterId}/rotate-credential", atOwn+"/rotate-credential", "", admin)
		try("GET "+own1+"/clusters/{clusterId}/access", atOwn+"/access?account=root", "", admin)
		try("GET "+own1+"/clusters/{clusterId}/password-problems", atOwn+"/password-problems", "", view)
		try("GET "+own1+"/clusters/{clusterId}/pgbouncer/userlist", atOwn+"/pgbouncer/userlist", "", admin)
		try("GET "+own1+"/audit", own1+"/audit?cluster="+id, "", 200)

		const stored = own1 + "/clusters/{clusterId}/credentials"
		try("GET "+own1+"/clusters/{clusterId}/leases", atOwn+"/leases", "", view)
		try("GET "+stored, atOwn+"/credentials", "", view)
		try("GET "+stored+"/{name}", atOwn+"/credentials/x", "", 404)
		try("DELETE "+stored+"/{name}", atOwn+"/credentials/x", "", 404)
		try("GET "+stored+"/{name}/current", atOwn+"/credentials/x/current", "", 404)
		try("POST "+stored+"/{name}/rotate", atOwn+"/credentials/x/rotate", "", 404)
		for _, name := range protected {
			try("POST "+own1+"/clusters/{clusterId}/leases", atOwn+"/leases", fmt.Sprintf(`{"for":%q}`, name), change)
			try("PUT "+stored+"/{name}", atOwn+"/credentials/kept",
				fmt.Sprintf(`{"for":%q,"rotateEvery":"1h","overlap":"1m"}`, name), change)
			try("GET "+vaultapi.Prefix+"/{mount}/creds/{role...}", vaultapi.Prefix+"/"+id+"/creds/"+name, "", change)
		}
		absent := 400
		if id == foreign {
			absent = 404
		}
		try("GET "+vaultapi.Prefix+"/{mount}/static-creds/{name...}", vaultapi.Prefix+"/"+id+"/static-creds/x", "", absent)
	}
	_, ofRoot, _, err := s.Users.CreateLease(t.Context(), &account.Principal{GUID: root, Scopes: account.AdminScopes}, foreign,
		dbuser.NewLease{For: "victim"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.Users.PutCredential(t.Context(), &account.Principal{GUID: root, Scopes: account.AdminScopes},
		s.ClusterID, "kept", dbuser.CredentialSettings{For: "readers", RotateEvery: time.Hour}, nil); err != nil {
		t.Fatal(err)
	}
	try("GET "+own1+"/leases", own1+"/leases", "", 200)
	try("GET "+own1+"/leases/{leaseId}", own1+"/leases/"+ofRoot.ID.String(), "", 404)
	try("DELETE "+own1+"/leases/{leaseId}", own1+"/leases/"+ofRoot.ID.String(), "", 404)
	try("POST "+own1+"/leases/{leaseId}/renew", own1+"/leases/"+ofRoot.ID.String()+"/renew", "", 404)
	for _, method := range []string{"PUT", "POST"} {
		at := method + " " + vaultapi.Prefix
		for _, prefix := range []string{"/sys/leases", "/sys"} {
			for action, status := range map[string]int{"renew": 400, "revoke": 204, "lookup": 400} {
				if prefix == "/sys" && action == "lookup" {
					continue
				}
				lease := foreign + "/creds/victim/" + ofRoot.ID.String()
				path := vaultapi.Prefix + prefix + "/" + action
				try(at+prefix+"/"+action, path, fmt.Sprintf(`{"lease_id":%q}`, lease), status)
				try(at+prefix+"/"+action+"/{leaseId...}", path+"/"+lease, "", status)
			}
		}
		try(at+"/auth/token/lookup-self", vaultapi.Prefix+"/auth/token/lookup-self", "", 200)
		try(at+"/auth/token/renew-self", vaultapi.Prefix+"/auth/token/renew-self", "", 400)
		try(at+"/auth/token/revoke-self", vaultapi.Prefix+"/auth/token/revoke-self", "[]", 400) // it is needed for the rest
	}
	try("GET "+vaultapi.Prefix+"/auth/token/lookup-self", vaultapi.Prefix+"/auth/token/lookup-self", "", 200)
	for _, route := range []string{"/clusters", "/clusters/backups", "/versions", "/clusters/postgresversions",
		"/infos/version", "/infos/versions"} {
		try("GET "+db+route, db+route, "", 200)
	}
	try("GET "+own1+"/clusters", own1+"/clusters", "", 200)
	try("POST "+own1+"/clusters", own1+"/clusters", registration("mine", others, "evil", `,"access":{"manage":["team=a"]}`),
		403)
	try("GET "+own1+"/whoami", own1+"/whoami", "", 200)
	try("GET "+own1+"/status", own1+"/status", "", 403)
	hook, _, err := s.Events.CreateWebhook(t.Context(), &account.Principal{GUID: root, Scopes: account.AdminScopes},
		event.NewWebhook{Name: "of-root", URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	hooks := own1 + "/webhooks"
	try("GET "+hooks, hooks, "", 403)
	try("POST "+hooks, hooks, `{"name":"mine","url":"https://8.8.8.8/"}`, 403)
	try("GET "+hooks+"/{webhookId}", hooks+"/"+hook.ID.String(), "", 403)
	try("PATCH "+hooks+"/{webhookId}", hooks+"/"+hook.ID.String(), `{"url":"https://8.8.8.8/","state":"ACTIVE"}`, 403)
	try("DELETE "+hooks+"/{webhookId}", hooks+"/"+hook.ID.String(), "", 403)
	try("POST "+hooks+"/{webhookId}/test", hooks+"/"+hook.ID.String()+"/test", "", 403)
	try("POST "+hooks+"/{webhookId}/replay", hooks+"/"+hook.ID.String()+"/replay", `{"fromSeq":1}`, 403)
	try("POST "+hooks+"/{webhookId}/rotate-secret", hooks+"/"+hook.ID.String()+"/rotate-secret", "", 403)
	try("GET "+own1+"/tokens", own1+"/tokens", "", 200)
	try("POST "+own1+"/tokens", own1+"/tokens", `{"name":"x","scopes":["cloud_controller.admin"]}`, 422)
	try("POST "+own1+"/tokens", own1+"/tokens", fmt.Sprintf(`{"name":"x","clusters":[%q]}`, foreign), 404, 422)
	try("DELETE "+own1+"/tokens/{tokenId}", own1+"/tokens/"+f.token(t, "root", `{"name":"of root"}`).ID, "", 404)
	try("GET "+own1+"/sessions", own1+"/sessions", "", 200)
	try("GET "+own1+"/sessions", own1+"/sessions?account="+root, "", 403)
	try("DELETE "+own1+"/sessions/{sessionId}", own1+"/sessions/"+uuid.NewString(), "", 404)
	try("POST "+own1+"/keys/rotate", own1+"/keys/rotate", "", 403)
	try("GET "+own1+"/audit", own1+"/audit?limit=1000", "", 200)
	try("GET "+own1+"/audit", own1+"/audit?account="+root+"&limit=1000", "", 200)
	try("GET "+own1+"/audit/verify", own1+"/audit/verify", "", 403)
	try("GET "+own1+"/audit/failed-sign-ins", own1+"/audit/failed-sign-ins", "", 403)

	try("GET "+own1+"/users", own1+"/users?system=true", "", 200)
	try("GET "+own1+"/users", own1+"/users?cluster="+foreign, "", 404)
	try("GET "+own1+"/users", own1+"/users?creatorSelector=team", "", 403)
	for _, action := range []string{"disable", "delete", "endSessions"} {
		for _, name := range protected {
			try("POST "+own1+"/operations", own1+"/operations", fmt.Sprintf(`{"action":%q,"users":[{"cluster":%q,"username":%q}]}`,
				action, foreign, name), 403)
			try("POST "+own1+"/operations", own1+"/operations?plan=true", fmt.Sprintf(`{"action":%q,"users":[{"cluster":%q,`+
				`"username":%q}]}`, action, s.ClusterID, name), 200)
		}
	}
	ofAdmin, _, err := s.Fleet.Start(t.Context(), &account.Principal{GUID: root, Scopes: account.AdminScopes}, fleet.Request{
		Action: fleet.EndSessions, Targets: []fleet.Target{{Cluster: foreign, Name: "victim"}}})
	if err != nil {
		t.Fatal(err)
	}
	operation := own1 + "/operations/" + ofAdmin.String()
	try("GET "+own1+"/operations", own1+"/operations", "", 200)
	try("GET "+own1+"/operations/{operationId}", operation, "", 404)
	try("GET "+own1+"/operations/{operationId}/results", operation+"/results", "", 404)
	try("POST "+own1+"/operations/{operationId}/cancel", operation+"/cancel", "", 404)
	for _, guid := range []string{root, manager} {
		for _, query := range []string{"", "?plan=true"} {
			try("POST "+own1+"/accounts/{guid}/offboard", own1+"/accounts/"+guid+"/offboard"+query, "", 403)
		}
	}
	try("GET "+own1+"/offboardings", own1+"/offboardings", "", 403)
	try("GET "+own1+"/offboardings/{offboardingId}", own1+"/offboardings/"+ofAdmin.String(), "", 403)

	cf := cfapi.Prefix
	for guid, self := range map[string]bool{root: false, manager: true} {
		status, found := 404, 404
		if self {
			status, found = 403, 200
		}
		try("GET "+cf+"/users/{guid}", cf+"/users/"+guid, "", found)
		try("PATCH "+cf+"/users/{guid}", cf+"/users/"+guid, `{"metadata":{"labels":{"team":"b"}}}`, status)
		try("DELETE "+cf+"/users/{guid}", cf+"/users/"+guid, "", status)
		try("GET "+own1+"/accounts/{guid}", own1+"/accounts/"+guid, "", found)
		for _, body := range []string{`{"labels":{"team":"b"}}`, `{"scopes":["cloud_controller.admin"]}`, `{"username":"root2"}`,
			`{"active":true}`, `{}`} {
			try("PATCH "+own1+"/accounts/{guid}", own1+"/accounts/"+guid, body, status)
		}
		try("DELETE "+own1+"/accounts/{guid}", own1+"/accounts/"+guid, "", status)
		try("POST "+own1+"/accounts/{guid}/password", own1+"/accounts/"+guid+"/password", `{"password":"mine"}`, status)
		try("POST "+own1+"/accounts/{guid}/password", own1+"/accounts/"+guid+"/password",
			`{"password":"mine","currentPassword":"wrong"}`, status)
	}
	try("GET "+own1+"/accounts", own1+"/accounts", "", 200)
	try("POST "+own1+"/accounts", own1+"/accounts", `{"username":"mine"}`, 403)
	try("POST "+own1+"/accounts", own1+"/accounts", `{"username":"mine","labels":{"team":"b"},`+
		`"scopes":["cloud_controller.admin"]}`, 403)
	try("GET "+cf+"/users", cf+"/users", "", 200)
	try("POST "+cf+"/users", cf+"/users", `{"guid":"mine","metadata":{"labels":{"team":"b"}}}`, 403)
	try("GET "+cf+"/jobs/{guid}", cf+"/jobs/x", "", 404, 200)
	try("GET "+cf+"/organizations", cf+"/organizations", "", 200)
	try("GET "+cf+"/spaces", cf+"/spaces", "", 200)
	try("GET "+cf+"/roles", cf+"/roles?include=user", "", 200)
	try("POST "+cf+"/roles", cf+"/roles", `{"type":"organization_manager"}`, 422)
	try("GET "+cf+"/roles/{guid}", cf+"/roles/x", "", 404)
	try("GET "+cf+"/organizations/{guid}/users", cf+"/organizations/x/users", "", 404)
	try("GET "+cf+"/spaces/{guid}/users", cf+"/spaces/x/users", "", 404)

	const users, groups, clients = uaa.Prefix + "/Users", uaa.Prefix + "/Groups", uaa.Prefix + "/oauth/clients"
	platform := f.platform(t)
	platform["rolecall.yaml"] = f.Client
	var scopes struct{ Resources []struct{ ID string } }
	rootToken, err := s.Identity.MintFor(t.Context(), "root", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	platform["uaa.yaml"].Send(t, "GET", groups+"?"+url.Values{"filter": {`displayName eq "cloud_controller.admin"`}}.Encode(),
		"", "Authorization: Bearer "+rootToken).Into(t, &scopes)
	group := scopes.Resources[0].ID
	try("GET "+users, users, "", 403)
	try("POST "+users, users, `{"userName":"mine","password":"mine"}`, 403)
	for _, guid := range []string{root, manager} {
		self := 403
		if guid == manager {
			self = 200
		}
		try("GET "+users+"/{id}", users+"/"+guid, "", 403, self)
		try("PUT "+users+"/{id}", users+"/"+guid, `{"userName":"another","active":true}`, 403)
		try("PATCH "+users+"/{id}", users+"/"+guid, `{"userName":"root2"}`, 403)
		try("DELETE "+users+"/{id}", users+"/"+guid, "", 403)
		try("PUT "+users+"/{id}/password", users+"/"+guid+"/password", `{"password":"mine"}`, 403)
		try("PATCH "+users+"/{id}/status", users+"/"+guid+"/status", `{"locked":false}`, 403)
		try("PUT "+groups+"/{id}", groups+"/"+group, fmt.Sprintf(`{"members":[{"value":%q}]}`, guid), 403)
		try("POST "+groups+"/{id}/members", groups+"/"+group+"/members", fmt.Sprintf(`{"value":%q}`, guid), 403)
		try("DELETE "+groups+"/{id}/members/{memberId}", groups+"/"+group+"/members/"+guid, "", 403)
	}
	try("GET "+uaa.Prefix+"/userinfo", uaa.Prefix+"/userinfo", "", 200)
	try("GET "+uaa.Prefix+"/ids/Users", uaa.Prefix+"/ids/Users?filter=userName+eq+%22root%22", "", 403)
	try("GET "+groups+"/External", groups+"/External", "", 403)
	try("GET "+groups+"/External/list", groups+"/External/list", "", 403)
	try("GET "+groups, groups, "", 403)
	try("GET "+groups+"/{id}", groups+"/"+group, "", 403)
	try("GET "+groups+"/{id}/members", groups+"/"+group+"/members", "", 403)
	try("GET "+clients, clients, "", 403)
	try("POST "+clients, clients, `{"client_id":"mine","client_secret":"x","authorized_grant_types":["client_credentials"],`+
		`"authorities":["cloud_controller.admin"]}`, 403)
	try("GET "+clients+"/{id}", clients+"/cf", "", 403)
	try("GET "+clients+"/{id}/meta", clients+"/cf/meta", "", 403)
	try("PUT "+clients+"/{id}", clients+"/cf", `{"authorities":["cloud_controller.admin"]}`, 403)
	try("DELETE "+clients+"/{id}", clients+"/cf", "", 403)
	try("PUT "+clients+"/{id}/secret", clients+"/cf/secret", `{"secret":"x"}`, 403)

	token, err := s.Identity.MintFor(t.Context(), "manager", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	bearer := "Authorization: Bearer " + token
	state := func() string {
		var accounts string
		if err := s.DB.Pool.QueryRow(t.Context(), `
			SELECT (SELECT string_agg(a::text, E'\n' ORDER BY guid) FROM accounts a) || (SELECT string_agg(c::text, E'\n' ORDER BY
			  id) FROM clusters c)
				|| (SELECT string_agg(k.kid, E'\n' ORDER BY kid) FROM signing_keys k)`).Scan(&accounts); err != nil {
			t.Fatal(err)
		}
		return strings.Join([]string{pgtest.Value[string](t, pg, everything), pgtest.Value[string](t, others, everything),
			accounts}, "\n---\n")
	}
	f.Send(t, "GET", own1+"/whoami", "", bearer) // the first use is recorded with the account
	before := state()
	routes := map[string][]door.Route{
		"dbaas.yaml": (&dbaas.API{}).Handler().Routes(), "platform.yaml": (&cfapi.API{}).Handler().Routes(),
		"uaa.yaml": (&uaa.API{}).Handler().Routes(), "rolecall.yaml": (&adminapi.API{}).Handler().Routes(),
		"vault.yaml": (&vaultapi.API{}).Handler().Routes(),
	}
	port := regexp.MustCompile(fmt.Sprintf(`\b%d\b`, others.Port)) // random identifiers hold any five digits
	made := 0
	for document, all := range routes {
		for _, r := range all {
			route := r.Method + " " + r.Pattern
			// They would be refused with another status, because there are so many.
			if _, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM refusals`); err != nil {
				t.Fatal(err)
			}
			if len(attempts[route]) == 0 && !r.Public {
				t.Errorf("nothing is tried on %s", route)
			}
			for _, x := range attempts[route] {
				a := platform[document].Send(t, r.Method, x.path, x.body, bearer, "If-Match: *")
				if !slices.Contains(x.statuses, a.Status) {
					t.Errorf("%s %s %s: got %d %s, want %v", r.Method, x.path, x.body, a.Status, a.Body, x.statuses)
				}
				text := strings.ReplaceAll(a.Body, x.path, "")
				for _, secret := range []string{"unseen-cluster", rolePassword, pg.Password, others.Password, "SCRAM-SHA-256$",
					"$argon2id$", "PRIVATE KEY", s.MasterKey} {
					if strings.Contains(text, secret) {
						t.Errorf("%s %s: the answer holds %q: %s", r.Method, x.path, secret, a.Body)
					}
				}
				if port.MatchString(text) {
					t.Errorf("%s %s: the answer holds the port %s: %s", r.Method, x.path, port, a.Body)
				}
				made++
			}
			delete(attempts, route)
		}
	}
	if len(attempts) > 0 || made < 400 {
		t.Errorf("%d attempts were made, and some on routes that there are not: %q", made, slices.Collect(maps.Keys(attempts)))
	}
	if after := state(); after != before {
		t.Errorf("something was changed:\n%s", difference(before, after))
	}

	// It was no blanket refusal: what it may do it does.
	at := db + "/clusters/" + s.ClusterID + "/users"
	for _, x := range []struct {
		document, method, path, body string
		status                       int
	}{
		{"dbaas.yaml", "POST", at, `{"properties":{"username":"mine","password":"a-good-password"}}`, 200},
		{"rolecall.yaml", "PUT", own1 + "/clusters/" + s.ClusterID + "/users/mine/roles", `{"roles":["readers"]}`, 200},
		{"dbaas.yaml", "POST", db + "/clusters/" + s.ClusterID + "/databases", `{"properties":{"name":"mine","owner":"mine"}}`,
			200},
		{"dbaas.yaml", "DELETE", at + "/victim?" + url.Values{"reassignTo": {"mine"}}.Encode(), "", 204},
	} {
		if a := platform[x.document].Send(t, x.method, x.path, x.body, bearer); a.Status != x.status {
			t.Errorf("%s %s: got %d %s", x.method, x.path, a.Status, a.Body)
		}
	}
	// An account may write its own profile, in which groups are only shown.
	platform["uaa.yaml"].Send(t, "PUT", users+"/"+manager, `{"userName":"manager",`+
		`"groups":[{"display":"cloud_controller.admin"}]}`, bearer)
	if a, err := s.Accounts.ByGUID(t.Context(), manager); err != nil || !slices.Equal(a.Scopes, account.DefaultScopes) {
		t.Errorf("its scopes are %v, %v", a, err)
	}
	if got := pgtest.Value[string](t, pg, `SELECT concat(rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
		' ',
		(SELECT string_agg(roleid::regrole::text, ',') FROM pg_auth_members WHERE member = r.oid)) FROM pg_roles r WHERE rolname =
		  'mine'`); got != "fffff readers" {
		t.Errorf("its user is %s", got)
	}
}

// A browser that remembers a password sends it along with what another site makes it send.
func TestOtherSites(t *testing.T) {
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	for _, header := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example",
		"Origin: null"} {
		for _, x := range [][3]string{
			{"POST", "/tokens", `{"name":"other site"}`}, {"POST", "/keys/rotate", ""}, {"DELETE", "/clusters/" + f.ClusterID, ""},
			{"PATCH", "/clusters/" + f.ClusterID, `{"displayName":"x"}`},
			{"PUT", "/clusters/" + f.ClusterID + "/users/x/roles", `{"roles":[]}`},
		} {
			f.do(t, x[0], x[1], x[2], header).refused(t, 403, "another site")
		}
		f.want(t, 200, "GET", "/whoami", "", header) // whose answer the site cannot read: there is no CORS
	}
	// The dialects in which nobody signs in by hand take no password at all.
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth("root", "root-password")
	for document, path := range map[string]string{"platform.yaml": "/v3/users", "uaa.yaml": "/uaa/Users"} {
		if a := f.platform(t)[document].Send(t, "POST", path, `{}`,
			"Authorization: "+req.Header.Get("Authorization")); a.Status != 401 {
			t.Errorf("%s: got %d %s", path, a.Status, a.Body)
		}
	}
}

// difference is the lines that one text has and the other has not.
func difference(before, after string) string {
	var lines []string
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return strings.Join(lines, "\n")
}
