package console

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// maxForm is far above any form that a person fills in: PEM of a cluster is the longest field.
const maxForm = 256 << 10

// maxFields is far above any form of ours. Many short fields take fifty times their length in memory, and anybody may send
// them to the page to sign in.
const maxFields = 4096

// form is what a person typed, and why it was refused.
type form struct {
	Values url.Values
	// Problem is why the form was refused; "": it was not. Field is the name of the field that it concerns; "": not known.
	Problem, Field string
	// Status is that of the refusal; 0: there is none.
	Status int
	// restored says that the form was typed before its session ended, and is to be shown again, not carried out.
	restored bool
}

// Get returns what was typed into a field, without spaces around it.
func (f *form) Get(name string) string { return strings.TrimSpace(f.Values.Get(name)) }

// repeats reports whether the person typed the name of what is to be deleted, as pages show it. Spaces around it are ignored
// unless the name has them.
func (f *form) repeats(field, name string) bool {
	shown := shownText(name)
	return f.Values.Get(field) == shown || f.Get(field) == shown
}

// Typed reports whether the form comes from a person, and is not a new one.
func (f *form) Typed() bool { return len(f.Values) > 0 }

// Or returns what was typed into a field, and value in a new form.
func (f *form) Or(name, value string) string {
	if f.Typed() {
		return f.Values.Get(name)
	}
	return value
}

// Tag is the entity tag that a form carries: that of what it was made from, current for a new form. If the form was refused
// because that has changed, it is current as well: the person sees both versions, and sends the form again.
func (f *form) Tag(current string) string {
	if tag := f.Get(etagField); tag != "" && f.Status != http.StatusPreconditionFailed {
		return tag
	}
	return current
}

// Match is the precondition of a change: that what it changes is as the form has shown it.
func (f *form) Match() etag.Match { return etag.Match{f.Get(etagField)} }

// isText reports whether PostgreSQL can store what a person typed, or a URL has.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// Checked reports whether a box of this name and value is ticked; by default in a new form.
func (f *form) Checked(name, value string, inNew bool) bool {
	if !f.Typed() {
		return inNew
	}
	return slices.Contains(f.Values[name], value)
}

// input is one field of a form, for the template "field".
type input struct {
	Name, Label, Type, Value, Hint, Problem, Autocomplete string
	Required                                              bool
	Options                                               []option // of a list to choose from
}

// option is one of a list to choose from.
type option struct{ Value, Label string }

// Text is a field for a line of text, with what was typed, else value.
func (f *form) Text(name, label, value, hint string) input {
	i := input{Name: name, Label: label, Type: "text", Value: f.Or(name, value), Hint: hint, Autocomplete: "off"}
	if f.Field == name {
		i.Problem = f.Problem
	}
	return i
}

// Required is Text for a field that must not be empty.
func (f *form) Required(name, label, value, hint string) input {
	i := f.Text(name, label, value, hint)
	i.Required = true
	return i
}

// Search is Text for what a list is searched by.
func (f *form) Search(name, label, value, hint string) input {
	i := f.Text(name, label, value, hint)
	i.Type = "search"
	return i
}

// Area is a field for several lines of text.
func (f *form) Area(name, label, value, hint string) input {
	i := f.Text(name, label, value, hint)
	i.Type = "textarea"
	return i
}

// Select is a list to choose one of.
func (f *form) Select(name, label, value, hint string, options []option) input {
	i := f.Text(name, label, value, hint)
	i.Type, i.Options = "select", options
	return i
}

// Password is a field for a password. What was typed into it is never shown again.
func (f *form) Password(name, label, autocomplete, hint string) input {
	i := input{Name: name, Label: label, Type: "password", Hint: hint, Autocomplete: autocomplete, Required: true}
	if f.Field == name {
		i.Problem = f.Problem
	}
	return i
}

// NewPassword is a field for a password that is typed only if none is generated.
func (f *form) NewPassword(name, label, hint string) input {
	i := f.Password(name, label, "new-password", hint)
	i.Required = false
	return i
}

// isSecret reports whether the field of a name is never sent back to the browser.
func isSecret(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "password") || strings.Contains(name, "secret") || strings.HasSuffix(name, "key")
}

// The names of fields that the frame adds.
const (
	etagField    = "etag"
	restoreField = "_restore"
	nextField    = "next"
	typedField   = "typed"
	cookiesField = "cookies" // "none" after a sign-in whose cookie the browser did not keep
)

// readForm reads the form of a request.
func readForm(w http.ResponseWriter, r *http.Request) (*form, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, fault.New(fault.MediaType, "Send the form as application/x-www-form-urlencoded.")
	}
	body, err := web.ReadAhead(w, r, maxForm) // the page that asks for a proof reads it again, and keeps what was typed
	if err != nil {
		return nil, err
	}
	values, err := parseForm(string(body))
	if err != nil {
		return nil, err
	}
	f := &form{Values: values, restored: values.Has(restoreField)}
	values.Del(restoreField)
	return f, nil
}

// parseForm reads the fields of a form.
func parseForm(text string) (url.Values, error) {
	if strings.Count(text, "&") >= maxFields {
		return nil, fault.New(fault.TooLarge, "The form has more than %d fields.", maxFields)
	}
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, fault.New(fault.Malformed, "The form is damaged.") // the cause quotes it
	}
	return values, nil
}

// formHandler shows a page with a form, or does what the form says.
type formHandler func(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error

// read is a page that is only read.
func read(pattern string, show door.HandlerFunc) door.Route {
	return door.Route{Method: http.MethodGet, Pattern: pattern, Handle: show}
}

// formPage is a page with a form at one path: show shows it, empty or refused, and act does what it says.
func formPage(pattern string, show, act formHandler) []door.Route {
	return []door.Route{
		read(pattern, unsent(show)),
		action(pattern, show, act),
	}
}

// unsent is a page that has forms, without one that was sent.
func unsent(show formHandler) door.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
		return show(w, r, p, &form{Values: url.Values{}})
	}
}

// action is a change by the form of a page: act makes it and answers with a redirect or with what is shown once. If it is
// refused, show shows the page again, with what was typed and why.
func action(pattern string, show, act formHandler) door.Route {
	return door.Route{Method: http.MethodPost, Pattern: pattern,
		Handle: func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
			if err := fromOwnPage(r); err != nil {
				return err
			}
			f, err := readForm(w, r)
			if err != nil {
				return err
			}
			if f.restored {
				return show(w, r, p, f)
			}
			err = act(w, r, p, f)
			if !mendable(err) {
				return err
			}
			f.refuse(err)
			return show(w, r, p, f)
		}}
}

// mendable reports whether a form that failed so is shown again: the person can change it, or send it once more.
func mendable(err error) bool {
	switch fault.Of(err).Kind {
	case fault.Invalid, fault.Exists, fault.InUse, fault.Stale, fault.Forbidden, fault.TooMany, fault.Unavailable:
		return err != nil && !errors.Is(err, errNotProven) && !errors.Is(err, errForeignForm)
	}
	return false
}

// fieldError is the cause of a refusal that concerns one field.
type fieldError struct{ name string }

// Error implements error.
func (e fieldError) Error() string { return "the field " + e.name }

// wrongField is the refusal of what was typed into one field.
func wrongField(name, format string, args ...any) error {
	return fault.New(fault.Invalid, format, args...).Because(fieldError{name})
}

var errForeignForm = errors.New("the request says neither its origin nor its site")

// fromOwnPage refuses a change with a session that does not say which page it comes from: every browser says so. A request
// from a page of another site was refused at the door.
func fromOwnPage(r *http.Request) error {
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		return fault.New(fault.Forbidden, "This request does not say which page it comes from (Origin, Sec-Fetch-Site).").
			Because(errForeignForm)
	}
	return nil
}
