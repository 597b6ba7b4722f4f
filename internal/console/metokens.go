package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/moment"
	"rolecall/internal/secret"
)

const newTokenPath = myTokensPath + "/new"

func (c *Console) myTokenRoutes() []door.Route {
	return slices.Concat(
		[]door.Route{read(myTokensPath, c.tokensPage)},
		formPage(newTokenPath, c.newTokenPage, c.once(c.createToken)),
		formPage(myTokensPath+"/{token}/revoke", c.revokeTokenPage, c.revokeToken),
	)
}

// shownToken is a personal access token as pages show it.
type shownToken struct {
	ID, Name, Reaches string
	ReadOnly, Expired bool
	Created           time.Time
	Expires, LastUsed time.Time // zero: never
}

func (c *Console) presentToken(p *account.Principal, t *identity.PersonalToken) shownToken {
	shown := shownToken{ID: t.ID.String(), Name: t.Name, Reaches: "everything that the account may", ReadOnly: t.ReadOnly,
		Created: t.Created, Expires: t.Expires, LastUsed: t.LastUsed, Expired: !t.Expires.IsZero() && !t.Expires.After(time.Now())}
	if t.Clusters != nil {
		var names []string
		for _, id := range t.Clusters {
			names = append(names, c.clusterName(p, id.String()))
		}
		shown.Reaches = strings.Join(names, ", ")
	}
	if t.Credentials != nil {
		var names []string
		for _, reference := range t.Credentials {
			id, name, _ := strings.Cut(reference, "/")
			names = append(names, c.clusterName(p, id)+"/"+name)
		}
		shown.Reaches = "only the current password of " + strings.Join(names, ", ")
	}
	return shown
}

// clusterName is the name of a cluster, or its id if the person may not view it any more.
func (c *Console) clusterName(p *account.Principal, id string) string {
	found, err := c.Users.Cluster(p, id)
	if err != nil {
		return id
	}
	return found.DisplayName
}

type tokensData struct {
	mePages
	Tokens []shownToken
}

func (c *Console) tokensPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	tokens, err := c.Identity.PersonalTokens(r.Context(), p)
	if err != nil {
		return err
	}
	shown := tokensData{mePages: meTabs(p, myTokensPath)}
	for _, t := range tokens {
		shown.Tokens = append(shown.Tokens, c.presentToken(p, t))
	}
	return c.show(w, r, p, page{Template: "me/tokens.html", Title: "Your tokens", Area: "me", Data: shown})
}

// offeredClusters bounds the clusters to choose from: with more of them the page would be no help.
const offeredClusters = 100

type newTokenData struct {
	Clusters []*cluster.Cluster
	TooMany  bool
}

var tokenCrumbs = []crumb{{"You", mePath}, {"Tokens", myTokensPath}}

func (c *Console) newTokenPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	offered := newTokenData{Clusters: c.Users.ViewableClusters(p)}
	if len(offered.Clusters) > offeredClusters {
		offered = newTokenData{TooMany: true}
	}
	return c.show(w, r, p, page{Template: "me/newtoken.html", Title: "New token", Area: "me", Crumbs: tokenCrumbs, Form: f,
		Data: offered})
}

// onceToken is what the one page shows that has the token.
type onceToken struct {
	shownToken
	Secret    secret.Text
	PublicURL string
}

// Plain is the token. Only the page that shows it once asks for it.
func (t onceToken) Plain() string { return string(t.Secret) }

func (c *Console) createToken(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	n := identity.NewPersonalToken{Name: f.Get("name"), ReadOnly: f.Checked("read-only", "yes", false)}
	if n.Name == "" {
		return wrongField("name", "The token has no name. Name the program that will use it.")
	}
	var err error
	if n.Expires, err = expiry(f.Get("expires")); err != nil {
		return err
	}
	for _, id := range f.Values["cluster"] {
		found, err := c.Users.Cluster(p, id)
		if err != nil {
			return fault.New(fault.Invalid, "%s", fault.Of(err).Message)
		}
		if !slices.ContainsFunc(n.Clusters, func(there uuid.UUID) bool { return there == found.ID }) {
			n.Clusters = append(n.Clusters, found.ID)
		}
	}
	t, plain, err := c.Identity.CreatePersonalToken(r.Context(), p, n)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "me/oncetoken.html", Title: "New token", Area: "me", Crumbs: tokenCrumbs,
		Data: onceToken{c.presentToken(p, t), secret.Text(plain), c.PublicURL}})
}

// expiry reads when something ends: after a duration, at a time, or never.
func expiry(text string) (time.Time, error) {
	if text == "" || text == "never" {
		return time.Time{}, nil
	}
	if d, err := moment.Duration(text); err == nil {
		return time.Now().Add(d), nil
	}
	at, err := moment.Time(text)
	if err != nil {
		return time.Time{}, wrongField("expires", "The expiry is %.50q. Use %s, %s, or never.", text, moment.DurationForm,
			moment.TimeForm)
	}
	return at, nil
}

func (c *Console) revokeTokenPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	tokens, err := c.Identity.PersonalTokens(r.Context(), p)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.ID.String() == r.PathValue("token") {
			return c.show(w, r, p, page{Template: "me/revoketoken.html", Title: "Revoke a token", Area: "me", Crumbs: tokenCrumbs,
				Form: f, Data: c.presentToken(p, t)})
		}
	}
	return fault.New(fault.NotFound, "You have no token %.64q. It may have been revoked in the meantime.", r.PathValue("token"))
}

func (c *Console) revokeToken(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	if err := c.Identity.RevokePersonalToken(r.Context(), p, r.PathValue("token")); err != nil {
		return err
	}
	return c.redirect(w, myTokensPath, "The token was revoked. It ends within 5 seconds.")
}
