package adminapi

import (
	"encoding/base64"

	"github.com/google/uuid"

	"rolecall/internal/fault"
)

// The limits of a page.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// page is limit and cursor of a request. After is what the cursor stands for: the key of the last item that was seen.
type page struct {
	Limit int
	After string
}

func (q query) page() (p page, err error) {
	if p.Limit, err = q.integer("limit", defaultLimit, 1, maxLimit); err != nil || !q.Has("cursor") {
		return p, err
	}
	after, err := base64.RawURLEncoding.DecodeString(q.Get("cursor"))
	if err != nil || len(after) == 0 {
		return p, errCursor
	}
	p.After = string(after)
	return p, nil
}

// id is the id that the cursor stands for; zero: there is no cursor.
func (p page) id() (uuid.UUID, error) {
	if p.After == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(p.After)
	if err != nil {
		return uuid.Nil, errCursor
	}
	return id, nil
}

var errCursor = fault.New(fault.Malformed, "The query parameter cursor must be the next of a previous answer.")

// cursor is the opaque form of the key of a page's last item.
func cursor(key string) *string {
	c := base64.RawURLEncoding.EncodeToString([]byte(key))
	return &c
}

// list is the form of all lists. Next is the cursor of the page that follows, null on the last.
type list[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next"`
}
