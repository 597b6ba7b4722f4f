package adminapi

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
	"rolecall/internal/secret"
	"rolecall/internal/web"
)

type clusterResource struct {
	ID           string       `json:"id"`
	DisplayName  string       `json:"displayName"`
	Location     string       `json:"location"`
	Version      string       `json:"version"`
	State        string       `json:"state"`
	Reachable    bool         `json:"reachable"`
	LastError    *string      `json:"lastError"`
	Capabilities capabilities `json:"capabilities"`
	Access       accessRules  `json:"access"`
	SystemRoles  []string     `json:"systemRoles"`
	MemberOf     []string     `json:"memberOf"`
	Grantable    []string     `json:"grantable"`
	Synchronous  *string      `json:"synchronousCommit"`
	Leases       leaseLimits  `json:"leases"`
	Connection   *connection  `json:"connection,omitempty"`
	MayManage    bool         `json:"mayManage"`
	CreatedAt    time.Time    `json:"createdAt"`
	UpdatedAt    time.Time    `json:"updatedAt"`
}

type capabilities struct {
	Role           string   `json:"role"`
	Superuser      bool     `json:"superuser"`
	CreateRole     bool     `json:"createRole"`
	CreateDatabase bool     `json:"createDatabase"`
	ManageUsers    bool     `json:"manageUsers"`
	ForeignRoles   bool     `json:"foreignRoles"`
	SignalBackend  bool     `json:"signalBackend"`
	ReadVerifiers  bool     `json:"readVerifiers"`
	MaxConnections int      `json:"maxConnections"`
	Problems       []string `json:"problems"`
}

type leaseLimits struct {
	DefaultTTL    string `json:"defaultTtl"`
	MaxTTL        string `json:"maxTtl"`
	MaxPerAccount int    `json:"maxPerAccount"`
}

type accessRules struct {
	Manage []string `json:"manage"`
	View   []string `json:"view"`
}

type connection struct {
	URL              string        `json:"url"`
	TLS              tlsOfResource `json:"tls"`
	SystemIdentifier string        `json:"systemIdentifier"`
}

type tlsOfResource struct {
	Mode string `json:"mode"`
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`

	AllowPlaintext bool `json:"allowPlaintext,omitempty"`
}

// present says of a cluster what the principal may know. Hosts, and errors that name them, are for admins. blocked are
// sentences on its blocked leases.
func (a *API) present(p *account.Principal, c *cluster.Cluster, h cluster.Health, blocked []string) clusterResource {
	can := c.Capabilities
	version, _, _ := strings.Cut(h.Version, " ")
	if version == "" {
		version, _, _ = strings.Cut(can.VersionName, " ")
	}
	res := clusterResource{
		ID:          c.ID.String(),
		DisplayName: c.DisplayName,
		Location:    c.Location,
		Version:     version,
		State:       "AVAILABLE",
		Reachable:   h.Reachable,
		Capabilities: capabilities{
			Role:           can.Role,
			Superuser:      can.Superuser,
			CreateRole:     can.CreateRole,
			CreateDatabase: can.CreateDB,
			ManageUsers:    can.ManageUsers,
			ForeignRoles:   can.ForeignRoles,
			SignalBackend:  can.SignalBackend,
			ReadVerifiers:  can.ReadVerifiers,
			MaxConnections: can.MaxConnections,
			Problems:       append([]string{}, can.Problems...),
		},
		Access:      accessRules{texts(c.Manage), texts(c.View)},
		SystemRoles: append([]string{}, c.SystemRoles...),
		MemberOf:    append([]string{}, c.MemberOf...),
		Grantable:   append([]string{}, c.Grantable...),
		Synchronous: given(c.Connection.SynchronousCommit),
		Leases: leaseLimits{moment.DurationText(c.Leases.DefaultTTL), moment.DurationText(c.Leases.MaxTTL),
			c.Leases.MaxPerAccount},
		MayManage: access.MayManage(p, c),
		CreatedAt: c.CreatedAt.UTC(),
		UpdatedAt: c.UpdatedAt.UTC(),
	}
	res.Capabilities.Problems = append(res.Capabilities.Problems, append(a.Users.ClusterProblems(c, h), blocked...)...)
	switch {
	case h.Stopped:
		res.State = "STOPPED"
	case !h.Reachable:
		res.State = "UNKNOWN"
	}
	if !h.Reachable {
		why := dbuser.WhyUnreachable(p, h)
		res.LastError = &why
	}
	if p.Has(account.ScopeAdmin) {
		res.Connection = &connection{URL: c.Connection.URL, TLS: tlsOfResource(c.Connection.TLS),
			SystemIdentifier: c.SystemIdentifier}
		if res.Connection.TLS.Mode == "" {
			res.Connection.TLS.Mode = "verify-full"
		}
	}
	return res
}

func texts(selectors []label.Selector) []string {
	all := []string{}
	for _, s := range selectors {
		all = append(all, s.String())
	}
	return all
}

func (a *API) answerCluster(w http.ResponseWriter, r *http.Request, p *account.Principal, status int,
	c *cluster.Cluster) error {
	blocked, err := a.Users.LeaseProblems(r.Context(), c)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(c.Tag()))
	web.JSON(w, status, "application/json", a.present(p, c, c.Health(r.Context()), blocked[c.ID]))
	return nil
}

func (a *API) listClusters(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	name, err := q.text("name")
	if err != nil {
		return err
	}
	// By name and not by place, so that a page begins where the last one ended, even if clusters were registered in between.
	var clusters []*cluster.Cluster
	for _, c := range a.Users.ViewableClusters(p) {
		if c.DisplayName > page.After && (name == "" || c.DisplayName == name) {
			clusters = append(clusters, c)
		}
	}
	l := list[clusterResource]{Items: []clusterResource{}}
	if len(clusters) > page.Limit {
		clusters = clusters[:page.Limit]
		l.Next = cursor(clusters[page.Limit-1].DisplayName)
	}
	blocked, err := a.Users.LeaseProblems(r.Context(), clusters...)
	if err != nil {
		return err
	}
	for i, h := range cluster.Healths(r.Context(), clusters) {
		l.Items = append(l.Items, a.present(p, clusters[i], h, blocked[clusters[i].ID]))
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) getCluster(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, err := a.Users.Cluster(p, r.PathValue("clusterId"))
	if err != nil {
		return err
	}
	return a.answerCluster(w, r, p, http.StatusOK, c)
}

// settings reads what a registration and a change have in common.
func settings(o *object) cluster.Settings {
	s := cluster.Settings{
		DisplayName: o.text("displayName"),
		Location:    o.text("location"),
		SystemRoles: o.texts("systemRoles"),
		MemberOf:    o.texts("memberOf"),
		Grantable:   o.texts("grantable"),

		SynchronousCommit: o.textOrNull("synchronousCommit"),
	}
	if access := o.object("access"); access != nil {
		s.Manage, s.View = access.texts("manage"), access.texts("view")
		_ = access.done() // kept in o
	}
	if v, ok := o.get("leases"); ok {
		s.Leases = leaseSettings(o, v == nil)
	}
	return s
}

// leaseSettings reads the limits of leases. null, of one or of all, is what applies without a setting.
func leaseSettings(o *object, reset bool) cluster.LeaseSettings {
	to := lease.DefaultLimits
	if reset {
		return cluster.LeaseSettings{DefaultTTL: &to.DefaultTTL, MaxTTL: &to.MaxTTL, MaxPerAccount: &to.MaxPerAccount}
	}
	l := o.object("leases")
	s := cluster.LeaseSettings{
		DefaultTTL:    orNull(l, "defaultTtl", l.duration, to.DefaultTTL),
		MaxTTL:        orNull(l, "maxTtl", l.duration, to.MaxTTL),
		MaxPerAccount: orNull(l, "maxPerAccount", l.integer, to.MaxPerAccount),
	}
	_ = l.done()
	return s
}

// orNull reads a field that may be null, which stands for a value.
func orNull[T any](o *object, name string, read func(name string) *T, null T) *T {
	if v, ok := o.get(name); ok && v == nil {
		return &null
	}
	return read(name)
}

// connectionChange reads a connection, of a cluster that is registered or not.
func connectionChange(o *object, registered bool) *cluster.ConnectionChange {
	c := o.object("connection")
	if c == nil {
		return nil
	}
	change := &cluster.ConnectionChange{URL: c.text("url"), Password: (*secret.Text)(c.text("password"))}
	if t := c.object("tls"); t != nil {
		allow := t.flag("allowPlaintext")
		change.TLS = &cluster.TLS{Mode: orEmpty(t.text("mode")), CA: orEmpty(t.text("ca")), Cert: orEmpty(t.text("cert")),
			AllowPlaintext: allow != nil && *allow}
		change.Key = (*secret.Text)(t.text("key"))
		_ = t.done()
	}
	if registered {
		change.SystemIdentifier = c.text("systemIdentifier")
	}
	_ = c.done()
	return change
}

func orEmpty[T ~string](s *T) T {
	if s == nil {
		return ""
	}
	return *s
}

func (a *API) registerCluster(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Users.MayRegisterCluster(r.Context(), p); err != nil {
		return err
	}
	o, err := largeBody(w, r)
	if err != nil {
		return err
	}
	s, change := settings(o), connectionChange(o, false)
	if err := o.done(); err != nil {
		return err
	}
	if change == nil {
		return fault.New(fault.Invalid, "The field connection is missing.")
	}
	to := cluster.Connection{URL: orEmpty(change.URL), Password: orEmpty(change.Password), Key: orEmpty(change.Key)}
	if change.TLS != nil {
		to.TLS = *change.TLS
	}
	c, err := a.Users.RegisterCluster(r.Context(), p, s, to)
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.PublicURL+Prefix+"/clusters/"+c.ID.String())
	return a.answerCluster(w, r, p, http.StatusCreated, c)
}

func (a *API) updateCluster(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Users.MayUpdateCluster(r.Context(), p, r.PathValue("clusterId")); err != nil {
		return err
	}
	o, err := largeBody(w, r)
	if err != nil {
		return err
	}
	s, change := settings(o), connectionChange(o, true)
	if err := o.done(); err != nil {
		return err
	}
	c, err := a.Users.UpdateCluster(r.Context(), p, r.PathValue("clusterId"), web.IfMatch(r), s, change)
	if err != nil {
		return err
	}
	return a.answerCluster(w, r, p, http.StatusOK, c)
}

func (a *API) removeCluster(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	endLeases, err := q.flag("endLeases")
	if err != nil {
		return err
	}
	if err := a.Users.RemoveCluster(r.Context(), p, r.PathValue("clusterId"), web.IfMatch(r), endLeases); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) probeCluster(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, err := a.Users.ProbeCluster(r.Context(), p, r.PathValue("clusterId"))
	if err != nil {
		return err
	}
	return a.answerCluster(w, r, p, http.StatusOK, c)
}

func (a *API) rotateCredential(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, err := a.Users.RotateCredential(r.Context(), p, r.PathValue("clusterId"))
	if err != nil {
		return err
	}
	return a.answerCluster(w, r, p, http.StatusOK, c)
}

type accessOfAccount struct {
	Account accountWithLabels `json:"account"`
	View    right             `json:"view"`
	Manage  right             `json:"manage"`
}

type accountWithLabels struct {
	GUID     string            `json:"guid"`
	Username string            `json:"username"`
	Origin   string            `json:"origin"`
	Scopes   []string          `json:"scopes"`
	Labels   map[string]string `json:"labels"`
}

type right struct {
	Allowed bool        `json:"allowed"`
	Why     string      `json:"why"`
	Scope   *string     `json:"scope"`
	Rules   []ruleMatch `json:"rules"`
}

type ruleMatch struct {
	Rule    string            `json:"rule"`
	Matches bool              `json:"matches"`
	Labels  map[string]string `json:"labels"`
}

func (a *API) explainAccess(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	if q.Get("account") == "" {
		return fault.New(fault.Malformed, "The query parameter account is missing.")
	}
	x, err := a.Users.ExplainAccess(r.Context(), p, r.PathValue("clusterId"), q.Get("account"))
	if err != nil {
		return err
	}
	account := accountWithLabels{x.Account.GUID, x.Account.Username, x.Account.Origin, append([]string{}, x.Account.Scopes...),
		map[string]string{}}
	maps.Copy(account.Labels, x.Account.Labels)
	web.JSON(w, http.StatusOK, "application/json", accessOfAccount{account, presentRight(x.View), presentRight(x.Manage)})
	return nil
}

func presentRight(from access.Right) right {
	r := right{Allowed: from.Allowed, Why: from.Why, Rules: []ruleMatch{}}
	if from.Scope != "" {
		r.Scope = &from.Scope
	}
	for _, m := range from.Rules {
		r.Rules = append(r.Rules, ruleMatch{m.Rule, m.Matches, m.Labels})
	}
	return r
}
