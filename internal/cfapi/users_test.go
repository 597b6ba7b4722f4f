package cfapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// What a change of the metadata is answered, and what a refused one leaves: nothing.
func TestMetadataMessages(t *testing.T) {
	f := newFixture(t)
	const key, value = "Metadata label key error: ", "Metadata label value error: "
	const noteKey, noteValue = "Metadata annotation key error: ", "Metadata annotation value error: "
	long64, long63 := strings.Repeat("n", 64), strings.Repeat("n", 63)
	prefix254 := strings.Repeat("a.", 126) + "bb"
	label := func(key string, value any) string {
		return body(map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
	}
	note := func(key string, value any) string {
		return body(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	}
	f.made(t, "messages", map[string]string{"kept": "yes"})
	before := f.want(t, 200, "GET", at("messages"), "")
	for _, test := range []struct{ body, want string }{
		// Nothing to do. The first two are what clients send.
		{`{}`, ""},
		{`{"metadata":{"labels":null,"annotations":null}}`, ""},
		{``, ""},
		{`{"metadata":{}}`, ""},
		{`{"metadata":{"labels":{}}}`, ""},
		{`{"metadata":{"labels":null,"annotations":{}}}`, ""},
		{label("absent", nil), ""},
		{label("kept", "yes"), ""},
		// Shapes.
		{`{"metadata":null}`, "Metadata must be an object"},
		{`{"metadata":[]}`, "Metadata must be an object"},
		{`{"metadata":"x"}`, "Metadata must be an object"},
		{`{"metadata":5}`, "Metadata must be an object"},
		{`{"metadata":{"labels":""}}`, "Metadata 'labels' is not an object"},
		{`{"metadata":{"labels":[]}}`, "Metadata 'labels' is not an object"},
		{`{"metadata":{"labels":false}}`, "Metadata 'labels' is not an object"},
		{`{"metadata":{"annotations":5}}`, "Metadata 'annotations' is not an object"},
		{`{"metadata":{"labels":true,"annotations":"x"}}`,
			"Metadata 'labels' is not an object, Metadata 'annotations' is not an object"},
		{`{"metadata":{"other":1,"extra":2}}`, "Metadata has unexpected field(s): 'other' 'extra'"},
		{`{"nickname":"a","links":{},"more":1}`, "Unknown field(s): 'nickname', 'more'"},
		{`[]`, "Unknown field(s): '_json'"},
		{`"x"`, "Unknown field(s): '_json'"},
		{`null`, "Unknown field(s): '_json'"},
		{`7`, "Unknown field(s): '_json'"},
		// Keys of labels, in the order of the checks.
		{label("", "v"), key + "key cannot be empty string"},
		{label("  ", "v"), key + "key cannot be empty string"},
		{label("a/b/c", "v"), key + "key has more than one '/'"},
		{label("/x", "v"), key + "prefix '' must be in valid dns format"},
		{label("onlycom/x", "v"), key + "prefix 'onlycom' must be in valid dns format"},
		{label("a..com/x", "v"), key + "prefix 'a..com' must be in valid dns format"},
		{label("-a.com/x", "v"), key + "prefix '-a.com' must be in valid dns format"},
		{label("a%a.com/x", "v"), key + "prefix 'a%a.com' must be in valid dns format"},
		{label("a_b.com/x", "v"), key + "prefix 'a_b.com' must be in valid dns format"},
		{label("a.com\n/x", "v"), key + "prefix 'a.com\n' must be in valid dns format"},
		{label(prefix254+"/x", "v"), key + "prefix 'a.a.a.a....' is greater than 253 characters"},
		{label("cloudfoundry.org/x", "v"), key + "prefix 'cloudfoundry.org' is reserved"},
		{label("CloudFoundry.ORG/x", "v"), key + "prefix 'cloudfoundry.org' is reserved"},
		{label("example.com/", "v"), key + "key cannot be empty string"},
		{label("/", "v"), key + "key cannot be empty string"},
		{label("a b", "v"), key + "'a b' contains invalid characters"},
		{label("é", "v"), key + "'é' contains invalid characters"},
		{label("-a", "v"), key + "'-a' starts or ends with invalid characters"},
		{label("example.com/a.", "v"), key + "'a.' starts or ends with invalid characters"},
		{label(long64, "v"), key + "'nnnnnnnn...' is greater than 63 characters"},
		{label("a b", nil), key + "'a b' contains invalid characters"},
		// Values of labels.
		{label("k", "a b"), value + "'a b' contains invalid characters"},
		{label("k", "a/b"), value + "'a/b' contains invalid characters"},
		{label("k", ".a"), value + "'.a' starts or ends with invalid characters"},
		{label("k", long64), value + "'nnnnnnnn...' is greater than 63 characters"},
		{label("k", 1), value + "the value of 'k' must be a string or null, not a number"},
		{label("k", true), value + "the value of 'k' must be a string or null, not a boolean"},
		{label("k", []string{}), value + "the value of 'k' must be a string or null, not an array"},
		{label("k", map[string]string{}), value + "the value of 'k' must be a string or null, not an object"},
		// Annotations.
		{note("a b", "v"), noteKey + "'a b' contains invalid characters"},
		{note("a b", ""), noteKey + "'a b' contains invalid characters"},
		{note(long64, ""), noteKey + "'nnnnnnnn...' is greater than 63 characters"},
		{note("a b", nil), ""},
		{note("a\x00b", nil), ""},
		{note("cloudfoundry.org/x", "v"), noteKey + "prefix 'cloudfoundry.org' is reserved"},
		{note("k", strings.Repeat("é", 5001)), noteValue + "'éééééééé...' is greater than 5000 characters"},
		{note("k", "a\x00b"), noteValue + "'a\x00b...' contains characters that cannot be stored"},
		{note("k", 1.5), noteValue + "the value of 'k' must be a string or null, not a number"},
		// All of them, in this order: the metadata's fields, labels as sent, annotations, the rest.
		{`{"nickname":1,"metadata":{"annotations":{"a b":"v"},"labels":{"c d":"e f","-":null},"x":0},"username":5}`,
			"Metadata has unexpected field(s): 'x', " + key + "'c d' contains invalid characters, " + value +
				"'e f' contains invalid characters, " +
				key + "'-' starts or ends with invalid characters, " + noteKey + "'a b' contains invalid characters, " +
				"Username must be a string, Unknown field(s): 'nickname'"},
	} {
		a := f.do(t, "PATCH", at("messages"), test.body)
		if test.want != "" {
			a.refused(t, "422 10008 "+test.want)
		} else if a.Status != 200 || a.Body != before.Body {
			t.Errorf("%s: got %d %s", excerpt(test.body), a.Status, a.Body)
		}
		if after := f.want(t, 200, "GET", at("messages"), ""); after.Body != before.Body ||
			after.Header.Get("ETag") != before.Header.Get("ETag") {
			t.Fatalf("%s: the user has changed: %s", excerpt(test.body), after.Body)
		}
	}
	for _, test := range []string{
		label("example.com/"+long63, long63), label("mta.cloudfoundry.org/x", ""), label("A.b_c-9", "A.b_c-9"),
		label(strings.Repeat("a.", 126)+"b/x", "v"), note("k", strings.Repeat("🙂", 5000)), note("k", "<&> \u2028\n"),
		note("empty", ""),
	} {
		f.want(t, 200, "PATCH", at("messages"), test)
	}
}

func TestBodies(t *testing.T) {
	f := newFixture(t)
	f.made(t, "bodies", nil)
	f.person(t, "bodies-writer", account.ScopeWrite)
	for _, test := range []struct{ body, warning string }{
		{`{`, "The body is not valid JSON, at byte 1 of 1."},
		{` `, "The body is empty; JSON is expected."},
		{`{"a":1,"a":2}`, "The body holds a key twice"},
		{`{} {}`, "The body holds more than one JSON value."},
		{"{\"a\":\"\xff\"}", "The body is not valid UTF-8."},
		{`{"username":"\ud800"}`, "half of a surrogate pair"},
	} {
		for _, path := range []string{at("bodies"), at("absent")} {
			a := f.do(t, "PATCH", path, test.body)
			a.refused(t, unparsable)
			if got, err := url.QueryUnescape(a.Header.Get("X-Cf-Warnings")); err != nil || !strings.Contains(got, test.warning) {
				t.Errorf("%s: the warning is %q, want %q", test.body, got, test.warning)
			}
		}
		f.do(t, "POST", "/v3/users", test.body).refused(t, unparsable)
	}
	// Of an account that is no admin the body is not read.
	for _, body := range []string{`{`, `{"x":1}`, strings.Repeat("x", 9<<20)} {
		f.as(t, "bodies-writer", "PATCH", at("bodies"), body).refused(t, notFound)
		f.as(t, "bodies-writer", "POST", "/v3/users", body).refused(t, forbidden)
	}
	self := f.Account(t, "bodies-self", []string{account.ScopeWrite}, nil)
	f.tokens["bodies-self"] = f.token(t, "bodies-self")
	f.as(t, "bodies-self", "PATCH", at(self), `{"x":1}`).refused(t, forbidden)
	f.do(t, "PATCH", at("absent"), `{"metadata":{"labels":{"a b":"c"}}}`).refused(t, notFound)

	const labels = `{"metadata":{"labels":{"type":"taken"}}}`
	for _, contentType := range []string{"application/json", "application/json; charset=utf-8", "text/json",
		"application/vnd.api+json", "application/merge-patch+json"} {
		f.want(t, 200, "PATCH", at("bodies"), labels, "Content-Type: "+contentType)
	}
	for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
		"application/yaml", ";"} {
		a := f.do(t, "PATCH", at("bodies"), labels, "Content-Type: "+contentType)
		if a.Status != 415 || !strings.Contains(a.Body, `"code":10008,"title":"CF-UnsupportedMediaType"`) {
			t.Errorf("%s: got %d %s", contentType, a.Status, a.Body)
		}
	}
	a := f.do(t, "PATCH", at("bodies"), `{"x":"`+strings.Repeat("x", 8<<20)+`"}`)
	if a.Status != 413 || !strings.Contains(a.Body, "CF-RequestEntityTooLarge") {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
}

func TestMerge(t *testing.T) {
	f := newFixture(t)
	f.made(t, "merge", map[string]string{"stays": "a", "changes": "b", "goes": "c"})
	u := f.want(t, 200, "PATCH", at("merge"),
		`{"metadata":{"labels":{"changes":"","goes":null,"comes":"d","a.b/comes":"e"},`+
			`"annotations":{"note":"é <&> \u0001"}}}`).user(t)
	want := map[string]string{"stays": "a", "changes": "", "comes": "d", "a.b/comes": "e"}
	if !maps.Equal(u.Metadata.Labels, want) || u.Metadata.Annotations["note"] != "é <&> \x01" {
		t.Errorf("got %v", u.Metadata)
	}
	if again := f.want(t, 200, "GET", at("merge"), "").user(t); !reflect.DeepEqual(again, u) {
		t.Errorf("got %+v, want %+v", again, u)
	}
	rows := f.AuditRows(t, "merge")
	if len(rows) != 2 || rows[1].Action != "account.update" || rows[1].Outcome != "done" {
		t.Fatalf("recorded are %v", rows)
	}
	var detail any
	if err := json.Unmarshal([]byte(rows[1].Detail), &detail); err != nil {
		t.Fatal(err)
	}
	to := func(from, to any) any { return map[string]any{"from": from, "to": to} }
	if want := map[string]any{"facet": "platform user", "annotations": []any{"note"}, "labels": map[string]any{
		"changes": to("b", ""), "goes": to("c", nil), "comes": to(nil, "d"), "a.b/comes": to(nil, "e"),
	}}; !reflect.DeepEqual(detail, any(want)) {
		t.Errorf("recorded is  %v\nwant %v", detail, want)
	}
}

// many returns n entries.
func many(from, n int) map[string]any {
	entries := map[string]any{}
	for i := range n {
		entries[fmt.Sprintf("k%d", from+i)] = "v"
	}
	return entries
}

func TestMetadataLimits(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct {
		section string
		limit   int
		code    int
	}{{"labels", 50, 390020}, {"annotations", 200, 390023}} {
		guid := "limits-" + test.section
		patch := func(entries map[string]any) answer {
			t.Helper()
			return f.do(t, "PATCH", at(guid), body(map[string]any{"metadata": map[string]any{test.section: entries}}))
		}
		over := func(n int) string {
			return fmt.Sprintf("422 %d Failed to add %d %s because it would exceed maximum of %d", test.code, n, test.section,
				test.limit)
		}
		count := func() int {
			t.Helper()
			u := f.want(t, 200, "GET", at(guid), "").user(t)
			return len(u.Metadata.Labels) + len(u.Metadata.Annotations)
		}
		create := body(map[string]any{"guid": guid, "metadata": map[string]any{test.section: many(0, test.limit+1)}})
		f.do(t, "POST", "/v3/users", create).refused(t, over(test.limit+1))
		f.do(t, "GET", at(guid), "").refused(t, notFound) // nothing is left of it

		f.made(t, guid, nil)
		patch(many(0, test.limit+1)).refused(t, over(test.limit+1))
		if a := patch(many(0, test.limit)); a.Status != 200 {
			t.Fatalf("got %s", a.Body)
		}
		patch(many(test.limit, 1)).refused(t, over(1))
		// What a request removes makes room, and what it sends counts.
		swap := many(test.limit, 1)
		swap["k0"] = nil
		if a := patch(swap); a.Status != 200 || count() != test.limit {
			t.Errorf("got %d and %d entries", a.Status, count())
		}
		swap = many(test.limit+1, 2)
		swap["k1"] = nil
		patch(swap).refused(t, over(3))

		// Who has too many from elsewhere may still change and remove some.
		_, err := f.DB.Pool.Exec(context.Background(), `UPDATE accounts SET `+test.section+` = $2 WHERE guid = $1`, guid,
			many(0, test.limit+5))
		if err != nil {
			t.Fatal(err)
		}
		if a := patch(map[string]any{"k0": "other"}); a.Status != 200 {
			t.Errorf("got %s", a.Body)
		}
		if a := patch(map[string]any{"k0": nil}); a.Status != 200 || count() != test.limit+4 {
			t.Errorf("got %s", a.Body)
		}
		if a := patch(map[string]any{"k1": nil, "new": "v"}); a.Status != 200 {
			t.Errorf("got %s", a.Body)
		}
		patch(map[string]any{"new2": "v"}).refused(t, over(1))
	}
}

// Fifty writers with a label each, at the same time: every label is there in the end.
func TestWritersLoseNothing(t *testing.T) {
	f := newFixture(t)
	f.made(t, "writers", nil)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			patch := body(map[string]any{"metadata": map[string]any{"labels": map[string]string{fmt.Sprintf("w%d", i): "v"}}})
			if a := f.do(t, "PATCH", at("writers"), patch); a.Status != 200 {
				t.Errorf("writer %d: %d %s", i, a.Status, a.Body)
			}
		})
	}
	wg.Wait()
	if u := f.want(t, 200, "GET", at("writers"), "").user(t); len(u.Metadata.Labels) != 50 {
		t.Errorf("%d labels are left", len(u.Metadata.Labels))
	}
	if rows := f.AuditRows(t, "writers"); len(rows) != 51 {
		t.Errorf("%d changes are recorded", len(rows))
	}
}

func TestTags(t *testing.T) {
	f := newFixture(t)
	a := f.want(t, 201, "POST", "/v3/users", `{"guid":"tags"}`)
	tag := a.Header.Get("ETag")
	if got := f.want(t, 200, "GET", at("tags"), "").Header.Get("ETag"); got != tag || tag == "" {
		t.Errorf("GET has the tag %s, POST %s", got, tag)
	}
	patch := func(value string) string { return `{"metadata":{"labels":{"k":"` + value + `"}}}` }
	backdate(t, f, "tags")
	old := a.user(t).UpdatedAt
	a = f.want(t, 200, "PATCH", at("tags"), patch("a"), "If-Match: "+tag)
	next := a.Header.Get("ETag")
	if next == tag || a.user(t).UpdatedAt < old {
		t.Errorf("after a change the tag is %s, the time %s", next, a.user(t).UpdatedAt)
	}
	stale := "412 10008 The user has changed: its tag is now " + next
	for _, tags := range []string{tag, "W/" + next, strings.Trim(next, `"`), `""`, `"*"`, tag + `, "x"`} {
		f.do(t, "PATCH", at("tags"), patch("b"), "If-Match: "+tags).refused(t, stale)
		f.do(t, "DELETE", at("tags"), "", "If-Match: "+tags).refused(t, stale)
	}
	backdate(t, f, "tags")
	before := f.want(t, 200, "GET", at("tags"), "")
	// A change that changes nothing.
	a = f.want(t, 200, "PATCH", at("tags"), patch("a"), "If-Match: "+tag+", "+next)
	if a.Body != before.Body || a.Header.Get("ETag") != next {
		t.Errorf("got %s %s", a.Header.Get("ETag"), a.Body)
	}
	a = f.want(t, 200, "PATCH", at("tags"), patch("c"), "If-Match: *")
	if moved := a.user(t).UpdatedAt; moved <= before.user(t).UpdatedAt {
		t.Errorf("updated_at is %s", moved)
	}
	// What is wrong with the request comes first.
	f.do(t, "PATCH", at("tags"), `{"x":1}`, "If-Match: "+tag).refused(t, "422 10008 Unknown field(s): 'x'")
	f.do(t, "PATCH", at("absent"), `{}`, "If-Match: *").refused(t, notFound)
	f.do(t, "DELETE", at("absent"), "", "If-Match: *").refused(t, notFoundDelete)
	f.want(t, 202, "DELETE", at("tags"), "", "If-Match: "+a.Header.Get("ETag"))
	// The tag of a user that is made again is another one.
	b := f.want(t, 201, "POST", "/v3/users", `{"guid":"tags"}`)
	if got := b.Header.Get("ETag"); got == tag {
		t.Errorf("the new user has the tag of the old one, %s", got)
	}
}

// backdate makes a user an hour older, so that a time that moves can be seen to.
func backdate(t testing.TB, f *fixture, guid string) {
	t.Helper()
	_, err := f.DB.Pool.Exec(context.Background(), `
		UPDATE accounts SET platform_created_at = platform_created_at - interval '1h',
			platform_updated_at = platform_updated_at - interval '1h' WHERE guid = $1`, guid)
	if err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	f := newFixture(t)
	guid := f.person(t, "names")
	f.person(t, "Names-Taken")
	patch := func(body string) answer { t.Helper(); return f.do(t, "PATCH", at(guid), body) }
	want := func(a answer, username, presentation, origin string) {
		t.Helper()
		if u := a.user(t); a.Status != 200 || *u.Username != username || u.PresentationName != presentation ||
			*u.Origin != origin {
			t.Errorf("got %d %s, want %s, %s, %s", a.Status, a.Body, username, presentation, origin)
		}
	}
	want(patch(`{}`), "names", "names", "uaa")
	want(patch(`{"presentation_name":"The Names"}`), "names", "The Names", "uaa")
	want(patch(`{"username":"names2"}`), "names2", "The Names", "uaa")
	want(patch(`{"presentation_name":null}`), "names2", "names2", "uaa")
	want(patch(`{"username":"names3"}`), "names3", "names3", "uaa")
	// The name that is shown anyway is not kept.
	want(patch(`{"presentation_name":"names3"}`), "names3", "names3", "uaa")
	want(patch(`{"username":"names4"}`), "names4", "names4", "uaa")
	// What is sent is shown.
	want(patch(`{"username":"names5","presentation_name":"names4"}`), "names5", "names4", "uaa")
	want(patch(`{"username":"names6","presentation_name":"names6"}`), "names6", "names6", "uaa")
	want(patch(`{"username":"NAMES6"}`), "NAMES6", "NAMES6", "uaa")
	for _, test := range []struct{ body, want string }{
		{`{"username":"names-taken"}`, "409 10008 User with username 'names-taken' and origin 'uaa' already exists."},
		{`{"username":"NAMES-taken","origin":"uaa","metadata":{"labels":{"lost":"x"}}}`,
			"409 10008 User with username 'NAMES-taken' and origin 'uaa' already exists."},
		{`{"username":null}`, "422 10008 Username must be a string"},
		{`{"origin":null,"username":null}`, "422 10008 Username must be a string, Origin must be a string"},
		{`{"origin":7,"username":[]}`, "422 10008 Origin must be a string, Username must be a string"},
		{`{"username":"","origin":"","presentation_name":""}`,
			"422 10008 Username must be between 1 and 255 characters, Origin must be between 1 and 255 characters, Presentation " +
				"name must be between 1 and 255 characters"},
		{body(map[string]string{"username": strings.Repeat("é", 256)}), "422 10008 Username must be between 1 and 255 characters"},
		{`{"username":"a\u0000b"}`, "422 10008 Username cannot contain control characters"},
		{`{"presentation_name":7}`, "422 10008 Presentation name must be a string"},
		{`{"username":"a:b"}`, "422 10008 A user name has no colon: it could not sign in with HTTP Basic."},
		{`{"username":"a\u200b"}`, "422 10008 A user name has only characters that are shown: no control characters, and none " +
			"of zero width or of text direction."},
		{`{"origin":"a\u2028"}`, "422 10008 An origin has at most 255 characters, and only characters that are shown: no " +
			"control characters, and none of zero width or of text direction."},
		{`{"presentation_name":"a\u202e"}`, "422 10008 A presentation name has at most 255 characters, and only characters that " +
			"are shown: no control characters, and none of zero width or of text direction."},
	} {
		before := f.want(t, 200, "GET", at(guid), "").Body
		patch(test.body).refused(t, test.want)
		if after := f.want(t, 200, "GET", at(guid), "").Body; after != before {
			t.Errorf("%s: the user has changed: %s", test.body, after)
		}
	}

	// A user that is known by its guid alone gets a name with an origin or not at all.
	f.made(t, "names-guid", nil)
	u := f.want(t, 200, "PATCH", at("names-guid"), `{"username":null,"origin":null,"presentation_name":"names-guid"}`).user(t)
	if u.Username != nil || u.Origin != nil || u.PresentationName != "names-guid" {
		t.Errorf("got %+v", u)
	}
	f.do(t, "PATCH", at("names-guid"), `{"username":"a"}`).refused(t,
		"422 10008 Username can only be provided together with 'origin'")
	f.do(t, "PATCH", at("names-guid"), `{"origin":"a"}`).refused(t,
		"422 10008 Origin can only be provided together with 'username'")
	f.want(t, 200, "PATCH", at("names-guid"), `{"username":"names-guided","origin":"ldap"}`)

	// Names that are somebody else's to give.
	f.made(t, "names-program", nil)
	f.made(t, "names-external", nil)
	for _, sql := range []string{
		`UPDATE accounts SET program = true, identity_created_at = now(), identity_updated_at = now()
			WHERE guid = 'names-program'`,
		`UPDATE accounts SET username = 'ext', origin = 'corp', issuer = 'https://corp.example', subject = '7'
			WHERE guid = 'names-external'`,
	} {
		if _, err := f.DB.Pool.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	f.do(t, "PATCH", at("names-program"), `{"username":"a","origin":"uaa"}`).refused(t,
		"422 10008 This user is a client: it has no username and origin")
	const external = "422 10008 Username and origin of this user are its identity provider's and cannot be changed"
	// Nobody has signed in as this one.
	prepared := f.want(t, 201, "POST", "/v3/users", `{"username":"names-prepared","origin":"okta-x"}`).user(t).GUID
	for _, guid := range []string{"names-external", "names-guid", prepared} {
		for _, change := range []string{`{"username":"a"}`, `{"origin":"a"}`, `{"origin":"uaa"}`,
			`{"username":"a","origin":"uaa"}`} {
			f.do(t, "PATCH", at(guid), change).refused(t, external)
		}
	}
	f.want(t, 200, "PATCH", at("names-external"),
		`{"username":"ext","origin":"corp","presentation_name":"E","metadata":{"labels":{"a":"b"}}}`)

	want(patch(`{"origin":"ldap"}`), "NAMES6", "NAMES6", "ldap")
	patch(`{"origin":"uaa"}`).refused(t, external)

	// The name is the identity's as well, whose version therefore moves.
	var version int
	if err := f.DB.Pool.QueryRow(context.Background(), `SELECT identity_version FROM accounts WHERE guid = $1`,
		guid).Scan(&version); err != nil {
		t.Fatal(err)
	}
	if version != 7 {
		t.Errorf("the identity's version is %d after seven changes of its name", version)
	}
}

// What was read can be edited and sent back.
func TestRoundTrip(t *testing.T) {
	f := newFixture(t)
	guid := f.person(t, "round-trip")
	f.made(t, "round-trip-guid", map[string]string{"a": "b"})
	for _, guid := range []string{guid, "round-trip-guid"} {
		before := f.want(t, 200, "GET", at(guid), "")
		after := f.want(t, 200, "PATCH", at(guid), before.Body, "If-Match: "+before.Header.Get("ETag"))
		if after.Body != before.Body || after.Header.Get("ETag") != before.Header.Get("ETag") {
			t.Errorf("got %s\nwant %s", after.Body, before.Body)
		}
		var fields map[string]any
		before.Into(t, &fields)
		fields["metadata"] = map[string]any{"labels": map[string]string{"edited": "yes"}}
		fields["links"] = nil
		created, err := time.Parse(time.RFC3339, fields["created_at"].(string))
		if err != nil {
			t.Fatal(err)
		}
		fields["created_at"] = created.In(time.FixedZone("", 3600)).Format(time.RFC3339) // as a client in another place writes it
		if u := f.want(t, 200, "PATCH", at(guid), body(fields)).user(t); u.Metadata.Labels["edited"] != "yes" {
			t.Errorf("got %+v", u)
		}
	}
	for _, test := range []struct{ field, value string }{
		{"guid", `"other"`}, {"guid", `null`}, {"created_at", `"2020-01-01T00:00:00Z"`}, {"updated_at", `null`},
		{"updated_at", `"yesterday"`},
	} {
		f.do(t, "PATCH", at(guid), `{"`+test.field+`":`+test.value+`}`).refused(t, "422 10008 Unknown field(s): '"+test.field+"'")
	}
}

func TestOddGuids(t *testing.T) {
	f := newFixture(t)
	for _, guid := range []string{
		"weird-/(%)", "my-app!s22", "sb-x!b1|y!b2", "dotted.client.id", "...", "a b", "a+b", "%41", "%2F", "é🙂", "a?b#c",
		`q"'<>&\`, "UPPER", "upper",
		strings.Repeat("é", 200), "a,b", ";", "*",
	} {
		made := f.made(t, guid, map[string]string{"odd": "yes"})
		if made.GUID != guid || made.PresentationName != guid {
			t.Errorf("made is %+v, want the guid %q", made, guid)
		}
		path, ok := strings.CutPrefix(made.Links.Self.Href, servicetest.PublicURL)
		if !ok || strings.ContainsAny(path, " +") && !strings.Contains(guid, "+") {
			t.Errorf("the link of %q is %s", guid, made.Links.Self.Href)
		}
		for _, p := range []string{path, at(guid)} {
			if u := f.want(t, 200, "GET", p, "").user(t); u.GUID != guid {
				t.Errorf("at %s is %q, want %q", p, u.GUID, guid)
			}
		}
		f.want(t, 200, "PATCH", path, `{"metadata":{"labels":{"odd":"still"}}}`)
		// In a list, a comma and a percent sign are encoded twice.
		var list struct{ Resources []user }
		f.want(t, 200, "GET", "/v3/users?guids="+url.QueryEscape(url.PathEscape(guid)), "").Into(t, &list)
		if len(list.Resources) != 1 || list.Resources[0].GUID != guid {
			t.Errorf("%q is listed as %v", guid, list.Resources)
		}
		f.want(t, 202, "DELETE", path, "")
		f.do(t, "GET", path, "").refused(t, notFound)
	}
	// As the reference's own specs have it.
	if got := f.made(t, "weird-/(%)", nil).Links.Self.Href; got != servicetest.PublicURL+"/v3/users/weird-%2F%28%25%29" {
		t.Errorf("the link is %s", got)
	}
	f.do(t, "GET", "/v3/users/%00", "").refused(t, notFound)
	f.do(t, "GET", "/v3/users/%FF", "").refused(t, notFound)
	f.do(t, "PATCH", "/v3/users/%00", "{}").refused(t, notFound)
	f.do(t, "DELETE", "/v3/users/%00", "").refused(t, notFoundDelete)
	f.person(t, "odd-reader", account.ScopeRead)
	f.as(t, "odd-reader", "DELETE", "/v3/users/%00", "").refused(t, forbidden)
}

func TestCreateMessages(t *testing.T) {
	f := newFixture(t)
	f.made(t, "create-taken", nil)
	f.want(t, 201, "POST", "/v3/users", `{"username":"create-taken","origin":"ldap"}`)
	const guidLength = "Guid must be between 1 and 200 characters"
	for _, test := range []struct{ body, want string }{
		{`{"guid":5}`, "Guid must be a string, " + guidLength},
		{`{"guid":""}`, guidLength},
		{`{"guid":"` + strings.Repeat("x", 201) + `"}`, guidLength},
		{`{"guid":"a\u0000"}`, "Guid cannot contain control characters"},
		{`{"guid":"a","username":"b"}`, "Username cannot be provided with 'guid'"},
		{`{"guid":"a","origin":"b"}`, "Origin cannot be provided with 'guid'"},
		{`{"guid":"a","username":"b","origin":"c"}`,
			"Username cannot be provided with 'guid', Origin cannot be provided with 'guid'"},
		{`{"username":5,"origin":"b"}`, "Username must be a string"},
		{`{"username":"a","origin":true}`, "Origin must be a string"},
		{`{"username":"a","origin":""}`, "Origin must be between 1 and 255 characters"},
		{`{"origin":"b"}`, "Origin can only be provided together with 'username'"},
		{`{"username":"a"}`, "Username can only be provided together with 'origin'"},
		{`{"username":"a","origin":"uaa"}`, "Origin cannot be 'uaa' when creating a user by username"},
		{`{}`, "Guid or 'username' and 'origin' must be provided"},
		{``, "Guid or 'username' and 'origin' must be provided"},
		{`{"guid":null,"metadata":{"labels":null}}`, "Guid or 'username' and 'origin' must be provided"},
		{`{"guid":"a","presentation_name":"b"}`, "Unknown field(s): 'presentation_name'"},
		{`[]`, "Guid or 'username' and 'origin' must be provided, Unknown field(s): '_json'"},
		{`{"guid":"a","metadata":{"labels":{"a b":"c"}}}`, "Metadata label key error: 'a b' contains invalid characters"},
		{`{"guid":"bootstrap"}`, `The guid "bootstrap" is reserved for Rolecall itself. Choose another.`},
		{`{"guid":"create-taken"}`, "User with guid 'create-taken' already exists."},
		{`{"username":"Create-Taken","origin":"ldap"}`, "User with username 'Create-Taken' and origin 'ldap' already exists."},
	} {
		f.do(t, "POST", "/v3/users", test.body).refused(t, "422 10008 "+test.want)
	}
}

func TestCreate(t *testing.T) {
	f := newFixture(t)
	// Somebody of whom nothing is known but the guid.
	a := f.want(t, 201, "POST", "/v3/users",
		`{"guid":"create-guid","metadata":{"labels":{"a":"b","c":null},"annotations":null}}`)
	u := a.user(t)
	if u.Username != nil || u.Origin != nil || u.UpdatedAt != u.CreatedAt ||
		!maps.Equal(u.Metadata.Labels, map[string]string{"a": "b"}) || u.Metadata.Annotations == nil {
		t.Errorf("got %s", a.Body)
	}
	if a.Header.Get("Location") != "" {
		t.Error("there is a Location, which clients take for a job's")
	}

	// Somebody of another identity provider.
	u = f.want(t, 201, "POST", "/v3/users", `{"username":"Create@corp.example","origin":"corp"}`).user(t)
	if *u.Username != "Create@corp.example" || *u.Origin != "corp" || u.PresentationName != "Create@corp.example" ||
		len(u.GUID) != 36 {
		t.Errorf("got %+v", u)
	}

	// An identity that has not been seen yet.
	guid := f.Account(t, "create-identity", nil, nil)
	f.onlyIdentity(t, guid)
	f.do(t, "GET", at(guid), "").refused(t, notFound)
	f.do(t, "PATCH", at(guid), `{}`).refused(t, notFound)
	u = f.want(t, 201, "POST", "/v3/users", body(
		map[string]any{"guid": guid, "metadata": map[string]any{"labels": map[string]string{"a": "b"}}})).user(t)
	if *u.Username != "create-identity" || *u.Origin != "uaa" || u.Metadata.Labels["a"] != "b" {
		t.Errorf("got %+v", u)
	}
	f.do(t, "POST", "/v3/users", body(map[string]string{"guid": guid})).refused(t,
		"422 10008 User with guid '"+guid+"' already exists.")

	// One that is found by its name.
	_, err := f.DB.Pool.Exec(context.Background(), `UPDATE accounts SET origin = 'corp' WHERE guid = $1`, guid)
	if err != nil {
		t.Fatal(err)
	}
	f.onlyIdentity(t, guid)
	u = f.want(t, 201, "POST", "/v3/users", `{"username":"CREATE-identity","origin":"corp"}`).user(t)
	if u.GUID != guid || *u.Username != "create-identity" || len(u.Metadata.Labels) != 0 {
		t.Errorf("got %+v", u)
	}
	rows := f.AuditRows(t, guid)
	if last := rows[len(rows)-1]; last.Action != "account.create" ||
		!strings.Contains(last.Detail, `"facet": "platform user"`) {
		t.Errorf("recorded is %+v", last)
	}
}

// onlyIdentity takes the platform user from an account, as if it never had one.
func (f *fixture) onlyIdentity(t testing.TB, guid string) {
	t.Helper()
	_, err := f.DB.Pool.Exec(context.Background(), `
		UPDATE accounts SET platform_created_at = NULL, platform_updated_at = NULL, labels = '{}' WHERE guid = $1`, guid)
	if err != nil {
		t.Fatal(err)
	}
}

// Creations of one user at the same time: one wins.
func TestCreateAtOnce(t *testing.T) {
	f := newFixture(t)
	for _, request := range []string{`{"guid":"at-once"}`, `{"username":"at-once","origin":"ldap"}`} {
		results := make(chan int, 10)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { results <- f.do(t, "POST", "/v3/users", request).Status })
		}
		wg.Wait()
		close(results)
		count := map[int]int{}
		for status := range results {
			count[status]++
		}
		if count[201] != 1 || count[422] != 9 {
			t.Errorf("%s: got %v", request, count)
		}
	}
}

func TestDelete(t *testing.T) {
	f := newFixture(t)
	f.made(t, "delete-guid", map[string]string{"a": "b"})
	a := f.want(t, 202, "DELETE", at("delete-guid"), "")
	if a.Body != "" || a.Header.Get("Content-Length") != "0" {
		t.Errorf("got %q", a.Body)
	}
	path, ok := strings.CutPrefix(a.Header.Get("Location"), servicetest.PublicURL)
	if !ok || !strings.HasPrefix(path, "/v3/jobs/") {
		t.Fatalf("the job is at %q", a.Header.Get("Location"))
	}
	var job struct {
		GUID, Operation, State string
		Errors, Warnings       []any
		Links                  map[string]struct{ Href string }
	}
	f.person(t, "delete-reader", account.ScopeRead)
	f.as(t, "delete-reader", "GET", path, "").Into(t, &job)
	if "/v3/jobs/"+job.GUID != path || job.Operation != "user.delete" || job.State != "COMPLETE" ||
		len(job.Errors)+len(job.Warnings) != 0 ||
		job.Links["self"].Href != a.Header.Get("Location") {
		t.Errorf("the job is %+v", job)
	}
	f.do(t, "GET", "/v3/jobs/"+strings.Repeat("0", 36), "").refused(t, "404 10010 Job not found")
	f.do(t, "GET", "/v3/jobs/00000000-0000-0000-0000-000000000000", "").refused(t, "404 10010 Job not found")
	f.do(t, "DELETE", at("delete-guid"), "").refused(t, notFoundDelete)
	f.do(t, "GET", at("delete-guid"), "").refused(t, notFound)

	// An identity stays, and its tokens do not.
	guid := f.person(t, "delete-identity", account.ScopeRead)
	f.want(t, 200, "PATCH", at(guid), `{"presentation_name":"D","metadata":{"labels":{"a":"b"},"annotations":{"c":"d"}}}`)
	f.want(t, 202, "DELETE", at(guid), "")
	f.do(t, "GET", at(guid), "").refused(t, notFound)
	f.as(t, "delete-identity", "GET", at(guid), "").refused(t, badToken)
	u := f.want(t, 201, "POST", "/v3/users", body(map[string]string{"guid": guid})).user(t)
	if *u.Username != "delete-identity" || u.PresentationName != "delete-identity" ||
		len(u.Metadata.Labels)+len(u.Metadata.Annotations) != 0 {
		t.Errorf("made again it is %+v", u)
	}
	f.as(t, "delete-identity", "GET", at(guid), "").refused(t, badToken)
	f.tokens["delete-identity"] = f.token(t, "delete-identity")
	if a := f.as(t, "delete-identity", "GET", at(guid), ""); a.Status != 200 {
		t.Errorf("a new token: %d %s", a.Status, a.Body)
	}
	recorded := false
	for _, row := range f.AuditRows(t, guid) {
		recorded = recorded || row.Action == "account.delete" && strings.Contains(row.Detail, `"identity_kept": true`) &&
			strings.Contains(row.Detail, `"labels": {"a": "b"}`)
	}
	if !recorded {
		t.Error("the deletion is not recorded")
	}
}

// Changes and deletions of one user at the same time: the user is gone once, and no change comes after that.
func TestDeleteAgainstPatch(t *testing.T) {
	f := newFixture(t)
	for round := range 5 {
		guid := fmt.Sprintf("race-%d", round)
		f.made(t, guid, nil)
		var mu sync.Mutex
		count := map[string]int{}
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				method, send := "PATCH", fmt.Sprintf(`{"metadata":{"labels":{"l%d":"v"}}}`, i)
				if i%4 == 3 {
					method, send = "DELETE", ""
				}
				a := f.do(t, method, at(guid), send)
				mu.Lock()
				count[fmt.Sprint(method, " ", a.Status)]++
				mu.Unlock()
			})
		}
		wg.Wait()
		if count["DELETE 202"] != 1 || count["DELETE 404"] != 2 || count["PATCH 200"]+count["PATCH 404"] != 9 {
			t.Errorf("got %v", count)
		}
		rows := f.AuditRows(t, guid)
		if last := rows[len(rows)-1]; last.Action != "account.delete" || len(rows) != count["PATCH 200"]+2 {
			t.Errorf("%v: recorded are %v", count, rows)
		}
	}
}

func TestDatabaseDown(t *testing.T) {
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	s.Admin(t, "root")
	f := fixtureOn(t, s, 0)
	guid := f.made(t, "down", nil).GUID
	fresh := f.token(t, "root")
	pg.Stop(t)
	const down = "503 10015 Database connection failure"
	// One token is remembered, the other has never been seen.
	for _, token := range []string{f.tokens["root"], fresh} {
		for _, request := range []string{"GET /v3/users", "GET " + at(guid), "PATCH " + at(guid), "DELETE " + at(guid),
			"POST /v3/users"} {
			method, path, _ := strings.Cut(request, " ")
			send := ""
			if method == http.MethodPost {
				send = `{"guid":"x"}`
			}
			a := f.send(t, method, path, send, "Authorization: bearer "+token)
			if a.refused(t, down); a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: there is no Retry-After", request)
			}
		}
	}
	if a := f.as(t, "", "GET", "/", ""); a.Status != 200 {
		t.Errorf("discovery is %d", a.Status)
	}
}

// TestLabelsOfIssuers: the label that an issuer sets is changed by nobody else.
func TestLabelsOfIssuers(t *testing.T) {
	s := *servicetest.Shared(t)
	s.Accounts = account.NewStore(s.DB, account.Issuer{Name: "corp", Origin: "cf.example.org", Links: true,
		LabelKeys: []string{"team"}})
	f := fixtureOn(t, &s, 0)
	made, err := s.Accounts.External(t.Context(), account.External{Issuer: "https://cf.example.org", Subject: "1",
		Origin: "cf.example.org", Username: "nora", Labels: map[string]string{"team": "a"}, Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	const says = `"code":10008,"title":"CF-UnprocessableEntity","detail":"The label \"team\" of this account is set by the ` +
		`issuer \"corp\" at each sign-in`
	for _, r := range [][3]string{
		{"PATCH", at(made.GUID), `{"metadata":{"labels":{"team":"b"}}}`},
		{"PATCH", at(made.GUID), `{"metadata":{"labels":{"team":null,"room":"1"}}}`},
		{"POST", "/v3/users", `{"username":"prepared","origin":"cf.example.org","metadata":{"labels":{"team":"b"}}}`},
	} {
		if a := f.want(t, 422, r[0], r[1], r[2]); !strings.Contains(a.Body, says) {
			t.Errorf("%s %s: %s", r[0], r[2], a.Body)
		}
	}
	if a := f.want(t, 200, "PATCH", at(made.GUID), `{"metadata":{"labels":{"team":"a","room":"1"}}}`); !strings.Contains(a.Body,
		`"labels":{"room":"1","team":"a"}`) {
		t.Errorf("got %s", a.Body)
	}
}
