package dbaas

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

// query is the query string of one request. Unknown parameters are ignored: clients add some of their own. Messages do not
// quote values that cannot be read, because messages are logged and a query string may contain anything.
type query struct{ url.Values }

func parseQuery(r *http.Request) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, fault.New(fault.Malformed, "The query string is not valid.").Because(err)
	}
	return query{values}, nil
}

// one returns a parameter, and whether it was given.
func (q query) one(name string) (value string, given bool, err error) {
	values := q.Values[name]
	if len(values) > 1 {
		return "", false, fault.New(fault.Malformed, "The query parameter %s was given %d times.", name, len(values))
	}
	if len(values) == 0 {
		return "", false, nil
	}
	return values[0], true, nil
}

func (q query) integer(name string, fallback, low, high int) (int, error) {
	value, given, err := q.one(name)
	if err != nil || !given {
		return fallback, err
	}
	n, err := strconv.Atoi(value)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fault.New(fault.Malformed, "The query parameter %s must be an integer.", name)
	}
	if err != nil || n < low || n > high {
		return 0, fault.New(fault.Invalid, "The query parameter %s must be between %d and %d, not %.40s.", name, low, high, value)
	}
	return n, nil
}

// boolean accepts the words in any case: one client sends True.
func (q query) boolean(name string) (bool, error) {
	value, given, err := q.one(name)
	if err != nil || !given {
		return false, err
	}
	switch strings.ToLower(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fault.New(fault.Malformed, "The query parameter %s must be true or false.", name)
}

// The limits of pages. The highest offset is the largest 32-bit integer, which is what clients use.
const (
	defaultLimit = 100
	maxLimit     = 1000
	maxOffset    = 1<<31 - 1
)

func (q query) page() (page pgrole.Page, err error) {
	if page.Limit, err = q.integer("limit", defaultLimit, 1, maxLimit); err != nil {
		return page, err
	}
	page.Offset, err = q.integer("offset", 0, 0, maxOffset)
	return page, err
}

// after is the name of the user behind which a page begins; "": the page begins at its offset.
func (q query) after() (string, error) {
	name, given, err := q.one("after")
	if err != nil || !given {
		return "", err
	}
	return name, pgrole.CheckAfter(name)
}

// maxBody is far above any request that makes sense: a user name and a password.
const maxBody = 64 << 10

// readProperties reads a body of the form {"properties": {…}}.
func readProperties(w http.ResponseWriter, r *http.Request) (*web.Object, error) {
	o, err := web.ObjectBody(w, r, maxBody)
	if err != nil {
		return nil, err
	}
	v, ok := o.Get("properties")
	if !ok {
		return nil, fault.New(fault.Invalid, "The body has no properties.")
	}
	props, ok := v.(*web.Object)
	if !ok {
		return nil, fault.New(fault.Invalid, "The field properties must be an object, not %s.", web.TypeName(v))
	}
	return props, nil
}

// text reads a string of an object.
func text(o *web.Object, key string) (value string, given bool, err error) {
	v, given := o.Get(key)
	if !given {
		return "", false, nil
	}
	value, ok := v.(string)
	if !ok {
		return "", true, fault.New(fault.Invalid, "The field properties.%s must be a string, not %s.", key, web.TypeName(v))
	}
	return value, true, nil
}

func required(o *web.Object, key string) (string, error) {
	value, given, err := text(o, key)
	if err == nil && !given {
		err = fault.New(fault.Invalid, "The field properties.%s is missing.", key)
	}
	return value, err
}
