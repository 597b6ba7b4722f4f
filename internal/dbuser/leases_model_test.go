package dbuser_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// leaseModelTime is how long TestLeaseModel goes on unless SOAK_SECONDS says more: make soak.
const leaseModelTime = 5 * time.Second

// TestLeaseModel takes, renews and ends leases at random, takes away what they need, breaks connections, stops the cluster,
// restarts Rolecall and loses rows, and holds what is left to a model: which leases log in, and which are gone.
func TestLeaseModel(t *testing.T) {
	t.Parallel()
	lasts := pgtest.SoakTime(t, leaseModelTime)
	m := newLeaseModel(t)
	end := time.Now().Add(lasts)
	for failed := false; time.Now().Before(end) && !t.Failed(); {
		rapid.Check(t, func(rt *rapid.T) {
			if time.Now().After(end) && !failed { // what has failed is tried again, to find the shortest way to it
				return
			}
			failed = true
			m.begin(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"take":         m.take,
				"take another": m.take,
				"renew":        m.renew,
				"end":          m.endOne,
				"end as user":  m.endAsUser,
				"drop by SQL":  m.dropBySQL,
				"trouble":      m.trouble,
				"recover":      m.recover,
				"lose rows":    m.loseRows,
				"work":         m.work,
			})
			m.recover(rt)
			m.work(rt)
			failed = false
		})
	}
	line := fmt.Sprintf("model of leases: %s", lasts)
	for _, name := range slices.Sorted(maps.Keys(m.counts)) {
		line += fmt.Sprintf(", %d × %s", m.counts[name], name)
	}
	fmt.Println(line)
}

// leaseModel is what there should be.
type leaseModel struct {
	t        *testing.T
	s        *servicetest.Service
	users    *dbuser.Service
	pg       *pgtest.Cluster
	way      *pgtest.Proxy
	accounts []*modelHolder
	fors     []*modelFor
	leases   []*modelLease
	isDown   bool
	counts   map[string]int
}

type modelHolder struct {
	p       *account.Principal
	active  bool
	manages bool
}

type modelFor struct {
	name    string
	enabled bool
}

// modelLease is a lease that somebody has got. It lives until something takes from it what it needs.
type modelLease struct {
	*lease.Lease
	password string
	holder   *modelHolder
	of       *modelFor
	lives    bool
	ending   bool // somebody may have ended it
}

func newLeaseModel(t *testing.T) *leaseModel {
	m := &leaseModel{t: t, s: servicetest.New(t, pgtest.Shared(t)), pg: pgtest.New(t, nil), counts: map[string]int{}}
	m.users = m.s.Users
	m.way = pgtest.NewProxy(t, m.pg)
	m.pg.Exec(t, `CREATE ROLE administrator LOGIN CREATEROLE PASSWORD 'administrator';
		GRANT pg_signal_backend TO administrator`)
	c := &cluster.Cluster{
		ID: uuid.New(), DisplayName: "modelled", Location: "de/fra",
		Connection: cluster.Connection{
			URL:      fmt.Sprintf("postgres://administrator@127.0.0.1:%d/postgres", m.way.Port),
			TLS:      cluster.TLS{Mode: "disable"},
			Password: "administrator",
		},
		SystemIdentifier: pgtest.Value[string](t, m.pg, `SELECT system_identifier::text FROM pg_control_system()`),
	}
	if err := m.s.Clusters.Ensure(t.Context(), c, audit.Entry{AccountGUID: "test", AccountName: "test"}); err != nil {
		t.Fatal(err)
	}
	m.s.ClusterID = c.ID.String()
	m.s.Access(t, m.s.ClusterID, []string{"team=leases"}, nil)
	for _, name := range []string{"eve", "bob"} {
		m.accounts = append(m.accounts, &modelHolder{p: manager(t, m.s, name), active: true, manages: true})
	}
	for _, name := range []string{"app", "web"} {
		create(t, m.s, name)
		m.fors = append(m.fors, &modelFor{name: name, enabled: true})
		m.pg.Exec(t, `CREATE TABLE of_`+name+` (); ALTER TABLE of_`+name+` OWNER TO `+name) // keeps it from being deleted
	}
	return m
}

func (m *leaseModel) begin(rt *rapid.T) {
	m.recover(rt)
	m.leases = nil
}

// recover brings back what was taken away, but not the leases that it was needed by.
func (m *leaseModel) recover(rt *rapid.T) {
	m.up()
	for _, a := range m.accounts {
		if !a.active || !a.manages {
			m.work(rt)
			a.active, a.manages = true, true
			a.p.Labels = map[string]string{"team": "leases"}
			execControl(m.t, m.s, `UPDATE accounts SET active = true, labels = '{"team":"leases"}' WHERE guid = $1`, a.p.GUID)
		}
	}
	for _, of := range m.fors {
		if !of.enabled {
			m.work(rt)
			if _, _, err := m.users.SetPassword(m.t.Context(), admin, m.s.ClusterID, of.name, password, nil); err != nil {
				rt.Fatal(err)
			}
			of.enabled = true
		}
	}
}

// broken runs f while a statement is perhaps broken on its way to the cluster or back.
func (m *leaseModel) broken(rt *rapid.T, f func() error) (broken bool, err error) {
	verdict := rapid.SampledFrom([]pgtest.Verdict{pgtest.Pass, pgtest.Pass, pgtest.CutBefore, pgtest.CutAfter}).Draw(rt,
		"fault")
	at := rapid.IntRange(1, 8).Draw(rt, "statement")
	var mu sync.Mutex
	seen, broke := 0, false
	if !m.isDown {
		m.way.Watch(func(string, int) pgtest.Verdict {
			mu.Lock()
			defer mu.Unlock()
			if seen++; seen != at {
				return pgtest.Pass
			}
			broke = verdict != pgtest.Pass
			return verdict
		})
		defer m.way.Watch(func(string, int) pgtest.Verdict { return pgtest.Pass })
	}
	err = f()
	mu.Lock() // a statement that f does not wait for may be on its way
	defer mu.Unlock()
	if broke {
		m.counts["broken"]++
	}
	return broke || m.isDown, err
}

// check compares what came of a call with what should. What is broken may fail, if it says so.
func (m *leaseModel) check(rt *rapid.T, what string, may, broken bool, err error) (done bool) {
	m.counts[what]++
	switch {
	case err == nil && may:
		return true
	case err == nil:
		rt.Fatalf("%s was done, and should have been refused", what)
	case broken && fault.Is(err, fault.Unavailable):
		m.counts["unavailable"]++
	case may:
		rt.Fatalf("%s: %v", what, err)
	case fault.Is(err, fault.Unavailable):
		rt.Fatalf("%s should have been refused: %v", what, err)
	}
	return false
}

func (m *leaseModel) take(rt *rapid.T) {
	holder := rapid.SampledFrom(m.accounts).Draw(rt, "account")
	of := rapid.SampledFrom(m.fors).Draw(rt, "for")
	ttl := rapid.SampledFrom([]time.Duration{time.Hour, time.Hour, 2 * time.Second}).Draw(rt, "ttl")
	var l *lease.Lease
	var secret string
	broken, err := m.broken(rt, func() error {
		_, made, password, err := m.users.CreateLease(m.t.Context(), holder.p, m.s.ClusterID,
			dbuser.NewLease{For: of.name, TTL: ttl})
		l, secret = made, string(password)
		return err
	})
	if m.check(rt, "take", holder.active && holder.manages && of.enabled, broken, err) {
		m.leases = append(m.leases, &modelLease{Lease: l, password: secret, holder: holder, of: of, lives: true})
	}
}

// any draws a lease, and reports whether there is one.
func (m *leaseModel) any(rt *rapid.T) (*modelLease, bool) {
	if len(m.leases) == 0 {
		rt.Skip("there is no lease")
	}
	l := rapid.SampledFrom(m.leases).Draw(rt, "lease")
	return l, !m.short(l)
}

// short reports whether a lease may end at any moment, because it lasts for a moment.
func (m *leaseModel) short(l *modelLease) bool { return l.TTL < time.Minute }

func (m *leaseModel) renew(rt *rapid.T) {
	l, ok := m.any(rt)
	if !ok {
		return
	}
	broken, err := m.broken(rt, func() error {
		_, _, _, err := m.users.RenewLease(m.t.Context(), l.holder.p, l.ID.String(), 2*time.Hour)
		return err
	})
	if l.ending {
		return // it may have ended, or not yet
	}
	m.check(rt, "renew", l.lives, broken, err)
}

func (m *leaseModel) endOne(rt *rapid.T) {
	l, _ := m.any(rt)
	broken, err := m.broken(rt, func() error {
		_, _, err := m.users.EndLease(m.t.Context(), l.holder.p, l.ID.String())
		return err
	})
	l.ending = true
	if m.check(rt, "end", true, broken, err) {
		l.lives = false
	}
}

func (m *leaseModel) endAsUser(rt *rapid.T) {
	l, _ := m.any(rt)
	broken, err := m.broken(rt, func() error {
		err := m.users.DeleteUser(m.t.Context(), admin, m.s.ClusterID, l.Username, dbuser.Deletion{}, nil)
		if fault.Is(err, fault.NotFound) && (l.ending || m.short(l)) {
			return nil
		}
		return err
	})
	l.ending = true
	if m.check(rt, "end as user", true, broken, err) {
		l.lives = false
	}
}

func (m *leaseModel) dropBySQL(rt *rapid.T) {
	l, ok := m.any(rt)
	if !ok || !l.lives || l.ending {
		return
	}
	m.pg.Exec(m.t, `DROP ROLE `+l.Username)
	l.lives, l.ending = false, true
	m.counts["drop by SQL"]++
}

// trouble is what leases seldom meet.
func (m *leaseModel) trouble(rt *rapid.T) {
	rapid.SampledFrom([]func(*rapid.T){m.deactivate, m.takeLabel, m.disableFor, m.down, m.restart}).Draw(rt, "trouble")(rt)
}

func (m *leaseModel) deactivate(rt *rapid.T) {
	a := rapid.SampledFrom(m.accounts).Draw(rt, "account")
	execControl(m.t, m.s, `UPDATE accounts SET active = false WHERE guid = $1`, a.p.GUID)
	a.active = false
	m.mustEnd(func(l *modelLease) bool { return l.holder == a })
	m.counts["deactivate"]++
}

func (m *leaseModel) takeLabel(rt *rapid.T) {
	a := rapid.SampledFrom(m.accounts).Draw(rt, "account")
	execControl(m.t, m.s, `UPDATE accounts SET labels = '{}' WHERE guid = $1`, a.p.GUID)
	a.manages, a.p.Labels = false, nil
	m.mustEnd(func(l *modelLease) bool { return l.holder == a })
	m.counts["take the label"]++
}

// mustEnd says of leases that the next sweep ends them.
func (m *leaseModel) mustEnd(which func(*modelLease) bool) {
	for _, l := range m.leases {
		if which(l) {
			l.lives, l.ending = false, true
		}
	}
}

func (m *leaseModel) disableFor(rt *rapid.T) {
	of := rapid.SampledFrom(m.fors).Draw(rt, "for")
	broken, err := m.broken(rt, func() error {
		_, _, err := m.users.DeleteOrDisableUser(m.t.Context(), admin, m.s.ClusterID, of.name,
			dbuser.Deletion{WithMembers: true}, nil)
		return err
	})
	live := slices.ContainsFunc(m.leases, func(l *modelLease) bool { return l.of == of })
	if fault.Is(err, fault.Invalid) && live {
		m.counts["for has leases"]++
		return
	}
	done := m.check(rt, "disable", true, broken, err)
	if !done && m.state(of.name) == "" {
		return
	}
	of.enabled = false
	m.mustEnd(func(l *modelLease) bool { return l.of == of })
}

// state is that of a user in its record.
func (m *leaseModel) state(name string) string {
	comment := pgtest.Value[string](m.t, m.pg, `SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles
		WHERE rolname = $1`, name)
	for _, state := range []string{"disabled", "deleting"} {
		if strings.Contains(comment, `"state":"`+state+`"`) {
			return state
		}
	}
	return ""
}

// down has every statement fail.
func (m *leaseModel) down(*rapid.T) {
	m.isDown = true
	m.way.Watch(func(string, int) pgtest.Verdict { return pgtest.CutBefore })
	m.counts["down"]++
}

func (m *leaseModel) up() {
	m.isDown = false
	m.way.Watch(func(string, int) pgtest.Verdict { return pgtest.Pass })
}

// restart replaces all that a process has in memory.
func (m *leaseModel) restart(rt *rapid.T) {
	clusters, err := cluster.Open(m.t.Context(), m.s.DB, slog.New(slog.NewTextHandler(m.s.Log, nil)))
	if err != nil {
		rt.Fatal(err)
	}
	m.t.Cleanup(clusters.Close)
	m.users = &dbuser.Service{Clusters: clusters, Audit: m.s.Audit, Accounts: m.s.Accounts, LeaseStore: m.s.Users.LeaseStore,
		Log: slog.New(slog.NewTextHandler(m.s.Log, nil))}
	m.counts["restart"]++
}

// loseRows is a control database that was restored from a backup from before some leases.
func (m *leaseModel) loseRows(rt *rapid.T) {
	l, ok := m.any(rt)
	if !ok || l.ending {
		return
	}
	execControl(m.t, m.s, `DELETE FROM leases WHERE id = $1`, l.ID)
	execControl(m.t, m.s, `DELETE FROM tasks WHERE key = $1`, l.ID)
	m.counts["row lost"]++
	m.up()
	if err := m.users.Sweep(m.t.Context(), m.s.ClusterID); err != nil {
		rt.Fatal(err)
	}
}

// work does what is due, after a sweep, and compares.
func (m *leaseModel) work(rt *rapid.T) {
	m.up()
	ctx := context.Background()
	for try := 1; ; try++ {
		err := m.users.Sweep(ctx, m.s.ClusterID)
		if err == nil {
			execControl(m.t, m.s, `UPDATE tasks SET due = least(due, now()) WHERE failures > 0 OR key IN (SELECT id FROM leases
				WHERE state <> 'active' OR expires_at < now() + interval '1 minute')`)
			w := worker(m.s)
			w.Kinds = m.users.Tasks()
			_, err = w.RunDue(ctx)
		}
		if err == nil {
			break
		}
		if try == 10 {
			rt.Fatalf("work: %v", err)
		}
	}
	m.counts["work"]++
	roles := map[string]bool{}
	for _, name := range strings.Fields(pgtest.Value[string](m.t, m.pg, `SELECT coalesce(string_agg(rolname, ' '), '')
		FROM pg_roles WHERE shobj_description(oid, 'pg_authid') LIKE '%"lease":%'`)) {
		roles[name] = true
	}
	for _, l := range m.leases {
		login := m.pg.Login(l.Username, l.password)
		switch {
		case m.short(l):
			if roles[l.Username] && !l.lives {
				rt.Fatalf("%s is there after it was ended", l.Username)
			}
		case l.lives && !l.ending && login != nil:
			rt.Fatalf("%s, which lives: %v", l.Username, login)
		case !l.lives && (login == nil || roles[l.Username]):
			rt.Fatalf("%s, which has ended, logs in: %v; is there: %v", l.Username, login == nil, roles[l.Username])
		}
	}
	// Also those that nobody has got have a row, a task and an end.
	for name := range roles {
		var ok bool
		err := m.s.DB.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM leases l JOIN tasks t ON t.key = l.id
			WHERE l.username = $1 AND l.state <> 'ended')`, name).Scan(&ok)
		if err != nil || !ok {
			rt.Fatalf("%s has no row or no task; %v", name, err)
		}
	}
	if n := pgtest.Value[int](m.t, m.pg, `SELECT count(*)::int FROM pg_roles WHERE rolvaliduntil IS NULL
		AND shobj_description(oid, 'pg_authid') LIKE '%"lease":%'`); n > 0 {
		rt.Fatalf("%d leases have no end", n)
	}
}
