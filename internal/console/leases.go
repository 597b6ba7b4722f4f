package console

import (
	"net/http"
	"slices"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
)

const leasesPath = Prefix + "/leases"

func (c *Console) leaseRoutes() []door.Route {
	one, inCluster := leasesPath+"/{lease}", Prefix+"/clusters/{id}/leases"
	return slices.Concat(
		[]door.Route{
			read(leasesPath, c.leasesPage),
			read(inCluster, c.clusterLeasesPage),
			read(one, unsent(c.leasePage)),
			action(one+"/renew", c.leasePage, c.renewLease),
		},
		formPage(inCluster+"/new", c.newLeasePage, c.once(c.takeLease)),
		formPage(one+"/end", c.endLeasePage, c.endLease),
	)
}

// shownLease is a lease as the pages show it.
type shownLease struct {
	*lease.Lease
	Path    string
	Cluster crumb // Path "": the person may not view it any more, and the title is its id
	Badge   badge
	Why     string // it ends or has ended; "": it has not
}

func (c *Console) presentLease(p *account.Principal, in *cluster.Cluster, l *lease.Lease) shownLease {
	s := shownLease{Lease: l, Path: pagePath("leases", l.ID.String()), Cluster: crumb{Title: in.ID.String()},
		Badge: leaseBadge(l), Why: endReasons[l.Reason]}
	if _, err := c.Users.Cluster(p, in.ID.String()); err == nil {
		s.Cluster = crumb{in.DisplayName, pagePath("clusters", in.ID.String())}
	}
	return s
}

func leaseBadge(l *lease.Lease) badge {
	switch l.State {
	case lease.Active:
		if !time.Now().Before(l.ExpiresAt) {
			return badge{"Expired", "warn"} // Rolecall has yet to drop its role
		}
		return badge{"Active", "good"}
	case lease.Ending:
		return badge{"Ending", ""}
	case lease.Blocked:
		return badge{"Blocked", "bad"}
	}
	return badge{"Ended", ""}
}

// endReasons say why a lease ends.
var endReasons = map[lease.Reason]string{
	lease.Expired:      "Its time was over.",
	lease.Deleted:      "Somebody has ended it.",
	lease.AccountEnded: "Its account was deactivated or deleted.",
	lease.AccessEnded:  "Its account may no longer manage the cluster, or nobody may hand out the role.",
	lease.ByCredential: "Its stored credential has replaced it, or was deleted.",
	lease.Gone:         "Others have dropped its role, or the role that it acts for.",
}

// leaseStates are the choices of the filter.
var leaseStates = []option{{"", "Any"}, {"active", "Active"}, {"ending", "Ending"}, {"blocked", "Blocked"},
	{"ended", "Ended"}}

type leaseList struct {
	Head   *clusterHead // nil: of all clusters
	Leases []shownLease
	States []option
	Pager  pager
	All    bool   // no filter is set
	Self   string // the page without a filter
}

func (c *Console) leasesPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return c.showLeases(w, r, p, nil, page{Template: "leases/all.html", Title: "Leases", Area: "leases"})
}

func (c *Console) clusterLeasesPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	head, err := c.clusterHead(r, p, "leases")
	if err != nil {
		return err
	}
	return c.showLeases(w, r, p, head, page{Template: "leases/cluster.html", Title: "Leases of " + head.Name, Area: "clusters",
		Crumbs: clusterCrumbs(head)})
}

// showLeases shows the leases of a cluster, or with nil of all, that the query chooses.
func (c *Console) showLeases(w http.ResponseWriter, r *http.Request, p *account.Principal, head *clusterHead,
	shown page) error {
	f := filterForm(r)
	l := leaseList{Head: head, States: leaseStates, Self: leasesPath}
	id := ""
	if head != nil {
		id, l.Self = head.ID, pagePath("clusters", head.ID, "leases")
	}
	shown.Form = f
	filter, err := leaseFilter(f)
	if err != nil {
		f.refuse(err)
		shown.Data = l
		return c.show(w, r, p, shown)
	}
	found, more, err := c.Users.Leases(r.Context(), p, id, filter)
	if err != nil {
		return err
	}
	for _, one := range found {
		in, err := c.Users.Clusters.Get(one.Cluster.String())
		if err != nil {
			continue // its registration has just ended, and the lease with it
		}
		l.Leases = append(l.Leases, c.presentLease(p, in, one))
	}
	l.Pager = pagerAfter(r, found, more, func(one *lease.Lease) string { return one.ID.String() })
	l.All = filter.Account+filter.For == "" && filter.States == nil && filter.ExpiresBefore.IsZero()
	shown.Data = l
	return c.show(w, r, p, shown)
}

func leaseFilter(f *form) (filter lease.Filter, err error) {
	filter.Limit = pageSize
	for _, name := range []string{"account", "for"} {
		if !isText(f.Get(name)) {
			return filter, wrongField(name, "The text has a character that no name has.")
		}
	}
	filter.Account, filter.For = f.Get("account"), f.Get("for")
	if state := lease.State(f.Get("state")); state != "" {
		if !slices.Contains(lease.States, state) {
			return filter, wrongField("state", "There is no state %.50q. Choose one of the list.", state)
		}
		filter.States = []lease.State{state}
	}
	if text := f.Get("expiresBefore"); text != "" {
		if filter.ExpiresBefore, err = moment.Time(text); err != nil {
			return filter, wrongField("expiresBefore", "The time is %.50q. Use %s.", text, moment.TimeForm)
		}
	}
	filter.After, err = afterID(f)
	return filter, err
}

type newLeaseData struct {
	Head   *clusterHead
	For    string // that a link asks for
	Limits leaseLimits
	// Command takes a lease in a terminal.
	Command string
}

// leaseLimits are the limits of a cluster, as pages write them.
type leaseLimits struct {
	Default, Max  string
	MaxPerAccount int
}

func (c *Console) newLeasePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	head, err := c.clusterHead(r, p, "leases")
	if err != nil {
		return err
	}
	limits := head.Cluster.Leases
	d := newLeaseData{Head: head, For: r.URL.Query().Get("for"), Limits: leaseLimits{moment.DurationText(limits.DefaultTTL),
		moment.DurationText(limits.MaxTTL), limits.MaxPerAccount},
		Command: "rolecall psql -c " + shellWord(head.Name) + " --for ROLE"}
	return c.show(w, r, p, page{Template: "leases/new.html", Title: "Take a lease in " + head.Name, Area: "clusters",
		Crumbs: clusterCrumbs(head, crumb{"Leases", pagePath("clusters", head.ID, "leases")}), Form: f, Data: d})
}

type onceLease struct {
	shownLease
	Login *onceLogin
}

func (c *Console) takeLease(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	n := dbuser.NewLease{For: f.Get("for"), Note: f.Get("note")}
	var err error
	if n.TTL, err = f.ttl(); err != nil {
		return err
	}
	in, l, password, err := c.Users.CreateLease(r.Context(), p, r.PathValue("id"), n)
	if err != nil {
		return err
	}
	login, err := handOut(in.LoginAs(l.Username, l.For, l.Databases), l.Username, password)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "leases/once.html", Title: "Your lease", Area: "clusters",
		Crumbs: belowCluster(in, crumb{"Leases", pagePath("clusters", in.ID.String(), "leases")}),
		Data:   onceLease{c.presentLease(p, in, l), login}})
}

// ttl reads how long a lease is to last; 0 when nothing was typed.
func (f *form) ttl() (time.Duration, error) {
	d, err := f.duration("ttl")
	if err == nil && d < lease.MinTTL && f.Get("ttl") != "" {
		return 0, wrongField("ttl", "The duration is %s; the shortest is %s.", moment.DurationText(d),
			moment.DurationText(lease.MinTTL))
	}
	return d, err
}

// duration reads a field; 0 when nothing was typed.
func (f *form) duration(name string) (time.Duration, error) {
	text := f.Get(name)
	if text == "" {
		return 0, nil
	}
	d, err := moment.Duration(text)
	if err != nil {
		return 0, wrongField(name, "The duration is %.50q. Use %s.", text, moment.DurationForm)
	}
	return d, nil
}

type leaseDetail struct {
	shownLease
	MayChange bool
	// NoRenewal is why the lease is not renewed; "": it is.
	NoRenewal string
	TTLText   string
	Unknown   bool // the cluster did not answer when it was last asked
}

func (c *Console) leaseDetail(r *http.Request, p *account.Principal) (leaseDetail, error) {
	in, l, err := c.Users.Lease(r.Context(), p, r.PathValue("lease"))
	if err != nil {
		return leaseDetail{}, err
	}
	d := leaseDetail{shownLease: c.presentLease(p, in, l), MayChange: dbuser.LeaseRefusal(p, in, l) == nil,
		TTLText: moment.DurationText(l.TTL), Unknown: in.Unreachable()}
	if refused := dbuser.RenewalRefusal(l); refused != nil {
		d.NoRenewal = refused.Error()
	}
	return d, nil
}

var leaseCrumbs = []crumb{{"Leases", leasesPath}}

func (c *Console) leasePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	d, err := c.leaseDetail(r, p)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "leases/lease.html", Title: "Lease " + d.Username, Area: "leases",
		Crumbs: leaseCrumbs, Form: f, Data: d})
}

func (c *Console) renewLease(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	ttl, err := f.ttl()
	if err != nil {
		return err
	}
	_, l, cut, err := c.Users.RenewLease(r.Context(), p, r.PathValue("lease"), ttl)
	if err != nil {
		return err
	}
	notice := "The lease is renewed. It ends at " + at(l.ExpiresAt).Text + "."
	if cut {
		notice += " This is its last end, and nearer than you asked for."
	}
	return c.redirect(w, pagePath("leases", l.ID.String()), notice)
}

func (c *Console) endLeasePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	d, err := c.leaseDetail(r, p)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "leases/end.html", Title: "End the lease " + d.Username, Area: "leases",
		Crumbs: append(slices.Clone(leaseCrumbs), crumb{d.Username, d.Path}), Form: f, Data: d})
}

func (c *Console) endLease(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	_, l, err := c.Users.EndLease(r.Context(), p, r.PathValue("lease"))
	if err != nil {
		return err
	}
	notice := "The lease has ended: its role is dropped."
	if l.State == lease.Blocked {
		notice = "Nobody can log in with the lease any more, but its role cannot be dropped yet."
	}
	return c.redirect(w, pagePath("leases", l.ID.String()), notice)
}
