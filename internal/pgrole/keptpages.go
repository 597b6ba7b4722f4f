package pgrole

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgwire"
)

// keptPages are the last pages of users, each as PostgreSQL has sent it. PostgreSQL is asked for a page each time; rows that
// it has sent before need not be parsed again, and if all of a page are the same, its items need not be encoded again.
type keptPages struct {
	limit int // of bytes

	mu    sync.Mutex
	bytes int
	pages map[pageKey]*keptPage
}

// allKept bounds the pages of all clusters together.
var allKept = &keptPages{limit: 4 << 20}

type pageKey struct {
	of *Batcher // of one cluster, under the same rules
	list
}

// keptPage is never changed.
type keptPage struct {
	raw    []byte // the rows, as appendRow writes them
	users  []*User
	listed *Listed
}

// userBytes is about how much memory a listed user takes beside its row: parsed 1,400 bytes, and encoded as an item 650.
const userBytes = 2048

// emptyBytes is about how much memory a page takes without users, with its key: there is a page behind each name that a
// client thinks of.
const emptyBytes = 512

func (k *keptPage) size() int { return emptyBytes + len(k.raw) + userBytes*len(k.users) }

// read reads the rows of a page: as many as its limit, and one more if others follow.
func (k *keptPages) read(key pageKey, rows pgx.Rows) (*Listed, error) {
	defer rows.Close()
	k.mu.Lock()
	before := k.pages[key]
	k.mu.Unlock()
	page, err := readAgain(before, rows, key.page.Limit+1)
	if err != nil {
		return nil, err
	}
	if page != before {
		n := min(len(page.users), key.page.Limit)
		page.listed = &Listed{Users: page.users[:n], More: len(page.users) > n}
		k.keep(key, page)
	}
	return page.listed, nil
}

// readAgain returns the page that was read before if all rows are the same, and otherwise another one. It has the same users
// for those rows at its beginning that are the same.
func readAgain(before *keptPage, rows pgx.Rows, limit int) (*keptPage, error) {
	if before == nil {
		before = &keptPage{}
	}
	page := &keptPage{}
	same, n, at := true, 0, 0 // the first n rows have been the same, up to at
	var row []byte
	for rows.Next() {
		if max(n, len(page.users)) == limit {
			return nil, pgwire.Refuse("it sent more than the %d rows that were asked for", limit)
		}
		row = appendRow(row[:0], rows.RawValues())
		if same && bytes.HasPrefix(before.raw[at:], row) {
			n, at = n+1, at+len(row)
			continue
		}
		if same {
			same = false
			page.raw, page.users = append(page.raw, before.raw[:at]...), append(page.users, before.users[:n]...)
		}
		u, err := scanListed(rows)
		if err != nil {
			return nil, err
		}
		page.raw, page.users = append(page.raw, row...), append(page.users, u)
	}
	switch {
	case rows.Err() != nil:
		return nil, rows.Err()
	case !same:
		return page, nil
	case before.listed != nil && n == len(before.users):
		return before, nil
	}
	return &keptPage{raw: bytes.Clone(before.raw[:at]), users: slices.Clone(before.users[:n])}, nil // the rest is not kept
}

// appendRow writes values one behind the other, each behind its length; NULL has none.
func appendRow(b []byte, values [][]byte) []byte {
	for _, v := range values {
		length := uint32(len(v))
		if v == nil {
			length = 1<<32 - 1
		}
		b = append(binary.BigEndian.AppendUint32(b, length), v...)
	}
	return b
}

// keep replaces the page of a key. To make room it drops other pages, whichever come first.
func (k *keptPages) keep(key pageKey, page *keptPage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pages == nil {
		k.pages = map[pageKey]*keptPage{}
	}
	k.drop(key)
	for other := range k.pages {
		if k.bytes+page.size() <= k.limit {
			break
		}
		k.drop(other)
	}
	if k.bytes+page.size() <= k.limit {
		key.page.After = strings.Clone(key.page.After) // else all of the request's URL is kept
		k.pages[key] = page
		k.bytes += page.size()
	}
}

func (k *keptPages) drop(key pageKey) {
	if page := k.pages[key]; page != nil {
		k.bytes -= page.size()
		delete(k.pages, key)
	}
}
