package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
)

// Keep is what becomes of a user to which nothing is done.
const Keep Action = "keep"

// leaverActions are what may become of the users of an account that is offboarded.
var leaverActions = []Action{Disable, Expire, EndSessions, Keep}

// Leaver says which account is offboarded, and what becomes of the database users that it could still use.
type Leaver struct {
	Account string // guid
	Action  Action
	After   time.Duration // of Expire
	Kept    []Target      // users to whom nothing is done, whatever the action; names that no user has do not matter
}

// keeps reports whether nothing is done to a user because the principal wants it so.
func (l *Leaver) keeps(c *cluster.Cluster, name string) bool {
	return slices.Contains(l.Kept, Target{c.ID.String(), name})
}

func (l *Leaver) check() error {
	switch {
	case !slices.Contains(leaverActions, l.Action):
		return fault.New(fault.Invalid, "The field users.default must be disable, expire, endSessions or keep.")
	case l.Action == Expire && l.After <= 0:
		return fault.New(fault.Invalid, "The field users.after is missing: how long the passwords are still accepted, like 7d.")
	case l.Action == Expire && l.After > longestAfter:
		return fault.New(fault.Invalid, "The field users.after is too long; use at most 3650d.")
	case l.Action != Expire && l.After != 0:
		return fault.New(fault.Invalid, "The field users.after goes with the action expire only.")
	case len(l.Kept) > maxKept:
		return fault.New(fault.Invalid, "The field users.keep has more than %d users.", maxKept)
	}
	return nil
}

// maxKept bounds the users of a request that are kept.
const maxKept = 1000

const longestAfter = 3650 * 24 * time.Hour

// Offboarding is a report that is kept.
type Offboarding struct {
	ID          uuid.UUID
	Time        time.Time
	Account, By Person
	Users       int       // in the report
	Operation   uuid.UUID // zero: none
	Report      *Report   // nil in a list
	// State is that of the operation; "" without one, and if it is no longer kept.
	State string
}

// Person is an account as a report names it.
type Person struct{ GUID, Name string }

// Report is what an account can still use, and what becomes of it. It is stored as JSON.
type Report struct {
	Account ReportedAccount     `json:"account"`
	Users   []ReportedUser      `json:"users"`
	Leases  []ReportedLease     `json:"leases"`
	Tokens  []account.TokenName `json:"tokens"`
	// Sessions are the sign-ins, counted for each client.
	Sessions    []account.SignedIn    `json:"sessions"`
	Credentials []ReportedCredential  `json:"credentials"`
	Verifiers   []ReportedVerifiers   `json:"verifiers"`
	Unreachable []ReportedUnreachable `json:"unreachable"`
	// ExpiresAt is when the passwords of users with the action expire are no longer accepted; nil: none has it.
	ExpiresAt *time.Time `json:"expiresAt"`
	// AuditSince is the time since when the audit log is complete; nil: since the beginning.
	AuditSince *time.Time `json:"auditSince"`
}

// ReportedAccount is the account as it was before.
type ReportedAccount struct {
	GUID        string `json:"guid"`
	Username    string `json:"username"`
	Origin      string `json:"origin"`
	Active      bool   `json:"active"`
	OAuthClient bool   `json:"oauthClient"`
}

// ReportedCluster is a cluster as lists name it.
type ReportedCluster struct {
	ID          uuid.UUID `json:"id"`
	DisplayName string    `json:"displayName"`
}

// Why the account knows the password of a user.
const (
	WhyMade        = "made"
	WhySetPassword = "setPassword"
)

// ReportedUser is a database user whose password the account made or set.
type ReportedUser struct {
	Cluster  ReportedCluster `json:"cluster"`
	Username string          `json:"username"`
	Why      string          `json:"why"`
	Action   Action          `json:"action"`
	// Detail is why nothing is done to the user though something is asked for, or "".
	Detail string `json:"detail"`
	// ChangedOutside says that the password was changed by SQL since. Who knows it is not known.
	ChangedOutside *bool      `json:"passwordChangedOutside"`
	ValidUntil     *time.Time `json:"validUntil"` // as it was before

	// State is how far the operation is with it; "" if nothing is done to it.
	State string `json:"-"`

	planned Planned
}

// ReportedLease is a lease of the account, which ends with it.
type ReportedLease struct {
	ID        uuid.UUID       `json:"id"`
	Cluster   ReportedCluster `json:"cluster"`
	Username  string          `json:"username"`
	For       string          `json:"for"`
	ExpiresAt time.Time       `json:"expiresAt"`
}

// ReportedCredential is a stored credential that the account made, or of which it read the password that is valid.
type ReportedCredential struct {
	Cluster  ReportedCluster `json:"cluster"`
	Name     string          `json:"name"`
	For      string          `json:"for"`
	Made     bool            `json:"made"`
	ReadAt   *time.Time      `json:"readAt"` // nil: it does not know the password
	Username *string         `json:"username"`
}

// ReportedVerifiers are the users of a cluster whose verifiers the account has read, and whose passwords are still the same.
type ReportedVerifiers struct {
	Cluster ReportedCluster `json:"cluster"`
	ReadAt  time.Time       `json:"readAt"`
	Users   []string        `json:"users"`
}

// ReportedUnreachable is a cluster that did not answer: what is reported of it is what the audit log has.
type ReportedUnreachable struct {
	Cluster ReportedCluster `json:"cluster"`
	Error   string          `json:"error"`
}

// OffboardingPlan says what Offboard would do, and stores nothing.
func (s *Service) OffboardingPlan(ctx context.Context, p *account.Principal, l Leaver) (*Report, error) {
	a, err := s.mayOffboard(ctx, p, l)
	if err != nil {
		return nil, err
	}
	report, err := s.survey(ctx, p, a, l)
	if err != nil {
		return nil, err
	}
	now, err := clock(ctx, s.DB.Pool)
	report.expireAt(now, l)
	return report, control.Fault(err)
}

// mayOffboard returns the account that the principal may offboard. A refusal is recorded.
func (s *Service) mayOffboard(ctx context.Context, p *account.Principal, l Leaver) (*account.Profile, error) {
	if err := p.MayOffboard(); err != nil {
		return nil, s.refuseOffboarding(ctx, p, l, err)
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	a, err := s.Users.Accounts.ToOffboard(ctx, p, l.Account)
	return a, s.refuseOffboarding(ctx, p, l, err)
}

// refuseOffboarding records a refusal. Other errors are returned as they are.
func (s *Service) refuseOffboarding(ctx context.Context, p *account.Principal, l Leaver, err error) error {
	if !fault.Is(err, fault.Forbidden) {
		return err
	}
	return s.Users.Audit.Refuse(ctx, p.Entry(audit.OffboardAccount, pgrole.Storable(l.Account), nil), err)
}

// surveys is how often an account that goes on changing passwords is surveyed.
const surveys = 3

// Offboard makes an account inactive, ends its tokens and sign-ins, has its leases ended, and starts the operation on the
// database users that it could still use. All of this, and the report, is one transaction.
func (s *Service) Offboard(ctx context.Context, p *account.Principal, l Leaver) (*Offboarding, error) {
	a, err := s.mayOffboard(ctx, p, l)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		seen, err := audit.Newest(ctx, s.DB.Pool, a.GUID)
		if err != nil {
			return nil, err
		}
		report, err := s.survey(ctx, p, a, l)
		if err != nil {
			return nil, err
		}
		o, err := s.offboard(ctx, p, l, report, seen, try == surveys)
		if err != nil {
			return nil, s.refuseOffboarding(ctx, p, l, err)
		}
		if o != nil {
			return o, nil
		}
	}
}

// offboardDetail is what the audit log keeps of an offboarding.
type offboardDetail struct {
	Report      uuid.UUID `json:"offboarding"`
	Username    string    `json:"username,omitempty"`
	Origin      string    `json:"origin,omitempty"`
	WasActive   bool      `json:"wasActive"`
	UserAction  Action    `json:"userAction"`
	Users       int       `json:"users"`
	Operation   uuid.UUID `json:"operation,omitzero"`
	Leases      int       `json:"leases"`
	Tokens      int       `json:"tokens"`
	Unreachable []string  `json:"unreachable,omitempty"` // ids of clusters
}

// offboard does what the report says. If the account has done anything since the survey, it does nothing, unless that is the
// last one, and returns nil.
func (s *Service) offboard(ctx context.Context, p *account.Principal, l Leaver, r *Report, seen int64, last bool) (
	o *Offboarding, err error) {
	o = &Offboarding{ID: uuid.Must(uuid.NewV7()), Users: len(r.Users), Report: r, By: Person{p.GUID, p.Entry("", "",
		nil).AccountName}}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		a, err := s.Users.Accounts.LockToOffboard(ctx, tx, p, l.Account)
		if err != nil {
			return err
		}
		newest, err := audit.Newest(ctx, tx, a.GUID)
		if err != nil {
			return err
		}
		if newest != seen && !last {
			o = nil
			return nil
		}
		// The account is locked, so this is what ends with it.
		r.Account = reportedAccount(a)
		if r.Tokens, r.Sessions, err = s.Users.Accounts.SignIns(ctx, tx, a.ID); err != nil {
			return err
		}
		o.Account = Person{a.GUID, a.ShownName()}
		if o.Time, err = clock(ctx, tx); err != nil {
			return err
		}
		r.expireAt(o.Time, l)
		if planned := r.planned(); len(planned) > 0 {
			o.State = "running"
			request := Request{Action: l.Action}
			if r.ExpiresAt != nil {
				request.ValidUntil = *r.ExpiresAt
			}
			if o.Operation, err = s.add(ctx, tx, p, request, planned); err != nil {
				return err
			}
		}
		if err := s.insertOffboarding(ctx, tx, o); err != nil {
			return err
		}
		d := offboardDetail{Report: o.ID, Username: a.Username, Origin: a.Origin, WasActive: a.CanSignIn(), UserAction: l.Action,
			Users: len(r.Users), Operation: o.Operation, Leases: len(r.Leases), Tokens: len(r.Tokens)}
		for _, u := range r.Unreachable {
			d.Unreachable = append(d.Unreachable, u.Cluster.ID.String())
		}
		return s.Users.Accounts.Offboard(ctx, tx, a, p.Entry(audit.OffboardAccount, a.GUID, d))
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

func reportedAccount(a *account.Profile) ReportedAccount {
	return ReportedAccount{a.GUID, a.Username, a.Origin, a.CanSignIn(), a.OAuthClient}
}

// expireAt says when the passwords expire. One that expires earlier stays as it is.
func (r *Report) expireAt(now time.Time, l Leaver) {
	if l.Action != Expire {
		return
	}
	at := now.UTC().Add(l.After).Truncate(time.Second)
	for i := range r.Users {
		u := &r.Users[i]
		if u.Action == Expire && u.ValidUntil != nil && !u.ValidUntil.After(at) {
			u.keep("Its password expires earlier.")
		}
		if u.Action == Expire {
			r.ExpiresAt = &at
		}
	}
}

// planned are the users to whom something is done, as their operation takes them.
func (r *Report) planned() (plan []Planned) {
	for i := range r.Users {
		if u := &r.Users[i]; u.Action != Keep {
			u.State = "pending"
			plan = append(plan, u.planned)
		}
	}
	return plan
}

// clustersAtOnce is how many clusters are read at a time: those that do not answer wait for the limit of a search.
const clustersAtOnce = 64

// survey finds out what an account could still use.
func (s *Service) survey(ctx context.Context, p *account.Principal, a *account.Profile, l Leaver) (*Report, error) {
	log := s.Users.Audit
	did, err := log.PasswordsOf(ctx, a.GUID)
	if err != nil {
		return nil, err
	}
	var names []audit.UserName
	for name := range did.Written {
		names = append(names, name)
	}
	byName, err := log.WritesByName(ctx, names)
	if err != nil {
		return nil, err
	}
	k := &knowledge{guid: a.GUID, did: did, byName: byName}
	r := &Report{Account: reportedAccount(a), Users: []ReportedUser{}, Leases: []ReportedLease{},
		Verifiers:   []ReportedVerifiers{},
		Credentials: []ReportedCredential{}, Unreachable: []ReportedUnreachable{}}
	if r.AuditSince, err = log.CompleteSince(ctx); err != nil {
		return nil, err
	}
	clusters := s.Users.ViewableClusters(p)
	parts := make([]*part, len(clusters))
	var group errgroup.Group
	group.SetLimit(clustersAtOnce)
	for i, c := range clusters {
		group.Go(func() (err error) {
			parts[i], err = s.surveyCluster(ctx, p, c, k, l)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, part := range parts {
		r.Users = append(r.Users, part.users...)
		if part.verifiers != nil {
			r.Verifiers = append(r.Verifiers, *part.verifiers)
		}
		if part.unreachable != nil {
			r.Unreachable = append(r.Unreachable, *part.unreachable)
		}
	}
	if err := s.surveyControl(ctx, a, did, clusters, r); err != nil {
		return nil, err
	}
	return r, nil
}

// surveyControl adds what the control database knows: leases, stored credentials, tokens and sign-ins.
func (s *Service) surveyControl(ctx context.Context, a *account.Profile, did *audit.Passwords, clusters []*cluster.Cluster,
	r *Report) error {
	byID := make(map[uuid.UUID]ReportedCluster, len(clusters))
	for _, c := range clusters {
		byID[c.ID] = reportedCluster(c)
	}
	leases, _, err := s.Users.LeaseStore.List(ctx, lease.Filter{Account: a.GUID, Live: true})
	if err != nil {
		return err
	}
	for _, l := range leases {
		if in, ok := byID[l.Cluster]; ok && l.Account == a.GUID {
			r.Leases = append(r.Leases, ReportedLease{l.ID, in, l.Username, l.For, l.ExpiresAt.UTC()})
		}
	}
	var read []uuid.UUID
	for id := range did.Credentials {
		read = append(read, id)
	}
	known, err := s.Users.LeaseStore.KnownCredentials(ctx, a.GUID, read)
	if err != nil {
		return err
	}
	for _, k := range known {
		c := ReportedCredential{Cluster: byID[k.Cluster], Name: k.Name, For: k.For, Made: k.Made}
		if k.Username != "" {
			c.Username = &k.Username
		}
		if k.Read != uuid.Nil {
			at := did.Credentials[k.Read].UTC()
			c.ReadAt = &at
		}
		r.Credentials = append(r.Credentials, c)
	}
	slices.SortStableFunc(r.Credentials, func(x, y ReportedCredential) int {
		return strings.Compare(x.Cluster.DisplayName, y.Cluster.DisplayName)
	})
	r.Tokens, r.Sessions, err = s.Users.Accounts.SignIns(ctx, s.DB.Pool, a.ID)
	return err
}

func reportedCluster(c *cluster.Cluster) ReportedCluster { return ReportedCluster{c.ID, c.DisplayName} }

// knowledge is what the audit log has of the passwords that an account wrote.
type knowledge struct {
	guid   string
	did    *audit.Passwords
	byName map[audit.UserName]audit.Write
}

// namesIn are the users of a cluster whose passwords the account wrote.
func (k *knowledge) namesIn(id uuid.UUID) (names []string) {
	for name := range k.did.Written {
		if name.Cluster == id {
			names = append(names, name.Name)
		}
	}
	slices.Sort(names)
	return names
}

// byNameAlone reports whether the account wrote the newest password of a user, as far as the log says it by the name.
func (k *knowledge) byNameAlone(user audit.UserName) bool {
	own, wrote := k.did.Written[user]
	if !wrote {
		return false
	}
	newest, recorded := k.byName[user]
	if recorded && newest.Account == k.guid {
		return !newest.Deletes
	}
	return !recorded || !newest.After(own) // what it tried last may have been done
}

// part is what a survey has found in one cluster.
type part struct {
	users       []ReportedUser
	verifiers   *ReportedVerifiers
	unreachable *ReportedUnreachable
}

// surveyCluster finds the users of a cluster that the account could still use.
func (s *Service) surveyCluster(ctx context.Context, p *account.Principal, c *cluster.Cluster, k *knowledge, l Leaver) (
	*part, error) {
	reading, cancel := context.WithTimeout(ctx, s.limit())
	defer cancel()
	_, users, err := s.Users.EveryUser(reading, p, c.ID.String())
	if fault.Is(err, fault.NotFound) {
		return &part{}, nil // its registration has just ended
	}
	if err != nil && ctx.Err() == nil {
		return k.unread(c, err, l), nil
	}
	if err != nil {
		return nil, err
	}
	// A lease ends by itself, and a credential is not the account's.
	users = slices.DeleteFunc(users, func(u *pgrole.User) bool { return u.Provenance.Lease != uuid.Nil })
	writes, err := s.writesOf(ctx, c, users, k)
	if err != nil {
		return nil, err
	}
	found := &part{}
	var known []*pgrole.User // of found.users
	readAt, read := k.did.Verifiers[c.ID]
	var sameSince []string // users whose passwords may be those of then
	for i, u := range users {
		write := writes[i]
		name := audit.UserName{Cluster: c.ID, Name: pgrole.Storable(u.Name)}
		if k.knows(name, u.Provenance, write) {
			found.users = append(found.users, reportedUser(c, u, k.why(name, u.Provenance.CreatedBy), l))
			known = append(known, u)
		}
		if read && !u.System() && !write.Time.After(readAt) && !u.Provenance.Created.After(readAt) {
			sameSince = append(sameSince, pgrole.Storable(u.Name))
		}
	}
	if err := s.addObserved(ctx, c, found.users, known); err != nil {
		return nil, err
	}
	if len(sameSince) > 0 {
		found.verifiers = &ReportedVerifiers{reportedCluster(c), readAt.UTC(), sameSince}
	}
	return found, nil
}

// addObserved adds to the reported users, known as they were read, whether their passwords were changed by SQL.
func (s *Service) addObserved(ctx context.Context, c *cluster.Cluster, reported []ReportedUser, known []*pgrole.User) error {
	if len(known) == 0 {
		return nil
	}
	oids := make([]uint32, len(known))
	for i, u := range known {
		oids[i] = u.OID()
	}
	seen, err := s.Users.Observations(ctx, c.ID, oids)
	if err != nil {
		return err
	}
	for i, u := range known {
		reported[i].ChangedOutside = seen.OfUser(u).PasswordChangedOutside
	}
	return nil
}

// writesOf returns the newest write of the password of each user, as its record and the log say. It reads nothing for a
// cluster in which the account has done nothing.
func (s *Service) writesOf(ctx context.Context, c *cluster.Cluster, users []*pgrole.User, k *knowledge) ([]audit.Write,
	error) {
	_, read := k.did.Verifiers[c.ID]
	made := slices.ContainsFunc(users, func(u *pgrole.User) bool { return u.Provenance.CreatedBy == k.guid })
	if !read && !made && len(k.namesIn(c.ID)) == 0 {
		return make([]audit.Write, len(users)), nil
	}
	changed := make([]audit.Changed, len(users))
	for i, u := range users {
		changed[i] = audit.Changed{Last: u.Provenance.Attempt, Previous: u.Provenance.Previous}
	}
	return s.Users.Audit.WritesByHistory(ctx, changed)
}

// knows reports whether the account knows the password of a user. The history of the role decides: it is also that of a role
// that was renamed, and not that of another one that has had its name. If it does not lead to a password, the log decides by
// the name. If the log has none of that either, the record says who made the user.
func (k *knowledge) knows(user audit.UserName, provenance pgrole.Provenance, write audit.Write) bool {
	if write.Account != "" {
		return write.Account == k.guid
	}
	if _, wrote := k.did.Written[user]; wrote {
		return k.byNameAlone(user)
	}
	return provenance.CreatedBy == k.guid
}

// why is how the account knows the password of a user that it knows. createdBy is "" without a record.
func (k *knowledge) why(user audit.UserName, createdBy string) string {
	if createdBy == k.guid || createdBy == "" && k.did.Written[user].Made {
		return WhyMade
	}
	return WhySetPassword
}

// reportedUser is a user that the account could still use, with what becomes of it.
func reportedUser(c *cluster.Cluster, u *pgrole.User, why string, l Leaver) ReportedUser {
	ends := u.ValidUntil()
	r := ReportedUser{Cluster: reportedCluster(c), Username: pgrole.Storable(u.Name), Why: why, Action: l.Action,
		ValidUntil: ends,
		planned:    Planned{Cluster: c, Name: u.Name, OID: u.OID(), Action: l.Action, ValidUntil: ends}}
	switch {
	case l.Action == Keep:
	case l.keeps(c, u.Name):
		r.keep(kept)
	case u.System():
		r.keep("It is protected. Change its password by SQL.")
	case u.Provenance.State == pgrole.StateDisabled:
		r.keep("It is disabled already.")
	case u.Provenance.State == pgrole.StateDeleting:
		r.keep("It is being deleted.")
	}
	return r
}

// kept is why nothing is done to a user that the principal wants to keep.
const kept = "You chose to keep it."

// keep has nothing done to the user.
func (r *ReportedUser) keep(why string) { r.Action, r.Detail = Keep, why }

// unread is what is known of a cluster that did not answer.
func (k *knowledge) unread(c *cluster.Cluster, err error, l Leaver) *part {
	found := &part{unreachable: &ReportedUnreachable{reportedCluster(c), cmp.Or(fault.Of(err).Message, "It does not answer.")}}
	for _, name := range k.namesIn(c.ID) {
		user := audit.UserName{Cluster: c.ID, Name: name}
		if k.byNameAlone(user) {
			u := ReportedUser{Cluster: reportedCluster(c), Username: name, Why: k.why(user, ""), Action: l.Action,
				planned: Planned{Cluster: c, Name: name, Action: l.Action}}
			if l.Action != Keep && l.keeps(c, name) {
				u.keep(kept)
			}
			found.users = append(found.users, u)
		}
	}
	if at, read := k.did.Verifiers[c.ID]; read {
		found.verifiers = &ReportedVerifiers{reportedCluster(c), at.UTC(), []string{}}
	}
	return found
}
