package pgrole

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

var record = Provenance{
	Created:     time.Date(2026, 11, 21, 20, 0, 0, 123_456_000, time.UTC),
	CreatedBy:   "7c4b1d1e-0000-4000-8000-00000000000a",
	Modified:    time.Date(2026, 11, 21, 20, 0, 1, 0, time.UTC),
	ModifiedBy:  "cf",
	Revision:    12,
	Attempt:     uuid.MustParse("0198f3a2-0000-7000-8000-000000000001"),
	Previous:    uuid.MustParse("0198f3a2-0000-7000-8000-000000000000"),
	State:       StateDeleting,
	FormerState: StateDisabled,
}

var leaseRecorded = Provenance{
	Created:    record.Created,
	CreatedBy:  record.CreatedBy,
	Revision:   1,
	Attempt:    record.Attempt,
	Lease:      uuid.MustParse("0198f3a2-0000-7000-8000-000000000002"),
	For:        "shop write",
	Ends:       record.Created.Add(time.Hour),
	Credential: "shop",
}

var accessRecorded = Provenance{
	Created:   record.Created,
	CreatedBy: record.CreatedBy,
	Revision:  3,
	Attempt:   record.Attempt,
	Access: &AccessRecord{Database: `shop "größe" 東京 🙂`, Level: Own, Schemas: []string{"a", `b" \ "c`}, Adopt: true,
		TookConnect: true, TookCreate: true},
}

// FuzzScan: what is read quickly is what encoding/json reads, and all that is written here is read quickly.
func FuzzScan(f *testing.F) {
	for _, p := range []Provenance{record, leaseRecorded, {Revision: 1, Attempt: uuid.New()}, {Revision: 1,
		Attempt: uuid.New(), State: StateDisabled, Password: PasswordKept}, record.changed(time.Now().UTC(),
		Actor{"guid", uuid.New()})} {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		if got := (Provenance{}); !got.scan(string(data)) {
			f.Errorf("not read: %s", data)
		}
		f.Add(string(data))
	}
	for _, s := range []string{"", "{", "{}", `{"revision":01}`, `{"revision":1,}`, `{"revision":1}}`,
		`{"revision":1,"revision":2}`, `{"Revision":1}`, `{"state":"\u0041"}`, `{"created":"2026-11-21T20:00:00+01:00"}`,
		`{"attempt":null}`, `{"lease":"x"}`, `{"ends":"x"}`, `{"for":"größe"}`, `{"revision":1,"lease":null,"for":null}`,
		`{"x":"y"}`, `{"revision":1,"access":null}`, `{"revision":1,"access":{}}`,
		`{"revision":1,"access":{"database":"shop","level":"own","schemas":["*"]}}`, `{"revision":1,"access":"own"}`,
		`{"revision":1 }`, `{"revision":99999999999999999999}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		var quick, slow Provenance
		if !quick.scan(data) {
			return
		}
		if err := json.Unmarshal([]byte(data), &slow); err != nil {
			t.Fatalf("%q was read, though %v", data, err)
		}
		if !quick.Created.Equal(slow.Created) || !quick.Modified.Equal(slow.Modified) ||
			!quick.Ends.Equal(slow.Ends) {
			t.Errorf("%q: %+v, not %+v", data, quick, slow)
		}
		for _, p := range []*Provenance{&quick, &slow} {
			p.Created, p.Modified, p.Ends = time.Time{}, time.Time{}, time.Time{}
		}
		if quick != slow {
			t.Errorf("%q: %+v, not %+v", data, quick, slow)
		}
	})
}

// A record is found in any line, and is the last line that can be one.
func TestParseComment(t *testing.T) {
	t.Parallel()
	ours, other := record.comment(""), record.changed(time.Now().UTC(), Actor{"guid", uuid.New()}).comment("")
	for comment, human := range map[string]string{
		ours:                                   "",
		"a\n" + ours:                           "a",
		ours + "\na":                           "a",
		ours + "\r\na\r\n":                     "a\r\n",
		"a\n\n" + ours + "\n\nb":               "a\n\n\nb",
		other + "\n" + ours + "\nrolecall:v1 ": other + "\nrolecall:v1 ",
		ours + "\n":                            "",
		"\n" + ours:                            "",
	} {
		if got, p := parseComment(comment); got != human || p != record {
			t.Errorf("%q: %q, %+v", comment, got, p)
		}
	}
	for _, comment := range []string{"", "\n", "\n\n", "a\nb", "x" + ours, "rolecall:v1 {}", "a\nrolecall:v1 {}\nb"} {
		if got, p := parseComment(comment); got != comment || p.Managed() {
			t.Errorf("%q: %q, %+v", comment, got, p)
		}
	}
}

// The record of a lease is read as it was written, whatever the role is called, and has all that a lease has.
func TestParseLease(t *testing.T) {
	t.Parallel()
	for _, actsFor := range []string{"shop", `"a" 'b' \ <c> & d`, "größe 東京", `","lease":"`, "x\u2028y",
		`"state":"disabled"`} {
		p := leaseRecorded
		p.For, p.Credential = actsFor, actsFor
		if human, got := parseComment(p.comment("a")); human != "a" || got != p {
			t.Errorf("%q: %+v", actsFor, got)
		}
	}
	for what, change := range map[string]func(p *Provenance){
		"no for":       func(p *Provenance) { p.For = "" },
		"a long for":   func(p *Provenance) { p.For = strings.Repeat("x", 64) },
		"no end":       func(p *Provenance) { p.Ends = time.Time{} },
		"an odd end":   func(p *Provenance) { p.Ends = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) },
		"a long name":  func(p *Provenance) { p.Credential = strings.Repeat("x", 201) },
		"no lease":     func(p *Provenance) { p.Lease = uuid.Nil },
		"only the for": func(p *Provenance) { p.Lease, p.Ends, p.Credential = uuid.Nil, time.Time{}, "" },
	} {
		p := leaseRecorded
		change(&p)
		if human, got := parseComment(p.comment("a")); got.Managed() || human == "a" {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// The record of an access role is read as it was written, whatever the database is called. What another program has written,
// or a person, is none.
func TestParseAccess(t *testing.T) {
	t.Parallel()
	for _, database := range []string{"shop", `"a" 'b' \ <c> & d`, "größe 東京 🙂", `","lease":"`, "x\u2028y",
		`"state":"disabled"`} {
		p := accessRecorded
		p.Access = &AccessRecord{Database: database, Level: Write}
		comment := p.comment("a")
		human, got := parseComment(comment)
		if human != "a" || got.Access == nil || got.Access.Database != database || got.Access.Level != Write {
			t.Errorf("%q: %+v", database, got)
		}
		for _, r := range comment {
			if r > '~' {
				t.Errorf("%q: the comment has %q", database, r)
			}
		}
	}
	if _, got := parseComment(accessRecorded.comment("")); got.Access == nil ||
		!reflect.DeepEqual(got.Access, accessRecorded.Access) {
		t.Errorf("got %+v", got.Access)
	}
	for what, change := range map[string]func(p *Provenance, a *AccessRecord){
		"no database":     func(_ *Provenance, a *AccessRecord) { a.Database = "" },
		"a long database": func(_ *Provenance, a *AccessRecord) { a.Database = strings.Repeat("x", 64) },
		"no level":        func(_ *Provenance, a *AccessRecord) { a.Level = "" },
		"another level":   func(_ *Provenance, a *AccessRecord) { a.Level = "admin" },
		"a long schema":   func(_ *Provenance, a *AccessRecord) { a.Schemas = []string{strings.Repeat("x", 64)} },
		"an empty schema": func(_ *Provenance, a *AccessRecord) { a.Schemas = []string{""} },
		"many schemas":    func(_ *Provenance, a *AccessRecord) { a.Schemas = slices.Repeat([]string{"schema"}, 1000) },
		"a lease": func(p *Provenance, _ *AccessRecord) {
			p.Lease, p.For, p.Ends = leaseRecorded.Lease, leaseRecorded.For, leaseRecorded.Ends
		},
	} {
		p, a := accessRecorded, *accessRecorded.Access
		p.Access = &a
		change(&p, &a)
		if human, got := parseComment(p.comment("a")); got.Managed() || human == "a" {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// BenchmarkParseAccess is for records that scan does not read. Lists of users have none; those of all records do.
func BenchmarkParseAccess(b *testing.B) {
	comment := accessRecorded.comment("")
	b.ReportAllocs()
	for b.Loop() {
		if _, p := parseComment(comment); p.Access == nil {
			b.Fatal("not read")
		}
	}
}

func BenchmarkParseComment(b *testing.B) {
	comment := record.comment("Ann's reports")
	b.ReportAllocs()
	for b.Loop() {
		if _, p := parseComment(comment); !p.Managed() {
			b.Fatal("not read")
		}
	}
}
