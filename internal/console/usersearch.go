package console

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/label"
	"rolecall/internal/moment"
)

// userSearch is a search for database users, as the query of a URL has it. The names of the parameters are those of the API.
type userSearch struct {
	Values url.Values // without those that are empty, and without the page
	Filter fleet.Filter
	Order  fleet.Sort
	After  string
}

// searchFields are the conditions of a search.
var searchFields = []string{"name", "createdBy", "creatorSelector", "cluster", "state", "passwordKind", "expiresBefore",
	"notSeenFor", "lease", "passwordChangedOutside", "system"}

// Conditions is the query of the search without its order.
func (s *userSearch) Conditions() url.Values {
	conditions := url.Values{}
	for _, name := range searchFields {
		if values := s.Values[name]; len(values) > 0 {
			conditions[name] = values
		}
	}
	return conditions
}

// Narrowed reports whether some users may be left out, other than by whether they are protected.
func (s *userSearch) Narrowed() bool { return !s.Filter.Empty() }

// readUserSearch reads a search. Its error is at the field that it concerns, and the search has what was readable.
func readUserSearch(f *form) (s *userSearch, err error) {
	s = &userSearch{Values: url.Values{}}
	for _, name := range append([]string{"sort"}, searchFields...) {
		for _, v := range f.Values[name] {
			if v = strings.TrimSpace(v); v != "" {
				s.Values.Add(name, v)
			}
		}
	}
	get := s.Values.Get
	wrong := func(name, format string, args ...any) {
		if err == nil {
			err = wrongField(name, format, args...)
		}
	}
	s.Filter = fleet.Filter{Name: containing(get("name")), CreatedBy: get("createdBy"), Cluster: get("cluster"),
		States: s.Values["state"], PasswordKind: get("passwordKind"), System: get("system") == "true"}
	for _, name := range []string{"name", "createdBy", "cluster"} {
		if strings.ContainsRune(get(name), 0) {
			wrong(name, "The text has a character that no name has.")
		}
	}
	var wrongSelector, wrongTime, wrongDuration error
	if text := get("creatorSelector"); text != "" {
		if s.Filter.CreatorSelector, wrongSelector = label.Parse(text); wrongSelector != nil {
			wrong("creatorSelector", "The selector is wrong: %s", fault.Of(wrongSelector).Message)
		}
	}
	if text := get("expiresBefore"); text != "" {
		if s.Filter.ExpiresBefore, wrongTime = moment.Time(text); wrongTime != nil {
			wrong("expiresBefore", "The time is %.50q. Use %s.", text, moment.TimeForm)
		}
	}
	if text := get("notSeenFor"); text != "" {
		if s.Filter.NotSeenFor, wrongDuration = moment.Duration(text); wrongDuration != nil || s.Filter.NotSeenFor == 0 {
			wrong("notSeenFor", "The duration is %.50q. Use one like 90d or 36h, and not 0.", text)
		}
	}
	s.Filter.Lease, s.Filter.ChangedOutside = yesOrNo(get("lease")), yesOrNo(get("passwordChangedOutside"))
	if checked := s.Filter.Check(); checked != nil {
		wrong("state", "%s", fault.Of(checked).Message)
	}
	s.Order.By, s.Order.Descending = strings.CutPrefix(get("sort"), "-")
	after, badCursor := base64.RawURLEncoding.DecodeString(f.Values.Get(afterField))
	if badCursor != nil {
		wrong(afterField, "The address of this page is damaged. Search again.")
	}
	s.After = string(after)
	return s, err
}

// containing is a pattern for the names that have a text in them, unless the text is a pattern itself.
func containing(text string) string {
	if text == "" || strings.Contains(text, "*") {
		return text
	}
	return "*" + text + "*"
}

// yesOrNo reads a condition that may be open: nil.
func yesOrNo(text string) *bool {
	yes := text == "true"
	if !yes && text != "false" {
		return nil
	}
	return &yes
}

// encodeCursor is the key of a page as a URL has it, which has bytes of any kind; "" stays "".
func encodeCursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

// columnsOf completes columns, whose paths are what they sort by.
func columnsOf(r *http.Request, s *userSearch, columns []column) []column {
	for i, col := range columns {
		if col.Path == "" {
			continue
		}
		query := s.Conditions()
		query.Set("sort", col.Path)
		if s.Order.By == col.Path {
			columns[i].Sorted = "descending"
			if !s.Order.Descending {
				columns[i].Sorted = "ascending"
				query.Set("sort", "-"+col.Path)
			}
		}
		columns[i].Path = pathWith(r, query)
	}
	return columns
}
