package cfapi_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"rolecall/internal/account"
	"rolecall/internal/label"
	"rolecall/internal/servicetest"
)

type list struct {
	Pagination struct {
		TotalResults int `json:"total_results"`
		TotalPages   int `json:"total_pages"`
		First, Last  struct{ Href string }
		Next         *struct{ Href string }
		Previous     *struct{ Href string }
	}
	Resources []user
}

func (l list) guids() string {
	var guids []string
	for _, u := range l.Resources {
		guids = append(guids, u.GUID)
	}
	return strings.Join(guids, " ")
}

func (f *fixture) list(t testing.TB, query string) (l list) {
	t.Helper()
	f.want(t, 200, "GET", "/v3/users?"+query, "").Into(t, &l)
	return l
}

// selecting is a query with a selector.
func selecting(selector string) string { return "label_selector=" + url.QueryEscape(selector) }

func TestFilters(t *testing.T) {
	f := newFixture(t)
	ctx := context.Background()
	add := func(guid, username, origin, created, updated string, labels map[string]string) {
		t.Helper()
		labels["set"] = "filters"
		_, err := f.DB.Pool.Exec(ctx, `
			INSERT INTO accounts (guid, username, origin, platform_created_at, platform_updated_at, labels)
			VALUES ($1, nullif($2, ''), nullif($3, ''), $4::timestamptz, $5::timestamptz, $6)`,
			guid, username, origin, created, updated, labels)
		if err != nil {
			t.Fatal(err)
		}
	}
	add("f1", "Filter.Ann", "uaa", "2020-01-01T00:00:00.0Z", "2020-02-01T00:00:00.9Z",
		map[string]string{"env": "prod", "empty": ""})
	add("f2", "filter.bob", "uaa", "2020-01-01T00:00:00.5Z", "2020-02-01T00:00:01.0Z",
		map[string]string{"env": "test", "a.b/env": "prod"})
	add("f4", "filter.bob", "ldap", "2020-01-01T00:00:01.0Z", "2020-01-31T00:00:00Z", map[string]string{"env": "dev"})
	add("f3", "", "", "2020-01-01T00:00:01.0Z", "2020-02-01T00:00:03Z", map[string]string{})
	add("f,5%", "filter,50%_x", "ldap", "2020-01-01T01:00:00Z", "2020-02-02T00:00:00Z", map[string]string{"env": "prod"})
	// One that is no platform user is in no list.
	add("f6", "filter.nobody", "uaa", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z", map[string]string{"env": "prod"})
	if _, err := f.DB.Pool.Exec(ctx, `UPDATE accounts SET platform_created_at = NULL, platform_updated_at = NULL, `+
		`identity_created_at = now(), identity_updated_at = now() WHERE guid = 'f6'`); err != nil {
		t.Fatal(err)
	}

	const created, updated = "created_ats", "updated_ats"
	for _, test := range []struct{ query, want string }{
		{selecting("set=filters"), "f1 f2 f4 f3 f,5%"},
		{"guids=f3,f1", "f1 f3"},
		{"guids=f3,nobody,F1", "f3"},
		{"guids=f%252C5%2525", "f,5%"},
		{"guids=", ""},
		{"guids=%00,%FF,f1", "f1"},
		{"guids=f1&usernames=filter.bob", ""},
		{"usernames=FILTER.ann,filter.bob", "f1 f2 f4"},
		{"usernames=filter.bob&origins=ldap", "f4"},
		{"usernames=filter.bob&origins=ldap,uaa", "f2 f4"},
		{"usernames=filter%252C50%2525_x", "f,5%"},
		{"usernames=", ""},
		{"partial_usernames=LTER.", "f1 f2 f4"},
		{"partial_usernames=%2525_x", "f,5%"},
		{"partial_usernames=r.b,r.A", "f1 f2 f4"},
		{"partial_usernames=filter&origins=ldap", "f4 f,5%"},
		{"partial_usernames=zzz", ""},
		{selecting("set=filters,env"), "f1 f2 f4 f,5%"},
		{selecting("set=filters,!env"), "f3"},
		{selecting("set=filters,env=prod"), "f1 f,5%"},
		{selecting("set=filters,env==prod"), "f1 f,5%"},
		{selecting("set=filters,env!=prod"), "f2 f4 f3"},
		{selecting("set=filters,env in (prod,test)"), "f1 f2 f,5%"},
		{selecting("set=filters, env notin (prod, test)"), "f4 f3"},
		{selecting("set=filters,a.b/env=prod"), "f2"},
		{selecting("set=filters,empty"), "f1"},
		{selecting("set=filters,empty in (,x)"), "f1"},
		{selecting("set=filters,env="), ""},
		{selecting("set=filters,env!="), "f1 f2 f4 f3 f,5%"},
		{created + "=2020-01-01T00:00:00Z", "f1 f2"},
		{created + "=2020-01-01T00:00:01Z,2020-01-01T01:00:00Z", "f4 f3 f,5%"},
		{created + "=2020-01-01T02:00:00%2B01:00", "f,5%"},
		{created + "[lt]=2020-01-01T00:00:01Z", "f1 f2"},
		{created + "[lte]=2020-01-01T00:00:01Z", "f1 f2 f4 f3"},
		{"guids=f1,f2,f3&" + created + "[gt]=2020-01-01T00:00:00Z", "f3"},
		{"guids=f1,f2,f3&" + created + "[gte]=2020-01-01T00:00:00Z", "f1 f2 f3"},
		{created + "[gte]=2020-01-01T00:00:01Z&" + created + "[lt]=2020-01-01T00:00:02Z", "f4 f3"},
		{updated + "=2020-02-01T00:00:00Z", "f1"},
		{updated + "[gt]=2020-02-01T00:00:00Z&" + updated + "[lte]=2020-02-01T00:00:03Z", "f2 f3"},
		{selecting("set=filters") + "&order_by=created_at", "f1 f2 f3 f4 f,5%"},
		{selecting("set=filters") + "&order_by=%2Bcreated_at", "f1 f2 f3 f4 f,5%"},
		{selecting("set=filters") + "&order_by=+created_at", "f1 f2 f3 f4 f,5%"},
		{selecting("set=filters") + "&order_by=-created_at", "f,5% f4 f3 f2 f1"},
		{selecting("set=filters") + "&order_by=updated_at", "f4 f1 f2 f3 f,5%"},
		{selecting("set=filters") + "&order_by=-updated_at", "f,5% f3 f2 f1 f4"},
	} {
		l := f.list(t, test.query)
		if got := l.guids(); got != test.want {
			t.Errorf("%s: got %q, want %q", test.query, got, test.want)
		}
		if l.Pagination.TotalResults != len(l.Resources) || l.Pagination.TotalPages != 1 || l.Resources == nil {
			t.Errorf("%s: got %+v", test.query, l.Pagination)
		}
	}
}

func TestListMessages(t *testing.T) {
	f := newFixture(t)
	const unknown = ". Valid parameters are: 'page', 'per_page', 'order_by', 'created_ats', 'updated_ats', 'guids', " +
		"'usernames', 'partial_usernames', 'origins', 'label_selector'"
	const stamp = " has an invalid timestamp format. Timestamps should be formatted as 'YYYY-MM-DDThh:mm:ssZ'"
	const one = " only accepts one value when using a relational operator"
	for _, test := range []struct{ query, want string }{
		{"origins=uaa", "Origins filter cannot be provided without usernames or partial_usernames filter."},
		{"usernames=a&partial_usernames=b",
			"Usernames filter cannot be provided with both usernames and partial_usernames filter."},
		{"page=0", "Page must be a positive integer"},
		{"page=-1", "Page must be a positive integer"},
		{"page=x", "Page must be a positive integer"},
		{"page=", "Page must be a positive integer"},
		{"page=1.5", "Page must be a positive integer"},
		{"page[x]=1", "Page must be a positive integer"},
		{"per_page=x", "Per page must be a positive integer"},
		{"per_page=0", "Per page must be a positive integer"},
		{"per_page=5001", "Per page must be between 1 and 5000"},
		{"per_page=99999999999999999999", "Per page must be between 1 and 5000"},
		{"page=9223372036854775807&per_page=2", "Maximum result (page * per_page) must be less than 9223372036854775807"},
		{"page=99999999999999999999", "Maximum result (page * per_page) must be less than 9223372036854775807"},
		{"order_by=username", "Order by can only be: 'created_at', 'updated_at'"},
		{"order_by=", "Order by can only be: 'created_at', 'updated_at'"},
		{"order_by=--created_at", "Order by can only be: 'created_at', 'updated_at'"},
		{"order_by=+-created_at", "Order by can only be: 'created_at', 'updated_at'"},
		{"created_ats=yesterday", "Created ats" + stamp},
		{"created_ats=", "Created ats" + stamp},
		{"updated_ats=2020-01-01", "Updated ats" + stamp},
		{"created_ats[lt]=x", "Created ats" + stamp},
		{"created_ats[x]=2020-01-01T00:00:00Z", "Created ats Invalid relational operator: 'x'"},
		{"created_ats[lt]=2020-01-01T00:00:00Z,2020-01-01T00:00:00Z", "Created ats" + one},
		{"created_ats[lt]=2020-01-01T00:00:00Z&created_ats=2020-01-01T00:00:00Z", "Created ats" + one},
		{"guids[x]=a", "Guids must be an array"},
		{"usernames[]=a", "Usernames must be an array"},
		{"include=space", "Unknown query parameter(s): 'include'" + unknown},
		{"names=a&fields[x]=b", "Unknown query parameter(s): 'fields[x]', 'names'" + unknown},
		{"guids=a&guids=b", "Guids can only be provided once"},
		{"label_selector=", "Missing label_selector value"},
		{selecting("a b"), "Invalid label_selector value"},
		{selecting("a=b c"), "'b c' contains invalid characters"},
		{selecting(strings.Repeat("a,", 50) + "a"), "Too many label_selector requirements (maximum is 50)"},
		{"partial_usernames=" + strings.Repeat("a,", 50) + "a", "Partial usernames can have at most 50 values"},
		{"guids=" + strings.Repeat("a,", 1000), "Guids can have at most 1000 values"},
		{"usernames=" + strings.Repeat("a,", 1000), "Usernames can have at most 1000 values"},
		{"usernames=a&origins=" + strings.Repeat("a,", 1000), "Origins can have at most 1000 values"},
		{"updated_ats=" + strings.Repeat("2020-01-01T00:00:00Z,", 1000) + "2020-01-01T00:00:00Z",
			"Updated ats can have at most 1000 values"},
		{selecting("a in (" + strings.Repeat("b,", 500) + "b),c in (" + strings.Repeat("b,", 500) + "b)"),
			"Label selector can have at most 1000 values"},
		{"page=x&order_by=x&origins=x&x=x", "Unknown query parameter(s): 'x'" + unknown +
			", Page must be a positive integer, Order by can only be: 'created_at', 'updated_at', Origins filter cannot be " +
			"provided without usernames or partial_usernames filter."},
	} {
		f.do(t, "GET", "/v3/users?"+test.query, "").refused(t, "422 10008 "+test.want)
	}
	for _, most := range []string{"partial_usernames=" + strings.Repeat("a,", 49) + "a",
		"guids=" + strings.Repeat("a,", 999) + "a"} {
		if a := f.do(t, "GET", "/v3/users?"+most, ""); a.Status != 200 {
			t.Errorf("as many values as there may be: %d %s", a.Status, a.Body)
		}
	}
	a := f.do(t, "GET", "/v3/users?page=%zz", "")
	a.refused(t, "400 10004 The request is invalid")
}

func TestPages(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.made(t, fmt.Sprintf("page-%d", i), map[string]string{"set": "pages"})
	}
	href := func(page int) string {
		return fmt.Sprintf("%s/v3/users?created_ats%%5Bgt%%5D=2020-01-01T00%%3A00%%3A00Z"+
			"&label_selector=set+in+%%28pages%%29&order_by=%%2Bcreated_at&page=%d&per_page=2",
			servicetest.PublicURL, page)
	}
	const query = "&order_by=created_at&per_page=2&created_ats%5Bgt%5D=2020-01-01T00:00:00Z&label_selector=set+in+(pages)"
	for _, test := range []struct {
		page, next, previous int
		guids                string
	}{{1, 2, 0, "page-0 page-1"}, {2, 3, 1, "page-2 page-3"}, {3, 0, 2, "page-4"}, {4, 0, 3, ""}, {1 << 40, 0, 3, ""}} {
		l := f.list(t, fmt.Sprintf("page=%d%s", test.page, query))
		p := l.Pagination
		if l.guids() != test.guids || p.TotalResults != 5 || p.TotalPages != 3 || p.First.Href != href(1) ||
			p.Last.Href != href(3) {
			t.Errorf("page %d: got %s and %+v", test.page, l.guids(), p)
		}
		if test.next > 0 && (p.Next == nil || p.Next.Href != href(test.next)) || test.next == 0 && p.Next != nil {
			t.Errorf("page %d: the next is %v", test.page, p.Next)
		}
		if test.previous > 0 && (p.Previous == nil || p.Previous.Href != href(test.previous)) ||
			test.previous == 0 && p.Previous != nil {
			t.Errorf("page %d: the previous is %v", test.page, p.Previous)
		}
		if p.Next != nil {
			next := strings.TrimPrefix(p.Next.Href, servicetest.PublicURL)
			f.want(t, 200, "GET", next, "")
		}
	}
	l := f.list(t, "guids=page-1%252C,page-0&order_by=-updated_at")
	if want := servicetest.PublicURL +
		"/v3/users?guids=page-1%252C%2Cpage-0&order_by=-updated_at&page=1&per_page=50"; l.Pagination.First.Href != want {
		t.Errorf("got  %s\nwant %s", l.Pagination.First.Href, want)
	}
	l = f.list(t, "guids=nobody")
	if p := l.Pagination; p.TotalResults != 0 || p.TotalPages != 1 || p.Next != nil || p.Previous != nil {
		t.Errorf("nothing is %+v", p)
	}
	if want := servicetest.PublicURL + "/v3/users?guids=nobody&page=1&per_page=50"; l.Pagination.Last.Href != want {
		t.Errorf("got %s, want %s", l.Pagination.Last.Href, want)
	}
}

// What PostgreSQL makes of a selector is what package label makes of it.
func TestSelectorsInSQL(t *testing.T) {
	f := newFixture(t)
	ctx := context.Background()
	keys := []string{"a", "b", "in", "a.b/a"}
	values := []string{"", "x", "y", "X"}
	all := map[string]map[string]string{}
	for i := range 60 {
		labels := map[string]string{"sql": "yes"}
		for j, key := range keys {
			if v := (i >> (2 * j)) & 3; i%(j+2) != 0 {
				labels[key] = values[v]
			}
		}
		guid := fmt.Sprintf("sql-%d", i)
		all[guid] = labels
		f.made(t, guid, labels)
	}
	admin := &account.Principal{Scopes: []string{account.ScopeAdmin}}
	rapid.Check(t, func(rt *rapid.T) {
		selector := label.Selector{{Key: "sql", Op: label.Exists}}
		for range rapid.IntRange(1, 4).Draw(rt, "requirements") {
			r := label.Requirement{
				Key: rapid.SampledFrom(append(keys, "absent")).Draw(rt, "key"),
				Op:  label.Op(rapid.IntRange(int(label.Exists), int(label.NotIn)).Draw(rt, "op")),
			}
			if r.Op == label.In || r.Op == label.NotIn {
				r.Values = rapid.SliceOfN(rapid.SampledFrom(values), 0, 3).Draw(rt, "values")
			}
			selector = append(selector, r)
		}
		users, total, err := f.Accounts.ListPlatform(ctx, admin, account.PlatformFilter{Selector: selector, Limit: 1000})
		if err != nil {
			rt.Fatal(err)
		}
		var got, want []string
		for _, u := range users {
			got = append(got, u.GUID)
		}
		for guid, labels := range all {
			if selector.Matches(labels) {
				want = append(want, guid)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || int(total) != len(want) {
			rt.Fatalf("%s: got %v (%d), want %v", selector, got, total, want)
		}
	})
}

// A list that was kept is never shown after a change, whoever made that and however: another one of Rolecall, which has
// kept nothing, lists the same.
func TestListsAfterChanges(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	admin := &account.Principal{Scopes: []string{account.ScopeAdmin}}
	var queries []account.PlatformFilter
	for _, selector := range []string{"set=kept", "set=kept,env=prod", "set=kept,env!=prod"} {
		for _, order := range []account.PlatformOrder{"", account.OrderByCreated, account.OrderByUpdated} {
			parsed, err := label.Parse(selector)
			if err != nil {
				t.Fatal(err)
			}
			queries = append(queries, account.PlatformFilter{Selector: parsed, OrderBy: order,
				Descending: order == account.OrderByUpdated, Offset: 1, Limit: 3})
		}
	}
	queries = append(queries, account.PlatformFilter{Usernames: []string{"kept-name"}, Limit: 3},
		account.PlatformFilter{GUIDs: []string{"kept-0", "kept-5"}, Limit: 3})
	shown := func(s *account.Store) string {
		var lines strings.Builder
		for _, q := range queries {
			users, total, err := s.ListPlatform(ctx, admin, q)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(&lines, total)
			for _, u := range users {
				fmt.Fprintf(&lines, " %+v", *u)
			}
			fmt.Fprintln(&lines)
		}
		return lines.String()
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := f.DB.Pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		f.made(t, fmt.Sprintf("kept-%d", i), map[string]string{"set": "kept"})
	}
	last := shown(f.Accounts)
	for _, change := range []struct {
		what string
		do   func()
	}{
		{"a label", func() {
			f.want(t, 200, "PATCH", "/v3/users/kept-2", `{"metadata":{"labels":{"env":"prod"}}}`)
		}},
		{"no label", func() { f.want(t, 200, "PATCH", "/v3/users/kept-1", `{"metadata":{"labels":{"set":null}}}`) }},
		{"a name", func() {
			f.want(t, 200, "PATCH", "/v3/users/kept-3", `{"username":"kept-name","origin":"ldap"}`)
		}},
		{"one more", func() { f.made(t, "kept-5", map[string]string{"set": "kept", "env": "prod"}) }},
		{"one less", func() { f.want(t, 202, "DELETE", "/v3/users/kept-4", "") }},
		{"an annotation, which no list filters by", func() {
			f.want(t, 200, "PATCH", "/v3/users/kept-2", `{"metadata":{"annotations":{"a":"b"}}}`)
		}},
		{"a row in SQL", func() { exec(`UPDATE accounts SET labels = labels || '{"env": "prod"}' WHERE guid = 'kept-0'`) }},
		{"a time in SQL", func() {
			exec(`UPDATE accounts SET platform_created_at = '2020-01-01', platform_updated_at = '2020-01-01' WHERE guid = 'kept-5'`)
		}},
		{"a guid in SQL", func() { exec(`UPDATE accounts SET guid = 'kept-7' WHERE guid = 'kept-0'`) }},
		{"a row less in SQL", func() { exec(`DELETE FROM accounts WHERE guid = 'kept-5'`) }},
	} {
		change.do()
		now := shown(f.Accounts)
		if now == last {
			t.Errorf("%s: nothing has changed:\n%s", change.what, now)
		}
		if want := shown(account.NewStore(f.DB)); now != want {
			t.Errorf("%s: got\n%swant\n%s", change.what, now, want)
		}
		last = now
	}
}

// A change counts from when it is committed, and changes do not wait for each other.
func TestListsBesideChanges(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	list := func() string { return f.list(t, selecting("set=beside")).guids() }
	f.made(t, "beside-1", map[string]string{"set": "beside"})
	f.made(t, "beside-2", map[string]string{})
	f.made(t, "beside-3", map[string]string{})
	begin := func(sql string) pgx.Tx {
		t.Helper()
		tx, err := f.DB.Pool.Begin(ctx)
		if err == nil {
			_, err = tx.Exec(ctx, sql)
		}
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	label := func(guid string) pgx.Tx {
		return begin(`UPDATE accounts SET labels = '{"set": "beside"}' WHERE guid = '` + guid + `'`)
	}
	second, third, gone := label("beside-2"), label("beside-3"), begin(`DELETE FROM accounts WHERE guid = 'beside-1'`)
	for _, step := range []struct {
		end  func(context.Context) error
		want string
	}{{nil, "beside-1"}, {third.Commit, "beside-1 beside-3"}, {gone.Rollback, "beside-1 beside-3"},
		{second.Commit, "beside-1 beside-2 beside-3"}} {
		if step.end != nil {
			if err := step.end(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if got := list(); got != step.want {
				t.Errorf("got %s, want %s", got, step.want)
			}
		}
	}
}
