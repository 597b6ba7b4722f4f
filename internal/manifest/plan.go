package manifest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/client"
)

// Observed is the fleet as it is, as far as a file covers it.
type Observed struct {
	Me       string // the guid of the account that asks
	Accounts []client.Account
	Clusters []*ObservedCluster // those of the file that are registered
}

// ObservedCluster is a cluster with what is in it.
type ObservedCluster struct {
	client.Cluster
	ETag string
	// Problem is why the rest is unknown; "": it is known.
	Problem     string
	Databases   []client.Database
	AccessRoles map[string]*client.AccessRoles // by database
	Users       []client.User                  // system users and leases as well
	Credentials []client.Credential
	// CredentialTags are the entity tags of the credentials that the file names.
	CredentialTags map[string]string
	// Deletions say what keeps the retired users from being deleted.
	Deletions map[string][]string
}

// Plan is what brings a fleet to a file.
type Plan struct {
	Mode  string `json:"mode"`
	Steps []Step `json:"steps"` // in the order in which they are carried out
	// Conflicts are what the file says and cannot be brought about.
	Conflicts []Conflict `json:"conflicts"`
	// Unlisted are things that the file covers and does not name. They stay.
	Unlisted []Thing `json:"unlisted"`
	// Things are those that the plan depends on, with a digest of the state of each.
	Things map[string]string `json:"things"`
	// Digest changes with the file, with any of the things, and with the account.
	Digest string `json:"digest"`
}

// Thing is something in the fleet.
type Thing struct {
	Cluster string `json:"cluster,omitempty"`
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Origin  string `json:"origin,omitempty"`
}

// The kinds of things.
const (
	KindAccount     = "account"
	KindCluster     = "cluster"
	KindDatabase    = "database"
	KindAccessRoles = "accessRoles"
	KindUser        = "user"
	KindCredential  = "credential"
)

// Key names a thing among all.
func (t Thing) Key() string {
	switch t.Kind {
	case KindAccount:
		return accountKey(t.Origin, t.Name)
	case KindCluster:
		return t.Kind + " " + t.Name
	}
	return t.Kind + " " + t.Cluster + "/" + t.Name
}

// String names a thing for people.
func (t Thing) String() string {
	kind := t.Kind
	if kind == KindAccessRoles {
		kind = "access roles of"
	}
	switch {
	case t.Kind == KindAccount && t.Origin != LocalOrigin:
		return fmt.Sprintf("%s %s of %s", kind, quote(t.Name), quote(t.Origin))
	case t.Cluster != "" && t.Kind != KindCluster:
		return fmt.Sprintf("%s %s in %s", kind, quote(t.Name), quote(t.Cluster))
	}
	return kind + " " + quote(t.Name)
}

// quote puts a name in quotes.
func quote(name string) string { return strconv.Quote(name) }

// Conflict is what the file says and cannot be brought about.
type Conflict struct {
	Thing
	Line    int    `json:"line"`
	Problem string `json:"problem"`
}

// The actions of steps.
const (
	Register = "register"
	Create   = "create"
	Change   = "change"
	Delete   = "delete"
)

// Step changes one thing.
type Step struct {
	Thing
	Action  string       `json:"action"`
	Line    int          `json:"line"`
	Changes []Difference `json:"changes"`
	Notes   []string     `json:"notes,omitempty"`
	// Blockers are what would now keep something from being deleted. An earlier step may resolve them.
	Blockers []string `json:"blockers,omitempty"`
	// ETag is the state of the thing before the first call; "": it has none.
	ETag string `json:"-"`
	// Account is the guid of an account that exists, and State its state.
	Account string `json:"-"`
	State   string `json:"-"`
	// Password is that of a new account or user.
	Password *Secret  `json:"-"`
	Needs    []string `json:"-"` // the keys of things whose steps come first
	Calls    []Call   `json:"-"`
}

// Difference is what a step changes. From is "" for what is new, To for what is removed.
type Difference struct {
	Field string `json:"field"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// Call is one request of a step, at the path of its cluster or account.
type Call struct {
	Method   string
	Segments []string
	Query    url.Values
	Body     map[string]any // nil: none
	Match    bool           // whether it has an If-Match
	// Secrets are read, and put into the body's connection, before it is sent.
	Secrets []SecretField
}

// SecretField is a secret of a connection.
type SecretField struct {
	Path   []string
	Secret Secret
}

// Empty reports whether the fleet is as the file says.
func (p *Plan) Empty() bool {
	return len(p.Steps) == 0 && len(p.Conflicts) == 0 && len(p.Unlisted) == 0
}

// planner makes a plan.
type planner struct {
	m          *Manifest
	o          *Observed
	plan       *Plan
	byUsername map[string]*client.Account // by the key of the thing
	removals   []Step
}

// MakePlan compares a file with what was observed. text is that of the file.
func MakePlan(m *Manifest, text []byte, o *Observed) *Plan {
	p := &planner{m: m, o: o, plan: &Plan{
		Mode: m.Mode, Steps: []Step{}, Conflicts: []Conflict{}, Unlisted: []Thing{}, Things: map[string]string{},
	}, byUsername: map[string]*client.Account{}}
	for i := range o.Accounts {
		if a := &o.Accounts[i]; !a.OAuthClient && a.Username != "" {
			p.byUsername[accountKey(a.Origin, a.Username)] = a
		}
	}
	p.accounts()
	for i := range m.Clusters {
		p.cluster(&m.Clusters[i])
	}
	// A credential has leases for a user, and a user may own a database. Accounts come last.
	order := []string{KindCredential, KindUser, KindDatabase, KindAccount}
	slices.SortStableFunc(p.removals, func(a, b Step) int {
		return cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind))
	})
	p.plan.Steps = append(p.plan.Steps, p.removals...)
	for _, t := range p.plan.Unlisted {
		p.plan.Things[t.Key()] = "not in the file"
	}
	p.plan.Digest = digestOf(m.Mode, string(text), o.Me, p.plan.Things)
	return p.plan
}

// digestOf is a digest of values, in their JSON.
func digestOf(values ...any) string {
	data, err := json.Marshal(values)
	if err != nil {
		panic(err) // texts, numbers and lists of them
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// absent is the state of what does not exist.
const absent = "absent"

func (p *planner) saw(t Thing, state string) { p.plan.Things[t.Key()] = state }

func (p *planner) conflict(t Thing, at Place, format string, args ...any) {
	p.plan.Conflicts = append(p.plan.Conflicts, Conflict{t, at.Line, fmt.Sprintf(format, args...)})
}

func (p *planner) add(s Step) { p.plan.Steps = append(p.plan.Steps, s) }

// exact reports whether a list of the file is all that there is to be.
func (p *planner) exact() bool { return p.m.Mode == Authoritative }

// target is what a list becomes: what the file says, and in other modes than authoritative what there is as well.
func (p *planner) target(now, want []string) []string {
	if p.exact() {
		return want
	}
	target := slices.Clone(now)
	for _, w := range want {
		if !slices.Contains(target, w) {
			target = append(target, w)
		}
	}
	return target
}

// sameSet reports whether two lists have the same elements.
func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

func joined(values []string) string { return strings.Join(values, ", ") }

// AccountState is a digest of what the file can say about an account.
func AccountState(a *client.Account) string {
	return digestOf(a.GUID, a.Active, slices.Sorted(slices.Values(a.Scopes)), a.AdminLabels(), a.Annotations)
}

func (p *planner) accounts() {
	named := map[string]bool{}
	for i := range p.m.Accounts {
		want := &p.m.Accounts[i]
		t := Thing{Kind: KindAccount, Name: want.Username, Origin: want.Origin}
		named[t.Key()] = true
		now := p.byUsername[t.Key()]
		if now == nil {
			p.saw(t, absent)
			p.newAccount(t, want)
			continue
		}
		p.saw(t, AccountState(now))
		p.changeAccount(t, want, now)
	}
	for _, r := range p.m.Retired {
		if r.Account == "" {
			continue
		}
		t := Thing{Kind: KindAccount, Name: r.Account, Origin: r.Origin}
		named[t.Key()] = true
		now := p.byUsername[t.Key()]
		switch {
		case now == nil:
			p.saw(t, absent)
			continue
		case now.GUID == p.o.Me:
			p.conflict(t, r.Place, "this is the account that you are signed in as; it cannot delete itself here")
		default:
			p.removals = append(p.removals, Step{Thing: t, Action: Delete, Line: r.Line, Changes: []Difference{}, Account: now.GUID,
				State: AccountState(now),
				Calls: []Call{{Method: http.MethodDelete, Segments: []string{now.GUID}, Match: true}}})
		}
		p.saw(t, AccountState(now))
	}
	if !p.exact() || p.m.Accounts == nil {
		return
	}
	for i := range p.o.Accounts {
		a := &p.o.Accounts[i]
		t := Thing{Kind: KindAccount, Name: a.Username, Origin: a.Origin}
		if !a.OAuthClient && a.Username != "" && !named[t.Key()] {
			p.plan.Unlisted = append(p.plan.Unlisted, t)
		}
	}
}

func (p *planner) newAccount(t Thing, want *Account) {
	if want.Password.Word == Keep {
		p.conflict(t, want.Place, "there is no such account whose password could be kept; write password: generate")
		return
	}
	body := map[string]any{"username": want.Username, "origin": want.Origin}
	step := Step{Thing: t, Action: Create, Line: want.Line, Changes: []Difference{}}
	if want.Scopes != nil {
		body["scopes"] = want.Scopes
		step.changes("scopes", "", joined(want.Scopes))
	}
	if want.Labels != nil {
		body["labels"] = want.Labels
		step.pairs("labels", nil, want.Labels)
	}
	if want.Annotations != nil {
		body["annotations"] = want.Annotations
		step.pairs("annotations", nil, want.Annotations)
	}
	step.Calls = []Call{{Method: http.MethodPost, Body: body}}
	if want.Origin == LocalOrigin {
		step.Password = &want.Password
		step.changes("password", "", want.Password.describe())
	}
	if want.Active != nil && !*want.Active {
		step.changes("active", "", "false")
		step.Calls = append(step.Calls, Call{Method: http.MethodPatch, Body: map[string]any{"active": false}, Match: true})
	}
	p.add(step)
}

// describe says where a password comes from.
func (s Secret) describe() string {
	switch {
	case s.Env != "":
		return "from the variable " + s.Env
	case s.File != "":
		return "from the file " + s.File
	}
	return "generated"
}

func (s *Step) changes(field, from, to string) {
	s.Changes = append(s.Changes, Difference{field, from, to})
}

// pairs adds the differences of labels or annotations.
func (s *Step) pairs(field string, from, to map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(to)) {
		if was, has := from[key]; !has || was != to[key] {
			s.changes(field+"."+key, was, to[key])
		}
	}
}

func (p *planner) changeAccount(t Thing, want *Account, now *client.Account) {
	step := Step{Thing: t, Action: Change, Line: want.Line, Account: now.GUID, State: AccountState(now)}
	body := map[string]any{}
	if want.Active != nil && *want.Active != now.Active {
		if now.GUID == p.o.Me {
			p.conflict(t, want.Place, "this is the account that you are signed in as; it cannot deactivate itself here")
			return
		}
		body["active"] = *want.Active
		step.changes("active", strconv.FormatBool(now.Active), strconv.FormatBool(*want.Active))
	}
	if target := p.target(now.Scopes, want.Scopes); want.Scopes != nil && !sameSet(target, now.Scopes) {
		loses := slices.ContainsFunc(now.Scopes, func(scope string) bool { return !slices.Contains(target, scope) })
		if now.GUID == p.o.Me && loses {
			p.conflict(t, want.Place, "this is the account that you are signed in as; it cannot lose scopes here")
			return
		}
		body["scopes"] = target
		step.changes("scopes", joined(now.Scopes), joined(target))
	}
	for _, f := range []struct {
		name      string
		now, want map[string]string
		issuers   map[string]string // that keep an entry which the file does not have
	}{{"labels", now.Labels, want.Labels, now.LabelSources}, {"annotations", now.Annotations, want.Annotations, nil}} {
		merge := map[string]any{}
		for key, value := range f.want {
			if was, has := f.now[key]; !has || was != value {
				merge[key] = value
			}
		}
		step.pairs(f.name, f.now, f.want)
		for _, key := range slices.Sorted(maps.Keys(f.now)) {
			if _, has := f.want[key]; p.exact() && f.want != nil && !has && f.issuers[key] == "" {
				merge[key] = nil
				step.changes(f.name+"."+key, f.now[key], "")
			}
		}
		if len(merge) > 0 {
			body[f.name] = merge
		}
	}
	if len(body) > 0 {
		step.Calls = []Call{{Method: http.MethodPatch, Segments: []string{now.GUID}, Body: body, Match: true}}
		p.add(step)
	}
}

// maker says who made something, if that is somebody else: "" for the account itself.
func (p *planner) maker(by ...string) string {
	if slices.Contains(by, p.o.Me) {
		return ""
	}
	if by[0] == "" {
		return "was not created by Rolecall"
	}
	for i := range p.o.Accounts {
		if p.o.Accounts[i].GUID == by[0] {
			return "was created by the account " + quote(p.o.Accounts[i].Name())
		}
	}
	return "was created by the account " + by[0]
}

// foreign refuses to change what somebody else has made, in the mode additive.
func (p *planner) foreign(t Thing, at Place, by ...string) bool {
	maker := p.maker(by...)
	if maker == "" || p.m.Mode != Additive {
		return false
	}
	p.conflict(t, at, "it differs, and %s; to take it over, write mode: adopt, or use --mode adopt", maker)
	return true
}

// rfc3339 is a time as the file has it, Never for none.
func rfc3339(t *time.Time) string {
	if t == nil {
		return Never
	}
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
}
