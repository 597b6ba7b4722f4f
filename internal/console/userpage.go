package console

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

func (c *Console) userPageRoutes() []door.Route {
	routes := []door.Route{
		read(userPattern, unsent(c.userPage)),
		read(userPattern+"/page", unsent(c.userPage)), // of a user that is named new
	}
	for _, change := range []struct {
		path string
		act  formHandler
	}{
		{"/password", c.once(c.newPassword)},
		{"/limits", c.setLimits},
		{"/disable", c.disableUser},
		{"/enable", c.enableUser},
		{"/sessions", c.endSessions},
		{"/roles", c.changeRoles},
		{"/access", c.changeAccess},
	} {
		routes = append(routes, action(userPattern+change.path, c.userPage, change.act),
			read(userPattern+change.path, c.backToUser)) // where a refused form leaves a browser
	}
	return routes
}

func (c *Console) backToUser(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	return c.redirect(w, userPath(r.PathValue("id"), r.PathValue("username")), "")
}

// userData is the page of a database user.
type userData struct {
	Head *clusterHead
	Name string
	name string // its bytes
	Path string
	User *pgrole.Details // nil: the cluster does not answer
	dbuser.Observation
	State                 badge
	CreatedBy, ModifiedBy link
	URL                   string // to connect by
	Password              string // what the page says of its kind
	// Fixed is why nobody changes the user here; "" if somebody does. LoginProblem is why it cannot log in.
	Fixed, LoginProblem string
	// MayChange says that there are forms, MayDelete that the user can be deleted, and MayEnd that its sessions can be ended.
	MayChange, MayDelete, MayEnd bool
	Lease                        *pgrole.Lease
	Sessions                     *pgrole.Sessions
	SessionsProblem              string
	Access                       *userAccessData
	AccessProblem                string
	History                      []historyRow
	HistoryPath, CreationPath    string
	OwnRowsOnly                  bool
	ETag                         string
	Stale                        *staleData
	form                         *form
	sent                         string // the form that was sent; "": none
}

// FormOf is one of the forms of the page: what was typed, if it is the one that was sent, else an empty one.
func (d *userData) FormOf(name string) *form {
	if name == d.sent {
		return d.form
	}
	return &form{Values: url.Values{}}
}

// To is the path below the page of the user.
func (d *userData) To(below string) string { return userPath(d.Head.ID, d.name, below) }

// SystemBadge and LeaseBadge say what kind of user it is.
func (*userData) SystemBadge() badge { return badge{"System user", ""} }

// LeaseBadge is documented with SystemBadge.
func (*userData) LeaseBadge() badge { return badge{"Lease", ""} }

// DatabaseOptions are the databases in which the user can get a level, LevelOptions the levels, and RoleOptions the roles
// that it can be made a member of.
func (d *userData) DatabaseOptions() []option { return optionsOf(d.Access.Leveled) }

// LevelOptions is documented with DatabaseOptions.
func (d *userData) LevelOptions() []option {
	return append(optionsOf(levelNames()), option{"none", "none any more"})
}

// RoleOptions is documented with DatabaseOptions.
func (d *userData) RoleOptions() []option { return optionsOf(d.Access.Grantable) }

// optionsOf are texts to choose from.
func optionsOf(texts []string) (options []option) {
	for _, text := range texts {
		options = append(options, option{text, text})
	}
	return options
}

// levelNames are the levels, the lowest first.
func levelNames() (names []string) {
	for _, level := range slices.Backward(pgrole.Levels) {
		names = append(names, string(level))
	}
	return names
}

// Until is when the user expires, as its field has it.
func (d *userData) Until() string {
	if d.User.ValidUntil == nil {
		return ""
	}
	return d.User.ValidUntil.Format(time.RFC3339)
}

// Connections is its limit of connections, as its field has it.
func (d *userData) Connections() string {
	if d.User.ConnectionLimit < 0 {
		return ""
	}
	return strconv.Itoa(d.User.ConnectionLimit)
}

// staleData is what has changed since a form was shown.
type staleData struct {
	By   link
	At   time.Time
	Rows []staleRow
}

type staleRow struct{ What, Before, Now, Typed string }

// historyRow is a change of the user in the audit log.
type historyRow struct {
	auditRow
	Detail string // what was asked for, and what came of it
}

func (c *Console) userPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	head, err := c.clusterHead(r, p, "users")
	if err != nil {
		return err
	}
	name := r.PathValue("username")
	shown := &userData{Head: head, Name: shownText(name), name: name, Path: userPath(head.ID, name), form: f}
	if r.Method == http.MethodPost {
		shown.sent = path.Base(r.URL.Path)
	}
	if head.Why == "" {
		err := c.readUser(r, p, name, shown)
		if fault.Is(err, fault.Unavailable) {
			head.Why = fault.Of(err).Message
		} else if err != nil {
			return err
		}
	}
	if err := c.readHistory(r.Context(), p, name, shown); err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "users/user.html", Title: shown.Name + " in " + head.Name, Area: "clusters",
		Crumbs: belowCluster(head.Cluster), Form: f, Data: shown})
}

// readUser fills in what the cluster knows of a user.
func (c *Console) readUser(r *http.Request, p *account.Principal, name string, shown *userData) error {
	ctx, id := r.Context(), shown.Head.ID
	in, d, err := c.Users.UserDetails(ctx, p, id, name)
	if err != nil {
		return err
	}
	made := d.Provenance
	names, err := c.Accounts.Names(ctx, p, []string{made.CreatedBy, made.ModifiedBy})
	if err != nil {
		return err
	}
	observed, err := c.Users.Observations(ctx, in.ID, []uint32{d.OID()})
	if err != nil {
		return err
	}
	shown.User, shown.Observation, shown.State = d, observed.OfUser(d.User), userStates[d.State]
	shown.CreatedBy, shown.ModifiedBy = linkAccount(names, made.CreatedBy), linkAccount(names, made.ModifiedBy)
	shown.URL, shown.Lease = in.LoginAs(d.Name, d.Name, d.Databases).URL, d.Lease()
	if shown.Lease != nil {
		shown.URL = in.LoginAs(d.Name, shown.Lease.For, d.Databases).URL
	}
	shown.Password = passwordKinds[d.PasswordKind]
	shown.LoginProblem = d.LoginProblem()
	protected, fixed := d.Protection(), d.Unchangeable()
	if fixed != nil {
		shown.Fixed = fault.Of(fixed).Message
	}
	shown.MayDelete = shown.Head.MayManage && protected == nil
	shown.MayEnd = shown.MayDelete && d.State != pgrole.StateDeleting
	shown.MayChange = shown.MayEnd && fixed == nil
	shown.ETag = shown.form.Tag(d.Revision())
	if shown.form.Status == http.StatusPreconditionFailed {
		shown.Stale = shown.staleOf()
	}
	if shown.Sessions, err = c.Users.Sessions(ctx, p, id, name); err != nil {
		shown.SessionsProblem = fault.Of(err).Message
	}
	if shown.Access, err = c.readAccess(r, p, shown); err != nil {
		shown.AccessProblem = fault.Of(err).Message
	}
	return nil
}

// staleOf compares the user with what the form was made from.
func (d *userData) staleOf() *staleData {
	stale := &staleData{By: d.ModifiedBy, At: d.User.Provenance.Modified}
	if d.sent == "limits" {
		v := d.form.Values
		stale.Rows = []staleRow{
			{"Expires", v.Get("was-expires"), d.Until(), v.Get("expires")},
			{"Connection limit", v.Get("was-connections"), d.Connections(), v.Get("connections")},
		}
	}
	return stale
}

// historyLimit is how many rows of the audit log the page has.
const historyLimit = 20

// readHistory fills in what the audit log has about a user, as far as the person may see it.
func (c *Console) readHistory(ctx context.Context, p *account.Principal, name string, shown *userData) error {
	id, target := shown.Head.Cluster.ID, pgrole.Storable(name)
	rows, _, err := c.auditRows(ctx, p, audit.Filter{Cluster: id, Target: target},
		audit.Page{Backward: true, Limit: 2 * historyLimit})
	if err != nil {
		return err
	}
	shown.OwnRowsOnly = c.ownRowsOnly(p, id)
	shown.HistoryPath = auditLink("cluster", id.String(), "user", target)
	shown.CreationPath = auditLink("cluster", id.String(), "user", target, "action", audit.CreateUser)
	ended := map[uuid.UUID]bool{}
	for _, row := range rows {
		if row.Phase == "attempt" && ended[row.Attempt] {
			continue // its outcome says all that it does
		}
		ended[row.Attempt] = true
		if len(shown.History) < historyLimit {
			shown.History = append(shown.History, historyRow{row, detailText(row.Row.Detail)})
		}
	}
	return nil
}

// unsaid are the parts of a row's detail that its own page shows.
var unsaid = []string{"via", "session", "token", "previous", "trace"}

// detailText is the detail of a row of the audit log in a line. One that has another form is left to the page of the row.
func detailText(detail json.RawMessage) string {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(detail, &all)
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if slices.Contains(unsaid, key) {
			continue
		}
		value := string(all[key])
		var text string
		if json.Unmarshal(all[key], &text) == nil && text != "" {
			value = text
		}
		parts = append(parts, key+": "+value)
	}
	return strings.Join(parts, ", ")
}

// userAccessData is what a user can do, and the forms that change it.
type userAccessData struct {
	*pgrole.Effective
	Databases []databaseAccess
	Reachable []string // the databases that it may only connect to
	// Leveled are the databases that have access roles, Grantable the roles that it can be made a member of.
	Leveled   []string
	Grantable []string
	revocable []string
}

// databaseAccess is what a user can do in a database that it has more in than the right to connect.
type databaseAccess struct {
	pgrole.EffectiveDatabase
	Owns, Granted []string
}

// Direct reports whether the membership is the user's own, not that of one of its roles.
func (userAccessData) Direct(m pgrole.EffectiveMembership) bool { return len(m.Path) == 1 }

// Revocable reports whether a membership can be ended here.
func (a userAccessData) Revocable(m pgrole.EffectiveMembership) bool {
	return a.Direct(m) && slices.Contains(a.revocable, m.Role)
}

func (c *Console) readAccess(r *http.Request, p *account.Principal, shown *userData) (*userAccessData, error) {
	found, err := c.Users.EffectiveAccess(r.Context(), p, shown.Head.ID, shown.User.Name)
	if err != nil {
		return nil, err
	}
	a := &userAccessData{Effective: found}
	for _, d := range found.Databases {
		if d.Level == "" && len(d.Grants) == 0 && d.Problem == "" {
			if d.Connect {
				a.Reachable = append(a.Reachable, d.Database)
			}
			continue
		}
		in := databaseAccess{EffectiveDatabase: d}
		for _, g := range d.Grants {
			if g.Privilege == "OWNER" {
				in.Owns = append(in.Owns, fmt.Sprintf("%d × %s", g.Count, g.Kind))
			} else {
				in.Granted = append(in.Granted, fmt.Sprintf("%s on %d × %s", g.Privilege, g.Count, g.Kind))
			}
		}
		a.Databases = append(a.Databases, in)
	}
	if !shown.MayChange {
		return a, nil
	}
	if a.Leveled, err = c.leveledDatabases(r, p, shown.Head.ID); err != nil {
		return nil, err
	}
	for _, role := range shown.Head.Cluster.Grantable {
		if slices.Contains(shown.User.MemberOf, role) {
			a.revocable = append(a.revocable, role)
		} else if utf8.ValidString(role) {
			a.Grantable = append(a.Grantable, role)
		}
	}
	return a, nil
}

func (c *Console) newPassword(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	password, err := chosenPassword(f)
	if err != nil {
		return err
	}
	in, d, generated, err := c.Users.ChangePassword(r.Context(), p, r.PathValue("id"), r.PathValue("username"), password,
		f.Match())
	if err != nil {
		return atPassword(err, password)
	}
	if generated != "" {
		return c.showOnce(w, r, p, "The new password", in, d, generated)
	}
	return c.redirect(w, userPath(in.ID.String(), d.Name), sentences("The user has the password that you typed.",
		d.LoginProblem(), portability(password)))
}

func (c *Console) setLimits(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	limits, err := limitsOf(f)
	if err != nil {
		return err
	}
	// A limit that was left as it is stays as it is, to the microsecond.
	if f.Get("expires") == f.Get("was-expires") {
		limits.ValidUntil = nil
	}
	if f.Get("connections") == f.Get("was-connections") {
		limits.ConnectionLimit = nil
	}
	end := f.Checked("end-sessions", "yes", false)
	if limits == (pgrole.Limits{}) && !end {
		return fault.New(fault.Invalid, "Nothing was changed: both limits are as they were.")
	}
	in, d, ended, err := c.Users.SetLimits(r.Context(), p, r.PathValue("id"), r.PathValue("username"), limits, end, f.Match())
	if err != nil {
		return err
	}
	notice := "The limits were changed."
	if end {
		notice += " " + endedText(ended)
	}
	return c.redirect(w, userPath(in.ID.String(), d.Name), sentences(notice, d.LoginProblem()))
}

// endedText says how many sessions were ended.
func endedText(n int) string {
	switch n {
	case 0:
		return "There was no open session."
	case 1:
		return "One session was ended."
	}
	return fmt.Sprintf("%d sessions were ended.", n)
}

func (c *Console) disableUser(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	in, d, ended, err := c.Users.DisableUser(r.Context(), p, r.PathValue("id"), r.PathValue("username"), f.Match())
	if err != nil {
		return err
	}
	return c.redirect(w, userPath(in.ID.String(), d.Name), "The user is disabled: it cannot log in. "+endedText(ended))
}

func (c *Console) enableUser(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	in, d, err := c.Users.EnableUser(r.Context(), p, r.PathValue("id"), r.PathValue("username"), f.Match())
	if err != nil {
		return err
	}
	return c.redirect(w, userPath(in.ID.String(), d.Name), sentences("The user is enabled.", d.LoginProblem()))
}

// endSessions goes by the name alone: sessions come and go without a change of the user.
func (c *Console) endSessions(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	in, d, ended, err := c.Users.SetLimits(r.Context(), p, r.PathValue("id"), r.PathValue("username"), pgrole.Limits{},
		true, nil)
	if err != nil {
		return err
	}
	return c.redirect(w, userPath(in.ID.String(), d.Name), endedText(ended))
}

func (c *Console) changeRoles(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	id, name := r.PathValue("id"), r.PathValue("username")
	var notice string
	var err error
	switch grant, revoke := f.Values.Get("grant"), f.Values.Get("revoke"); {
	case revoke != "":
		_, _, err = c.Users.RevokeRole(r.Context(), p, id, name, revoke, f.Match())
		notice = fmt.Sprintf("The user is no longer a member of %q.", revoke)
	case grant != "":
		var d *pgrole.Details
		_, d, err = c.Users.GrantRole(r.Context(), p, id, name, grant, f.Match())
		notice = fmt.Sprintf("The user is a member of %q.", grant)
		if err == nil && slices.Contains(d.NotInherited, grant) {
			notice += " It has the role's privileges only after SET ROLE."
		}
	default:
		return wrongField("grant", "Choose a role.")
	}
	if err != nil {
		return err
	}
	return c.redirect(w, userPath(id, name), notice)
}

func (c *Console) changeAccess(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	id, name, database := r.PathValue("id"), r.PathValue("username"), f.Values.Get("database")
	if database == "" {
		return wrongField("database", "Choose a database.")
	}
	notice := fmt.Sprintf("The user has no level in the database %q.", database)
	var level *pgrole.Level
	if chosen := pgrole.Level(f.Values.Get("level")); chosen != "none" {
		level = &chosen
		notice = fmt.Sprintf("The user has the level %s in the database %q.", chosen, database)
	}
	if _, err := c.Users.SetAccess(r.Context(), p, id, name, database, level, f.Match()); err != nil {
		return err
	}
	return c.redirect(w, userPath(id, name), notice)
}
