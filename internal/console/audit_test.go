package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// seal seals the rows that wait: only sealed ones are shown.
func (s *site) seal(t testing.TB) {
	t.Helper()
	for {
		n, err := s.Audit.Seal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

// record records something as done.
func (s *site) record(t testing.TB, e audit.Entry) {
	t.Helper()
	if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error { return s.Audit.Record(t.Context(), tx, e) }); err != nil {
		t.Fatal(err)
	}
}

func TestAuditLog(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "audits")
	guid := s.Account(t, "audited", account.DefaultScopes, nil)
	b := s.signedIn(t, "audits", "audits-password")
	b.post("/console/accounts/"+guid+"/labels", "etag", b.get("/console/accounts/"+guid+"/labels").hidden("etag"), "new-entry",
		"team", "new-value", "x").is(http.StatusSeeOther)
	for i := range 60 {
		e := audit.Entry{Action: audit.CreateUser, AccountGUID: guid, AccountName: "audited", Target: fmt.Sprintf("user-%02d", i),
			RequestID: fmt.Sprintf("request-%02d", i), Address: "192.0.2.7"}
		if err := s.Audit.Refuse(t.Context(), e, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.seal(t)

	// The newest first, by pages, and the filter in the URL.
	first := b.get("/console/audit").is(http.StatusOK).shows("user-59", "user-10", "Next page").hides("user-09")
	b.get(linkTo(t, first, "Next page")).is(http.StatusOK).shows("user-09", "user-00", "account.update", "audited",
		"First page")
	b.get("/console/audit?outcome=denied&user=user-07").is(http.StatusOK).shows("user-07", "denied", `value="user-07"`,
		`<option value="denied" selected>`).hides("user-08", "Next page")
	b.get("/console/audit?account=AUDITS").is(http.StatusOK).shows("account.update").hides("user-07")
	b.get("/console/audit?since=1h&until=2999-01-01&action=user.create").is(http.StatusOK).shows("user-59")
	b.get("/console/audit?until=2020-01-01").is(http.StatusOK).shows("No row that you may see matches")
	for query, field := range map[string]string{
		"action=x": "action", "outcome=x": "outcome", "cluster=x": "cluster", "since=yesterday": "since", "until=7x": "until",
		"account=%00": "account", "user=%ff": "user",
	} {
		b.get("/console/audit?x=1&" + query).is(http.StatusBadRequest).shows(`id="error-` + field + `"`)
	}
	for _, query := range []string{"after=x", "after=-1"} {
		b.get("/console/audit?" + query).is(http.StatusUnprocessableEntity)
	}

	// A row, and those before and after it on the same user.
	s.record(t, audit.Entry{Action: audit.DeleteUser, AccountGUID: guid, AccountName: "audited", Target: "user-30",
		RequestID: "request-later"})
	s.seal(t)
	page := b.get(linkAround(t, b.get("/console/audit?user=user-30&action=user.create"), "/console/audit/")).is(http.StatusOK).
		shows("request-30", "192.0.2.7", "user.create", "denied", "Next row").hides("Previous row")
	after := b.get(linkTo(t, page, "Next row on it")).is(http.StatusOK).shows("request-later", "Previous row").
		hides("Next row")
	if back := linkTo(t, after, "Previous row on it"); !strings.HasPrefix(back, "/console/audit/") {
		t.Errorf("the row before is at %s", back)
	}
	update := b.get(linkAround(t, b.get("/console/audit?action=account.update"), "/console/audit/")).is(http.StatusOK).
		shows("in the console", "&#34;labels&#34;", "session")
	if strings.Contains(update.Body, "<script>alert") {
		t.Error("the detail is not escaped")
	}
	for _, seq := range []string{"0", "-1", "x", "99999", "9223372036854775808", "1e3"} {
		b.get("/console/audit/" + seq).is(http.StatusNotFound)
	}

	// The live view: what is new comes above the rest, with where to ask next.
	live := b.get("/console/audit?live=1&account=audited").is(http.StatusOK).shows("Stop the live view",
		`hx-trigger="every 2s"`)
	poll := attribute(t, live, "hx-get")
	if got := b.get(poll).is(http.StatusOK); strings.Contains(got.Body, "<tr>") || attribute(t, got, "hx-get") != poll {
		t.Errorf("nothing is new, and yet:\n%s", got.Body)
	}
	s.record(t, audit.Entry{Action: audit.DisableUser, AccountGUID: guid, AccountName: "audited", Target: "user-new"})
	s.record(t, audit.Entry{Action: audit.DisableUser, AccountGUID: "other", AccountName: "other", Target: "user-of-other"})
	s.seal(t)
	got := b.get(poll).is(http.StatusOK).shows("user-new").hides("user-of-other", "<html", "user-59")
	if attribute(t, got, "hx-get") == poll {
		t.Error("the next request would show the row again")
	}
	u := mustURL(t, poll)
	query := u.Query()
	query.Set("live", "1000000000")
	b.get(u.Path + "?" + query.Encode()).is(http.StatusOK).shows("The live view has ended").hides("hx-get")
	query.Set("live", "x")
	b.get(u.Path + "?" + query.Encode()).is(http.StatusUnprocessableEntity)

	// The export is the one of the API: all rows of the filter, and then the head.
	export := b.get("/console/audit/export?action=user.create").is(http.StatusOK)
	lines := bufio.NewScanner(strings.NewReader(export.Body))
	rows, head := 0, false
	for lines.Scan() {
		var line struct {
			Action string
			Head   *struct{ Seq int64 }
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if head = line.Head != nil; !head && line.Action == audit.CreateUser {
			rows++
		}
	}
	if rows != 60 || !head || !strings.Contains(export.Header.Get("Content-Disposition"), "audit.jsonl") {
		t.Errorf("%d rows, the head is the last line: %t; %s", rows, head, export.Header.Get("Content-Disposition"))
	}
}

// linkAround is the first link to a path with that beginning and more.
func linkAround(t testing.TB, a *answer, beginning string) string {
	t.Helper()
	for part := range strings.SplitSeq(a.Body, `href="`) {
		target, _, _ := strings.Cut(part, `"`)
		if rest, found := strings.CutPrefix(target, beginning); found && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			return target
		}
	}
	t.Fatalf("there is no link to %s…:\n%s", beginning, a.Body)
	return ""
}

// attribute is the value of the first attribute of a name.
func attribute(t testing.TB, a *answer, name string) string {
	t.Helper()
	_, after, found := strings.Cut(a.Body, " "+name+`="`)
	value, _, _ := strings.Cut(after, `"`)
	if !found {
		t.Fatalf("there is no attribute %s:\n%s", name, a.Body)
	}
	return strings.ReplaceAll(value, "&amp;", "&")
}

// Who is no auditor sees what they did themselves, and what was done in the clusters that they manage.
func TestAuditOfOthers(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Access(t, s.ClusterID, []string{"team=managers"}, []string{"team=viewers"})
	s.Admin(t, "audit-admin")
	s.Account(t, "audit-manager", account.DefaultScopes, map[string]string{"team": "managers"})
	s.Account(t, "audit-viewer", account.DefaultScopes, map[string]string{"team": "viewers"})
	s.Account(t, "audit-nobody", nil, nil)
	s.Account(t, "audit-reader", []string{account.ScopeAdminReadOnly}, nil)
	manager := s.signedIn(t, "audit-manager", "audit-manager-password")
	viewer := s.signedIn(t, "audit-viewer", "audit-viewer-password")
	nobody := s.signedIn(t, "audit-nobody", "audit-nobody-password")
	viewerGUID := s.guid(t, "audit-viewer")
	s.record(t, audit.Entry{Action: audit.CreateUser, AccountGUID: "somebody", AccountName: "somebody",
		Target:  "in-the-cluster",
		Cluster: s.Clusters.All()[0].ID})
	s.record(t, audit.Entry{Action: audit.UpdateCluster, AccountGUID: "somebody", AccountName: "somebody",
		Target: "elsewhere"})
	s.record(t, audit.Entry{Action: audit.CreateDatabase, AccountGUID: viewerGUID, AccountName: "audit-viewer",
		Target: "of-the-viewer"})
	s.seal(t)
	manager.get("/console/audit").is(http.StatusOK).shows("in-the-cluster", "You see the rows of what you did").
		hides("elsewhere", "of-the-viewer", "Failed sign-ins")
	viewer.get("/console/audit").is(http.StatusOK).shows("of-the-viewer").hides("in-the-cluster", "elsewhere")
	nobody.get("/console/audit").is(http.StatusOK).shows("There is no row that you may see")
	row := linkAround(t, manager.get("/console/audit?user=in-the-cluster"), "/console/audit/")
	manager.get(row).is(http.StatusOK)
	for _, b := range []*browser{viewer, nobody} {
		b.get(row).is(http.StatusNotFound)
		b.get("/console/audit/verify").is(http.StatusForbidden)
		b.get("/console/audit/failed-sign-ins").is(http.StatusForbidden)
		b.post("/console/audit/verify").is(http.StatusForbidden)
		b.get("/console/audit/export").is(http.StatusOK).hides("in-the-cluster", "elsewhere")
	}
	for _, who := range []string{"audit-admin", "audit-reader"} {
		b := s.signedIn(t, who, who+"-password")
		b.get("/console/audit").is(http.StatusOK).shows("in-the-cluster", "elsewhere", "of-the-viewer", "Failed sign-ins")
		b.get(row).is(http.StatusOK)
	}
}

func (s *site) guid(t testing.TB, username string) string {
	t.Helper()
	a, err := s.Accounts.ByUsername(t.Context(), username, account.LocalOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return a.GUID
}

// What is stored of others is shown as it is, and runs nowhere.
func TestAuditIsEscaped(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "escapes")
	for _, text := range unwelcome {
		s.record(t, audit.Entry{Action: audit.CreateUser, AccountGUID: text, AccountName: text, Target: text, RequestID: text,
			Address: text, Cluster: s.Clusters.All()[0].ID, Detail: map[string]string{"note": text}})
	}
	s.seal(t)
	b := s.signedIn(t, "escapes", "escapes-password")
	list := b.get("/console/audit").is(http.StatusOK).hides(unescaped...).shows("&lt;script&gt;alert(1)")
	for part := range strings.SplitSeq(list.Body, `href="`) {
		target, _, _ := strings.Cut(part, `"`)
		if strings.HasPrefix(target, "/console/audit/") && target != "/console/audit/verify" &&
			target != "/console/audit/failed-sign-ins" && !strings.Contains(target, "export") {
			b.get(target).is(http.StatusOK).hides(unescaped...)
		}
	}
	b.get("/console/audit?user=" + url.QueryEscape(unwelcome[0])).is(http.StatusOK).hides(unescaped...).shows("user.create")
}

func TestVerifyAudit(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "verifies")
	for i := range 5 {
		s.record(t, audit.Entry{Action: audit.CreateUser, AccountGUID: "x", AccountName: "x", Target: fmt.Sprint("user-", i)})
	}
	s.seal(t)
	b := s.signedIn(t, "verifies", "verifies-password")
	b.get("/console/audit/verify").is(http.StatusOK).shows("Verify now").hides("The log is intact")
	a := b.post("/console/audit/verify").is(http.StatusOK).shows("The log is intact", "Head of the chain").
		hides("anchor is in the log")
	_, after, _ := strings.Cut(a.Body, "Head of the chain")
	_, after, _ = strings.Cut(after, "<code>")
	head, _, _ := strings.Cut(after, "</code>")
	b.post("/console/audit/verify", "anchor", head).is(http.StatusOK).shows("The log is intact",
		"nothing before it was cut off")
	for _, anchor := range []string{"x", "1:00", "0:" + strings.Repeat("0", 64), `"><script>alert(1)</script>`} {
		b.post("/console/audit/verify", "anchor", anchor).is(422).shows(`id="error-anchor"`).hides(unescaped...)
	}
	b.post("/console/audit/verify", "anchor", "3:"+strings.Repeat("0", 64)).is(http.StatusOK).shows("fails verification").
		hides("The log is intact")

	// A row that somebody changed, and one that somebody removed.
	sql := func(statement string) {
		t.Helper()
		if _, err := s.DB.Pool.Exec(context.Background(), `DO $$ BEGIN
			ALTER TABLE audit DISABLE TRIGGER ALL; `+statement+`; ALTER TABLE audit ENABLE TRIGGER ALL; END $$`); err != nil {
			t.Fatal(err)
		}
	}
	sql(`UPDATE audit SET target = 'another' WHERE target = 'user-2'`)
	b.post("/console/audit/verify").is(http.StatusOK).shows("The log fails verification at row").hides("The log is intact")
	sql(`DELETE FROM audit WHERE target = 'user-3'`)
	list := b.get("/console/audit").is(http.StatusOK).shows("Somebody has removed this row")
	b.get(linkAround(t, list, "/console/audit/")).is(http.StatusOK)
}

func TestFailedSignIns(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "guarded")
	b := s.signedIn(t, "guarded", "guarded-password")
	b.get("/console/audit/failed-sign-ins").is(http.StatusOK).shows("No sign-in has failed")
	guid := s.guid(t, "guarded")
	if _, err := s.DB.Pool.Exec(t.Context(), `
		INSERT INTO failed_sign_ins (account, address, minute, count)
		SELECT CASE WHEN i % 2 = 0 THEN $1 ELSE 'unknown' END, '192.0.2.' || i, date_trunc('minute',
			now()) - i * interval '1 minute', i
		FROM generate_series(1, 60) i`, guid); err != nil {
		t.Fatal(err)
	}
	first := b.get("/console/audit/failed-sign-ins").is(http.StatusOK).
		shows("guarded", "a name that no account has", "<td>192.0.2.50<", "Next page").hides("<td>192.0.2.51<")
	b.get(linkTo(t, first, "Next page")).is(http.StatusOK).shows("<td>192.0.2.51<", "<td>192.0.2.60<", "First page").
		hides("<td>192.0.2.50<", "Next page")
	b.get("/console/audit/failed-sign-ins?since=10m").is(http.StatusOK).shows("<td>192.0.2.9<").hides("<td>192.0.2.12<",
		"Next page")
	b.get("/console/audit/failed-sign-ins?since=never").is(http.StatusBadRequest).shows(`id="error-since"`, `value="never"`)
	for _, after := range []string{"x", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z\nx\n\x00"} {
		b.get("/console/audit/failed-sign-ins?after=" + url.QueryEscape(after)).is(http.StatusUnprocessableEntity)
	}
}
