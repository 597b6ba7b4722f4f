package console

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/fleet"
	"rolecall/internal/identity"
)

func (c *Console) accountRoutes() []door.Route {
	showLabels, changeLabels := c.metadataRoutes(labelEditor)
	showAnnotations, changeAnnotations := c.metadataRoutes(annotationEditor)
	return slices.Concat(
		[]door.Route{
			read(accountPath, unsent(c.accountPage)),
			read(accountPath+"/database-users", c.madeUsersPage),
			action(accountPath+"/activate", c.accountPage, c.activate),
			action(accountPath+"/unlock", c.accountPage, c.unlock),
			action(accountPath+"/sessions/{session}/end", c.accountPage, c.endAccountSession),
		},
		formPage(accountPath+"/labels", showLabels, changeLabels),
		formPage(accountPath+"/annotations", showAnnotations, changeAnnotations),
		formPage(accountPath+"/scopes", c.scopesPage, c.changeScopes),
		formPage(accountPath+"/deactivate", c.deactivatePage, c.deactivate),
		formPage(accountPath+"/password", c.accountPasswordPage, c.once(c.setAccountPassword)),
		formPage(accountPath+"/delete", c.deleteAccountPage, c.deleteAccount),
		c.offboardRoutes(),
	)
}

// accountCrumbs are the pages above one of an account's pages.
func accountCrumbs(a *account.Profile) []crumb {
	return []crumb{accountsCrumb, {a.Presentation(), pagePath("accounts", a.GUID)}}
}

// fewRows is how many rows of the audit log the page of an account shows, and fewUsers how many database users.
const (
	fewRows  = 8
	fewUsers = 8
)

// accountShown is the page of an account.
type accountShown struct {
	accountRow
	Self, Local bool // it is the account of the person who looks; it signs in with a password here
	MayChange   bool // at all
	MayLabel    bool
	MayOffboard bool
	Given       []scopeMeaning
	Annotations []ownLabel
	Access      []dbuser.ClusterAccess
	Explained   bool // nil Access says that it may see no cluster
	Hidden      int  // the clusters beyond those
	Did, About  []auditRow
	// Sessions and Tokens are nil if SignInsKnown is false: those of others are for admins and auditors.
	SignInsKnown bool
	Sessions     []identity.SignedIn
	MoreSessions bool
	MayEnd       bool // the sessions
	Tokens       []shownToken
	// Offboardings are the reports of when it was offboarded.
	Offboardings []*fleet.Offboarding
}

func (c *Console) accountPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	ctx := r.Context()
	a, err := c.Accounts.Profile(ctx, p, r.PathValue("guid"))
	if err != nil {
		return err
	}
	shown := accountShown{
		accountRow:  accountRowOf(a),
		Self:        a.GUID == p.GUID,
		Local:       a.Origin == account.LocalOrigin,
		MayChange:   p.MayChangeAccounts() == nil,
		MayLabel:    p.MayChangeMetadata() == nil,
		MayOffboard: p.MayOffboard() == nil && a.GUID != p.GUID,
	}
	shown.accountRow.Labels = labelsOf(a.Labels, a.LabelSources)
	shown.Given = meaningsOf(a.Scopes)
	shown.Annotations = labelsOf(a.Annotations, nil)
	if shown.Access, shown.Explained, err = c.accessOf(r, p, a); err != nil {
		return err
	}
	shown.Access, shown.Hidden = firstClusters(shown.Access)
	newest := audit.Page{Backward: true, Limit: fewRows}
	if shown.Did, _, err = c.auditRows(ctx, p, audit.Filter{Account: a.GUID}, newest); err != nil {
		return err
	}
	if shown.About, _, err = c.auditRows(ctx, p, audit.Filter{Target: a.GUID}, newest); err != nil {
		return err
	}
	if err := c.addSignIns(r, p, &shown); err != nil {
		return err
	}
	if access.MayAudit(p) {
		if shown.Offboardings, _, err = c.Fleet.Offboardings(ctx, p, a.GUID, uuid.Nil, fewRows); err != nil {
			return err
		}
	}
	return c.show(w, r, p, page{Template: "accounts/account.html", Title: a.Presentation(), Area: "accounts", Form: f,
		Crumbs: []crumb{accountsCrumb}, Data: shown})
}

// addSignIns adds the sessions and the tokens of the account, if the principal may see them.
func (c *Console) addSignIns(r *http.Request, p *account.Principal, shown *accountShown) error {
	if shown.SignInsKnown = shown.Self || access.MayAudit(p); !shown.SignInsKnown {
		return nil
	}
	shown.MayEnd = shown.Self || shown.MayLabel
	var err error
	shown.Sessions, shown.MoreSessions, err = c.Identity.Sessions(r.Context(), p, shown.GUID, nil, pageSize)
	if err != nil {
		return err
	}
	tokens, err := c.Identity.PersonalTokensOf(r.Context(), p, shown.GUID)
	for _, t := range tokens {
		shown.Tokens = append(shown.Tokens, c.presentToken(p, t))
	}
	return err
}

func (c *Console) endAccountSession(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	guid := r.PathValue("guid")
	if err := c.Identity.EndSession(r.Context(), p, guid, r.PathValue("session")); err != nil {
		return err
	}
	return c.redirect(w, pagePath("accounts", guid), "The session has ended.")
}

// accessOf says which clusters an account may see and why, as far as the principal may know: everything of others is for
// admins. Clusters without any access are left out.
func (c *Console) accessOf(r *http.Request, p *account.Principal, a *account.Profile) (seen []dbuser.ClusterAccess,
	known bool, err error) {
	switch {
	case p.MayChangeMetadata() == nil:
		all, err := c.Users.AccessOf(r.Context(), p, a.GUID)
		if err != nil {
			return nil, false, err
		}
		for _, x := range all {
			if x.View.Allowed || x.Manage.Allowed {
				seen = append(seen, x)
			}
		}
	case a.GUID == p.GUID:
		seen = c.Users.OwnAccess(p)
	default:
		return nil, false, nil
	}
	return seen, true, nil
}

// madeUsers are database users that an account made, as far as the person who looks may view their clusters.
type madeUsers struct {
	Account *account.Profile
	Self    string // the path of the page
	Search  string // the path of the search of the fleet
	Users   []madeUser
	More    bool
	Away    []unreachableCluster
}

type madeUser struct {
	Name, Path string
	Cluster    crumb
}

// usersMadeBy searches the fleet for database users that an account made.
func (c *Console) usersMadeBy(r *http.Request, p *account.Principal, a *account.Profile) (*madeUsers, error) {
	found, err := c.Fleet.Search(r.Context(), p, fleet.Filter{CreatedBy: a.GUID}, fleet.Sort{}, "", fewUsers)
	if err != nil {
		return nil, err
	}
	made := &madeUsers{Account: a, Self: pagePath("accounts", a.GUID, "database-users"),
		Search: withQuery(fleetUsersPath, url.Values{"createdBy": {a.GUID}}), More: found.Next != "",
		Away: unreachableOf(found.Unreachable)}
	for _, u := range found.Users {
		id := u.Cluster.ID.String()
		made.Users = append(made.Users, madeUser{u.Name, userPath(id, u.Name), crumb{u.Cluster.DisplayName,
			pagePath("clusters", id)}})
	}
	return made, nil
}

// madeUsersPage lists the first database users that an account made. The page of the account loads it afterwards, because a
// cluster that does not answer delays it.
func (c *Console) madeUsersPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	a, err := c.Accounts.Profile(r.Context(), p, r.PathValue("guid"))
	if err != nil {
		return err
	}
	made, err := c.usersMadeBy(r, p, a)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "accounts/madeusers.html", Title: "Database users of " + a.Presentation(),
		Area: "accounts", Crumbs: accountCrumbs(a), Data: made})
}

// changeAccount makes a change by a form of an account's page, and leads back to it.
func (c *Console) changeAccount(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form,
	change account.ProfileChange, notice string) error {
	a, err := c.Accounts.UpdateProfile(r.Context(), p, r.PathValue("guid"), f.Match(), change)
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("accounts", a.GUID), notice)
}

func (c *Console) activate(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.changeAccount(w, r, p, f, account.ProfileChange{Active: new(true)},
		"The account is active: its person can sign in.")
}

func (c *Console) unlock(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	a, err := c.Accounts.Unlock(r.Context(), p, r.PathValue("guid"))
	if err != nil {
		return err
	}
	if a.Origin == account.LocalOrigin {
		c.Identity.Unlock(a.Username)
	}
	return c.redirect(w, pagePath("accounts", a.GUID), "The waits after failed sign-ins have ended on this server.")
}

// changePage is a page that changes an account: with the account as it is.
type changePage struct {
	accountRow
	Self   bool
	Local  bool
	Scopes []scopeChoice
	Made   *madeUsers // nil: not shown
	Back   string
}

// changeable returns the page of a change, or why the principal makes none.
func (c *Console) changeable(r *http.Request, p *account.Principal) (*changePage, error) {
	a, err := c.Accounts.Profile(r.Context(), p, r.PathValue("guid"))
	if err != nil {
		return nil, err
	}
	if err := p.MayChangeAccounts(); err != nil {
		return nil, err
	}
	return &changePage{accountRow: accountRowOf(a), Self: a.GUID == p.GUID, Local: a.Origin == account.LocalOrigin,
		Back: pagePath("accounts", a.GUID)}, nil
}

// showChange shows the page of a change.
func (c *Console) showChange(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form, template, title string,
	shown *changePage) error {
	return c.show(w, r, p, page{Template: "accounts/" + template + ".html", Title: title, Area: "accounts", Form: f,
		Crumbs: accountCrumbs(shown.Profile), Data: shown})
}

func (c *Console) scopesPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	shown, err := c.changeable(r, p)
	if err != nil {
		return err
	}
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	shown.Scopes = scopeChoices(f, shown.Profile.Scopes)
	return c.showChange(w, r, p, f, "scopes", "Change scopes", shown)
}

func (c *Console) changeScopes(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	scopes := append([]string{}, f.Values["scope"]...)
	return c.changeAccount(w, r, p, f, account.ProfileChange{Scopes: &scopes}, "The scopes were changed.")
}

func (c *Console) deactivatePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	shown, err := c.changeable(r, p)
	if err != nil {
		return err
	}
	if shown.Made, err = c.usersMadeBy(r, p, shown.Profile); err != nil {
		return err
	}
	return c.showChange(w, r, p, f, "deactivate", "Deactivate", shown)
}

func (c *Console) deactivate(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.changeAccount(w, r, p, f, account.ProfileChange{Active: new(false)},
		"The account is inactive. Its tokens and sessions have ended; its database users stay.")
}

func (c *Console) accountPasswordPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	shown, err := c.changeable(r, p)
	if err != nil {
		return err
	}
	if shown.Self {
		return c.redirect(w, myPasswordPath, "")
	}
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	return c.showChange(w, r, p, f, "setpassword", "New password", shown)
}

func (c *Console) setAccountPassword(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	password, isNew, err := accountPassword(f)
	if err != nil {
		return err
	}
	a, err := c.Accounts.SetPassword(r.Context(), p, r.PathValue("guid"), f.Match(), false, c.hashed(password))
	if err != nil {
		return err
	}
	if isNew {
		return c.showPassword(w, r, p, a, password, false)
	}
	return c.redirect(w, pagePath("accounts", a.GUID),
		"The password was changed. The tokens and sessions of the account have ended.")
}

func (c *Console) deleteAccountPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	shown, err := c.changeable(r, p)
	if err != nil {
		return err
	}
	if shown.Made, err = c.usersMadeBy(r, p, shown.Profile); err != nil {
		return err
	}
	return c.showChange(w, r, p, f, "delete", "Delete", shown)
}

func (c *Console) deleteAccount(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	a, err := c.Accounts.Profile(r.Context(), p, r.PathValue("guid"))
	if err != nil {
		return err
	}
	name := a.Presentation()
	if !f.repeats("name", name) {
		return wrongField("name", "To delete the account, type its name: %s", name)
	}
	if err := c.Accounts.DeleteProfile(r.Context(), p, r.PathValue("guid"), f.Match()); err != nil {
		return err
	}
	return c.redirect(w, accountsPath, "The account "+name+" was deleted. Its database users stay.")
}
