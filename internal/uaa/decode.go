package uaa

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// maxBody is far above any request that makes sense.
const maxBody = 64 << 10

// object reads a body. Unknown fields are ignored: clients send back what they have read.
func object(w http.ResponseWriter, r *http.Request) (*web.Object, error) {
	return web.ObjectBody(w, r, maxBody)
}

// field reads a field into v, which keeps its value if the field is missing or null: SCIM 1.1, 3.1 uses null for
// an attribute that is not set.
func field[T any](o *web.Object, key string, v *T) error {
	got, given := o.Get(key)
	if !given || got == nil {
		return nil
	}
	value, ok := got.(T)
	if !ok {
		return fault.New(fault.Invalid, "The field %s cannot be %s.", key, web.TypeName(got))
	}
	*v = value
	return nil
}

// optional reads a field; nil: it is missing or null.
func optional[T any](o *web.Object, key string, v **T) error {
	var value T
	if err := field(o, key, &value); err != nil {
		return err
	}
	if got, _ := o.Get(key); got != nil {
		*v = &value
	}
	return nil
}

// texts reads a field that is an array of strings; nil: it is missing or null.
func texts(o *web.Object, key string) (*[]string, error) {
	var list []any
	if err := field(o, key, &list); err != nil || list == nil {
		return nil, err
	}
	values := make([]string, len(list))
	for i, entry := range list {
		text, ok := entry.(string)
		if !ok {
			return nil, fault.New(fault.Invalid, "The field %s holds strings, not %s.", key, web.TypeName(entry))
		}
		values[i] = text
	}
	return &values, nil
}

// whole reads a field that is a whole number, which one client writes as a string; nil: it is missing or null.
func whole(o *web.Object, key string) (*int, error) {
	got, _ := o.Get(key)
	var text string
	switch v := got.(type) {
	case nil:
		return nil, nil
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "The field %s must be a whole number.", key)
	}
	return &n, nil
}

// notKept refuses fields that the UAA keeps and this server does not, unless they are empty.
func notKept(o *web.Object, keys ...string) error {
	for _, key := range keys {
		switch v, _ := o.Get(key); v := v.(type) {
		case nil:
		case bool:
			if v {
				return errNotKept(key)
			}
		case string:
			if v != "" {
				return errNotKept(key)
			}
		case []any:
			if len(v) > 0 {
				return errNotKept(key)
			}
		default:
			return errNotKept(key)
		}
	}
	return nil
}

func errNotKept(key string) error {
	return fault.New(fault.Invalid, "The field %s is not kept here and would have no effect. Leave it out.", key)
}

// secret hashes a password or client secret when that is needed; nil for none. cause is that of a refused one.
func (a *API) secret(password string, cause error) account.Secret {
	if password == "" {
		return nil
	}
	return func(ctx context.Context) (string, error) {
		hash, err := a.Identity.Hash(ctx, password)
		if fault.Is(err, fault.Invalid) {
			err = fault.Of(err).Because(cause)
		}
		return hash, err
	}
}

// ifMatch reads the version that the request is for. The UAA accepts it with and without quotes.
func ifMatch(r *http.Request) etag.Match {
	fields := r.Header.Values("If-Match")
	if len(fields) == 0 {
		return nil
	}
	return etag.Match{strings.Trim(strings.TrimSpace(strings.Join(fields, ",")), `"`)}
}

// neededIfMatch is ifMatch for operations that the UAA refuses without.
func neededIfMatch(r *http.Request) (etag.Match, error) {
	match := ifMatch(r)
	if match == nil {
		return nil, fault.New(fault.Malformed, "Missing If-Match for %s", r.Method)
	}
	return match, nil
}

// page is the requested part of a list.
type page struct{ start, count int }

// The limits of pages.
const (
	defaultCount = 100
	maxCount     = 500
	maxStart     = 1<<31 - 1
)

// parsePage reads startIndex, from 1 on, and count. SCIM 1.1, 3.2.2.3: values below the range become its beginning.
func parsePage(values map[string][]string) (page, error) {
	p := page{1, defaultCount}
	for name, v := range map[string]*int{"startIndex": &p.start, "count": &p.count} {
		if given := values[name]; len(given) > 0 {
			n, err := strconv.Atoi(given[0])
			if err != nil {
				return p, fault.New(fault.Malformed, "The parameter %s must be an integer, not %.40q.", name, given[0])
			}
			*v = n
		}
	}
	p.start = min(max(p.start, 1), maxStart)
	p.count = min(max(p.count, 0), maxCount)
	return p, nil
}

// parseOrder reads sortBy and sortOrder. fields maps attributes to what the list is ordered by.
func parseOrder(values url.Values, fields map[string]string) (account.Order, error) {
	var o account.Order
	if by := values.Get("sortBy"); by != "" {
		name, known := attribute(by, fields)
		if !known {
			return o, fault.New(fault.Malformed, "The list cannot be sorted by %.80q; sortBy is one of %s.", by,
				strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		o.Field = fields[name]
	}
	switch order := values.Get("sortOrder"); strings.ToLower(order) {
	case "", "ascending":
	case "descending":
		o.Descending = true
	default:
		return o, fault.New(fault.Malformed, "The parameter sortOrder is ascending or descending, not %.80q.", order)
	}
	return o, nil
}

// attribute finds a name that is written in any case.
func attribute[T any](name string, fields map[string]T) (is string, known bool) {
	for is := range fields {
		if strings.EqualFold(is, name) {
			return is, true
		}
	}
	return "", false
}

// list is a page of resources. The numbers are always there: one client never ends without them.
type list[T any] struct {
	Resources    []T      `json:"resources"`
	StartIndex   int      `json:"startIndex"`
	ItemsPerPage int      `json:"itemsPerPage"`
	TotalResults int      `json:"totalResults"`
	Schemas      []string `json:"schemas"`
}

// scimSchemas names the schema of users, groups and lists of them.
var scimSchemas = []string{"urn:scim:schemas:core:1.0"}

// writeList writes a page. itemsPerPage is the size of a full page, not of this one: clients add it to startIndex.
func writeList[T any](w http.ResponseWriter, p page, total int, resources []T) {
	web.JSON(w, http.StatusOK, "application/json", list[T]{slices.Clip(resources), p.start, p.count, total, scimSchemas})
}

// writeAttributes is writeList with the attributes that the caller asked for; without any, resources are whole.
func writeAttributes[T any](w http.ResponseWriter, p page, total int, resources []T, asked string) error {
	if strings.TrimSpace(asked) == "" {
		writeList(w, p, total, resources)
		return nil
	}
	chosen, err := choose(resources, strings.Split(asked, ","))
	if err != nil {
		return err
	}
	writeList(w, p, total, chosen)
	return nil
}
