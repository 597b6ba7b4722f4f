package dbaas_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/dbaas"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// ownCluster registers a cluster of the test's own, in which no other test makes users.
func (f *fixture) ownCluster(t testing.TB, settings map[string]string) *fixture {
	t.Helper()
	pg := pgtest.New(t, settings)
	own, service := *f, *f.Service
	service.PG, service.ClusterID = pg, f.register(t, t.Name(), pg)
	own.Service = &service
	return &own
}

func TestListUsers(t *testing.T) {
	t.Parallel()
	f := newFixture(t).ownCluster(t, nil)
	var empty list
	a := f.want(t, 200, "GET", f.users(), "")
	a.Into(t, &empty)
	if !strings.Contains(a.Body, `"items":[]`) || empty.Limit != 100 || empty.Offset != 0 || empty.Type != "collection" ||
		empty.Links.Next+empty.Links.Prev != "" {
		t.Errorf("an empty list: %s", a.Body)
	}
	for _, sql := range []string{
		`CREATE ROLE "B" LOGIN`, `CREATE ROLE a LOGIN`, `CREATE ROLE "a/b ü%" LOGIN`, `CREATE ROLE "é" LOGIN`,
		`CREATE ROLE z LOGIN`, `CREATE ROLE zz LOGIN`,
		`CREATE ROLE nologin`,
		`CREATE ROLE admin LOGIN`, `CREATE ROLE boss LOGIN SUPERUSER`, `CREATE ROLE "under" LOGIN IN ROLE boss`,
	} {
		f.PG.Exec(t, sql)
	}
	f.create(t, "made")
	plain := []string{"B", "a", "a/b ü%", "made", "z", "zz", "é"}
	all := []string{"B", "a", "a/b ü%", "admin", "boss", "made", "postgres", "under", "z", "zz", "é"}
	if role, least := f.administrator(t); least {
		all = append(all, role)
		slices.Sort(all)
	}
	get := func(query string) (l list) {
		t.Helper()
		f.want(t, 200, "GET", f.users()+query, "").Into(t, &l)
		return l
	}
	for query, want := range map[string][]string{
		"": plain, "?system=false": plain, "?system=False": plain, "?system=fALSE": plain,
		"?system=true": all, "?system=True": all, "?system=TRUE": all, "?system=tRuE": all,
		"?depth=1&filter=x": plain, "?limit=1000": plain, "?limit=2": plain[:2], "?offset=5": plain[5:],
		"?limit=2&offset=3": plain[3:5], "?offset=7": {}, "?offset=2147483647": {},
	} {
		if got := get(query).names(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}

	t.Run("links", func(t *testing.T) {
		base := servicetest.PublicURL + dbaas.Prefix + f.users()
		at := func(query string) string {
			if query == "" {
				return ""
			}
			return base + query
		}
		for _, test := range []struct{ query, prev, self, next string }{
			{"", "", "?limit=100&offset=0", ""},
			{"?limit=7", "", "?limit=7&offset=0", ""},
			{"?limit=6", "", "?limit=6&offset=0", "?after=zz&limit=6&offset=6"},
			{"?limit=2&offset=1", "?limit=2&offset=0", "?limit=2&offset=1", "?after=a%2Fb+%C3%BC%25&limit=2&offset=3"},
			{"?limit=2&offset=5", "?limit=2&offset=3", "?limit=2&offset=5", ""},
			{"?limit=2&offset=9", "?limit=2&offset=7", "?limit=2&offset=9", ""},
			{"?limit=2&system=True", "", "?limit=2&offset=0&system=True", "?after=a&limit=2&offset=2&system=True"},
			{"?limit=7&system=false", "", "?limit=7&offset=0&system=false", ""},
			{"?depth=1", "", "?limit=100&offset=0", ""},
			{"?limit=2&after=a&offset=2", "?limit=2&offset=0", "?after=a&limit=2&offset=2", "?after=made&limit=2&offset=4"},
			{"?limit=2&after=a", "", "?after=a&limit=2&offset=0", "?after=made&limit=2&offset=2"},
			{"?limit=2&after=z&offset=5", "?limit=2&offset=3", "?after=z&limit=2&offset=5", ""},
			{"?limit=2&after=%FF&offset=9", "?limit=2&offset=7", "?after=%FF&limit=2&offset=9", ""},
			{"?limit=2&offset=2147483647&after=B", "?limit=2&offset=2147483645", "?after=B&limit=2&offset=2147483647",
				"?after=a%2Fb+%C3%BC%25&limit=2&offset=2147483647"},
		} {
			if got, want := get(test.query).Links, (links{at(test.prev), at(test.self), at(test.next)}); got != want {
				t.Errorf("%s: got  %+v\nwant %+v", test.query, got, want)
			}
		}
		var walked []string
		for next := f.users() + "?limit=3&system=true"; next != ""; {
			var l list
			f.want(t, 200, "GET", next, "").Into(t, &l)
			walked = append(walked, l.names()...)
			if next = l.Links.Next; next != "" {
				next = f.local(t, next)
			}
		}
		if !slices.Equal(walked, all) {
			t.Errorf("walked %q, want %q", walked, all)
		}
	})

	// A page behind a name has what follows the name, whatever its offset says, and whether or not a user has the name.
	t.Run("after", func(t *testing.T) {
		for query, want := range map[string][]string{
			"?after=a": plain[2:], "?after=a&offset=0": plain[2:], "?after=a&offset=5000": plain[2:], "?after=a&limit=1": plain[2:3],
			"?after=a&system=true": all[2:], "?after=A": plain, "?after=b": plain[3:], "?after=%01": plain, "?after=%C3%A9": {},
			"?after=%C3": {"é"}, "?after=%FF": {}, "?after=a%2Fb+%C3%BC%25": plain[3:], "?after='%3B--": plain,
			"?after=" + strings.Repeat("a", 63): plain[3:],
		} {
			if got := get(query).names(); !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		}
		if l := get("?after=a&offset=7&limit=2"); l.Offset != 7 || l.Limit != 2 {
			t.Errorf("the offset is %d, the limit %d", l.Offset, l.Limit)
		}
		// Roles that are made, renamed or dropped in front of the page do not move it, and it shows at once what it has.
		next := f.local(t, get("?limit=3").Links.Next)
		f.PG.Exec(t, `CREATE ROLE "0" LOGIN; ALTER ROLE a RENAME TO "A0"; DROP ROLE "a/b ü%"; CREATE ROLE made2 LOGIN`)
		var l list
		f.want(t, 200, "GET", next, "").Into(t, &l)
		if want := []string{"made", "made2", "z"}; !slices.Equal(l.names(), want) || l.Offset != 3 {
			t.Errorf("got %q at offset %d, want %q", l.names(), l.Offset, want)
		}
		f.PG.Exec(t, `DROP ROLE "0", made2; ALTER ROLE "A0" RENAME TO a; CREATE ROLE "a/b ü%" LOGIN`)
	})

	t.Run("items", func(t *testing.T) {
		cluster := uuid.MustParse(f.ClusterID)
		for _, item := range get("?system=true").Items {
			name := item.Properties.Username
			if want := uuid.NewSHA1(cluster, []byte("users/"+name)).String(); item.ID != want {
				t.Errorf("%s has the id %s, want %s", name, item.ID, want)
			}
			var same resource
			f.want(t, 200, "GET", f.local(t, item.Href), "").Into(t, &same)
			if fmt.Sprint(same.ID, same.Href, same.Metadata, same.Properties.Username, *same.Properties.System) !=
				fmt.Sprint(item.ID, item.Href, item.Metadata, name, *item.Properties.System) {
				t.Errorf("the list has %+v, its href %+v", item, same)
			}
			system := !slices.Contains(plain, name)
			by := "rolecall:iam:cloud::users/"
			switch {
			case name == "made":
				by += f.guid
			case system:
				by += "_system_"
			default:
				by += "_unmanaged_"
			}
			if *item.Properties.System != system || item.Metadata.CreatedBy != by ||
				(item.Metadata.CreatedDate != "") != (name == "made") {
				t.Errorf("%s: system %t, metadata %+v; want system %t, created by %s", name, *item.Properties.System, item.Metadata,
					system, by)
			}
		}
	})

	// Items are encoded once for a page that stays the same; a change by SQL shows at once.
	t.Run("changes", func(t *testing.T) {
		author := func() string {
			l := get("?after=a&limit=3")
			if same := get("?after=a&limit=3"); !reflect.DeepEqual(same, l) {
				t.Errorf("got %+v, then %+v", l, same)
			}
			return strings.TrimPrefix(l.Items[slices.Index(l.names(), "made")].Metadata.CreatedBy, "rolecall:iam:cloud::users/")
		}
		if got := author(); got != f.guid {
			t.Errorf("made by %s", got)
		}
		f.PG.Exec(t, `COMMENT ON ROLE made IS 'by hand'`)
		if got := author(); got != "_unmanaged_" {
			t.Errorf("without a record it is made by %s", got)
		}
		f.PG.Exec(t, `ALTER ROLE made RENAME TO made3`)
		if got, want := get("?after=a&limit=3").names(), []string{"a/b ü%", "made3", "z"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		f.PG.Exec(t, `DROP ROLE made3`)
		if got, want := get("?after=a&limit=3").names(), []string{"a/b ü%", "z", "zz"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})

	t.Run("parameters", func(t *testing.T) {
		for query, code := range map[string]string{
			"limit=0": "paas-validation-1", "limit=1001": "paas-validation-1", "limit=-1": "paas-validation-1",
			"offset=-1":                  "paas-validation-1",
			"limit=99999999999999999999": "paas-validation-1", "offset=2147483648": "paas-validation-1",
			"limit=abc": "paas-parse-1", "limit=": "paas-parse-1", "limit": "paas-parse-1", "limit=1.5": "paas-parse-1",
			"limit=%201":      "paas-parse-1",
			"limit=1&limit=1": "paas-parse-1", "offset=abc": "paas-parse-1", "offset=": "paas-parse-1",
			"offset=0&offset=1": "paas-parse-1", "after=a&after=a": "paas-parse-1", "after=%zz": "paas-parse-1",
			"after=": "paas-validation-1", "after": "paas-validation-1", "after=a%00": "paas-validation-1",
			"after=" + strings.Repeat("a", 64): "paas-validation-1", "after=a&offset=-1": "paas-validation-1",
			"system=maybe": "paas-parse-1", "system=": "paas-parse-1", "system=1": "paas-parse-1",
			"system=fal%C5%BFe":       "paas-parse-1",
			"system=true&system=true": "paas-parse-1", "limit=%zz": "paas-parse-1",
		} {
			f.refuses(t, code, "GET", f.users()+"?"+query, "")
		}
	})
}

// A role or database that was made in a database of another encoding has a name that is not UTF-8. Its href leads to it.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	f := newFixture(t).ownCluster(t, nil)
	f.PG.Exec(t, `CREATE DATABASE lat ENCODING LATIN1 TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`)
	latin1 := f.PG.Connect(t, f.PG.User, f.PG.Password, "lat")
	mustExec(t, latin1, `SET client_encoding = 'UTF8'`)
	mustExec(t, latin1, `CREATE ROLE "josé" LOGIN PASSWORD 'correct horse'`)
	mustExec(t, latin1, `CREATE ROLE "joså" LOGIN`)
	mustExec(t, latin1, `CREATE DATABASE "lät" OWNER "joså" TEMPLATE template0`)
	hrefs := func(path string) []string {
		t.Helper()
		var l list
		f.want(t, 200, "GET", path, "").Into(t, &l)
		var found []string
		for _, r := range l.Items {
			if strings.Contains(r.Href, "%E") {
				found = append(found, f.local(t, r.Href))
			}
		}
		return found
	}
	users := hrefs(f.users())
	if len(users) != 2 {
		t.Fatalf("got %q", users)
	}
	for _, href := range users {
		f.want(t, 200, "GET", href, "")
		message := f.refuses(t, "paas-validation-1", "PATCH", href, `{"properties":{"password":"another horse"}}`)
		if !strings.Contains(message, "RENAME TO") {
			t.Errorf("got %s", message)
		}
	}
	f.refuses(t, "paas-validation-1", "DELETE", users[0], "") // it owns a database
	if _, least := f.administrator(t); !least {
		f.want(t, 204, "DELETE", users[1], "")
		f.refuses(t, "paas-notfound-1", "GET", users[1], "")
	}
	databases := hrefs("/clusters/" + f.ClusterID + "/databases")
	if len(databases) != 1 {
		t.Fatalf("got %q", databases)
	}
	f.want(t, 200, "GET", databases[0], "")
	f.refuses(t, "paas-validation-1", "DELETE", databases[0], "")
}
