package adminapi

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"rolecall/internal/fault"
	"rolecall/internal/secret"
	"rolecall/internal/web"
)

// query is the query string of one request.
type query struct{ url.Values }

func parseQuery(r *http.Request) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, fault.New(fault.Malformed, "The query string is not valid.").Because(err)
	}
	return query{values}, nil
}

// check refuses parameters that the operation does not have, and any that is sent twice but may not: nobody but this
// dialect's own clients sends them. Messages do not quote what could not be read, because they are logged.
func (q query) check(known []string) error {
	seen := 0
	for _, parameter := range known {
		name, repeatable := strings.CutSuffix(parameter, "...")
		if len(q.Values[name]) > 1 && !repeatable {
			return fault.New(fault.Malformed, "The query parameter %s was given %d times.", name, len(q.Values[name]))
		}
		if q.Has(name) {
			seen++
		}
	}
	switch {
	case seen == len(q.Values):
		return nil
	case len(known) == 0:
		return fault.New(fault.Malformed, "This operation takes no query parameters.")
	}
	return fault.New(fault.Malformed, "The query has an unknown parameter; allowed: %s.",
		strings.ReplaceAll(strings.Join(known, ", "), "...", ""))
}

// text reads an optional text; "": it was not sent.
func (q query) text(name string) (string, error) {
	s := q.Get(name)
	if q.Has(name) && (s == "" || !utf8.ValidString(s) || strings.Contains(s, "\x00")) {
		return "", fault.New(fault.Malformed, "The query parameter %s must be text, and not empty.", name)
	}
	return s, nil
}

// flag reads an optional boolean; nil: it was not sent.
func (q query) flag(name string) (*bool, error) {
	if !q.Has(name) {
		return nil, nil
	}
	v := q.Get(name) == "true"
	if !v && q.Get(name) != "false" {
		return nil, fault.New(fault.Malformed, "The query parameter %s must be true or false.", name)
	}
	return &v, nil
}

// yes reads an optional boolean that is false if it was not sent.
func (q query) yes(name string) (bool, error) {
	v, err := q.flag(name)
	return v != nil && *v, err
}

func (q query) integer(name string, fallback, low, high int) (int, error) {
	if !q.Has(name) {
		return fallback, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fault.New(fault.Malformed, "The query parameter %s must be an integer.", name)
	}
	if err != nil || n < low || n > high {
		return 0, fault.New(fault.Invalid, "The query parameter %s must be between %d and %d.", name, low, high)
	}
	return n, nil
}

// The most bytes of a body: a large one has room for the certificates of a connection, or for annotations.
const (
	maxBody      = 64 << 10
	maxLargeBody = 256 << 10
)

// object is a JSON object that knows where in the body it stands, and collects the first mistake in what is read of it.
// A handler reads all fields that there are and then asks done, which refuses those that it did not read: a field whose
// name is mistyped must not pass for one that was left out.
type object struct {
	at     string // "connection.tls.", with the dot at its end
	values *web.Object
	known  map[string]bool
	err    *error
}

func body(w http.ResponseWriter, r *http.Request) (*object, error) { return limitedBody(w, r, maxBody) }

// largeBody is for changes whose scope the handler has checked: nobody else makes the server read so much.
func largeBody(w http.ResponseWriter, r *http.Request) (*object, error) {
	return limitedBody(w, r, maxLargeBody)
}

func limitedBody(w http.ResponseWriter, r *http.Request, limit int64) (*object, error) {
	v, err := web.Body(w, r, limit)
	if err != nil {
		return nil, err
	}
	values, ok := v.(*web.Object)
	if !ok {
		return nil, fault.New(fault.Invalid, "The body must be an object, not %s.", web.TypeName(v))
	}
	return &object{values: values, known: map[string]bool{}, err: new(error)}, nil
}

// optionalBody is body where none is as good as an empty object.
func optionalBody(w http.ResponseWriter, r *http.Request) (*object, error) {
	if !web.HasBody(r) {
		return &object{values: &web.Object{}, known: map[string]bool{}, err: new(error)}, nil
	}
	return body(w, r)
}

func (o *object) mistake(name, want string, v any) {
	if *o.err == nil {
		*o.err = fault.New(fault.Invalid, "The field %s%s must be %s, not %s.", o.at, name, want, web.TypeName(v))
	}
}

func (o *object) get(name string) (any, bool) {
	o.known[name] = true
	return o.values.Get(name)
}

// text is nil when the field is not there.
func (o *object) text(name string) *string {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	s, ok := v.(string)
	if !ok {
		o.mistake(name, "a string", v)
	}
	return &s
}

// secret is nil when the field is not there.
func (o *object) secret(name string) *secret.Text { return (*secret.Text)(o.text(name)) }

// textOrNull is nil when the field is not there, and empty when it is null; an empty string is a mistake.
func (o *object) textOrNull(name string) *string {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	s, ok := v.(string)
	if v != nil && (!ok || s == "") {
		o.mistake(name, "null or a string that is not empty", v)
	}
	return &s
}

// texts is nil when the field is not there.
func (o *object) texts(name string) *[]string {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	items, ok := v.([]any)
	if !ok {
		o.mistake(name, "an array", v)
	}
	list := make([]string, len(items))
	for i, item := range items {
		if list[i], ok = item.(string); !ok {
			o.mistake(name+"["+strconv.Itoa(i)+"]", "a string", item)
		}
	}
	return &list
}

// object is nil when the field is not there.
func (o *object) object(name string) *object {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	inner := &object{at: o.at + name + ".", known: map[string]bool{}, err: o.err}
	if inner.values, ok = v.(*web.Object); !ok {
		o.mistake(name, "an object", v)
		inner.values = &web.Object{}
	}
	return inner
}

// objects is nil when the field is not there.
func (o *object) objects(name string) (list []*object) {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	items, ok := v.([]any)
	if !ok {
		o.mistake(name, "an array", v)
	}
	for i, item := range items {
		at := name + "[" + strconv.Itoa(i) + "]"
		values, ok := item.(*web.Object)
		if !ok {
			o.mistake(at, "an object", item)
			return nil
		}
		list = append(list, &object{at: o.at + at + ".", values: values, known: map[string]bool{}, err: o.err})
	}
	return list
}

// done is the first mistake, one in a field that is not known included.
func (o *object) done() error {
	for i, key := range o.values.Keys {
		if !o.known[key] && *o.err == nil {
			// Not named: what a caller took for a key may be anything, a password too, and the message is logged.
			where := "the body"
			if o.at != "" {
				where = strings.TrimSuffix(o.at, ".")
			}
			allowed := strings.Join(slices.Sorted(maps.Keys(o.known)), ", ")
			*o.err = fault.New(fault.Invalid, "The field %d of %s is unknown; allowed: %s.", i+1, where,
				cmp.Or(allowed, "none"))
		}
	}
	return *o.err
}
