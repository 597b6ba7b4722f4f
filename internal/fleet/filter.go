package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/pgrole"
)

// Filter chooses database users of the clusters that a principal may view. Every condition that is set must match.
type Filter struct {
	Name            string         // * stands for any characters
	CreatedBy       string         // guid or user name of an account
	CreatorSelector label.Selector // of the labels of the account that made the user
	Cluster         string         // id or display name
	States          []string
	PasswordKind    string
	ExpiresBefore   time.Time     // its VALID UNTIL is before that
	NotSeenFor      time.Duration // no session for so long, and observed for as long
	Lease           *bool
	ChangedOutside  *bool // its password was changed by SQL since Rolecall set it
	System          bool  // protected users as well
}

// Empty reports whether no condition is set. System alone is none: it only adds users.
func (f Filter) Empty() bool {
	return f.Name == "" && f.CreatedBy == "" && len(f.CreatorSelector) == 0 && f.Cluster == "" && len(f.States) == 0 &&
		f.PasswordKind == "" && f.ExpiresBefore.IsZero() && f.NotSeenFor == 0 && f.Lease == nil && f.ChangedOutside == nil
}

// Check refuses values that no user has.
func (f *Filter) Check() error {
	for _, state := range f.States {
		if !slices.Contains(pgrole.States, state) {
			return fault.New(fault.Malformed, "There is no state %.50q; the states are active, expired, disabled and deleting.",
				state)
		}
	}
	if f.PasswordKind != "" && !slices.Contains(pgrole.PasswordKinds, f.PasswordKind) {
		return fault.New(fault.Malformed, "There is no kind of passwords %.50q; the kinds are scram-sha-256, md5, none and "+
			"unknown.", f.PasswordKind)
	}
	return nil
}

// digest stands for a filter and an order: a cursor goes on in the search that it is of only.
func (f *Filter) digest(order Sort) [8]byte {
	states := slices.Clone(f.States)
	slices.Sort(states)
	text, err := json.Marshal(struct {
		Name           []byte
		Selector       string
		Texts          []string
		States         []string
		ExpiresBefore  string
		NotSeenFor     time.Duration
		Lease, Changed *bool
		System         bool
		Sort
	}{[]byte(f.Name), f.CreatorSelector.String(), []string{f.CreatedBy, f.Cluster, f.PasswordKind}, slices.Compact(states),
		f.ExpiresBefore.UTC().Format(time.RFC3339Nano), f.NotSeenFor, f.Lease, f.ChangedOutside, f.System, order})
	if err != nil {
		panic(err) // texts, numbers and lists of them
	}
	sum := sha256.Sum256(text)
	return [8]byte(sum[:8])
}

// resolve returns the clusters that a filter chooses at the moment, in the order of their display names, and the conditions
// on their users. Without clusters nothing matches.
func (s *Service) resolve(ctx context.Context, p *account.Principal, f *Filter) ([]*cluster.Cluster, *conditions, error) {
	if err := f.Check(); err != nil {
		return nil, nil, err
	}
	clusters, err := s.clusters(p, f)
	if err != nil {
		return nil, nil, err
	}
	q := &conditions{Search: pgrole.Search{System: f.System, Name: f.Name, States: f.States, PasswordKind: f.PasswordKind,
		ExpiresBefore: f.ExpiresBefore, Lease: f.Lease}, changedOutside: f.ChangedOutside}
	if f.NotSeenFor > 0 {
		q.notSeenSince = time.Now().Add(-f.NotSeenFor)
	}
	if f.CreatedBy != "" {
		named, err := s.Users.Accounts.GUIDsNamed(ctx, f.CreatedBy)
		if err != nil {
			return nil, nil, err
		}
		q.CreatedBy = append(named, f.CreatedBy) // the guid of an account may be there longer than the account
	}
	if len(f.CreatorSelector) > 0 {
		selected, err := s.Users.Accounts.GUIDsSelected(ctx, p, f.CreatorSelector)
		if err != nil {
			return nil, nil, err
		}
		if q.CreatedBy != nil {
			selected = slices.DeleteFunc(selected, func(guid string) bool { return !slices.Contains(q.CreatedBy, guid) })
		}
		if q.CreatedBy = selected; len(selected) == 0 {
			return nil, q, nil
		}
	}
	return clusters, q, nil
}

// clusters are those that the principal may view, or the one of them that a filter names.
func (s *Service) clusters(p *account.Principal, f *Filter) ([]*cluster.Cluster, error) {
	all := s.Users.ViewableClusters(p)
	if f.Cluster == "" {
		return all, nil
	}
	c, err := chosen(all, f.Cluster)
	if err != nil {
		return nil, err
	}
	return []*cluster.Cluster{c}, nil
}

// chosen finds the cluster with an id, or else with a display name, which may look like the id of another one.
func chosen(clusters []*cluster.Cluster, nameOrID string) (*cluster.Cluster, error) {
	for _, c := range clusters {
		if strings.EqualFold(c.ID.String(), nameOrID) {
			return c, nil
		}
	}
	for _, c := range clusters {
		if c.DisplayName == nameOrID {
			return c, nil
		}
	}
	return nil, fault.New(fault.NotFound, "There is no cluster %.64q that you may view.", nameOrID)
}

// conditions is a filter with what is known elsewhere than in the clusters.
type conditions struct {
	pgrole.Search
	changedOutside *bool
	notSeenSince   time.Time // zero: no condition
}

// observed reports whether a condition is about observations.
func (q *conditions) observed() bool { return q.changedOutside != nil || !q.notSeenSince.IsZero() }

// matches decides by what was observed of a user that matches otherwise. A user that is younger than the time was not there
// to be seen.
func (q *conditions) matches(created time.Time, o dbuser.Observation) bool {
	if q.changedOutside != nil && (o.PasswordChangedOutside == nil || *o.PasswordChangedOutside != *q.changedOutside) {
		return false
	}
	return q.notSeenSince.IsZero() || !created.After(q.notSeenSince) &&
		(o.LastSeen == nil || o.LastSeen.Before(q.notSeenSince)) &&
		o.LastSeenSince != nil && !o.LastSeenSince.After(q.notSeenSince)
}
