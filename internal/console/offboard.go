package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/moment"
)

const (
	offboardPath     = accountPath + "/offboard"
	offboardingsPath = Prefix + "/offboardings"
)

func (c *Console) offboardRoutes() []door.Route {
	return append(formPage(offboardPath, c.offboardPage, c.offboard),
		read(offboardingsPath, c.offboardingsPage),
		read(offboardingsPath+"/{id}", c.offboardingPage),
	)
}

// leaverActions are what may be done to the database users of a person who leaves.
var leaverActions = []option{
	{string(fleet.Keep), "Nothing: they go on as they are"},
	{string(fleet.Disable), "Disable them: they no longer log in, and their sessions end"},
	{string(fleet.Expire), "Expire their passwords after a while, so that there is time to replace them"},
	{string(fleet.EndSessions), "End their sessions once; they may log in again"},
}

// offboardShown is the page to offboard an account: the choice, and the plan that follows from it.
type offboardShown struct {
	Account *account.Profile
	Back    string
	Actions []option
	Plan    *fleet.Report // nil: the choice was refused
	Users   []leaverUser
	Leaver  fleet.Leaver
	After   string
}

// leaverUser is a database user of a report.
type leaverUser struct {
	fleet.ReportedUser
	Path, ClusterPath string
	Target            string // its cluster and name, for a form
	Kept              bool   // by the person who offboards
	Result            badge  // of a report
}

// offboardDefault is the action that a new form proposes. It harms nothing.
const offboardDefault = string(fleet.Keep)

// offboardAfter is when passwords expire, if nothing else is typed.
const offboardAfter = "7d"

// leaverOf reads what a form says of the account that is offboarded.
func leaverOf(guid string, f *form) (l fleet.Leaver, err error) {
	l = fleet.Leaver{Account: guid, Action: fleet.Action(f.Get("default"))}
	if l.Action == "" {
		l.Action = fleet.Action(offboardDefault)
	}
	if text := f.Get("expire-in"); l.Action == fleet.Expire {
		if l.After, err = moment.Duration(text); err != nil || l.After <= 0 {
			return l, wrongField("expire-in", "Say in how long the passwords expire, like 7d or 36h; %.50q is no such time.", text)
		}
	}
	for _, target := range f.Values["user"] {
		cluster, name, _ := strings.Cut(target, "/")
		if !slices.Contains(f.Values["do"], target) {
			l.Kept = append(l.Kept, fleet.Target{Cluster: cluster, Name: name})
		}
	}
	return l, nil
}

func (c *Console) offboardPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if r.Method == http.MethodGet {
		if f = filterForm(r); !f.Values.Has("expire-in") {
			f.Values.Set("expire-in", offboardAfter)
		}
	}
	guid := r.PathValue("guid")
	a, err := c.Accounts.Profile(r.Context(), p, guid)
	if err != nil {
		return err
	}
	shown := offboardShown{Account: a, Back: pagePath("accounts", a.GUID), Actions: leaverActions, After: f.Get("expire-in")}
	l, err := leaverOf(guid, f)
	if err == nil {
		shown.Plan, err = c.Fleet.OffboardingPlan(r.Context(), p, l)
	}
	switch {
	case fault.Is(err, fault.Invalid) && f.Problem == "":
		f.refuse(err)
	case fault.Is(err, fault.Invalid): // as it was refused already
	case err != nil:
		return err
	}
	shown.Leaver = l
	if shown.Plan != nil {
		for _, u := range shown.Plan.Users {
			user := leaverUserOf(u)
			user.Kept = slices.Contains(l.Kept, fleet.Target{Cluster: u.Cluster.ID.String(), Name: u.Username})
			shown.Users = append(shown.Users, user)
		}
	}
	return c.show(w, r, p, page{Template: "accounts/offboard.html", Title: "Offboard " + a.Presentation(), Area: "accounts",
		Form: f, Crumbs: accountCrumbs(a), Data: shown})
}

func leaverUserOf(u fleet.ReportedUser) leaverUser {
	id := u.Cluster.ID.String()
	return leaverUser{ReportedUser: u, Path: userPath(id, u.Username), ClusterPath: pagePath("clusters", id),
		Target: id + "/" + u.Username, Result: resultBadges[u.State]}
}

func (c *Console) offboard(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	l, err := leaverOf(r.PathValue("guid"), f)
	if err != nil {
		return err
	}
	o, err := c.Fleet.Offboard(r.Context(), p, l)
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("offboardings", o.ID.String()),
		"The account was offboarded. This is the report; it is kept.")
}

// offboardingList is the page of all reports.
type offboardingList struct {
	Offboardings []*fleet.Offboarding
	Pager        pager
}

func (c *Console) offboardingsPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	f := filterForm(r)
	after, err := afterID(f)
	if err != nil {
		return err
	}
	found, more, err := c.Fleet.Offboardings(r.Context(), p, f.Get("account"), after, pageSize)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "accounts/offboardings.html", Title: "Offboardings", Area: "accounts", Form: f,
		Crumbs: []crumb{accountsCrumb}, Data: offboardingList{found,
			pagerAfter(r, found, more, func(o *fleet.Offboarding) string { return o.ID.String() })}})
}

// offboardingShown is a report.
type offboardingShown struct {
	*fleet.Offboarding
	Users         []leaverUser
	AccountPath   string
	OperationPath string // "": there is none
	Self, Poll    string // as those of an operation
	Running       bool
}

func (c *Console) offboardingPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := c.Fleet.Offboarding(r.Context(), p, r.PathValue("id"))
	if err != nil {
		return err
	}
	id := o.ID.String()
	shown := offboardingShown{Offboarding: o, AccountPath: pagePath("accounts", o.Account.GUID), Running: o.State == "running"}
	shown.Self, shown.Poll = selfAndPoll(r, pagePath("offboardings", id), time.Now())
	if o.Operation != uuid.Nil {
		shown.OperationPath = pagePath("operations", o.Operation.String())
	}
	for _, u := range o.Report.Users {
		shown.Users = append(shown.Users, leaverUserOf(u))
	}
	name := o.Account.Name
	if name == "" {
		name = o.Account.GUID
	}
	return c.show(w, r, p, page{Template: "accounts/offboarding.html", Title: "Offboarding of " + name, Area: "accounts",
		Crumbs: []crumb{accountsCrumb, {"Offboardings", offboardingsPath}}, Data: shown})
}
