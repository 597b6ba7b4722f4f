package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/moment"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
	"rolecall/internal/web"
)

type userResource struct {
	Username         string         `json:"username"`
	System           bool           `json:"system"`
	State            string         `json:"state"`
	ValidUntil       *time.Time     `json:"validUntil"`
	ConnectionLimit  int            `json:"connectionLimit"`
	MemberOf         []string       `json:"memberOf"`
	NotInherited     []string       `json:"notInherited"`
	PasswordKind     string         `json:"passwordKind"`
	Comment          string         `json:"comment"`
	Connection       userConnection `json:"connection"`
	Lease            *leaseOfUser   `json:"lease"`
	CreatedBy        *string        `json:"createdBy"`
	CreatedAt        *time.Time     `json:"createdAt"`
	ModifiedBy       *string        `json:"modifiedBy"`
	ModifiedAt       *time.Time     `json:"modifiedAt"`
	ETag             string         `json:"etag"`
	ChangedOutside   *bool          `json:"passwordChangedOutside"`
	ChangedOutsideAt *time.Time     `json:"passwordChangedOutsideAt"`
	LastSeen         *time.Time     `json:"lastSeen"`
	LastSeenSince    *time.Time     `json:"lastSeenSince"`
	EndedSessions    *int           `json:"endedSessions,omitempty"`
	KeptRoles        *[]string      `json:"keptRoles,omitempty"`
}

// userWithPassword is the only answer with a password, which was generated.
type userWithPassword struct {
	userResource
	Password string `json:"password,omitempty"`
}

type leaseOfUser struct {
	ID        string    `json:"id"`
	For       string    `json:"for"`
	ExpiresAt time.Time `json:"expiresAt"`
}

type userConnection struct {
	Host      string   `json:"host"`
	Port      int      `json:"port"`
	Databases []string `json:"databases"`
	URL       string   `json:"url"`
}

// presentUsers presents users of one cluster. If what was observed cannot be read, it is unknown, and that is no error: it
// must not hide what became of a change.
func (a *API) presentUsers(ctx context.Context, c *cluster.Cluster, users ...*pgrole.Details) []userResource {
	oids := make([]uint32, len(users))
	for i, d := range users {
		oids[i] = d.OID()
	}
	seen, err := a.Users.Observations(ctx, c.ID, oids)
	if err != nil {
		a.Users.Log.Warn("what was observed of users cannot be read", "cluster", c.ID, "error", err)
	}
	items := make([]userResource, len(users))
	for i, d := range users {
		var o dbuser.Observation
		if err == nil {
			o = seen.OfUser(d.User)
		}
		items[i] = presentUser(c, d, o)
	}
	return items
}

// presentUser presents one user.
func (a *API) presentUser(ctx context.Context, c *cluster.Cluster, d *pgrole.Details) userResource {
	return a.presentUsers(ctx, c, d)[0]
}

func presentUser(c *cluster.Cluster, d *pgrole.Details, o dbuser.Observation) userResource {
	p := d.Provenance
	u := userResource{
		Username:        d.Name,
		System:          d.System(),
		State:           d.State,
		ValidUntil:      d.ValidUntil,
		ConnectionLimit: d.ConnectionLimit,
		MemberOf:        append([]string{}, d.MemberOf...),
		NotInherited:    append([]string{}, d.NotInherited...),
		PasswordKind:    d.PasswordKind,
		Comment:         d.Comment,
		Connection:      presentConnection(c, d.Name, d.Name, d.Databases),
		CreatedBy:       given(p.CreatedBy),
		CreatedAt:       known(p.Created),
		ModifiedBy:      given(p.ModifiedBy),
		ModifiedAt:      known(p.Modified),
		ETag:            strconv.Quote(d.Revision()),

		ChangedOutside: o.PasswordChangedOutside, ChangedOutsideAt: o.ChangedOutsideAt,
		LastSeen: o.LastSeen, LastSeenSince: o.LastSeenSince,
	}
	if p.Lease != uuid.Nil {
		u.Lease = &leaseOfUser{p.Lease.String(), p.For, p.Ends.UTC()}
		u.Connection = presentConnection(c, d.Name, p.For, d.Databases)
	}
	return u
}

// given is nil for a text that there is not.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// presentConnection says how to connect as a user, to act as a role.
func presentConnection(c *cluster.Cluster, name, as string, databases []string) userConnection {
	to := c.LoginAs(name, as, databases)
	return userConnection{Host: to.Host, Port: to.Port, Databases: append([]string{}, databases...), URL: to.URL}
}

func answerUser(w http.ResponseWriter, u userResource) {
	w.Header().Set("ETag", u.ETag)
	web.JSON(w, http.StatusOK, "application/json", u)
}

// answerWithPassword answers with a user and its password, if one was generated.
func answerWithPassword(w http.ResponseWriter, status int, u userResource, password secret.Text) {
	w.Header().Set("ETag", u.ETag)
	web.JSON(w, status, "application/json", userWithPassword{u, string(password)})
}

func (a *API) listUsers(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	system, err := q.yes("system")
	if err != nil {
		return err
	}
	c, users, more, err := a.Users.DetailsList(r.Context(), p, r.PathValue("clusterId"), system, page.After,
		page.Limit)
	if err != nil {
		return err
	}
	l := list[userResource]{Items: a.presentUsers(r.Context(), c, users...)}
	if more {
		l.Next = cursor(l.Items[len(l.Items)-1].Username)
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) getUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, d, err := a.Users.UserDetails(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"))
	if err != nil {
		return err
	}
	answerUser(w, a.presentUser(r.Context(), c, d))
	return nil
}

func (a *API) createUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	name, access, roles := o.text("username"), o.levels(), o.texts("roles")
	n := dbuser.NewUser{Password: o.secret("password"), Access: access,
		Limits: pgrole.Limits{ValidUntil: o.moment("validUntil"), ConnectionLimit: o.integer("connectionLimit")}}
	if err := o.done(); err != nil {
		return err
	}
	if name == nil {
		return fault.New(fault.Invalid, "The field username is missing.")
	}
	n.Name = *name
	if roles != nil {
		n.Roles = *roles
	}
	c, d, password, err := a.Users.CreateUserWith(r.Context(), p, r.PathValue("clusterId"), n)
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.PublicURL+Prefix+"/clusters/"+c.ID.String()+"/users/"+url.PathEscape(d.Name))
	web.Warn(w, d.LoginProblem(), portability(n.Password), notInherited(d.MemberOf, d))
	answerWithPassword(w, http.StatusCreated, a.presentUser(r.Context(), c, d), password)
	return nil
}

// levels reads the levels of a new user; nil when the field is not there.
func (o *object) levels() (access []pgrole.Access) {
	for _, in := range o.objects("access") {
		database, level := in.text("database"), in.text("level")
		if _ = in.done(); *o.err != nil {
			return nil
		}
		if database == nil || level == nil {
			*o.err = fault.New(fault.Invalid, "The field %sdatabase or %[1]slevel is missing.", in.at)
			return nil
		}
		access = append(access, pgrole.Access{Database: *database, Level: pgrole.Level(*level)})
	}
	return access
}

func (a *API) changePassword(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := optionalBody(w, r)
	if err != nil {
		return err
	}
	use := o.secret("password")
	if err := o.done(); err != nil {
		return err
	}
	c, d, password, err := a.Users.ChangePassword(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), use,
		web.IfMatch(r))
	if err != nil {
		return err
	}
	web.Warn(w, d.LoginProblem(), portability(use))
	answerWithPassword(w, http.StatusOK, a.presentUser(r.Context(), c, d), password)
	return nil
}

func (a *API) disableUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, d, ended, err := a.Users.DisableUser(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), web.IfMatch(r))
	if err != nil {
		return err
	}
	u := a.presentUser(r.Context(), c, d)
	u.EndedSessions = &ended
	answerUser(w, u)
	return nil
}

func (a *API) enableUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, d, err := a.Users.EnableUser(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), web.IfMatch(r))
	if err != nil {
		return err
	}
	answerUser(w, a.presentUser(r.Context(), c, d))
	return nil
}

func (a *API) updateUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	limits := pgrole.Limits{ValidUntil: o.moment("validUntil"), ConnectionLimit: o.integer("connectionLimit")}
	end := o.flag("endSessions")
	endSessions := end != nil && *end
	if err := o.done(); err != nil {
		return err
	}
	if limits == (pgrole.Limits{}) && !endSessions {
		return fault.New(fault.Invalid, "Say what to change: validUntil, connectionLimit, or endSessions: true.")
	}
	c, d, ended, err := a.Users.SetLimits(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), limits,
		endSessions, web.IfMatch(r))
	if err != nil {
		return err
	}
	u := a.presentUser(r.Context(), c, d)
	if endSessions {
		u.EndedSessions = &ended
	}
	answerUser(w, u)
	return nil
}

func (a *API) setRoles(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	roles := o.texts("roles")
	if err := o.done(); err != nil {
		return err
	}
	if roles == nil {
		return fault.New(fault.Invalid, "The field roles is missing.")
	}
	c, d, kept, err := a.Users.SetRoles(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), *roles,
		web.IfMatch(r))
	if err != nil {
		return err
	}
	u := a.presentUser(r.Context(), c, d)
	web.Warn(w, notInherited(*roles, d))
	u.KeptRoles = &kept
	if kept == nil {
		u.KeptRoles = &[]string{}
	}
	answerUser(w, u)
	return nil
}

// notInherited says, in a sentence, that the user does not have the privileges of roles that it was just made a member of;
// "" if it has.
func notInherited(roles []string, d *pgrole.Details) string {
	if slices.ContainsFunc(roles, func(role string) bool { return slices.Contains(d.NotInherited, role) }) {
		return "This user does not inherit the privileges of its roles, listed in notInherited: it has them only after " +
			"SET ROLE, or after ALTER ROLE ... INHERIT."
	}
	return ""
}

// portability is the problem of a password that was given; a generated one has none.
func portability(given *secret.Text) string {
	if given == nil {
		return ""
	}
	return pgrole.PortabilityProblem(string(*given))
}

func (a *API) grantRole(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	role := r.PathValue("role")
	_, d, err := a.Users.GrantRole(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), role, web.IfMatch(r))
	if err != nil {
		return err
	}
	web.Warn(w, notInherited([]string{role}, d))
	answerChanged(w, d)
	return nil
}

func (a *API) revokeRole(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	_, d, err := a.Users.RevokeRole(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), r.PathValue("role"),
		web.IfMatch(r))
	if err != nil {
		return err
	}
	answerChanged(w, d)
	return nil
}

// answerChanged answers without the user, with its new ETag.
func answerChanged(w http.ResponseWriter, d *pgrole.Details) {
	w.Header().Set("ETag", strconv.Quote(d.Revision()))
	w.WriteHeader(http.StatusNoContent)
}

type deletionPlan struct {
	Blockers  []string       `json:"blockers"`
	Sessions  int            `json:"sessions"`
	Unvisited int            `json:"unvisited"`
	Databases []databasePlan `json:"databases"`
}

type databasePlan struct {
	Name              string  `json:"name"`
	Objects           listing `json:"objects"`
	Definers          listing `json:"definers"`
	Privileges        listing `json:"privileges"`
	DefaultPrivileges listing `json:"defaultPrivileges"`
}

type listing struct {
	Count int      `json:"count"`
	First []string `json:"first"`
}

func presentListing(l pgrole.Listing) listing {
	return listing{l.Count, append([]string{}, l.First...)}
}

func (a *API) deleteUser(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	how, err := q.deletion()
	if err != nil {
		return err
	}
	clusterID, name, match := r.PathValue("clusterId"), r.PathValue("username"), web.IfMatch(r)
	if !q.Has("onBlocked") {
		if err := a.Users.DeleteUser(r.Context(), p, clusterID, name, how, match); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if q.Get("onBlocked") != "disable" {
		return fault.New(fault.Invalid, "The query parameter onBlocked must be disable.")
	}
	_, disabled, err := a.Users.DeleteOrDisableUser(r.Context(), p, clusterID, name, how, match)
	if err != nil {
		return err
	}
	if disabled == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return a.getUser(w, r, p)
}

// deletion is how a user is deleted.
func (q query) deletion() (how dbuser.Deletion, err error) {
	if q.Has("reassignTo") && q.Get("reassignTo") == "" {
		return how, fault.New(fault.Invalid, "The query parameter reassignTo is empty; give the name of a role.")
	}
	with, err := q.yes("withMembers")
	return dbuser.Deletion{ReassignTo: q.Get("reassignTo"), WithMembers: with}, err
}

func (a *API) planDeletion(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	how, err := q.deletion()
	if err != nil {
		return err
	}
	plan, err := a.Users.DeletionPlan(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), how)
	if err != nil {
		return err
	}
	answer := deletionPlan{Blockers: append([]string{}, plan.Blockers...), Sessions: plan.Sessions, Unvisited: plan.Unvisited,
		Databases: []databasePlan{}}
	for _, in := range plan.Databases {
		answer.Databases = append(answer.Databases, databasePlan{
			Name:              in.Name,
			Objects:           presentListing(in.Objects),
			Definers:          presentListing(in.Definers),
			Privileges:        presentListing(in.Privileges),
			DefaultPrivileges: presentListing(in.Defaults),
		})
	}
	web.JSON(w, http.StatusOK, "application/json", answer)
	return nil
}

type passwordProblem struct {
	Username     string `json:"username"`
	System       bool   `json:"system"`
	PasswordKind string `json:"passwordKind"`
	Iterations   *int   `json:"iterations"`
	Problem      string `json:"problem"`
}

func (a *API) listPasswordProblems(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	problems, more, err := a.Users.PasswordProblems(r.Context(), p, r.PathValue("clusterId"), page.After, page.Limit)
	if err != nil {
		return err
	}
	l := list[passwordProblem]{Items: []passwordProblem{}}
	for _, found := range problems {
		item := passwordProblem{Username: found.Name, System: found.System, PasswordKind: found.Kind, Problem: found.Problem}
		if found.Kind == pgrole.PasswordSCRAM {
			item.Iterations = &found.Iterations
		}
		l.Items = append(l.Items, item)
	}
	if more {
		l.Next = cursor(l.Items[len(l.Items)-1].Username)
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

// userlist answers in the format of PgBouncer's auth_file: name and verifier in double quotes, a quote in them doubled.
// https://www.pgbouncer.org/config.html#authentication-file-format
func (a *API) userlist(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	credentials, err := a.Users.Userlist(r.Context(), p, r.PathValue("clusterId"))
	if err != nil {
		return err
	}
	// PgBouncer reads lines. Users made here have no such names.
	credentials = slices.DeleteFunc(credentials, func(c pgrole.Credential) bool {
		return strings.ContainsFunc(c.Name, unicode.IsControl)
	})
	var text bytes.Buffer
	for _, c := range credentials {
		for i, s := range []string{c.Name, string(c.Verifier)} {
			text.WriteString([]string{`"`, ` "`}[i] + strings.ReplaceAll(s, `"`, `""`) + `"`)
		}
		text.WriteByte('\n')
	}
	web.Write(w, http.StatusOK, "text/plain; charset=utf-8", text.Bytes())
	return nil
}

// flag is nil when the field is not there.
func (o *object) flag(name string) *bool {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	b, ok := v.(bool)
	if !ok {
		o.mistake(name, "true or false", v)
	}
	return &b
}

// integer is nil when the field is not there.
func (o *object) integer(name string) *int {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	number, _ := v.(json.Number)
	n, err := strconv.Atoi(number.String())
	if err != nil {
		o.mistake(name, "an integer that is not too large", v)
	}
	return &n
}

// duration is nil when the field is not there.
func (o *object) duration(name string) *time.Duration {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	s, _ := v.(string)
	d, err := moment.Duration(s)
	if err != nil {
		o.mistake(name, moment.DurationForm, v)
	}
	return &d
}

// moment is nil when the field is not there, and a nil time when it is null.
func (o *object) moment(name string) **time.Time {
	v, ok := o.get(name)
	if !ok {
		return nil
	}
	if v == nil {
		return new(*time.Time)
	}
	s, _ := v.(string)
	t, err := moment.Time(s)
	if err != nil {
		o.mistake(name, "null or "+moment.TimeForm, v)
	}
	at := &t
	return &at
}
