package adminapi_test

import (
	"fmt"
	"strings"
	"testing"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// TestPlaintext: beyond loopback, a connection without TLS is an explicit choice of an admin, which is recorded and shown.
// The address 0.0.0.0 leads to this machine, and is not one of loopback.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	role(t, pg, "adm_inner", "CREATEROLE CREATEDB")
	url := fmt.Sprintf("postgres://adm_inner@0.0.0.0:%d/postgres", pg.Port)
	body := func(url, tls string) string {
		return fmt.Sprintf(`{"displayName":"inner","connection":{"url":%q,"password":%q,"tls":%s}}`, url, rolePassword, tls)
	}
	for _, c := range []struct{ url, tls, says string }{
		{url, `{"mode":"disable"}`, "with tls.allowPlaintext, or with --allow-plaintext"},
		{url, `{"mode":"disable","allowPlaintext":false}`, "--allow-plaintext"},
		{url, `{"mode":"require","allowPlaintext":true}`, "applies to the TLS mode disable only, and the mode is require"},
		{url, `{"allowPlaintext":true}`, "and the mode is verify-full"},
		{url, `{"mode":"disable","allowPlaintext":"yes"}`, "must be true or false, not a string"},
		{url + "?require_auth=password", `{"mode":"disable","allowPlaintext":true}`, "require_auth must be scram-sha-256"},
		{url + "?require_auth=none", `{"mode":"disable","allowPlaintext":true}`, "require_auth must be scram-sha-256"},
		{strings.Replace(url, "0.0.0.0", "127.0.0.1,db.internal", 1), `{"mode":"disable"}`, "not for db.internal"},
	} {
		f.do(t, "POST", "/clusters", body(c.url, c.tls)).refused(t, 422, c.says)
	}
	f.Account(t, "stranger", []string{"cloud_controller.write"}, nil)
	f.as(t, "stranger", "POST", "/clusters", body(url, `{"mode":"disable","allowPlaintext":true}`)).refused(t, 403)

	const warning = "The connection has no TLS"
	var c clusterResource
	f.want(t, 201, "POST", "/clusters", body(url, `{"mode":"disable","allowPlaintext":true}`)).Into(t, &c)
	path := "/clusters/" + c.ID
	if c.Connection.TLS.Mode != "disable" || !c.Connection.TLS.AllowPlaintext || !c.Reachable ||
		!strings.Contains(strings.Join(c.Capabilities.Problems, " "), warning) {
		t.Errorf("registered %+v, %+v", c.Connection, c.Capabilities)
	}
	last := func() servicetest.AuditRow {
		t.Helper()
		rows := f.AuditRows(t, "inner")
		return rows[len(rows)-1]
	}
	if row := last(); !strings.Contains(row.Detail, `"allowPlaintext": true`) {
		t.Errorf("recorded %s", row.Detail)
	}
	// A change of something else neither ends nor records it again.
	f.want(t, 200, "PATCH", path, fmt.Sprintf(`{"connection":{"url":%q},"location":"here"}`, url+"?connect_timeout=3"))
	if row := last(); strings.Contains(row.Detail, "allowPlaintext") {
		t.Errorf("recorded %s", row.Detail)
	}
	// It does not extend to another host.
	moved := strings.Replace(url, "0.0.0.0", "db.invalid", 1)
	f.do(t, "PATCH", path, fmt.Sprintf(`{"connection":{"url":%q}}`, moved)).
		refused(t, 422, "not for db.invalid", "--allow-plaintext")
	f.do(t, "PATCH", path, `{"connection":{"tls":{"mode":"disable"}}}`).refused(t, 422, "--allow-plaintext")
	f.do(t, "PATCH", path, fmt.Sprintf(`{"connection":{"url":%q,"password":%q}}`, url+"?require_auth=password", rolePassword)).
		refused(t, 422, "require_auth must be scram-sha-256")
	var changed clusterResource // a new one: what an answer omits would stay
	f.want(t, 200, "PATCH", path, fmt.Sprintf(`{"connection":{"url":%q,"tls":{"mode":"disable"}}}`,
		strings.Replace(url, "0.0.0.0", "127.0.0.1", 1))).Into(t, &changed)
	if changed.Connection.TLS.AllowPlaintext || len(changed.Capabilities.Problems) > 0 {
		t.Errorf("on loopback: %+v, %q", changed.Connection, changed.Capabilities.Problems)
	}
	if row := last(); !strings.Contains(row.Detail, `"allowPlaintext": false`) {
		t.Errorf("recorded %s", row.Detail)
	}
	f.hidesSecrets(t, rolePassword)
}
