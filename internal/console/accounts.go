package console

import (
	"context"
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/secret"
)

const (
	accountsPath   = Prefix + "/accounts"
	newAccountPath = accountsPath + "/new"
	accountPath    = accountsPath + "/{guid}"
)

var accountsCrumb = crumb{"Accounts", accountsPath}

func (c *Console) accountsRoutes() []door.Route {
	return slices.Concat(
		[]door.Route{read(accountsPath, c.accountsPage)},
		formPage(newAccountPath, c.newAccountPage, c.once(c.createAccount)),
		c.accountRoutes(),
	)
}

// accountList is the page of all accounts.
type accountList struct {
	Accounts  []accountRow
	Pager     pager
	Filtered  bool
	MayCreate bool
	Scopes    []option // of the filter
	Active    []option
}

// accountRow is an account in a list.
type accountRow struct {
	*account.Profile
	Path   string
	State  badge
	Labels []ownLabel
	// More is how many labels are not shown.
	More int
}

func accountState(a *account.Profile) badge {
	switch {
	case !a.HasIdentity():
		return badge{"cannot sign in", ""}
	case !a.Active:
		return badge{"inactive", "bad"}
	}
	return badge{"active", "good"}
}

// fewLabels is how many labels a row of a list shows.
const fewLabels = 4

func accountRowOf(a *account.Profile) accountRow {
	row := accountRow{Profile: a, Path: pagePath("accounts", a.GUID), State: accountState(a),
		Labels: labelsOf(a.Labels, a.LabelSources)}
	if row.More = len(row.Labels) - fewLabels; row.More > 0 {
		row.Labels = row.Labels[:fewLabels]
	}
	return row
}

// labelsOf are the labels of an account in the order of their keys, with who has set them.
func labelsOf(labels, sources map[string]string) (shown []ownLabel) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		shown = append(shown, ownLabel{key, labels[key], sources[key]})
	}
	return shown
}

func (c *Console) accountsPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	f := filterForm(r)
	shown := accountList{
		MayCreate: p.MayChangeAccounts() == nil,
		Scopes:    []option{{"", "Any"}},
		Active:    []option{{"", "Any"}, {"true", "Active"}, {"false", "Not active"}},
	}
	for _, scope := range account.Scopes {
		shown.Scopes = append(shown.Scopes, option{scope, scope})
	}
	filter, after, err := accountFilter(f)
	for _, name := range []string{"name", "origin", "selector", "scope", "active"} {
		shown.Filtered = shown.Filtered || f.Get(name) != ""
	}
	if err != nil {
		f.refuse(err)
	} else {
		found, more, err := c.Accounts.Profiles(r.Context(), p, filter, after, pageSize)
		if err != nil {
			return err
		}
		for _, a := range found {
			shown.Accounts = append(shown.Accounts, accountRowOf(a))
		}
		shown.Pager = pagerAfter(r, found, more, func(a *account.Profile) string { return strconv.FormatInt(a.ID, 10) })
	}
	return c.show(w, r, p, page{Template: "accounts/list.html", Title: "Accounts", Area: "accounts", Form: f, Data: shown})
}

// accountFilter reads the filter of the list, and the id behind which its page begins.
func accountFilter(f *form) (filter account.ProfileFilter, after int64, err error) {
	filter = account.ProfileFilter{Search: f.Get("name"), Origin: f.Get("origin"), Scope: f.Get("scope")}
	for _, text := range []string{filter.Search, filter.Origin, filter.Scope} {
		if !isText(text) {
			return filter, 0, fault.New(fault.Malformed, "The filter is not text.")
		}
	}
	if filter.Scope != "" && !slices.Contains(account.Scopes, filter.Scope) {
		return filter, 0, wrongFilter("scope", "There is no scope %.100q. Choose one of the list.", filter.Scope)
	}
	if text := f.Get("active"); text != "" {
		active, err := strconv.ParseBool(text)
		if err != nil {
			return filter, 0, wrongFilter("active", "The state must be true or false, not %.100q.", text)
		}
		filter.Active = &active
	}
	if text := f.Get("selector"); text != "" {
		if filter.Selector, err = label.ParseFilter(text); err != nil {
			return filter, 0, wrongFilter("selector", "The labels %.200q are not a selector: %s. An example: "+
				"team=payments,role in (dba,sre).", text, strings.TrimSuffix(fault.Of(err).Message, "."))
		}
	}
	if text := f.Get(afterField); text != "" {
		if after, err = strconv.ParseInt(text, 10, 64); err != nil || after < 0 {
			return filter, 0, errWrongPage
		}
	}
	return filter, after, nil
}

// wrongFilter is the refusal of what was typed into one field of a filter.
func wrongFilter(name, format string, args ...any) error {
	return fault.New(fault.Malformed, format, args...).Because(fieldError{name})
}

// The values of the fields that say how a new account signs in, and where its password comes from.
const (
	signsInHere      = "here"
	signsInElsewhere = "issuer"
	generated        = "generate"
	typed            = "type"
)

// newAccount is the page to create an account for a person.
type newAccount struct {
	Scopes   []scopeChoice
	MayLabel bool
	Labels   []entry
}

// scopeChoice is a scope to tick.
type scopeChoice struct {
	Name, Gives string
	Checked     bool
}

// scopeChoices are all scopes; those that are given are ticked in a new form.
func scopeChoices(f *form, given []string) (choices []scopeChoice) {
	for _, scope := range account.Scopes {
		choices = append(choices, scopeChoice{scope, scopeMeanings[scope],
			f.Checked("scope", scope, slices.Contains(given, scope))})
	}
	return choices
}

func (c *Console) newAccountPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if err := p.MayChangeAccounts(); err != nil {
		return err
	}
	shown := newAccount{Scopes: scopeChoices(f, account.DefaultScopes), MayLabel: p.MayChangeMetadata() == nil,
		Labels: labelEditor.rows(f, nil, nil)}
	return c.show(w, r, p, page{Template: "accounts/new.html", Title: "New account", Area: "accounts", Form: f,
		Crumbs: []crumb{accountsCrumb}, Data: shown})
}

// accountPassword is the password of a form: the one that was typed or, if that is what the form says, a new one.
func accountPassword(f *form) (password secret.Text, isNew bool, err error) {
	if f.Get("made-by") != typed {
		return secret.Text(rand.Text()), true, nil
	}
	password = secret.Text(f.Values.Get("password"))
	switch {
	case password == "":
		return "", false, wrongField("password", "Type a password, or have one generated.")
	case password != secret.Text(f.Values.Get("repeat-password")):
		return "", false, wrongField("repeat-password", "The two passwords differ.")
	}
	return password, false, nil
}

// hashed is what is stored of a password.
func (c *Console) hashed(password secret.Text) account.Secret {
	return func(ctx context.Context) (string, error) {
		hash, err := c.Identity.Hash(ctx, string(password))
		if fault.Is(err, fault.Invalid) {
			return "", wrongField("password", "%s", fault.Of(err).Message)
		}
		return hash, err
	}
}

// oncePassword is the answer to the form that made or set a password. It is shown there alone.
type oncePassword struct {
	Account  *account.Profile
	Created  bool
	URL      string
	Password secret.Text
}

// Plain is the password, for the template.
func (o oncePassword) Plain() string { return string(o.Password) }

func (c *Console) showPassword(w http.ResponseWriter, r *http.Request, p *account.Principal, a *account.Profile,
	password secret.Text, created bool) error {
	return c.show(w, r, p, page{Template: "accounts/password.html", Title: "The new password", Area: "accounts",
		Data: oncePassword{a, created, c.PublicURL, password}})
}

func (c *Console) createAccount(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	n := account.NewProfile{Username: f.Get("username"), Origin: account.LocalOrigin, Scopes: slices.Clone(f.Values["scope"])}
	if n.Scopes == nil {
		n.Scopes = []string{}
	}
	if slices.ContainsFunc(n.Scopes, func(s string) bool { return !slices.Contains(account.DefaultScopes, s) }) {
		if err := c.proven(r.Context(), p); err != nil {
			return err
		}
	}
	if n.Username == "" {
		return wrongField("username", "Give the person a user name.")
	}
	if err := account.CheckUsername(n.Username); err != nil {
		return wrongField("username", "%s", fault.Of(err).Message)
	}
	var err error
	if n.Labels, err = labelEditor.changes(f); err != nil {
		return err
	}
	var hash account.Secret
	var password secret.Text
	var isNew bool
	if f.Get("signs-in") == signsInElsewhere {
		if n.Origin = f.Get("origin"); n.Origin == "" || n.Origin == account.LocalOrigin {
			return wrongField("origin", "Say whose person it is: the origin of an issuer.")
		}
	} else {
		if password, isNew, err = accountPassword(f); err != nil {
			return err
		}
		hash = c.hashed(password)
	}
	made, err := c.Accounts.CreateProfile(r.Context(), p, n, hash)
	if fault.Is(err, fault.Exists) {
		return fault.Of(err).Because(fieldError{"username"})
	}
	if err != nil {
		return err
	}
	if isNew {
		return c.showPassword(w, r, p, made, password, true)
	}
	return c.redirect(w, pagePath("accounts", made.GUID), "The account "+made.Username+" was created.")
}
