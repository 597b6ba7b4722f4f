package adminapi_test

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// foundUsers is a page of a search as a client reads it.
type foundUsers struct {
	Items []struct {
		userResource
		Cluster struct{ ID, DisplayName string }
	}
	Next        *string
	Unreachable []struct {
		Cluster struct{ ID, DisplayName string }
		Error   string
	}
}

// search returns "cluster/name" of what is found, on all pages of two, as an account.
func (f *fixture) search(t testing.TB, username, query string) (found []string) {
	t.Helper()
	for cursor := ""; ; {
		a := f.as(t, username, "GET", "/users?limit=2&"+query+cursor, "")
		if a.Status != 200 {
			t.Fatalf("%s: got %d %s", query, a.Status, a.Body)
		}
		var page foundUsers
		a.Into(t, &page)
		for _, u := range page.Items {
			found = append(found, u.Cluster.DisplayName+"/"+u.Username)
		}
		if page.Next == nil {
			return found
		}
		cursor = "&cursor=" + url.QueryEscape(*page.Next)
	}
}

func TestSearchUsers(t *testing.T) {
	f := newFixture(t)
	second := pgtest.New(t, nil)
	role, password := servicetest.Administrator(t, second)
	other := f.Register(t, "other", second, role, password)
	f.Account(t, "srch_viewer", []string{account.ScopeRead}, map[string]string{"team": "srch"})
	f.Access(t, other, nil, []string{"team=srch"})
	f.user(t, "srch_b")
	f.user(t, "srch_a")
	f.user(t, "SRCH_a")
	second.Exec(t, `CREATE ROLE srch_a LOGIN VALID UNTIL '2001-01-01'; CREATE ROLE "srch_%" LOGIN`)
	f.user(t, "srch_off")
	f.want(t, 200, "POST", "/clusters/"+f.ClusterID+"/users/srch_off/disable", "")
	for query, want := range map[string]string{
		"name=srch_*":                              "main/srch_a main/srch_b main/srch_off other/srch_% other/srch_a",
		"name=srch_*&sort=name":                    "other/srch_% main/srch_a other/srch_a main/srch_b main/srch_off",
		"name=srch_*&sort=-cluster":                "other/srch_% other/srch_a main/srch_a main/srch_b main/srch_off",
		"name=srch_*&sort=-createdAt":              "main/srch_off main/srch_a main/srch_b other/srch_% other/srch_a",
		"name=srch_*&sort=validUntil":              "other/srch_a main/srch_a main/srch_b main/srch_off other/srch_%",
		"name=srch_%25":                            "other/srch_%",
		"name=srch_a":                              "main/srch_a other/srch_a",
		"name=srch_*&createdBy=ROOT":               "main/srch_a main/srch_b main/srch_off",
		"name=srch_*&createdBy=nobody":             "",
		"name=srch_*&state=expired":                "other/srch_a",
		"name=srch_*&state=expired&state=disabled": "main/srch_off other/srch_a",
		"name=srch_*&expiresBefore=2002-01-01":     "other/srch_a",
		"name=srch_*&cluster=other":                "other/srch_% other/srch_a",
		"name=srch_*&cluster=" + other:             "other/srch_% other/srch_a",
		"name=srch_*&lease=true":                   "",
		"name=srch_*&lease=false&cluster=other":    "other/srch_% other/srch_a",
		"name=srch_*&creatorSelector=!team":        "main/srch_a main/srch_b main/srch_off",
		"name=srch_*&creatorSelector=team":         "",
		"name=" + second.User:                      "",
	} {
		if got := strings.Join(f.search(t, "root", query), " "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", query, got, want)
		}
	}
	if got := f.search(t, "root", "system=true&cluster=other&name="+second.User); len(got) != 1 {
		t.Errorf("got %q, want the system user", got)
	}
	if got := strings.Join(f.search(t, "srch_viewer", "name=srch_*"), " "); got != "other/srch_% other/srch_a" {
		t.Errorf("the viewer got %s", got)
	}
	f.as(t, "srch_viewer", "GET", "/users?creatorSelector=team", "").refused(t, 403, "createdBy")
	hidden := f.as(t, "srch_viewer", "GET", "/users?cluster=main", "")
	hidden.refused(t, 404, `"main"`)
	absent := f.as(t, "srch_viewer", "GET", "/users?cluster=niam", "")
	absent.refused(t, 404, `"niam"`)
	var page foundUsers
	f.want(t, 200, "GET", "/users?name=srch_*&limit=1", "").Into(t, &page)
	if page.Next == nil || page.Unreachable == nil || page.Items[0].CreatedBy == nil ||
		page.Items[0].Cluster.ID != f.ClusterID ||
		page.Items[0].ETag == "" {
		t.Fatalf("got %+v", page)
	}
	next := "&cursor=" + url.QueryEscape(*page.Next)
	raw, err := base64.RawURLEncoding.DecodeString(*page.Next)
	if err != nil {
		t.Fatal(err)
	}
	short := base64.RawURLEncoding.EncodeToString(raw[:len(raw)/3])
	for _, query := range []string{"name=*" + next, "name=srch_*&sort=name" + next, "name=srch_*&system=true" + next,
		"name=srch_*&cursor=" + short, "name=srch_*&cursor=YQ"} {
		f.do(t, "GET", "/users?"+query, "").refused(t, 400, "cursor")
	}
	for query, part := range map[string]string{
		"name=": "name", "createdBy=": "createdBy", "createdBy=%FF": "createdBy", "cluster=": "cluster",
		"creatorSelector=":    "creatorSelector",
		"creatorSelector=a b": "creatorSelector", "state=ended": "state", "state=": "state", "passwordKind=plain": "passwords",
		"expiresBefore=soon": "expiresBefore", "notSeenFor=soon": "notSeenFor", "notSeenFor=0s": "notSeenFor", "lease=1": "lease",
		"system=yes": "system", "passwordChangedOutside=": "passwordChangedOutside", "sort=age": "sort", "sort=": "sort",
		"sort=-": "sort", "sort=--name": "sort", "nmae=x": "unknown parameter", "name=a&name=b": "2 times", "name=a%00": "name",
	} {
		f.do(t, "GET", "/users?"+strings.ReplaceAll(query, " ", "%20"), "").refused(t, 400, part)
	}
	f.do(t, "GET", "/users?limit=0", "").refused(t, 422, "limit")
}

// Times at the ends of the calendar, in any zone, are conditions as others.
func TestSearchAtTheEndsOfTime(t *testing.T) {
	f := newFixture(t)
	for _, at := range []string{"9999-12-31T23:59:59-12:00", "0000-01-01", "0001-01-01T00:00:00%2B12:00"} {
		f.want(t, 200, "GET", "/users?expiresBefore="+at, "")
	}
}
