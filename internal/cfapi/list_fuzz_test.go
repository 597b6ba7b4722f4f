package cfapi

import (
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"testing"

	"rolecall/internal/fault"
)

// FuzzListQuery: what is taken is a page that there can be, and its links select what it selects.
func FuzzListQuery(f *testing.F) {
	for _, s := range []string{
		"", "page=1&per_page=50&order_by=-created_at&label_selector=a%3Db", "page=0&per_page=5001",
		"page=9223372036854775807&per_page=2", "page=%2B1", "page=٣&per_page=0x1", "order_by=+updated_at",
		"order_by=%2Bupdated_at", "order_by=id",
		"guids=a,b%252C&usernames=x", "partial_usernames=%25&origins=uaa", "origins=uaa",
		"created_ats=2020-01-01T00:00:00Z,2021-01-01T00:00:00%2B01:00",
		"created_ats[lt]=9999-12-31T23:59:59Z&created_ats[gte]=0000-01-01T00:00:00Z",
		"updated_ats[gt=2020-01-01T00:00:00Z", "updated_ats[x]=1", "guids[]=a", "page=1&page=2", "include=x",
		"label_selector=a+in+(b,c),!d", "label_selector=", "%zz", "a;b", "guids=%ff%00", "page[=1", "=", "=1&=2",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(&http.Request{URL: &url.URL{RawQuery: raw}})
		if err != nil {
			if !fault.Is(err, fault.Malformed) {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		l, err := q.list()
		if err != nil {
			if !fault.Is(err, fault.Invalid) || fault.Of(err).Message == "" {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		if l.page < 1 || l.perPage < 1 || l.perPage > maxPerPage || l.filter.Offset < 0 || l.filter.Limit != l.perPage ||
			l.filter.Offset/l.perPage != l.page-1 {
			t.Errorf("%q: page %d of %d, offset %d", raw, l.page, l.perPage, l.filter.Offset)
		}
		pg := (&API{}).pagination("", l.shown, l.page, l.perPage, 1)
		if pg.TotalPages != 1 || (pg.Previous == nil) != (l.page == 1) {
			t.Errorf("%q: %+v", raw, pg)
		}
		link, err := url.Parse(pg.First.Href)
		if err != nil {
			t.Fatal(err)
		}
		linked, err := parseQuery(&http.Request{URL: link})
		if err != nil {
			t.Fatalf("%q links to %q: %v", raw, link, err)
		}
		again, err := linked.list()
		if err != nil || linked.Get("per_page") != strconv.FormatInt(l.perPage, 10) {
			t.Fatalf("%q links to %q: %v", raw, link, err)
		}
		again.filter.Offset = l.filter.Offset
		if !reflect.DeepEqual(again.filter, l.filter) || !reflect.DeepEqual(again.shown, l.shown) {
			t.Errorf("%q selects %+v, its link %q %+v", raw, l.filter, link, again.filter)
		}
	})
}
