package console

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/label"
)

// metadataEditor is how labels, or annotations, are changed in a form.
type metadataEditor struct {
	Path       string // below the account's
	One, Many  string // how one is called, and several
	checkValue func(string) error
	change     func(c *account.ProfileChange, entries map[string]*string)
}

var labelEditor = metadataEditor{"labels", "label", "labels", label.CheckValue,
	func(c *account.ProfileChange, entries map[string]*string) { c.Labels = entries }}

var annotationEditor = metadataEditor{"annotations", "annotation", "annotations", label.CheckAnnotation,
	func(c *account.ProfileChange, entries map[string]*string) { c.Annotations = entries }}

// newEntries is how many empty rows a form has, for what is added.
const newEntries = 3

// entry is a label or an annotation in a form.
type entry struct {
	// Field is the name of the field of the value or, of a new one, of the key.
	Field      string
	Key, Value string
	Was        string // its value when the form was made
	New        bool   // it is to be added
	Remove     bool   // its box is ticked
	Source     string // the issuer that sets it, "" if it can be changed here
	// Now is the value that it has if somebody has changed it since the form was made; Changed says so, and Gone that it was
	// removed.
	Now           string
	Changed, Gone bool
	Problem       string
}

func valueField(i int) string { return fmt.Sprintf("value-%d", i) }
func newField(i int) string   { return fmt.Sprintf("new-%d", i) }

// rows are the entries of a form: as they are or, after a refusal, as they were typed.
func (m metadataEditor) rows(f *form, is, sources map[string]string) (rows []entry) {
	if !f.Typed() {
		for _, key := range slices.Sorted(maps.Keys(is)) {
			rows = append(rows, entry{Field: valueField(len(rows)), Key: key, Value: is[key], Was: is[key], Source: sources[key]})
		}
		for i := range newEntries {
			rows = append(rows, entry{Field: newField(i), New: true})
		}
		return rows
	}
	stale := f.Status == http.StatusPreconditionFailed
	before, values := f.Values["was"], f.Values["value"]
	for i, key := range f.Values["entry"] {
		e := entry{Field: valueField(i), Key: key, Value: nth(values, i), Was: nth(before, i), Remove: f.Checked("remove", key,
			false)}
		if now, there := is[key]; stale && (!there || now != e.Was) {
			e.Changed, e.Gone, e.Now, e.Was = true, !there, now, now
		}
		rows = append(rows, e)
	}
	for _, key := range slices.Sorted(maps.Keys(is)) {
		switch {
		case slices.Contains(f.Values["entry"], key):
		case sources[key] != "":
			rows = append(rows, entry{Key: key, Value: is[key], Source: sources[key]})
		case stale: // added since
			rows = append(rows, entry{Field: valueField(len(rows)), Key: key, Value: is[key], Was: is[key], Now: is[key],
				Changed: true})
		}
	}
	for i := range max(newEntries, len(f.Values["new-entry"])) {
		rows = append(rows, entry{Field: newField(i), New: true, Key: nth(f.Values["new-entry"], i),
			Value: nth(f.Values["new-value"], i)})
	}
	for i := range rows {
		if f.Field != "" && rows[i].Field == f.Field {
			rows[i].Problem = f.Problem
		}
	}
	return rows
}

// nth is the element at i, "" if the list is shorter.
func nth(list []string, i int) string {
	if i >= len(list) {
		return ""
	}
	return list[i]
}

// changes reads what a form changes. An entry that is nil is one to remove.
func (m metadataEditor) changes(f *form) (map[string]*string, error) {
	entries := map[string]*string{}
	for i, key := range f.Values["entry"] {
		value := nth(f.Values["value"], i)
		switch {
		case f.Checked("remove", key, false):
			entries[key] = nil
		case value != nth(f.Values["was"], i):
			if err := m.checkValue(value); err != nil {
				return nil, wrongField(valueField(i), "The value of the %s %s is not valid: %s.", m.One, key, fault.Of(err).Message)
			}
			entries[key] = &value
		}
	}
	for i, key := range f.Values["new-entry"] {
		value := nth(f.Values["new-value"], i)
		if key == "" && value == "" {
			continue
		}
		if err := label.CheckKey(key); err != nil {
			return nil, wrongField(newField(i), "The key of the new %s is not valid: %s.", m.One, fault.Of(err).Message)
		}
		if err := m.checkValue(value); err != nil {
			return nil, wrongField(newField(i), "The value of the %s %s is not valid: %s.", m.One, key, fault.Of(err).Message)
		}
		if _, twice := entries[key]; twice || slices.Contains(f.Values["entry"], key) {
			return nil, wrongField(newField(i), "The %s %s is there already. Change its value instead.", m.One, key)
		}
		entries[key] = &value
	}
	return entries, nil
}

// metadataPage is the page to change the labels, or the annotations, of an account.
type metadataPage struct {
	Editor  metadataEditor
	Account *account.Profile
	Rows    []entry
	Most    int
	Labels  bool
	Back    string
}

func (c *Console) metadataRoutes(m metadataEditor) (show, act formHandler) {
	show = func(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
		a, err := c.Accounts.Profile(r.Context(), p, r.PathValue("guid"))
		if err != nil {
			return err
		}
		if err := p.MayChangeMetadata(); err != nil {
			return err
		}
		shown := metadataPage{Editor: m, Account: a, Most: account.MaxAnnotations, Back: pagePath("accounts", a.GUID)}
		if shown.Labels = m.One == labelEditor.One; shown.Labels {
			shown.Most = account.MaxLabels
			shown.Rows = m.rows(f, a.Labels, a.LabelSources)
		} else {
			shown.Rows = m.rows(f, a.Annotations, nil)
		}
		return c.show(w, r, p, page{Template: "accounts/metadata.html", Title: "Change " + m.Many, Area: "accounts", Form: f,
			Crumbs: accountCrumbs(a), Data: shown})
	}
	act = func(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
		entries, err := m.changes(f)
		if err != nil {
			return err
		}
		var change account.ProfileChange
		m.change(&change, entries)
		a, err := c.Accounts.UpdateProfile(r.Context(), p, r.PathValue("guid"), f.Match(), change)
		if err != nil {
			return err
		}
		return c.redirect(w, pagePath("accounts", a.GUID), "The "+m.Many+" were changed.")
	}
	return show, act
}
