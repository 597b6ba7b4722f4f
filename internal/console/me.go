package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
)

const (
	mePath         = Prefix + "/me"
	myTokensPath   = mePath + "/tokens"
	mySessionsPath = mePath + "/sessions"
	myPasswordPath = mePath + "/password"
)

func (c *Console) meRoutes() []door.Route {
	return slices.Concat(
		[]door.Route{read(mePath, c.mePage)},
		c.myTokenRoutes(),
		[]door.Route{
			read(mySessionsPath, unsent(c.sessionsPage)),
			action(mySessionsPath+"/{session}/end", c.sessionsPage, c.endSession),
			action(mySessionsPath+"/end-others", c.sessionsPage, c.endOtherSessions),
		},
		formPage(myPasswordPath, c.passwordPage, c.changePassword),
	)
}

// meTabs are the pages about the person who is signed in.
func meTabs(p *account.Principal, current string) mePages {
	pages := mePages{current, []tab{{mePath, "You", mePath}, {myTokensPath, "Tokens", myTokensPath},
		{mySessionsPath, "Sessions", mySessionsPath}}}
	if p.Origin == account.LocalOrigin {
		pages.Tabs = append(pages.Tabs, tab{myPasswordPath, "Password", myPasswordPath})
	}
	return pages
}

// mePages is what each page about the person shows: the tabs, and which one it is.
type mePages struct {
	Tab  string // the path of the current one
	Tabs []tab
}

// shownClusters bounds the clusters on the page.
const shownClusters = 50

type me struct {
	mePages
	Local    bool
	Scopes   []scopeMeaning
	Labels   []ownLabel
	Clusters []dbuser.ClusterAccess
	Hidden   int // the clusters beyond those
}

type scopeMeaning struct{ Name, Gives string }

// scopeMeanings says what the scopes give.
var scopeMeanings = map[string]string{
	account.ScopeAdmin:         "everything in every cluster, and the labels of all accounts",
	account.ScopeAdminReadOnly: "reading everything",
	account.ScopeAuditor:       "reading everything",
	account.ScopeRead:          "reading the clusters that the labels give access to",
	account.ScopeWrite:         "reading and changing them",
	account.ScopeSCIMRead:      "reading identities",
	account.ScopeSCIMWrite:     "changing identities",
}

func meaningsOf(scopes []string) (shown []scopeMeaning) {
	for _, scope := range scopes {
		shown = append(shown, scopeMeaning{scope, scopeMeanings[scope]})
	}
	return shown
}

// firstClusters returns as many clusters as a page shows, and how many there are beyond those.
func firstClusters(all []dbuser.ClusterAccess) (shown []dbuser.ClusterAccess, hidden int) {
	n := min(len(all), shownClusters)
	return all[:n], len(all) - n
}

// ownLabel is a label and who has set it: an issuer, or "" for an admin.
type ownLabel struct{ Key, Value, Source string }

func (c *Console) mePage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	shown := me{mePages: meTabs(p, mePath), Local: p.Origin == account.LocalOrigin, Scopes: meaningsOf(p.Scopes),
		Labels: labelsOf(p.Labels, p.LabelSources)}
	shown.Clusters, shown.Hidden = firstClusters(c.Users.OwnAccess(p))
	return c.show(w, r, p, page{Template: "me/me.html", Title: p.Username, Area: "me", Data: shown})
}

type sessionsData struct {
	mePages
	Sessions []identity.SignedIn
	Others   bool // there are others than the current one
	More     bool
}

func (c *Console) sessionsPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	found, more, err := c.Identity.Sessions(r.Context(), p, "", nil, pageSize)
	if err != nil {
		return err
	}
	shown := sessionsData{mePages: meTabs(p, mySessionsPath), Sessions: found, More: more,
		Others: slices.ContainsFunc(found, func(s identity.SignedIn) bool { return !s.Current })}
	return c.show(w, r, p, page{Template: "me/sessions.html", Title: "Your sessions", Area: "me", Form: f, Data: shown})
}

func (c *Console) endSession(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	if err := c.Identity.EndSession(r.Context(), p, "", r.PathValue("session")); err != nil {
		return err
	}
	return c.redirect(w, mySessionsPath, "The session was ended. Its tokens end within 5 seconds.")
}

func (c *Console) endOtherSessions(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	ended, err := c.Identity.EndOtherSessions(r.Context(), p)
	if err != nil {
		return err
	}
	notice := fmt.Sprintf("%d sessions were ended. Their tokens end within 5 seconds.", ended)
	switch ended {
	case 0:
		notice = "There was no other session."
	case 1:
		notice = "1 session was ended. Its tokens end within 5 seconds."
	}
	return c.redirect(w, mySessionsPath, notice)
}

func (c *Console) passwordPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if p.Origin != account.LocalOrigin {
		return fault.New(fault.NotFound, "Your password is kept by %s. Change it there.", p.Origin)
	}
	return c.show(w, r, p, page{Template: "me/password.html", Title: "Change your password", Area: "me", Form: f,
		Data: meTabs(p, myPasswordPath)})
}

// changePassword gives the account a new password. That ends its sessions, so the browser gets a new one.
func (c *Console) changePassword(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	password := f.Values.Get("new-password")
	if password != f.Values.Get("repeat-password") {
		return wrongField("repeat-password", "The two new passwords differ.")
	}
	proven, err := c.Identity.Proves(r.Context(), p, f.Values.Get("password"))
	if fault.Is(err, fault.Unauthenticated) {
		return wrongField("password", "The current password is wrong.")
	}
	if err != nil {
		return err
	}
	_, err = c.Accounts.SetPassword(r.Context(), p, p.GUID, nil, proven,
		func(ctx context.Context) (string, error) { return c.Identity.Hash(ctx, password) })
	if fault.Is(err, fault.Invalid) {
		return wrongField("new-password", "%s", fault.Of(err).Message)
	}
	if err != nil {
		return err
	}
	a, err := c.Identity.VerifyPassword(r.Context(), p.Username, password, addressOf(r))
	if err != nil {
		return err
	}
	token, err := c.Identity.StartSession(r.Context(), a, time.Now(), addressOf(r), r.UserAgent())
	if err != nil {
		return err
	}
	c.setCookie(w, "rolecall", string(token))
	return c.redirect(w, mePath, "Your password was changed. All your other sessions have ended.")
}
