package dbaas

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/cluster"
	"rolecall/internal/pgrole"
)

// resource is a user or a database.
type resource[P properties] struct {
	Type       string   `json:"type"`
	ID         string   `json:"id"`
	Href       string   `json:"href"`
	Metadata   metadata `json:"metadata"`
	Properties P        `json:"properties"`
}

// list is a page of resources.
type list[P properties] struct {
	Type   string        `json:"type"`
	ID     string        `json:"id"`
	Href   string        `json:"href"`
	Items  []resource[P] `json:"items"`
	Offset int           `json:"offset"`
	Limit  int           `json:"limit"`
	Links  links         `json:"_links"`

	encoded []byte // the items; nil: they are still to be encoded
}

type properties interface {
	userProperties | databaseProperties
	appendJSON(b []byte) []byte
}

type metadata struct {
	CreatedBy            string     `json:"createdBy"`
	CreatedByUserID      string     `json:"createdByUserId,omitempty"`
	CreatedDate          *time.Time `json:"createdDate,omitempty"`
	LastModifiedBy       string     `json:"lastModifiedBy,omitempty"`
	LastModifiedByUserID string     `json:"lastModifiedByUserId,omitempty"`
	LastModifiedDate     *time.Time `json:"lastModifiedDate,omitempty"`
	ResourceURN          string     `json:"resourceURN"`
}

// userURN names an account. `_unmanaged_` made what no account made, `_system_` what nobody may change.
const userURN = "rolecall:iam:cloud::users/"

// collection is the users or the databases of a cluster: what its resources have in common, made once for a whole page.
type collection struct {
	id        uuid.UUID // of the cluster
	kind      string
	href, urn string
	// last is the account that was presented last. Often a page is the work of one.
	last struct{ guid, urn, id string }
}

func (a *API) collection(c *cluster.Cluster, kind string) *collection {
	return &collection{
		id:   c.ID,
		kind: kind,
		href: a.href("clusters", c.ID.String(), kind),
		urn:  "rolecall:postgresql:" + strings.ReplaceAll(c.Location, "/", "-") + ":0:clusters/" + c.ID.String() + "/" + kind,
	}
}

// present presents one resource of a collection.
func present[P properties](col *collection, name string, p *pgrole.Provenance, system bool, properties P) resource[P] {
	return resource[P]{
		Type:       strings.TrimSuffix(col.kind, "s"),
		ID:         resourceID(col.id, col.kind+"/"+name),
		Href:       col.href + "/" + url.PathEscape(name),
		Metadata:   col.metadata(p, system, name),
		Properties: properties,
	}
}

// presentList presents a page of a collection, without its items.
func presentList[P properties](col *collection, page pgrole.Page, l links) list[P] {
	return list[P]{
		Type:   "collection",
		ID:     resourceID(col.id, col.kind),
		Href:   col.href,
		Offset: page.Offset,
		Limit:  page.Limit,
		Links:  l,
	}
}

func presentItems[P properties, T any](col *collection, items []T, one func(*collection, T) resource[P]) []resource[P] {
	all := make([]resource[P], len(items))
	for i, item := range items {
		all[i] = one(col, item)
	}
	return all
}

func (col *collection) metadata(p *pgrole.Provenance, system bool, name string) metadata {
	m := metadata{
		CreatedBy:   userURN + "_unmanaged_",
		ResourceURN: col.urn + "/" + url.PathEscape(name),
	}
	if system {
		m.CreatedBy = userURN + "_system_"
	}
	if p.CreatedBy != "" {
		m.CreatedBy, m.CreatedByUserID = col.account(p.CreatedBy)
		m.CreatedDate = date(&p.Created)
	}
	if p.ModifiedBy != "" {
		m.LastModifiedBy, m.LastModifiedByUserID = col.account(p.ModifiedBy)
		m.LastModifiedDate = date(&p.Modified)
	}
	return m
}

func (col *collection) account(guid string) (urn, id string) {
	if col.last.guid != guid {
		col.last.guid, col.last.urn, col.last.id = guid, userURN+url.PathEscape(guid), accountUUID(guid)
	}
	return col.last.urn, col.last.id
}

// date leaves out an unknown time, because clients fail on an empty one. A time from the control database has the zone of
// the server.
func date(t *time.Time) *time.Time {
	switch {
	case t.IsZero():
		return nil
	case t.Location() == time.UTC:
		return t
	}
	utc := t.UTC()
	return &utc
}

// accounts is the namespace of ids for accounts whose guid is not a UUID, such as those of OAuth clients.
var accounts = uuid.MustParse("2a0c4f5e-90f5-5b1c-8d3c-6b2f1f0f7c11")

// accountUUID is the account's guid where that is a UUID, else a version 5 UUID of it.
func accountUUID(guid string) string {
	if id, err := uuid.Parse(guid); err == nil && len(guid) == 36 {
		return id.String()
	}
	return uuid.NewSHA1(accounts, []byte(guid)).String()
}

type links struct {
	Prev string `json:"prev,omitempty"`
	Self string `json:"self"`
	Next string `json:"next,omitempty"`
}

// pageLinks returns the URLs of a page, the previous and the next one, which begins behind the name last unless that is "".
// They contain the filters of the request.
func pageLinks(href string, page pgrole.Page, more bool, last string, q query, filters ...string) links {
	at := func(offset int, after string) string {
		values := url.Values{"limit": {strconv.Itoa(page.Limit)}, "offset": {strconv.Itoa(offset)}}
		if after != "" {
			values.Set("after", after)
		}
		for _, f := range filters {
			if q.Has(f) {
				values.Set(f, q.Get(f))
			}
		}
		return href + "?" + values.Encode()
	}
	l := links{Self: at(page.Offset, page.After)}
	if page.Offset > 0 {
		l.Prev = at(max(0, page.Offset-page.Limit), "")
	}
	if more {
		l.Next = at(min(maxOffset, page.Offset+page.Limit), last)
	}
	return l
}
