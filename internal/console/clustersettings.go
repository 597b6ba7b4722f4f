package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

const settingsPath = oneClusterPath + "/settings"

func (c *Console) settingsRoutes() []door.Route {
	return slices.Concat(
		formPage(settingsPath, c.settingsPage, c.changeSettings),
		formPage(settingsPath+"/probe", c.settingsPage, c.probeCluster),
		formPage(settingsPath+"/connection", c.connectionPage, c.changeConnection),
		formPage(settingsPath+"/rotate", c.rotatePage, c.rotateCluster),
		formPage(settingsPath+"/remove", c.removePage, c.removeCluster),
	)
}

// The names of the fields of settings, beside those of the registration.
const (
	commitField     = "synchronousCommit"
	defaultTTLField = "leases.defaultTtl"
	maxTTLField     = "leases.maxTtl"
	perAccountField = "leases.maxPerAccount"
)

// setting is a field of a form and the value that the cluster has now, as the field shows it.
type setting struct{ Field, Label, Now string }

func settingsOf(c *cluster.Cluster) []setting {
	return []setting{
		{nameField, "Name", c.DisplayName},
		{locationField, "Location", c.Location},
		{systemField, "Protected roles", strings.Join(c.SystemRoles, "\n")},
		{memberOfField, "Roles that every new user gets", strings.Join(c.MemberOf, "\n")},
		{grantableField, "Roles that users may be given", strings.Join(c.Grantable, "\n")},
		{commitField, "Setting synchronous_commit", c.Connection.SynchronousCommit},
		{defaultTTLField, "Lease without a duration", moment.DurationText(c.Leases.DefaultTTL)},
		{maxTTLField, "Longest lease", moment.DurationText(c.Leases.MaxTTL)},
		{perAccountField, "Leases of one account at a time", strconv.Itoa(c.Leases.MaxPerAccount)},
	}
}

// comparison is what a person sees whose form was made from an older state: both versions, and who was faster.
type comparison struct {
	By   string // "": not known
	At   time.Time
	Rows []compared
}

type compared struct{ Label, Typed, Now string }

// compare returns what differs between a form that was refused as stale and the cluster; nil: the form was not.
func (c *Console) compare(ctx context.Context, p *account.Principal, f *form, head *clusterHead, settings []setting) (
	*comparison, error) {
	if f.Status != statuses[fault.Stale] {
		return nil, nil
	}
	found := &comparison{At: head.Cluster.UpdatedAt}
	for _, s := range settings {
		typed := strings.Join(*lines(f, s.Field), "\n")
		if f.Values.Has(s.Field) && typed != s.Now {
			found.Rows = append(found.Rows, compared{s.Label, typed, s.Now})
		}
	}
	rows, _, err := c.Users.Audit.Rows(ctx, audit.Filter{Cluster: head.Cluster.ID, Action: audit.UpdateCluster,
		Visible: c.Users.VisibleAudit(p)}, audit.Page{Backward: true, Limit: 1})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		found.By = row.AccountName
	}
	return found, nil
}

type clusterSettings struct {
	Head     *clusterHead
	ETag     string
	Now      map[string]string // the values of the settings, by their fields
	Shown    []setting         // for those who may not change them
	Commits  []option
	Compare  *comparison
	Rights   []pgrole.Right
	Problems []pgrole.Problem
	URL, TLS string // "" for those who may not see them
}

func (c *Console) settingsPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	head, err := c.clusterHead(r, p, "settings")
	if err != nil {
		return err
	}
	shown := clusterSettings{Head: head, ETag: f.Tag(head.Cluster.Tag()), Now: map[string]string{},
		Shown: settingsOf(head.Cluster), Commits: []option{{"", "as the server has it"}}}
	for _, s := range shown.Shown {
		shown.Now[s.Field] = s.Now
	}
	for _, v := range cluster.SynchronousCommits {
		shown.Commits = append(shown.Commits, option{v, v})
	}
	if shown.Compare, err = c.compare(r.Context(), p, f, head, shown.Shown); err != nil {
		return err
	}
	if can := &head.Cluster.Capabilities; can.Role != "" {
		shown.Rights, shown.Problems = can.Rights(), can.OtherProblems()
	}
	blocked, err := c.Users.LeaseProblems(r.Context(), head.Cluster)
	if err != nil {
		return err
	}
	for _, text := range append(c.Users.ClusterProblems(head.Cluster, head.Health), blocked[head.Cluster.ID]...) {
		shown.Problems = append(shown.Problems, pgrole.Problem{Text: text})
	}
	if head.Admin {
		shown.URL, shown.TLS = head.Cluster.Connection.URL, tlsModeOf(head.Cluster)
	}
	return c.show(w, r, p, page{Template: "clusters/settings.html", Title: "Settings of " + head.Name, Area: "clusters",
		Crumbs: clusterCrumbs(head), Form: f, Data: shown})
}

func tlsModeOf(c *cluster.Cluster) string {
	if c.Connection.TLS.Mode == "" {
		return "verify-full"
	}
	return c.Connection.TLS.Mode
}

// changeSettings changes what the form has changed: the log records that, and not all of it.
func (c *Console) changeSettings(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	now, err := c.Users.Cluster(p, r.PathValue("id"))
	if err != nil {
		return err
	}
	s := cluster.Settings{
		DisplayName: other(text(f, nameField), now.DisplayName), Location: other(text(f, locationField), now.Location),
		SystemRoles: otherList(f, systemField, now.SystemRoles), MemberOf: otherList(f, memberOfField, now.MemberOf),
		Grantable:         otherList(f, grantableField, now.Grantable),
		SynchronousCommit: other(text(f, commitField), now.Connection.SynchronousCommit),
	}
	if s.Leases, err = typedLeases(f, now.Leases); err != nil {
		return err
	}
	changed, err := c.Users.UpdateCluster(r.Context(), p, now.ID.String(), f.Match(), s, nil)
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", changed.ID.String(), "settings"), "The settings are saved.")
}

// other is nil if a value stays as it is.
func other[T comparable](typed *T, now T) *T {
	if *typed == now {
		return nil
	}
	return typed
}

// otherList is nil if a list stays as it is.
func otherList(f *form, name string, now []string) *[]string {
	typed := lines(f, name)
	if slices.Equal(*typed, now) {
		return nil
	}
	return typed
}

func typedLeases(f *form, now lease.Limits) (s cluster.LeaseSettings, err error) {
	for _, d := range []struct {
		field string
		to    **time.Duration
		now   time.Duration
	}{{defaultTTLField, &s.DefaultTTL, now.DefaultTTL}, {maxTTLField, &s.MaxTTL, now.MaxTTL}} {
		typed, err := moment.Duration(f.Get(d.field))
		if err != nil {
			return s, wrongField(d.field, "%.50q is no duration. Write it as 90s, 36h or 7d.", f.Get(d.field))
		}
		*d.to = other(&typed, d.now)
	}
	most, err := strconv.Atoi(f.Get(perAccountField))
	if err != nil {
		return s, wrongField(perAccountField, "%.50q is no whole number.", f.Get(perAccountField))
	}
	s.MaxPerAccount = other(&most, now.MaxPerAccount)
	return s, nil
}

func (c *Console) probeCluster(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	probed, err := c.Users.ProbeCluster(r.Context(), p, r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", probed.ID.String(), "settings"), "Rolecall has checked the cluster. What it "+
		"found is below.")
}

// clusterChange is a page with one change of a cluster.
type clusterChange struct {
	Head *clusterHead
	ETag string
	Path string // of its form
}

// changeOf is the page of a change for which an admin is needed; last is the end of its path.
func (c *Console) changeOf(r *http.Request, p *account.Principal, f *form, last string) (clusterChange, error) {
	head, err := c.clusterHead(r, p, "settings")
	if err == nil {
		err = c.Users.MayUpdateCluster(r.Context(), p, head.ID)
	}
	if err != nil {
		return clusterChange{}, err
	}
	head.Self = pagePath("clusters", head.ID, "settings", last)
	return clusterChange{head, f.Tag(head.Cluster.Tag()), head.Self}, nil
}

// settingsCrumbs are the pages above a change of a cluster.
func settingsCrumbs(head *clusterHead) []crumb {
	return clusterCrumbs(head, crumb{"Settings", pagePath("clusters", head.ID, "settings")})
}

type connectionForm struct {
	clusterChange
	TLSModes   []option
	TLS        cluster.TLS
	Mode       string
	Password   input
	Key        input
	Identifier string // of the registered cluster
	Compare    *comparison
}

func (c *Console) connectionPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	change, err := c.changeOf(r, p, f, "connection")
	if err != nil {
		return err
	}
	now := change.Head.Cluster
	shown := connectionForm{clusterChange: change, TLSModes: tlsModes, TLS: now.Connection.TLS, Mode: tlsModeOf(now),
		Password: f.Password(passwordField, "Password of the role (empty: as it is)", "off", ""), Key: keyInput(f),
		Identifier: now.SystemIdentifier}
	shown.Password.Required = false
	shown.Compare, err = c.compare(r.Context(), p, f, change.Head, []setting{
		{urlField, "URL", now.Connection.URL}, {tlsModeField, "TLS", shown.Mode}})
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "clusters/connection.html", Title: "Connection of " + change.Head.Name,
		Area: "clusters", Crumbs: settingsCrumbs(change.Head), Form: f, Data: shown})
}

func (c *Console) changeConnection(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	tls := typedTLS(f)
	change := &cluster.ConnectionChange{URL: text(f, urlField), TLS: &tls}
	if password := f.Values.Get(passwordField); password != "" {
		change.Password = (*secret.Text)(&password)
	}
	if key := f.Values.Get(tlsKeyField); strings.TrimSpace(key) != "" {
		change.Key = (*secret.Text)(&key)
	}
	if f.Get(identifierField) != "" {
		change.SystemIdentifier = text(f, identifierField)
	}
	changed, err := c.Users.UpdateCluster(r.Context(), p, r.PathValue("id"), f.Match(), cluster.Settings{}, change)
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", changed.ID.String(), "settings"), "The connection works, and is saved.")
}

type rotation struct {
	clusterChange
	Role    string
	Problem string // why the password cannot be rotated; "": it can
}

func (c *Console) rotatePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	change, err := c.changeOf(r, p, f, "rotate")
	if err != nil {
		return err
	}
	shown := rotation{clusterChange: change, Role: change.Head.Cluster.Role()}
	if err := change.Head.Cluster.CheckRotatable(); err != nil {
		shown.Problem = fault.Of(err).Message
	}
	return c.show(w, r, p, page{Template: "clusters/rotate.html", Title: "Rotate the credential of " + change.Head.Name,
		Area: "clusters", Crumbs: settingsCrumbs(change.Head), Form: f, Data: shown})
}

func (c *Console) rotateCluster(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	rotated, err := c.Users.RotateCredential(r.Context(), p, r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", rotated.ID.String(), "settings"), fmt.Sprintf(
		"The role %s has a new password, which only Rolecall knows.", rotated.Role()))
}

// The choices of what becomes of the leases of a cluster that is removed.
const (
	leasesField = "leases"
	endLeases   = "end"
	leaveLeases = "leave"
)

// shownLeases bounds what the page names of the leases and credentials that end with a cluster.
const shownLeases = 10

type removal struct {
	clusterChange
	Leases      []string // the first ones
	MoreLeases  bool
	Credentials []string
	MoreOfThem  bool
}

func (c *Console) removePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	change, err := c.changeOf(r, p, f, "remove")
	if err != nil {
		return err
	}
	shown := removal{clusterChange: change}
	leases, more, err := c.Users.Leases(r.Context(), p, change.Head.ID, lease.Filter{Live: true, Limit: shownLeases})
	if err != nil {
		return err
	}
	shown.MoreLeases = more
	for _, l := range leases {
		shown.Leases = append(shown.Leases, l.Username)
	}
	_, credentials, more, err := c.Users.Credentials(r.Context(), p, change.Head.ID, "", shownLeases)
	if err != nil {
		return err
	}
	shown.MoreOfThem = more
	for _, cr := range credentials {
		shown.Credentials = append(shown.Credentials, cr.Name)
	}
	return c.show(w, r, p, page{Template: "clusters/remove.html", Title: "Remove " + change.Head.Name, Area: "clusters",
		Crumbs: settingsCrumbs(change.Head), Form: f, Data: shown})
}

func (c *Console) removeCluster(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	now, err := c.Users.Cluster(p, r.PathValue("id"))
	if err != nil {
		return err
	}
	if f.Get("name") != now.DisplayName {
		return wrongField("name", "This is not the name of the cluster. Type %s.", now.DisplayName)
	}
	var end *bool
	if choice := f.Get(leasesField); choice == endLeases || choice == leaveLeases {
		end = new(choice == endLeases)
	}
	if err := c.Users.RemoveCluster(r.Context(), p, now.ID.String(), f.Match(), end); err != nil {
		return err
	}
	return c.redirect(w, clustersPath, fmt.Sprintf("The cluster %s is no longer managed. Its users and databases are as they "+
		"were.", now.DisplayName))
}
