package console

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"rolecall/internal/fault"
)

// pageSize is how many rows of a list a page shows.
const pageSize = 50

// afterField is the query parameter with the key of the last row that was shown.
const afterField = "after"

// filterForm is the filter above a list, as the query of the request has it. A form with method="get" sends it, so that a
// filtered list has a URL.
func filterForm(r *http.Request) *form { return &form{Values: r.URL.Query()} }

// refuse shows in a form why it was refused, and at which field.
func (f *form) refuse(err error) {
	refused := fault.Of(err)
	f.Problem, f.Field, f.Status = withLabels(refused.Message), refused.Field, statuses[refused.Kind]
	if field, ok := errors.AsType[fieldError](err); ok {
		f.Field = field.name
	}
}

// pager leads to the other pages of a list, for the template "pager". First is "" on the first page, Next on the last.
type pager struct{ First, Next string }

// pagerAfter is pagerOf for rows that are shown: more says that others follow, and key is how the query names a row.
func pagerAfter[T any](r *http.Request, shown []T, more bool, key func(T) string) pager {
	if !more {
		return pagerOf(r, "")
	}
	return pagerOf(r, key(shown[len(shown)-1]))
}

// pagerOf is the pager of a list with the filter of the request. next is the key of the last row that is shown, if others
// follow, else "".
func pagerOf(r *http.Request, next string) (p pager) {
	if r.URL.Query().Has(afterField) {
		p.First = pageBehind(r, "")
	}
	if next != "" {
		p.Next = pageBehind(r, next)
	}
	return p
}

// pageBehind is the list of the request after the row with that key; "": from its beginning.
func pageBehind(r *http.Request, key string) string {
	query := r.URL.Query()
	query.Del(afterField)
	query.Del(liveField) // a page that a person opens is not the live view
	if key != "" {
		query.Set(afterField, key)
	}
	return pathWith(r, query)
}

// pathWith is the path of the request with another query.
func pathWith(r *http.Request, query url.Values) string {
	return (&url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: query.Encode()}).String()
}

var errWrongPage = fault.New(fault.Invalid, "There is no such page of the list. Go to the first page.")

// afterID is the key of the last row that was shown, if that is an id; zero: the first page is asked for.
func afterID(f *form) (uuid.UUID, error) {
	if !f.Values.Has(afterField) {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(f.Get(afterField))
	if err != nil {
		return uuid.Nil, errWrongPage
	}
	return id, nil
}
