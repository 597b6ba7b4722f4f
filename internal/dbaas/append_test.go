package dbaas

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

type (
	userResource = resource[userProperties]
	userList     = list[userProperties]
)

// plainUser and plainList are the same structs without the method by which they encode themselves.
type (
	plainUser userResource
	plainList struct {
		Type   string      `json:"type"`
		ID     string      `json:"id"`
		Href   string      `json:"href"`
		Items  []plainUser `json:"items"`
		Offset int         `json:"offset"`
		Limit  int         `json:"limit"`
		Links  links       `json:"_links"`
	}
)

// FuzzAppendJSON: what encodes itself encodes as encoding/json does.
func FuzzAppendJSON(f *testing.F) {
	f.Add("ann", "rolecall:iam:cloud::users/1", int64(1_700_000_000_123_456_000), true, 3)
	f.Add("é\" \\ <b>&\u2028\x7f\xff\n", "", int64(0), false, 0)
	f.Fuzz(func(t *testing.T, name, by string, nanos int64, system bool, n int) {
		date := time.Unix(0, nanos).UTC()
		u := userResource{
			Type: "user", ID: by, Href: "http://x/" + name,
			Metadata: metadata{CreatedBy: by, CreatedByUserID: by, LastModifiedBy: by, LastModifiedByUserID: name,
				ResourceURN: name},
			Properties: userProperties{name, system},
		}
		if system {
			u.Metadata.CreatedDate, u.Metadata.LastModifiedDate = &date, &date
		}
		l := userList{Type: "collection", ID: name, Href: by, Items: []userResource{}, Offset: n, Limit: -n,
			Links: links{Prev: by, Self: name, Next: by}}
		p := plainList{l.Type, l.ID, l.Href, []plainUser{}, l.Offset, l.Limit, l.Links}
		for range min(max(n, 0), 3) {
			l.Items = append(l.Items, u)
			p.Items = append(p.Items, plainUser(u))
		}
		same(t, u, plainUser(u))
		d := resource[databaseProperties]{Type: "database", Metadata: u.Metadata, Properties: databaseProperties{name, by}}
		type plain resource[databaseProperties]
		same(t, d, plain(d))
		same(t, l, p)
	})
}

func same(t *testing.T, a web.Appender, plain any) {
	t.Helper()
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	if err := e.Encode(plain); err != nil {
		t.Fatal(err)
	}
	if got := string(a.AppendJSON(nil)) + "\n"; got != want.String() {
		t.Errorf("got %s, want %s", got, &want)
	}
}

func BenchmarkUserList(b *testing.B) {
	date := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	l := userList{Type: "collection"}
	for range 100 {
		l.Items = append(l.Items, userResource{
			Type: "user", ID: "276c6fa8-b71b-567c-a27b-0dcabd6f7cb0",
			Href: "https://rolecall.example.com/databases/postgresql/clusters/5e92e2fe-2104-4118-9e07-38e121c7f610/users/user_000777",
			Metadata: metadata{
				CreatedBy:       "rolecall:iam:cloud::users/7c4b1d1e-0000-4000-8000-00000000000a",
				CreatedByUserID: "7c4b1d1e-0000-4000-8000-00000000000a", CreatedDate: &date,
				LastModifiedBy:       "rolecall:iam:cloud::users/7c4b1d1e-0000-4000-8000-00000000000a",
				LastModifiedByUserID: "7c4b1d1e-0000-4000-8000-00000000000a", LastModifiedDate: &date,
				ResourceURN: "rolecall:postgresql:local:0:clusters/5e92e2fe-2104-4118-9e07-38e121c7f610/users/user_000777",
			},
			Properties: userProperties{Username: "user_000777"},
		})
	}
	b.ReportAllocs()
	var buffer []byte
	for b.Loop() {
		buffer = l.AppendJSON(buffer[:0])
	}
}

// A link never has a name as its place that the next request would refuse.
func TestEndOf(t *testing.T) {
	for name, want := range map[string]string{
		"z": "z", "jos\xe9": "jos\xe9", strings.Repeat("z", pgrole.MaxName): strings.Repeat("z", pgrole.MaxName),
		strings.Repeat("é", pgrole.MaxName): "", // as a database in LATIN1 may have it
	} {
		page := &pgrole.Listed{Users: []*pgrole.User{{Name: "a"}, {Name: name}}, More: true}
		if got := endOf(page); got != want {
			t.Errorf("behind %q the next page begins at %q", name, got)
		}
		if page.More = false; endOf(page) != "" {
			t.Errorf("the last page, with %q, has a next one", name)
		}
	}
}
