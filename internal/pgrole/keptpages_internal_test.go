package pgrole

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"rolecall/internal/pgtest"
)

// A page whose rows are the same is the same page. What has changed shows, and the users in front of it are the same.
func TestKeptPages(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	for _, name := range []string{"a", "b", "c", "d"} {
		c.Exec(t, `CREATE ROLE `+name+` LOGIN`)
	}
	conn, s := c.Connect(t, c.User, c.Password, "postgres"), &Server{SystemRoles: []string{"postgres"}, Batcher: &Batcher{}}
	kept := &keptPages{limit: 1 << 20}
	read := func(limit int, after string) *Listed {
		t.Helper()
		page := Page{Limit: limit, After: after}
		rows, err := s.queryUsers(t.Context(), conn, true, page, limit+1)
		if err != nil {
			t.Fatal(err)
		}
		l, err := kept.read(pageKey{s.Batcher, list{page, true}}, rows)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	shown := func(l *Listed) (all string) {
		for _, u := range l.Users {
			all += fmt.Sprintf("%s/%s/%v/%v/%s ", u.Name, u.userComment, u.login, u.expired, u.protectedBy)
		}
		return all + fmt.Sprint(l.More)
	}
	empty := read(3, "x")
	if len(empty.Users) > 0 || empty.More || read(3, "x") != empty {
		t.Errorf("behind all: %s", shown(empty))
	}
	last := read(3, "a")
	if read(3, "a") != last || read(2, "a") == last || read(3, "b") == last {
		t.Error("other pages are the same page, or the same page is another")
	}
	for _, step := range []struct{ sql, want string }{
		{`COMMENT ON ROLE c IS 'new'`, "b//true/false/ c/new/true/false/ d//true/false/ true"},
		{`COMMENT ON ROLE c IS 'old'`, "b//true/false/ c/old/true/false/ d//true/false/ true"},
		{`COMMENT ON ROLE c IS ''`, "b//true/false/ c//true/false/ d//true/false/ true"},
		{`ALTER ROLE d SUPERUSER`, "b//true/false/ c//true/false/ d//true/false/d true"},
		{`GRANT d TO b`, "b//true/false/d c//true/false/ d//true/false/d true"},
		{`ALTER ROLE c RENAME TO c1`, "b//true/false/d c1//true/false/ d//true/false/d true"},
		{`ALTER ROLE c1 RENAME TO a1`, "a1//true/false/ b//true/false/d d//true/false/d true"},
		{`DROP ROLE a1`, "b//true/false/d d//true/false/d postgres//true/false/postgres false"},
		{`ALTER ROLE d VALID UNTIL '2001-01-01'`, "b//true/false/d d//true/true/d postgres//true/false/postgres false"},
		{`ALTER ROLE d NOLOGIN`, "b//true/false/d postgres//true/false/postgres false"},
		{`CREATE ROLE z LOGIN`, "b//true/false/d postgres//true/false/postgres z//true/false/ false"},
		{`CREATE ROLE zz LOGIN`, "b//true/false/d postgres//true/false/postgres z//true/false/ true"},
		{`DROP ROLE zz; DROP ROLE z; CREATE ROLE z LOGIN`, // another role of the same name
			"b//true/false/d postgres//true/false/postgres z//true/false/ false"},
		{`DROP ROLE b; DROP ROLE z`, "postgres//true/false/postgres false"},
	} {
		c.Exec(t, step.sql)
		next := read(3, "a")
		if got := shown(next); got != step.want || next == last {
			t.Errorf("after %s the page has %s, want %s", step.sql, got, step.want)
		}
		if read(3, "a") != next {
			t.Errorf("after %s the page is another each time", step.sql)
		}
		last = next
	}

	// The pages of all clusters take no more than the limit.
	for i := range 2000 {
		page := &keptPage{raw: make([]byte, 1000*(i%7)), listed: &Listed{}, users: make([]*User, i%5)}
		kept.keep(pageKey{&Batcher{}, list{Page{Limit: i}, false}}, page)
		sum := 0
		for _, p := range kept.pages {
			sum += p.size()
		}
		if sum != kept.bytes || sum > kept.limit {
			t.Fatalf("%d pages have %d bytes, counted as %d", len(kept.pages), sum, kept.bytes)
		}
	}
	if len(kept.pages) < 100 {
		t.Errorf("%d pages are kept", len(kept.pages))
	}
	url := "after=x&" + strings.Repeat("y", 1000)
	key := pageKey{s.Batcher, list{Page{Limit: 1, After: url[6:7]}, false}}
	kept.keep(key, &keptPage{listed: &Listed{}})
	for k := range kept.pages {
		if k == key && unsafe.StringData(k.page.After) == unsafe.StringData(key.page.After) {
			t.Error("with the page the URL is kept that its name is a part of")
		}
	}
	for i := range 10_000 { // empty pages: there is one behind each name that a client thinks of
		after := fmt.Sprintf("%063d", i)
		kept.keep(pageKey{s.Batcher, list{Page{Limit: 1, After: after}, false}}, &keptPage{listed: &Listed{}})
	}
	if kept.bytes > kept.limit || len(kept.pages) > kept.limit/emptyBytes {
		t.Errorf("%d pages are kept, most of them empty", len(kept.pages))
	}
	kept.keep(pageKey{s.Batcher, list{}}, &keptPage{raw: make([]byte, kept.limit+1)})
	if kept.pages[pageKey{s.Batcher, list{}}] != nil || kept.bytes > kept.limit {
		t.Error("a page is kept that is too long")
	}
	if _, err := conn.Exec(t.Context(), `SELECT`); err != nil {
		t.Error(err) // the rows were closed
	}
}
