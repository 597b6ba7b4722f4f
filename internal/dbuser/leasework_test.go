package dbuser

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/label"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
)

// A sweep decides by what it has read only. Each case changes one lease that is as it should be.
func TestSweepJudges(t *testing.T) {
	t.Parallel()
	now := time.Now()
	id := func(age time.Duration) uuid.UUID {
		id := uuid.Must(uuid.NewV7())
		ms := now.Add(-age).UnixMilli()
		for i := range 6 {
			id[i] = byte(ms >> (40 - 8*i))
		}
		return id
	}
	rule, err := label.ParseRule("team=leases")
	if err != nil {
		t.Fatal(err)
	}
	const old = 10 * time.Minute
	for name, c := range map[string]struct {
		change func(s *seen, l *lease.Lease, role *pgrole.LeaseRole)
		want   string
	}{
		"as it should be": {func(*seen, *lease.Lease, *pgrole.LeaseRole) {}, ""},
		"no row":          {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) { s.rows = nil }, "find"},
		"no role":         {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) { s.roles = nil }, "end gone"},
		"no role yet": {func(s *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			s.roles, l.ID = nil, id(comesLate-time.Second)
		}, ""},
		"no role and ending": {func(s *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			s.roles, l.State, l.Reason = nil, lease.Ending, lease.Deleted
		}, ""},
		"for is gone": {func(_ *seen, _ *lease.Lease, r *pgrole.LeaseRole) { r.ForGone, r.ForProblem = true, "Gone." },
			"end gone"},
		"for is protected": {func(_ *seen, _ *lease.Lease, r *pgrole.LeaseRole) { r.ForProblem = "Protected." },
			"end accessEnded"},
		"for of a credential is protected": {func(_ *seen, l *lease.Lease, r *pgrole.LeaseRole) {
			l.Account, l.Credential, r.ForProblem = "", "shop", "Protected."
		}, "end accessEnded"},
		"a credential has no account": {func(s *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			l.Account, l.Credential, s.credentials = "", "shop", map[string]bool{"shop": true}
		}, ""},
		"its credential was deleted": {func(s *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			l.Account, l.Credential, s.credentials = "", "shop", map[string]bool{"other": true}
		}, "end credential"},
		"account deleted": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) { s.accounts["g"] = nil },
			"end accountEnded"},
		"account deactivated": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) { s.accounts["g"].Active = false },
			"end accountEnded"},
		"identity deleted": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) {
			s.accounts["g"].IdentityCreatedAt = time.Time{}
		}, "end accountEnded"},
		"label taken": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) { s.accounts["g"].Labels = nil },
			"end accessEnded"},
		"scope taken": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) { s.accounts["g"].Scopes = nil },
			"end accessEnded"},
		"rule taken": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) { s.cluster.Manage = nil }, "end accessEnded"},
		"only view left": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) {
			s.cluster.View,
				s.cluster.Manage = s.cluster.Manage, nil
		}, "end accessEnded"},
		"an admin's": {func(s *seen, _ *lease.Lease, _ *pgrole.LeaseRole) {
			s.accounts["g"].Labels,
				s.accounts["g"].Scopes = nil, account.AdminScopes
		}, ""},
		"being ended": {func(s *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			l.State, s.accounts["g"] = lease.Ending,
				nil
		}, ""},
		"blocked": {func(s *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			l.State, s.accounts["g"] = lease.Blocked,
				nil
		}, ""},
		"renewal was lost": {func(_ *seen, l *lease.Lease, r *pgrole.LeaseRole) { r.Ends = l.ExpiresAt.Add(time.Minute) },
			"move"},
		"role read before it was renewed": {func(_ *seen, l *lease.Lease, r *pgrole.LeaseRole) {
			r.Ends, l.RenewedAt = l.ExpiresAt.Add(-time.Minute), now.Add(time.Second)
		}, ""},
		"renewal was lost by the cluster": {func(_ *seen, l *lease.Lease, r *pgrole.LeaseRole) {
			r.Ends, l.RenewedAt = l.ExpiresAt.Add(-time.Minute), now.Add(-old)
		}, "move"},
		"role renamed": {func(_ *seen, _ *lease.Lease, r *pgrole.LeaseRole) { r.Name = "renamed" }, "identify"},
		"record copied to another role": {func(s *seen, _ *lease.Lease, r *pgrole.LeaseRole) {
			copied := *r
			copied.Name = "copied"
			s.roles = []*pgrole.LeaseRole{&copied, r}
		}, ""},
		"record of a lost row copied": {func(s *seen, _ *lease.Lease, r *pgrole.LeaseRole) {
			copied := *r
			copied.Name = "copied"
			s.rows, s.roles = nil, []*pgrole.LeaseRole{r, &copied}
		}, "find"},
		"ended a moment ago": {func(_ *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			l.State, l.Reason, l.EndedAt = lease.Ended, lease.Expired, now
		}, ""},
		"role is back": {func(_ *seen, l *lease.Lease, _ *pgrole.LeaseRole) {
			l.State, l.Reason, l.EndedAt = lease.Ended, lease.Expired, now.Add(-old)
		}, "reopen expired"},
	} {
		l := &lease.Lease{ID: id(old), Username: "app_abcdefgh", For: "app", Account: "g", State: lease.Active,
			ExpiresAt: now.Add(time.Hour)}
		role := &pgrole.LeaseRole{Lease: pgrole.Lease{ID: l.ID, For: "app", Ends: l.ExpiresAt}, Name: l.Username, CreatedBy: "g",
			Created: now.Add(-old), Now: now}
		s := &seen{
			cluster: &cluster.Cluster{Manage: []label.Selector{rule}, Leases: lease.DefaultLimits},
			now:     now,
			roles:   []*pgrole.LeaseRole{role},
			rows:    []*lease.Lease{l},
			accounts: map[string]*account.Account{"g": {GUID: "g", Active: true, IdentityCreatedAt: now,
				Scopes: account.DefaultScopes, Labels: map[string]string{"team": "leases"}}},
		}
		c.change(s, l, role)
		var got []string
		for _, f := range s.judge() {
			got = append(got, strings.TrimSpace(fmt.Sprint(f.what, " ", f.reason)))
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTerms(t *testing.T) {
	t.Parallel()
	limits := lease.Limits{DefaultTTL: time.Hour, MaxTTL: 24 * time.Hour}
	for _, c := range []struct {
		ttl, last         time.Duration
		wantTTL, wantLast time.Duration
		ok                bool
	}{
		{0, 0, time.Hour, 24 * time.Hour, true},
		{time.Second, time.Second, time.Second, time.Second, true},
		{24 * time.Hour, 0, 24 * time.Hour, 24 * time.Hour, true},
		{0, 10 * time.Minute, 10 * time.Minute, 10 * time.Minute, true}, // the default is longer
		{time.Second - 1, 0, 0, 0, false},
		{-time.Second, 0, 0, 0, false},
		{0, time.Millisecond, 0, 0, false},
		{0, -time.Hour, 0, 0, false},
		{24*time.Hour + 1, 0, 0, 0, false},
		{2 * time.Hour, time.Hour, 0, 0, false},
		{time.Hour, 25 * time.Hour, 0, 0, false},
	} {
		ttl, last, err := (&NewLease{TTL: c.ttl, MaxTTL: c.last}).terms(limits)
		if (err == nil) != c.ok || c.ok && (ttl != c.wantTTL || last != c.wantLast) {
			t.Errorf("%s of at most %s: %s, %s, %v", c.ttl, c.last, ttl, last, err)
		}
	}
}
