package adminapi

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/web"
)

type accountResource struct {
	GUID             string            `json:"guid"`
	Username         *string           `json:"username"`
	Origin           *string           `json:"origin"`
	PresentationName string            `json:"presentationName"`
	Active           bool              `json:"active"`
	OAuthClient      bool              `json:"oauthClient"`
	Scopes           []string          `json:"scopes"`
	Labels           map[string]string `json:"labels"`
	Annotations      map[string]string `json:"annotations"`
	LabelSources     map[string]string `json:"labelSources"` // empty: no issuer sets labels
	CreatedAt        time.Time         `json:"createdAt"`
	UpdatedAt        time.Time         `json:"updatedAt"`
	LastSignInAt     *time.Time        `json:"lastSignInAt"` // null: to know it takes a write for each sign-in
}

// accountWithPassword is the one answer that holds a password: one that was generated.
type accountWithPassword struct {
	accountResource
	Password string `json:"password,omitempty"`
}

func presentAccount(a *account.Profile) accountResource {
	res := accountResource{
		GUID:             a.GUID,
		Username:         given(a.Username),
		Origin:           given(a.Origin),
		PresentationName: a.Presentation(),
		Active:           a.CanSignIn(),
		OAuthClient:      a.OAuthClient,
		Scopes:           append([]string{}, a.Scopes...),
		Labels:           map[string]string{},
		Annotations:      map[string]string{},
		LabelSources:     map[string]string{},
		CreatedAt:        a.Created().UTC(),
		UpdatedAt:        a.Updated().UTC(),
	}
	maps.Copy(res.Labels, a.Labels)
	maps.Copy(res.Annotations, a.Annotations)
	maps.Copy(res.LabelSources, a.LabelSources)
	return res
}

func answerAccount(w http.ResponseWriter, status int, a *account.Profile, password string) {
	w.Header().Set("ETag", strconv.Quote(a.Tag()))
	web.JSON(w, status, "application/json", accountWithPassword{presentAccount(a), password})
}

func (a *API) listAccounts(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	f, err := accountFilter(q)
	if err != nil {
		return err
	}
	var after int64
	if page.After != "" {
		if after, err = strconv.ParseInt(page.After, 10, 64); err != nil {
			return errCursor
		}
	}
	accounts, more, err := a.Accounts.Profiles(r.Context(), p, f, after, page.Limit)
	if err != nil {
		return err
	}
	l := list[accountResource]{Items: []accountResource{}}
	for _, found := range accounts {
		l.Items = append(l.Items, presentAccount(found))
	}
	if more {
		l.Next = cursor(strconv.FormatInt(accounts[len(accounts)-1].ID, 10))
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func accountFilter(q query) (f account.ProfileFilter, err error) {
	for name, v := range map[string]*string{"name": &f.Username, "guid": &f.GUID, "origin": &f.Origin, "scope": &f.Scope} {
		if *v, err = q.text(name); err != nil {
			return f, err
		}
	}
	if f.Active, err = q.flag("active"); err != nil {
		return f, err
	}
	if f.Scope != "" && !slices.Contains(account.Scopes, f.Scope) {
		return f, fault.New(fault.Malformed, "The query parameter scope must be one of %s.", strings.Join(account.Scopes, ", "))
	}
	if q.Has("selector") {
		if f.Selector, err = label.ParseFilter(q.Get("selector")); err != nil {
			return f, fault.New(fault.Malformed, "The query parameter selector is not valid: %s. An example: "+
				"team=payments,role in (dba,sre).", strings.TrimSuffix(fault.Of(err).Message, "."))
		}
	}
	return f, nil
}

func (a *API) getAccount(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	found, err := a.Accounts.Profile(r.Context(), p, r.PathValue("guid"))
	if err != nil {
		return err
	}
	answerAccount(w, http.StatusOK, found, "")
	return nil
}

func (a *API) createAccount(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Accounts.MayChangeProfile(r.Context(), p, audit.CreateAccount, ""); err != nil {
		return err
	}
	o, err := largeBody(w, r)
	if err != nil {
		return err
	}
	username, password, origin, scopes := o.text("username"), o.text("password"), o.text("origin"), o.texts("scopes")
	n := account.NewProfile{Origin: account.LocalOrigin, Labels: o.labels(), Annotations: o.annotations()}
	if err := o.done(); err != nil {
		return err
	}
	if username == nil {
		return fault.New(fault.Invalid, "The field username is missing.")
	}
	n.Username = *username
	if origin != nil {
		n.Origin = *origin
	}
	if scopes != nil {
		n.Scopes = *scopes
	}
	generated := ""
	if password == nil && n.Origin == account.LocalOrigin {
		generated = rand.Text()
		password = &generated
	}
	made, err := a.Accounts.CreateProfile(r.Context(), p, n, a.secret(password))
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.PublicURL+Prefix+"/accounts/"+url.PathEscape(made.GUID))
	answerAccount(w, http.StatusCreated, made, generated)
	return nil
}

// secret is what is stored of a password; nil for none.
func (a *API) secret(password *string) account.Secret {
	if password == nil {
		return nil
	}
	return func(ctx context.Context) (string, error) { return a.Identity.Hash(ctx, *password) }
}

func (a *API) updateAccount(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Accounts.MayChangeProfile(r.Context(), p, audit.UpdateAccount, r.PathValue("guid")); err != nil {
		return err
	}
	o, err := largeBody(w, r)
	if err != nil {
		return err
	}
	c := account.ProfileChange{
		Active:           o.flag("active"),
		Scopes:           o.texts("scopes"),
		Username:         o.text("username"),
		PresentationName: o.textOrNull("presentationName"),
		Labels:           o.labels(),
		Annotations:      o.annotations(),
	}
	if err := o.done(); err != nil {
		return err
	}
	changed, err := a.Accounts.UpdateProfile(r.Context(), p, r.PathValue("guid"), web.IfMatch(r), c)
	if err != nil {
		return err
	}
	answerAccount(w, http.StatusOK, changed, "")
	return nil
}

func (a *API) deleteAccount(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Accounts.DeleteProfile(r.Context(), p, r.PathValue("guid"), web.IfMatch(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) setAccountPassword(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := optionalBody(w, r)
	if err != nil {
		return err
	}
	password, current := o.text("password"), o.text("currentPassword")
	if err := o.done(); err != nil {
		return err
	}
	guid, proven := r.PathValue("guid"), false
	if p.GUID == guid && current != nil {
		if proven, err = a.proves(r.Context(), p, *current); err != nil {
			return err
		}
	}
	generated := ""
	if password == nil {
		generated = rand.Text()
		password = &generated
	}
	changed, err := a.Accounts.SetPassword(r.Context(), p, guid, web.IfMatch(r), proven, a.secret(password))
	if err != nil {
		return err
	}
	answerAccount(w, http.StatusOK, changed, generated)
	return nil
}

// proves reports whether a password is the principal's own or, of an OAuth client, its secret.
func (a *API) proves(ctx context.Context, p *account.Principal, password string) (bool, error) {
	proven, err := a.Identity.Proves(ctx, p, password)
	if fault.Is(err, fault.Unauthenticated) {
		return false, fault.New(fault.Forbidden, "The current password is wrong.")
	}
	return proven, err
}

func (o *object) labels() map[string]*string { return o.entries("labels", label.CheckValue) }

func (o *object) annotations() map[string]*string {
	return o.entries("annotations", label.CheckAnnotation)
}

// entries is nil when the field is not there. An entry that is null is one to remove.
func (o *object) entries(name string, checkValue func(string) error) map[string]*string {
	inner := o.object(name)
	if inner == nil {
		return nil
	}
	entries := map[string]*string{}
	for _, key := range inner.values.Keys {
		v, _ := inner.get(key)
		if v == nil {
			entries[key] = nil
			continue
		}
		s, isText := v.(string)
		err := cmp.Or(label.CheckKey(key), checkValue(s))
		switch {
		case *o.err != nil:
		case !isText:
			*o.err = fault.New(fault.Invalid, "The values of the field %s must be strings or null, not %s.", name, web.TypeName(v))
		case err != nil:
			*o.err = fault.New(fault.Invalid, "The field %s has an entry that is not valid: %s.", name, fault.Of(err).Message)
		}
		entries[key] = &s
	}
	return entries
}
