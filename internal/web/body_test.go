package web

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"rolecall/internal/fault"
)

func TestParseJSON(t *testing.T) {
	for text, want := range map[string]any{
		`null`: nil, `true`: true, ` "x" `: "x", `12`: json.Number("12"), `-1.5e+3`: json.Number("-1.5e+3"),
		`[]`: []any{}, `[1,[null]]`: []any{json.Number("1"), []any{nil}},
		`{}`: &Object{Values: map[string]any{}},
		`{"b":1,"a":{"b":""}}`: &Object{[]string{"b", "a"},
			map[string]any{"b": json.Number("1"), "a": &Object{[]string{"b"}, map[string]any{"b": ""}}}},
		`{"a":1,"A":2}`:         &Object{[]string{"a", "A"}, map[string]any{"a": json.Number("1"), "A": json.Number("2")}},
		`"\ud83d\ude42\\ud83d"`: "🙂\\ud83d",
		`"\u0000"`:              "\x00",
	} {
		got, err := ParseJSON([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, %v", text, got, err)
		}
	}
	for text, message := range map[string]string{
		"":                                       "is empty",
		" \n":                                    "is empty",
		"\ufeff{}":                               "byte order mark (BOM)",
		"\xff\xfe{\x00}\x00":                     "byte order mark (BOM)",
		"\xfe\xff\x00{\x00}":                     "byte order mark (BOM)",
		"{}\ufeff":                               "more than one",
		"{":                                      "not valid JSON",
		`{"a"}`:                                  "not valid JSON, at byte",
		`{"a":1,}`:                               "not valid JSON",
		`[1,]`:                                   "not valid JSON",
		`[1}`:                                    "not valid JSON",
		`{]`:                                     "not valid JSON",
		`{1:2}`:                                  "not valid JSON",
		`01`:                                     "more than one",
		`nul`:                                    "not valid JSON",
		"\"a\nb\"":                               "not valid JSON",
		`{} {}`:                                  "more than one",
		`{}}`:                                    "more than one",
		"1 2":                                    "more than one",
		"\"\xff\"":                               "not valid UTF-8",
		"\xed\xa0\xbd":                           "not valid UTF-8",
		`{"secret":1,"secret":2}`:                "a key twice",
		`[{"a":{"b":1,"\u0062":2}}]`:             "a key twice",
		`"\ud83d"`:                               "half of a surrogate pair",
		`"\ude42\ud83d"`:                         "half of a surrogate pair",
		`"\ud83d\\ude42"`:                        "half of a surrogate pair",
		`"\uD83Dx"`:                              "half of a surrogate pair",
		`{"\ud83d":1}`:                           "half of a surrogate pair",
		strings.Repeat("[", 40):                  "deeper than 32",
		strings.Repeat(`{"a":`, 10000):           "deeper than 32",
		"[" + strings.Repeat("1,", 10000) + "1]": "more than 10000 values",
	} {
		got, err := ParseJSON([]byte(text))
		if !fault.Is(err, fault.Malformed) || got != nil || !strings.Contains(fault.Of(err).Message, message) ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40s: got %v, %v; want %q", text, got, err, message)
		}
	}
}

// FuzzParseJSON: what is taken is what encoding/json takes, and means the same.
func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"\ud83d\ude42",null,{"b":true}]}`, `{"a":1,"a":2}`, `[1,]`, `"\ud83d"`, "\xff",
		`1e9999`, `{"a":1}}`, `[[[[[[`, `"\u12"`, "\u2028", `{"":""}`, `-0`, `"\\\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseJSON(data)
		if err != nil {
			m := fault.Of(err).Message
			if !fault.Is(err, fault.Malformed) {
				t.Errorf("%q: %v", data, err)
			}
			// What encoding/json takes is refused for these reasons only.
			strict := strings.Contains(m, "twice") || strings.Contains(m, "surrogate") || strings.Contains(m, "UTF-8") ||
				strings.Contains(m, "deeper") || strings.Contains(m, "values")
			if json.Valid(data) && !strict {
				t.Errorf("%q is valid: %v", data, err)
			}
			return
		}
		var want any
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.UseNumber()
		if err := d.Decode(&want); err != nil || !json.Valid(data) {
			t.Fatalf("%q is taken, and not valid: %v", data, err)
		}
		if got := plainValue(t, v); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, want %#v", data, got, want)
		}
	})
}

func plainValue(t *testing.T, v any) any {
	switch v := v.(type) {
	case *Object:
		m := map[string]any{}
		for _, key := range v.Keys {
			m[key] = plainValue(t, v.Values[key])
		}
		if len(m) != len(v.Keys) || len(m) != len(v.Values) {
			t.Errorf("the keys %q of %v", v.Keys, v.Values)
		}
		return m
	case []any:
		a := []any{}
		for _, e := range v {
			a = append(a, plainValue(t, e))
		}
		return a
	}
	return v
}

func TestBody(t *testing.T) {
	read := func(contentType string, body io.Reader) error {
		r := httptest.NewRequest("POST", "/", body)
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		_, err := Body(httptest.NewRecorder(), r, 100)
		return err
	}
	for _, contentType := range []string{"", "application/json", "APPLICATION/JSON; charset=utf-16", "text/json",
		"application/problem+json", "application/json;"} {
		if err := read(contentType, strings.NewReader("{}")); err != nil {
			t.Errorf("%s: %v", contentType, err)
		}
	}
	for _, contentType := range []string{"text/plain", "application/xml", "json", "application/", "+json", "text/x+json",
		"application/json; x", "multipart/form-data; boundary=x", ","} {
		if err := read(contentType, strings.NewReader("{}")); !fault.Is(err, fault.MediaType) {
			t.Errorf("%s: %v", contentType, err)
		}
	}
	if err := read("", strings.NewReader("{}"+strings.Repeat(" ", 98))); err != nil {
		t.Errorf("100 bytes: %v", err)
	}
	if err := read("", strings.NewReader("{}"+strings.Repeat(" ", 99))); !fault.Is(err, fault.TooLarge) {
		t.Errorf("101 bytes: %v", err)
	}
	if err := read("", iotest.ErrReader(errors.New("cut off"))); !fault.Is(err, fault.Malformed) ||
		strings.Contains(fault.Of(err).Message, "cut off") {
		t.Errorf("cut off: %v", err)
	}
}

func TestTypeName(t *testing.T) {
	for text, want := range map[string]string{"null": "null", "true": "a boolean", `""`: "a string", "1": "a number",
		"[]": "an array", "{}": "an object"} {
		v, err := ParseJSON([]byte(text))
		if got := TypeName(v); err != nil || got != want {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
}
