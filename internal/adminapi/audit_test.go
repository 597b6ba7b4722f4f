package adminapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
)

func init() { openapi3filter.RegisterBodyDecoder("application/jsonl", openapi3filter.PlainBodyDecoder) }

// auditRow is a row of the log as a client reads it.
type auditRow struct {
	Seq, ID              int64
	Time                 time.Time
	Phase, Action        string
	Attempt              string
	Outcome, Cluster     *string
	Account              struct{ GUID, Username string }
	User, MAC, RequestID string
	Address              string
	Detail               map[string]any
	Head                 *struct { // the last line of an export
		Seq int64
		MAC string
	}
}

type auditList struct {
	Items []auditRow
	Next  *string
}

func (f *fixture) audit(t testing.TB, username, query string) (l auditList) {
	t.Helper()
	a := f.as(t, username, "GET", "/audit"+query, "")
	if a.Status != 200 {
		t.Fatalf("%s: %d %s", query, a.Status, a.Body)
	}
	a.Into(t, &l)
	return l
}

func (f *fixture) seal(t testing.TB) {
	t.Helper()
	for {
		n, err := f.Audit.Seal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

// users are the targets of the rows.
func users(l auditList) (names []string) {
	for _, row := range l.Items {
		names = append(names, row.User)
	}
	return names
}

func TestAuditRights(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	second := f.Register(t, "second", pgtest.New(t, nil), f.PG.User, f.PG.Password)
	f.Access(t, f.ClusterID, []string{"team=payments"}, []string{"team=search"})
	both := []string{account.ScopeRead, account.ScopeWrite}
	f.Account(t, "pay", both, map[string]string{"team": "payments"})
	f.Account(t, "search", both, map[string]string{"team": "search"})
	// has the label, and no right to write
	f.Account(t, "reader", []string{account.ScopeRead}, map[string]string{"team": "payments"})
	f.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	f.Account(t, "looker", []string{account.ScopeAdminReadOnly}, nil)
	act := func(username, clusterID, user string) {
		t.Helper()
		p, err := f.Identity.Authenticate(ctx, identity.ParseCredential(basic(username)), "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = f.Users.CreateUser(ctx, p, clusterID, user, "a-good-password")
	}
	f.seal(t)
	start := fmt.Sprintf("?after=%d", len(f.audit(t, "root", "?limit=1000").Items))
	act("pay", f.ClusterID, "audit_pay")
	act("search", f.ClusterID, "audit_search") // denied
	act("root", second, "audit_second")
	f.seal(t)
	for username, want := range map[string]string{
		"root":    "audit_pay audit_pay audit_search audit_second audit_second",
		"auditor": "audit_pay audit_pay audit_search audit_second audit_second",
		"looker":  "audit_pay audit_pay audit_search audit_second audit_second",
		"pay":     "audit_pay audit_pay audit_search",
		"search":  "audit_search",
		"reader":  "",
	} {
		l := f.audit(t, username, start)
		if got := strings.Join(users(l), " "); got != want || l.Items == nil {
			t.Errorf("%s sees %q, want %q", username, got, want)
		}
		l = f.audit(t, username, start+"&cluster="+second)
		if got, want := len(l.Items) > 0, slices.Contains([]string{"root", "auditor", "looker"}, username); got != want {
			t.Errorf("%s sees the second cluster: %t", username, got)
		}
		status := 403
		if slices.Contains([]string{"root", "auditor", "looker"}, username) {
			status = 200
		}
		for _, path := range []string{"/audit/verify", "/audit/failed-sign-ins"} {
			if a := f.as(t, username, "GET", path, ""); a.Status != status {
				t.Errorf("%s for %s: %d", path, username, a.Status)
			}
		}
	}
	row := f.audit(t, "root", start).Items[1]
	if row.Phase != "outcome" || row.Action != "user.create" || *row.Outcome != "done" || row.Account.Username != "pay" ||
		*row.Cluster != f.ClusterID ||
		row.Attempt == "" || row.MAC != "" || time.Since(row.Time).Abs() > time.Minute || row.Detail == nil {
		t.Errorf("got %+v", row)
	}
	if first := f.audit(t, "root", start).Items[0]; first.Outcome != nil || first.Phase != "attempt" ||
		first.Attempt != row.Attempt {
		t.Errorf("got %+v", first)
	}
}

func basic(username string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+username+"-password"))
}

func TestAuditPages(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.want(t, 422, "POST", "/clusters", `{"displayName":"x"}`)
		f.as(t, "root", "DELETE", "/clusters/"+f.ClusterID, "", "If-Match: \"99\"")
		f.Admin(t, fmt.Sprint("admin", i))
	}
	f.seal(t)
	all := f.audit(t, "root", "")
	if len(all.Items) < 6 || all.Next != nil {
		t.Fatalf("%d rows", len(all.Items))
	}
	for order, want := range map[string][]auditRow{"asc": all.Items, "desc": reversed(all.Items)} {
		var got []int64
		for query := "?limit=2&order=" + order; ; {
			l := f.audit(t, "root", query)
			for _, row := range l.Items {
				got = append(got, row.Seq)
			}
			if l.Next == nil {
				break
			}
			query = "?limit=2&order=" + order + "&cursor=" + *l.Next
		}
		for i, row := range want {
			if i >= len(got) || got[i] != row.Seq {
				t.Fatalf("%s: got %v", order, got)
			}
		}
	}
	name := f.audit(t, "root", "?account=ADMIN3&action=account.reset")
	if len(name.Items) > 1 {
		t.Errorf("got %+v", name)
	}
	soon := url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))
	if l := f.audit(t, "root", "?since="+soon); len(l.Items) != 0 || l.Items == nil {
		t.Errorf("got %+v", l)
	}
	if l := f.audit(t, "root", "?since=2020-01-31&outcome=done"); len(l.Items) == 0 {
		t.Error("nothing was done since a date")
	}
	if l := f.audit(t, "root", "?until="+soon+"&outcome=done"); len(l.Items) == 0 {
		t.Error("nothing was done")
	}
	for _, query := range []string{"outcome=", "outcome=maybe", "cluster=x", "after=-1", "after=x", "wait=21", "order=up",
		"order=desc&wait=1", "order=desc&after=1", "after=1&cursor=MQ", "account=", "user=", "account=a%00b", "user=%ff",
		"limit=0"} {
		f.do(t, "GET", "/audit?"+query, "").refused(t, 422)
	}
	for _, query := range []string{"since=yesterday", "until=", "since=7d",
		"x=1", "cursor=", "cursor=%21", "cursor=eA", "limit=x", "wait=x", "user=a&user=b"} {
		f.do(t, "GET", "/audit?"+query, "").refused(t, 400)
	}
}

func reversed(rows []auditRow) []auditRow {
	rows = slices.Clone(rows)
	slices.Reverse(rows)
	return rows
}

// waitingReaders has four accounts wait for rows with many requests each. None of them is refused, and an admin reads in the
// meantime: what one account may hold is bounded by account and address, and not by all who wait.
func (f *fixture) waitingReaders(t *testing.T, after int64) {
	t.Helper()
	var waiting sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprint("reader", i)
		f.Account(t, name, nil, nil)
		for range 20 {
			waiting.Go(func() {
				if a := f.as(t, name, "GET", fmt.Sprintf("/audit?after=%d&wait=2", after), ""); a.Status != 200 {
					t.Errorf("a reader that waits: %d %s", a.Status, a.Body)
				}
			})
		}
	}
	if l := f.audit(t, "root", "?limit=1"); len(l.Items) != 1 {
		t.Errorf("beside readers that wait an admin reads %+v", l)
	}
	waiting.Wait()
}

func TestAuditFollow(t *testing.T) {
	f := newFixture(t)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.Audit.Run(ctx, 0, slog.New(slog.DiscardHandler)) })
	defer running.Wait()
	defer stop()
	waiting, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f.Audit.Wait(waiting, 0)
	newest := func() int64 {
		t.Helper()
		rows := f.audit(t, "root", "?order=desc&limit=1").Items
		if len(rows) == 0 {
			t.Fatal("nothing is sealed")
		}
		return rows[0].Seq
	}
	start := time.Now()
	if l := f.audit(t, "root", fmt.Sprintf("?after=%d&wait=1&user=nobody", newest())); len(l.Items) != 0 ||
		time.Since(start) < time.Second {
		t.Errorf("got %+v after %s", l, time.Since(start))
	}
	after := newest()
	go func() {
		time.Sleep(200 * time.Millisecond)
		_, _, _ = f.Identity.Bootstrap(context.WithoutCancel(ctx), "later", "later-password")
	}()
	l := f.audit(t, "root", fmt.Sprintf("?after=%d&wait=20", after))
	if len(l.Items) == 0 || l.Items[0].Seq != after+1 {
		t.Errorf("got %+v", l)
	}
	f.waitingReaders(t, newest()+1000)
}

func TestAuditExportAndVerify(t *testing.T) {
	f := newFixture(t)
	err := f.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		for range 2500 {
			e := audit.Entry{Action: audit.DeleteAccount, AccountGUID: "g", AccountName: "<&>"}
			if err := f.Users.Audit.Record(t.Context(), tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.seal(t)
	export := func(username, query string) (rows []auditRow) {
		t.Helper()
		a := f.as(t, username, "GET", "/audit"+query, "", "Accept: text/plain, application/jsonl; q=0.9")
		if a.Status != 200 || a.Header.Get("Content-Type") != "application/jsonl" {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(a.Body, "\n"), "\n") {
			var row auditRow
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			rows = append(rows, row)
		}
		return rows
	}
	rows := export("root", "")
	last := rows[len(rows)-1]
	if len(rows) < 2502 || last.Head == nil || last.Head.Seq != int64(len(rows)-1) || last.Head.MAC != rows[len(rows)-2].MAC {
		t.Fatalf("%d lines, the last %+v", len(rows), last)
	}
	for i, row := range rows[:len(rows)-1] {
		if row.Seq != int64(i+1) || len(row.MAC) != 64 {
			t.Fatalf("line %d is %+v", i, row)
		}
	}
	if rows := export("root", "?account=g&after=2000"); rows[len(rows)-1].Head == nil || rows[0].Account.Username != "<&>" ||
		rows[0].Seq != 2001 {
		t.Errorf("got %+v", rows)
	}
	f.Account(t, "nobody", nil, nil)
	if rows := export("nobody", "?account=g"); len(rows) != 1 {
		t.Errorf("somebody else exports %+v", rows)
	}
	f.do(t, "GET", "/audit?limit=5", "", "Accept: application/jsonl").refused(t, 400)
	f.do(t, "GET", "/audit?cluster=x", "", "Accept: application/jsonl").refused(t, 422)

	var v struct {
		OK            bool
		Checked       int64
		AnchorRemoved bool
		Problem       *struct {
			Seq, ID *int64
			Reason  string
		}
	}
	anchor := fmt.Sprintf("?anchor=%d:%s", last.Head.Seq, last.Head.MAC)
	f.want(t, 200, "GET", "/audit/verify"+anchor, "").Into(t, &v)
	if !v.OK || v.Checked < 2501 || v.Problem != nil {
		t.Errorf("got %+v", v)
	}
	if _, err := f.DB.Pool.Exec(t.Context(), `SET session_replication_role = replica; DELETE FROM audit WHERE id IN (SELECT `+
		`audit_id FROM audit_seals WHERE seq > 2000); DELETE FROM audit_seals WHERE seq > 2000; `+
		`RESET session_replication_role`); err != nil {
		t.Fatal(err)
	}
	f.want(t, 200, "GET", "/audit/verify"+anchor, "").Into(t, &v)
	if v.OK || v.Problem == nil || v.Problem.Seq == nil || !strings.Contains(v.Problem.Reason, "Rows are missing") {
		t.Errorf("got %+v", v)
	}
	for _, bad := range []string{"", "1", "1:ab", "x:" + last.Head.MAC, "01:" + last.Head.MAC} {
		f.do(t, "GET", "/audit/verify?anchor="+bad, "").refused(t, 422)
	}
	f.do(t, "GET", "/audit/verify?x=1", "").refused(t, 400)
}

func TestFailedSignIns(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		f.as(t, "stranger", "GET", "/whoami", "", "Authorization: "+basic("no")).refused(t, 401)
	}
	type list struct {
		Items []struct {
			Minute           time.Time
			Account, Address string
			Count            int
		}
		Next *string
	}
	if _, err := f.DB.Pool.Exec(t.Context(),
		`INSERT INTO failed_sign_ins VALUES ('g', '::1', now() - interval '1 day', 7)`); err != nil {
		t.Fatal(err)
	}
	var l, second list
	f.want(t, 200, "GET", "/audit/failed-sign-ins?limit=1", "").Into(t, &l)
	if len(l.Items) != 1 || l.Items[0].Account != "g" || l.Items[0].Address != "::1" || l.Items[0].Count != 7 || l.Next == nil {
		t.Fatalf("got %+v", l)
	}
	f.want(t, 200, "GET", "/audit/failed-sign-ins?cursor="+*l.Next, "").Into(t, &second)
	var since list
	f.want(t, 200, "GET", "/audit/failed-sign-ins?since="+url.QueryEscape(time.Now().Add(-time.Hour).Format(time.RFC3339)), "").
		Into(t, &since)
	if len(second.Items) == 0 || second.Items[0].Account != "unknown" || len(since.Items) != len(second.Items) {
		t.Errorf("got %+v and %+v", second, since)
	}
	for _, query := range []string{"cursor=eA", "cursor=!", "x=1"} {
		f.do(t, "GET", "/audit/failed-sign-ins?"+query, "").refused(t, 400)
	}
	f.do(t, "GET", "/audit/failed-sign-ins?since=now", "").refused(t, 400)
	f.want(t, 200, "GET", "/audit/failed-sign-ins?since=2020-01-31", "")
}
