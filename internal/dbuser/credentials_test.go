package dbuser_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

func settings() dbuser.CredentialSettings {
	return dbuser.CredentialSettings{For: "app", RotateEvery: time.Hour, Overlap: time.Minute}
}

// put makes or changes the credential "shop".
func put(t testing.TB, s *servicetest.Service, p *account.Principal, set dbuser.CredentialSettings) *lease.Credential {
	t.Helper()
	_, cr, _, err := s.Users.PutCredential(t.Context(), p, s.ClusterID, "shop", set, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cr
}

func credential(t testing.TB, s *servicetest.Service, p *account.Principal) *lease.Credential {
	t.Helper()
	_, cr, err := s.Users.Credential(t.Context(), p, s.ClusterID, "shop")
	if err != nil {
		t.Fatal(err)
	}
	return cr
}

func current(t testing.TB, s *servicetest.Service, p *account.Principal) *lease.Current {
	t.Helper()
	_, current, err := s.Users.CurrentCredential(t.Context(), p, s.ClusterID, "shop")
	if err != nil {
		t.Fatal(err)
	}
	return current
}

// wantLogin logs in with a password of a credential. The session runs as the role that the credential is for.
func wantLogin(t testing.TB, s *servicetest.Service, c *lease.Current) {
	t.Helper()
	conn := s.PG.Connect(t, c.Username, string(c.Password), "postgres")
	defer conn.Close(t.Context())
	var is string
	if err := conn.QueryRow(t.Context(), `SELECT current_user`).Scan(&is); err != nil || is != c.For {
		t.Errorf("%s runs as %q: %v", c.Username, is, err)
	}
}

// leasesOf are the live leases of the credential, the newest first.
func leasesOf(t testing.TB, s *servicetest.Service) []*lease.Lease {
	t.Helper()
	list, _, err := (&lease.Store{DB: s.DB}).List(t.Context(), lease.Filter{Credential: "shop", Live: true})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// due has the credential tended now.
func due(t testing.TB, s *servicetest.Service) {
	t.Helper()
	execControl(t, s, `UPDATE tasks SET due = now() WHERE kind = 'credential.rotate'`)
	runDue(t, s)
}

func TestCredential(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	_, cr, created, err := s.Users.PutCredential(t.Context(), p, s.ClusterID, "shop", settings(), nil)
	if err != nil || !created {
		t.Fatalf("created: %v, %v", created, err)
	}
	if cr.Name != "shop" || cr.For != "app" || cr.State() != "active" || cr.CreatedBy != p.GUID || cr.Username == "" ||
		cr.RotatedAt.IsZero() || cr.RotatesAt.After(cr.RotatedAt.Add(time.Hour)) ||
		cr.RotatesAt.Before(cr.RotatedAt.Add(50*time.Minute)) {
		t.Errorf("made %+v", cr)
	}
	first := current(t, s, p)
	wantLogin(t, s, first)
	if !first.ExpiresAt.Equal(cr.RotatesAt.Add(time.Minute)) || !slices.Contains(first.Databases, "postgres") {
		t.Errorf("it ends at %s, of %v, databases %v", first.ExpiresAt, cr.RotatesAt, first.Databases)
	}
	l := leasesOf(t, s)[0]
	if l.Account != "" || l.Credential != "shop" || l.ExpiresAt.Before(first.ExpiresAt) ||
		l.ExpiresAt.After(cr.RotatedAt.Add(time.Hour+2*time.Minute)) {
		t.Errorf("its lease is %+v", l)
	}

	// The same once more changes nothing; another time does, without another lease; and its end still comes after.
	if again := put(t, s, p, settings()); again.Lease != cr.Lease || again.Revision != cr.Revision {
		t.Errorf("the same settings have made %+v of %+v", again, cr)
	}
	set := settings()
	set.RotateEvery = 10 * time.Hour
	changed := put(t, s, p, set)
	if changed.Lease != cr.Lease || changed.Revision == cr.Revision || changed.RotateEvery != set.RotateEvery ||
		changed.RotatesAt.Add(set.Overlap).After(l.ExpiresAt) {
		t.Errorf("another time has made %+v of %+v, whose lease is %+v", changed, cr, l)
	}

	// Rotated, the old one is valid for the overlap.
	_, rotated, err := s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop")
	if err != nil || rotated.Username == cr.Username {
		t.Fatalf("rotated: %+v, %v", rotated, err)
	}
	wantLogin(t, s, first)
	wantLogin(t, s, current(t, s, p))
	if old := stored(t, s, l); !old.ExpiresAt.Before(l.ExpiresAt) || time.Until(old.ExpiresAt) > time.Minute {
		t.Errorf("the old lease ends at %s, before it was %s", old.ExpiresAt, l.ExpiresAt)
	}
	old := stored(t, s, l)
	if _, rotated, err = s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop"); err != nil {
		t.Fatal(err)
	}
	if is := stored(t, s, l); !is.ExpiresAt.Equal(old.ExpiresAt) {
		t.Errorf("rotated again, the oldest lease ends at %s, before it was %s", is.ExpiresAt, old.ExpiresAt)
	}

	// Another role: at once.
	s.PG.Exec(t, `CREATE ROLE other_app NOLOGIN`)
	if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, "billing", password); err != nil {
		t.Fatal(err)
	}
	set.For, set.Overlap = "billing", 0
	if other := put(t, s, p, set); other.For != "billing" || other.Lease == rotated.Lease {
		t.Errorf("for another role: %+v", other)
	}
	wantLogin(t, s, current(t, s, p))
	set.For = "other_app"
	if _, _, _, err := s.Users.PutCredential(t.Context(), p, s.ClusterID, "shop", set, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("for a role that is not granted: %v", err)
	}
	if is := credential(t, s, p); is.For != "billing" || is.Next != uuid.Nil || is.State() != "active" {
		t.Errorf("after that it is %+v", is)
	}
	runDue(t, s)
	wantState(t, s, &lease.Lease{ID: rotated.Lease, Username: rotated.Username}, lease.Ended, lease.ByCredential)

	// Deleted, all ends.
	last := current(t, s, p)
	if err := s.Users.DeleteCredential(t.Context(), p, s.ClusterID, "shop", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.PG.Login(last.Username, string(last.Password)); err == nil || len(leasesOf(t, s)) > 0 {
		t.Errorf("after the deletion %d leases are left; login: %v", len(leasesOf(t, s)), err)
	}
	if _, _, err := s.Users.Credential(t.Context(), p, s.ClusterID, "shop"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted: %v", err)
	}
	if err := s.Users.DeleteCredential(t.Context(), p, s.ClusterID, "shop", nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	var actions []string
	for _, row := range s.AuditRows(t, "shop") {
		if strings.Contains(row.Detail, string(last.Password)) {
			t.Errorf("the password is in the audit log: %+v", row)
		}
		actions = append(actions, row.Action+" "+row.Phase+" "+row.Outcome)
	}
	if want := []string{
		"credential.put attempt ", "credential.put outcome done", "credential.read outcome done",
		"credential.put outcome done", "credential.put outcome done",
		"credential.rotate attempt ", "credential.rotate outcome done", "credential.read outcome done",
		"credential.rotate attempt ", "credential.rotate outcome done",
		"credential.put attempt ", "credential.put outcome done", "credential.read outcome done",
		"credential.put attempt ", "credential.put outcome not_done", "credential.read outcome done",
		"credential.delete outcome done",
	}; !slices.Equal(actions, want) {
		t.Errorf("the audit log has %q", actions)
	}
	if strings.Contains(s.Log.String(), string(last.Password)) {
		t.Error("the password is in the log")
	}
}

func TestCredentialRefusals(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	cr := put(t, s, p, settings())
	for name, change := range map[string]func(*dbuser.CredentialSettings){
		"rotateEvery is 0s":       func(set *dbuser.CredentialSettings) { set.RotateEvery, set.Overlap = 0, 0 },
		"rotateEvery is 87601h":   func(set *dbuser.CredentialSettings) { set.RotateEvery = 87601 * time.Hour },
		"overlap is -1s":          func(set *dbuser.CredentialSettings) { set.Overlap = -time.Second },
		"overlap is 1h1s":         func(set *dbuser.CredentialSettings) { set.Overlap = time.Hour + time.Second },
		"window.days is empty":    func(set *dbuser.CredentialSettings) { set.Window = &lease.Window{} },
		"which role the lease is": func(set *dbuser.CredentialSettings) { set.For = "" },
		"no role \"nobody\"":      func(set *dbuser.CredentialSettings) { set.For = "nobody" },
		"longer than the field":   func(set *dbuser.CredentialSettings) { set.Window = saturdays() },
	} {
		set := settings()
		change(&set)
		for _, credential := range []string{"shop", "another"} {
			_, _, _, err := s.Users.PutCredential(t.Context(), p, s.ClusterID, credential, set, nil)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s, %s: %v", name, credential, err)
			}
		}
	}
	for _, name := range []string{"", strings.Repeat("x", 64), "a/b", "..", "a\nb", "\xff"} {
		if _, _, _, err := s.Users.PutCredential(t.Context(), p, s.ClusterID, name, settings(), nil); !fault.Is(err,
			fault.Invalid) {
			t.Errorf("named %q: %v", name, err)
		}
	}
	_, list, _, err := s.Users.Credentials(t.Context(), p, s.ClusterID, "", 0)
	if err != nil || len(list) != 1 || len(leasesOf(t, s)) != 1 {
		t.Errorf("there are %d credentials and %d leases: %v", len(list), len(leasesOf(t, s)), err)
	}
	for _, match := range []etag.Match{{"7"}, {"x"}} {
		_, _, _, err := s.Users.PutCredential(t.Context(), p, s.ClusterID, "shop", settings(), match)
		if deleted := s.Users.DeleteCredential(t.Context(), p, s.ClusterID, "shop", match); !fault.Is(err, fault.Stale) ||
			!fault.Is(deleted, fault.Stale) {
			t.Errorf("if it matches %q: %v, %v", match, err, deleted)
		}
	}

	viewer := *p
	viewer.Labels = map[string]string{"team": "viewers"}
	s.Access(t, s.ClusterID, []string{"team=leases"}, []string{"team=viewers"})
	readOnly, limited, other := *p, *p, *p
	readOnly.Limit(uuid.New(), true, nil)
	limited.Credentials, other.Credentials = []string{s.ClusterID + "/shop"}, []string{s.ClusterID + "/other"}
	stranger := *p
	stranger.Labels = nil
	for who, test := range map[string]struct {
		p    *account.Principal
		kind fault.Kind
	}{
		"a viewer": {&viewer, fault.Forbidden}, "a read-only token": {&readOnly, fault.Forbidden},
		"a token for another": {&other, fault.Forbidden}, "a stranger": {&stranger, fault.NotFound},
	} {
		if _, c, err := s.Users.CurrentCredential(t.Context(), test.p, s.ClusterID, "shop"); c != nil ||
			!fault.Is(err, test.kind) {
			t.Errorf("%s reads it: %v", who, err)
		}
		if _, _, err := s.Users.RotateStored(t.Context(), test.p, s.ClusterID, "shop"); !fault.Is(err, test.kind) {
			t.Errorf("%s rotates it: %v", who, err)
		}
		_, _, _, err := s.Users.PutCredential(t.Context(), test.p, s.ClusterID, "shop", settings(), nil)
		if deleted := s.Users.DeleteCredential(t.Context(), test.p, s.ClusterID, "shop", nil); !fault.Is(err, test.kind) ||
			!fault.Is(deleted, test.kind) {
			t.Errorf("%s changes it: %v, %v", who, err, deleted)
		}
	}
	if c := current(t, s, &limited); c.Lease != cr.Lease {
		t.Errorf("a limited token reads %+v", c.Credential)
	}
	denied := 0
	for _, row := range s.AuditRows(t, "shop") {
		if row.Action == audit.ReadCredential && row.Outcome == "denied" {
			denied++
		}
	}
	if denied != 3 {
		t.Errorf("%d reads are recorded as denied", denied)
	}
}

func saturdays() *lease.Window {
	return &lease.Window{Days: []string{"sat"}, From: "02:00", To: "04:00", Timezone: "Europe/Berlin"}
}

// A credential rotates by itself when it is time, and waits for its window.
func TestScheduledRotation(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	cr := put(t, s, p, settings())
	due(t, s)
	if credential(t, s, p).Lease != cr.Lease {
		t.Error("it was rotated early")
	}
	before := current(t, s, p)
	execControl(t, s, `UPDATE credentials SET rotates_at = now()`)
	due(t, s)
	rotated := credential(t, s, p)
	if rotated.Lease == cr.Lease || !rotated.RotatesAt.After(time.Now()) ||
		!rotated.RotatedAt.After(cr.RotatedAt) {
		t.Errorf("rotated it is %+v, before it was %+v", rotated, cr)
	}
	wantLogin(t, s, current(t, s, p))
	wantLogin(t, s, before)
	rows := s.AuditRows(t, "shop")
	if last := rows[len(rows)-2]; rows[len(rows)-3].Account != audit.ActorRolecall ||
		!strings.Contains(rows[len(rows)-3].Detail, cr.Username) || !strings.Contains(rows[len(rows)-3].Detail, rotated.Username) {
		t.Errorf("the audit log has %+v, %+v", rows[len(rows)-3], last)
	}

	// When the overlap is over, the old one ends, also if its own end was not moved.
	execControl(t, s, `UPDATE credentials SET rotated_at = rotated_at - interval '2 minutes'`)
	due(t, s)
	wantState(t, s, &lease.Lease{ID: cr.Lease, Username: cr.Username}, lease.Ended, lease.ByCredential)
	if credential(t, s, p).Lease != rotated.Lease {
		t.Error("it was rotated again")
	}

	// Outside of the window it waits, but not longer than the password is valid.
	set := settings()
	now := time.Now().UTC()
	set.Window = &lease.Window{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"},
		From: now.Add(10 * time.Minute).Format("15:04"), To: now.Add(-10 * time.Minute).Format("15:04"), Timezone: "UTC"}
	set.RotateEvery = 2 * time.Hour
	put(t, s, p, set)
	execControl(t, s, `UPDATE credentials SET rotates_at = now()`)
	due(t, s)
	if credential(t, s, p).Lease != rotated.Lease {
		t.Error("it was rotated outside of its window")
	}
	execControl(t, s, `UPDATE leases SET expires_at = now() + interval '2 minutes' WHERE state = 'active'`)
	due(t, s)
	late := credential(t, s, p)
	if late.Lease == rotated.Lease {
		t.Error("it was not rotated though its password was about to end")
	}

	// It waits for its window, which is moved: then it rotates at once.
	execControl(t, s, `UPDATE credentials SET rotated_at = rotated_at - interval '119 minutes', rotates_at = now()`)
	due(t, s)
	if credential(t, s, p).Lease != late.Lease {
		t.Error("it was rotated outside of its window")
	}
	set.Window.From, set.Window.To = now.Add(-10*time.Minute).Format("15:04"), now.Add(10*time.Minute).Format("15:04")
	set.RotateEvery = 24 * time.Hour // the window is closed for almost as long
	put(t, s, p, set)
	execControl(t, s, `UPDATE credentials SET rotates_at = now()`)
	due(t, s)
	if credential(t, s, p).Lease == late.Lease {
		t.Error("it was not rotated though its window is open")
	}
}

// The next rotation is before rotateEvery is over, inside the window, and not that of all credentials.
func TestNextRotation(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC) // a Saturday
	const day = 24 * time.Hour
	for _, test := range []struct {
		every       time.Duration
		window      *lease.Window
		first, last time.Duration // after at
	}{
		{time.Second, nil, 450 * time.Millisecond, 500 * time.Millisecond},
		{10 * time.Second, nil, 7500 * time.Millisecond, 8 * time.Second},
		{time.Hour, nil, 56 * time.Minute, 59 * time.Minute},
		{30 * day, nil, 30*day - 11*time.Minute, 30*day - time.Minute},
		// Until Saturday at 02:00 in Berlin.
		{10 * day, saturdays(), 13*day + 13*time.Hour, 13*day + 13*time.Hour + 10*time.Minute},
	} {
		set := dbuser.CredentialSettings{For: "app", RotateEvery: test.every, Window: test.window}
		seen := map[time.Time]bool{}
		for share := 0.0; share < 1; share += 0.01 {
			next := set.NextRotation(at, share)
			seen[next] = true
			if next.Before(at.Add(test.first)) || next.After(at.Add(test.last)) {
				t.Errorf("every %s: the next is after %s, want %s to %s", test.every, next.Sub(at), test.first, test.last)
			}
		}
		if len(seen) < 90 {
			t.Errorf("every %s: 100 credentials rotate at %d times", test.every, len(seen))
		}
	}
}

// A rotation that fails keeps what is there, is shown, and is tried again.
func TestFailingRotation(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	cr := put(t, s, p, settings())
	before := current(t, s, p)
	execControl(t, s, `UPDATE credentials SET rotates_at = now()`)
	s.PG.Exec(t, `ALTER ROLE app CREATEROLE`)
	rows := len(s.AuditRows(t, "shop"))
	for range 2 {
		execControl(t, s, `UPDATE tasks SET due = now() WHERE kind = 'credential.rotate'`)
		if _, err := worker(s).RunDue(t.Context()); err == nil {
			t.Fatal("a credential was rotated for a system role")
		}
	}
	failing := credential(t, s, p)
	if failing.State() != "failing" || !strings.Contains(failing.LastError, `"app" is a system role`) ||
		failing.Lease != cr.Lease {
		t.Errorf("it is %s because of %q", failing.State(), failing.LastError)
	}
	if is := len(s.AuditRows(t, "shop")); is != rows {
		t.Errorf("%d rows were recorded of nothing", is-rows)
	}
	wantLogin(t, s, before)
	s.PG.Exec(t, `ALTER ROLE app NOCREATEROLE`)
	due(t, s)
	if now := credential(t, s, p); now.State() != "active" || now.Lease == cr.Lease {
		t.Errorf("afterwards it is %+v", now)
	}

	// A user that is disabled takes its leases with it. When it is enabled, there is a password again.
	s.PG.Exec(t, `CREATE DATABASE owned OWNER app`)
	if _, _, err := s.Users.DeleteOrDisableUser(t.Context(), p, s.ClusterID, "app", dbuser.Deletion{WithMembers: true},
		nil); err != nil {
		t.Fatal(err)
	}
	if _, err := worker(s).RunDue(t.Context()); err == nil {
		t.Error("a credential was rotated for a disabled user")
	}
	if now := credential(t, s, p); now.State() != "failing" || len(leasesOf(t, s)) != 0 {
		t.Errorf("of a disabled user there are %d leases, and the credential is %+v", len(leasesOf(t, s)), now)
	}
	if _, _, err := s.Users.CurrentCredential(t.Context(), p, s.ClusterID, "shop"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the password of a disabled user: %v", err)
	}
	if _, _, err := s.Users.SetPassword(t.Context(), p, s.ClusterID, "app", password, nil); err != nil {
		t.Fatal(err)
	}
	due(t, s)
	wantLogin(t, s, current(t, s, p))
}

// A credential whose role is gone, or whose cluster is unreachable, is shown failing.
func TestFailingCredential(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	c, err := s.Clusters.Get(s.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, p, settings())
	s.PG.Exec(t, `DROP ROLE app`)
	sweep(t, s)
	if _, err := worker(s).RunDue(t.Context()); err == nil {
		t.Error("a credential was rotated for a role that is gone")
	}
	problems, err := s.Users.LeaseProblems(t.Context(), c)
	if now := credential(t, s, p); now.State() != "failing" || !strings.Contains(now.LastError, `no role "app"`) ||
		err != nil ||
		!slices.Equal(problems[c.ID], []string{`The stored credential "shop" does not rotate: ` + now.LastError}) {
		t.Errorf("it is %+v; the cluster has the problems %q, %v", now, problems, err)
	}
	create(t, s, "app")
	due(t, s)
	if now := credential(t, s, p); now.State() != "active" {
		t.Errorf("it is %+v", now)
	}

	pg := pgtest.New(t, nil)
	role, rolePassword := servicetest.Administrator(t, pg)
	id := s.Register(t, "away", pg, role, rolePassword)
	s.Access(t, id, []string{"team=leases"}, nil)
	if _, _, err := s.Users.CreateUser(t.Context(), p, id, "app", password); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.Users.PutCredential(t.Context(), p, id, "shop", settings(), nil); err != nil {
		t.Fatal(err)
	}
	away, err := s.Clusters.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	pg.Stop(t)
	for away.Health(t.Context()); !away.Unreachable(); away.Health(t.Context()) {
	}
	_, one, err := s.Users.Credential(t.Context(), p, id, "shop")
	if err != nil || one.State() != "failing" || one.LastError == "" {
		t.Errorf("it is %+v, %v", one, err)
	}
	_, list, _, err := s.Users.Credentials(t.Context(), p, id, "", 0)
	if err != nil || len(list) != 1 || list[0].State() != "failing" {
		t.Errorf("the list has %+v, %v", list, err)
	}
}

// aged returns an id as if it had been made some minutes ago.
func aged() (id uuid.UUID) {
	id = uuid.Must(uuid.NewV7())
	binary.BigEndian.PutUint64(id[:], binary.BigEndian.Uint64(id[:])-uint64(5*time.Minute.Milliseconds())<<16)
	return id
}

// setNext stores a next lease, as a rotation does before it makes the role.
func setNext(t testing.TB, s *servicetest.Service, cr *lease.Credential, id uuid.UUID) {
	t.Helper()
	if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		return (&lease.Store{DB: s.DB}).SetNext(t.Context(), tx, cr.ID, id, "never-used")
	}); err != nil {
		t.Fatal(err)
	}
}

// ageNext has a rotation that is in progress begun a while ago.
func ageNext(t testing.TB, s *servicetest.Service) {
	t.Helper()
	execControl(t, s, `UPDATE credentials SET next_since = now() - interval '5 minutes' WHERE next_lease_id IS NOT NULL`)
}

// Wherever a rotation is cut off, its task finishes it or takes it back.
func TestCutOffRotation(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	cr := put(t, s, p, settings())
	wantCurrent := func(after string, l uuid.UUID) {
		t.Helper()
		ageNext(t, s)
		due(t, s)
		if now := credential(t, s, p); now.Lease != l || now.Next != uuid.Nil || now.State() != "active" {
			t.Errorf("%s: the credential is %+v, want the lease %s", after, now, l)
		}
		wantLogin(t, s, current(t, s, p))
	}

	// It may be in progress: then others wait.
	setNext(t, s, cr, uuid.Must(uuid.NewV7()))
	due(t, s)
	if now := credential(t, s, p); now.Next == uuid.Nil || now.Lease != cr.Lease {
		t.Errorf("a rotation in progress was taken back: %+v", now)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := s.Users.RotateStored(short, p, s.ClusterID, "shop"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("during another rotation: %v", err)
	}
	// It was cut off before the row of the lease was there.
	setNext(t, s, cr, aged())
	wantCurrent("without a row", cr.Lease)

	// Before the role was made.
	l := &lease.Lease{ID: aged(), Cluster: cr.Cluster, Username: lease.NewName("app"), For: "app", Credential: "shop",
		TTL: time.Hour, CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), MaxExpiresAt: time.Now().Add(time.Hour)}
	if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		return (&lease.Store{DB: s.DB}).Insert(t.Context(), tx, l)
	}); err != nil {
		t.Fatal(err)
	}
	setNext(t, s, cr, l.ID)
	wantCurrent("without a role", cr.Lease)
	if now := stored(t, s, l); now.State != lease.Ended {
		t.Errorf("the lease without a role is %s", now.State)
	}

	// Before it became the current one: it becomes that.
	const undo = `UPDATE credentials c SET lease_id = o.lease_id, password = o.password, next_lease_id = c.lease_id,
		next_password = c.password FROM before o`
	execControl(t, s, `CREATE TABLE before AS SELECT * FROM credentials`)
	_, rotated, err := s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop")
	if err != nil {
		t.Fatal(err)
	}
	execControl(t, s, undo)
	wantCurrent("before it was the current one", rotated.Lease)

	// The same with settings that were to change with it: it is taken back, because nobody was told that it was done.
	create(t, s, "billing")
	execControl(t, s, `DROP TABLE before; CREATE TABLE before AS SELECT * FROM credentials`)
	set := settings()
	set.For = "billing"
	changed := put(t, s, p, set)
	execControl(t, s, undo+` WHERE true; UPDATE credentials SET for_role = 'app'`)
	due(t, s)
	if now := credential(t, s, p); now.Next != changed.Lease || now.Lease != rotated.Lease {
		t.Errorf("it is %+v, its next lease was %s", now, changed.Lease)
	}
	old := aged()
	execControl(t, s, `UPDATE leases SET id = $2 WHERE id = $1`, changed.Lease, old)
	execControl(t, s, `UPDATE tasks SET key = $2 WHERE key = $1`, changed.Lease, old)
	execControl(t, s, `UPDATE credentials SET next_lease_id = $1`, old)
	// Its role says the same, or a sweep would find another lease.
	s.PG.Exec(t, fmt.Sprintf(`DO $$ BEGIN EXECUTE (
		SELECT format('COMMENT ON ROLE %%I IS %%L', rolname, replace(shobj_description(oid, 'pg_authid'), '%s', '%s'))
		FROM pg_roles WHERE rolname = '%s'); END $$`, changed.Lease, old, changed.Username))
	wantCurrent("with other settings", rotated.Lease)

	// A credential that was being made is not there, or it is finished.
	first := *cr
	first.ID, first.Name = uuid.New(), "first"
	for _, name := range []string{"first"} {
		if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error {
			store := &lease.Store{DB: s.DB}
			return errors.Join(store.InsertCredential(t.Context(), tx, &first),
				store.SetNext(t.Context(), tx, first.ID, aged(), "never-used"),
				task.Set(t.Context(), tx, task.Task{Kind: "credential.rotate", Key: first.ID, Cluster: cr.Cluster}))
		}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Users.Credential(t.Context(), p, s.ClusterID, name); !fault.Is(err, fault.NotFound) {
			t.Errorf("before its lease is there: %v", err)
		}
		ageNext(t, s)
		runDue(t, s)
		if _, err := (&lease.Store{DB: s.DB}).CredentialByID(t.Context(), first.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("a credential that was not made: %v", err)
		}
	}
	// The role of the lease before has got another end, which the row has not, by the change that was undone.
	_, last, err := s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop")
	if err != nil {
		t.Fatal(err)
	}
	execControl(t, s, `UPDATE credentials SET next_lease_id = lease_id, next_password = password, lease_id = NULL,
		password = NULL, rotates_at = NULL`)
	wantCurrent("while it was made", last.Lease)
}

// After the restoration of an older control database, a credential is rotated at once, and what was current until then is
// valid for the overlap.
func TestRestoredCredential(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	put(t, s, p, settings())
	execControl(t, s, `CREATE TABLE old_credentials AS SELECT * FROM credentials;
		CREATE TABLE old_leases AS SELECT * FROM leases; CREATE TABLE old_tasks AS SELECT * FROM tasks`)
	const restore = `DELETE FROM credentials; DELETE FROM leases; DELETE FROM tasks;
		INSERT INTO credentials SELECT * FROM old_credentials; INSERT INTO leases SELECT * FROM old_leases;
		INSERT INTO tasks SELECT * FROM old_tasks`
	rotate := func() *lease.Current {
		if _, _, err := s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop"); err != nil {
			t.Fatal(err)
		}
		return current(t, s, p)
	}
	// The old one is there: what programs have in use stays valid for the overlap.
	lost := rotate()
	execControl(t, s, restore)
	sweep(t, s)
	runDue(t, s)
	now := current(t, s, p)
	if now.Lease == lost.Lease || len(leasesOf(t, s)) != 3 {
		t.Errorf("afterwards the lease is %s, of %d", now.Username, len(leasesOf(t, s)))
	}
	wantLogin(t, s, now)
	wantLogin(t, s, lost)
	for _, l := range leasesOf(t, s)[1:] {
		if left := time.Until(l.ExpiresAt); left > time.Minute || left < 30*time.Second {
			t.Errorf("the lease %s ends in %s", l.Username, left)
		}
	}

	// The old one is gone.
	execControl(t, s, restore)
	s.PG.Exec(t, `DROP ROLE `+credential(t, s, p).Username)
	old := aged() // a sweep leaves a lease alone that may be being made
	execControl(t, s, `UPDATE leases SET id = $1`, old)
	execControl(t, s, `UPDATE credentials SET lease_id = $1`, old)
	sweep(t, s)
	runDue(t, s)
	wantLogin(t, s, current(t, s, p))
	if is := credential(t, s, p); is.State() != "active" || is.Lease == now.Lease {
		t.Errorf("it is %+v", is)
	}
}

// The current password can be read at any time, also while it is replaced without an overlap.
func TestReadWhileRotated(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	set := settings()
	set.Overlap = 0
	put(t, s, p, set)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := s.Users.CurrentCredential(t.Context(), p, s.ClusterID, "shop"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		if _, _, err := s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop"); err != nil {
			t.Error(err)
		}
	}
	stop()
	readers.Wait()
}

// A lease of a credential that is not there ends: its row was found again after the restoration of a control database that
// is older than the credential, or it was made while the credential was deleted. One of a credential that is being made
// stays.
func TestLeaseWithoutCredential(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	cr := put(t, s, p, settings())
	execControl(t, s, `UPDATE credentials SET next_lease_id = lease_id, next_password = password,
		lease_id = NULL, password = NULL`)
	sweep(t, s)
	if l := stored(t, s, &lease.Lease{ID: cr.Lease}); l.State != lease.Active {
		t.Errorf("of a credential that is being made: %s, %s", l.State, l.Reason)
	}
	execControl(t, s, `DELETE FROM credentials; DELETE FROM leases; DELETE FROM tasks`)
	sweep(t, s) // finds the lease again
	sweep(t, s)
	runDue(t, s)
	if l := stored(t, s, &lease.Lease{ID: cr.Lease}); l.State != lease.Ended || l.Reason != lease.ByCredential {
		t.Errorf("of a credential that is gone: %s, %s", l.State, l.Reason)
	}
	if pgtest.Value[bool](t, s.PG, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, cr.Username) {
		t.Errorf("the role %q is there", cr.Username)
	}
}

// A rotation whose process died has the outcome that another attempt has given it, or was not done.
func TestSettleRotation(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	cr := put(t, s, p, settings())
	attempts := map[string]string{}
	cutOffOf := func(l uuid.UUID) (id string) {
		id = uuid.NewString()
		execControl(t, s, `
			INSERT INTO audit (attempt, phase, action, account_guid, account_name, cluster_id, target, settle_after, detail)
			VALUES ($1, 'attempt', $2, 'g', 'g', $3, 'shop', clock_timestamp(), jsonb_build_object('lease', $4::text))`,
			id, audit.RotateStored, s.ClusterID, l)
		return id
	}
	attempts[cutOffOf(cr.Lease)] = "done"
	attempts[cutOffOf(uuid.New())] = "not_done"
	attempts[cutOff(t, s, s.ClusterID, audit.PutCredential, "nothing", 1)] = "not_done"
	next := uuid.Must(uuid.NewV7())
	setNext(t, s, cr, next)
	attempts[cutOffOf(next)] = ""
	if err := s.Users.SettleOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, want := range attempts {
		if is, why := outcome(t, s, id); is != want {
			t.Errorf("settled as %q, because %q, want %q", is, why, want)
		}
	}
}

// Programs log in with what they have read a moment ago, through many rotations: no login fails, and what they make belongs
// to the role that the credential is for.
func TestRotationsUnderLoad(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	rotations := 10
	if pgtest.Full() {
		rotations = 1000
	}
	s.PG.Exec(t, `CREATE SCHEMA work AUTHORIZATION app`)
	set := settings()
	set.Overlap = 10 * time.Second
	put(t, s, p, set)
	stop, failed := make(chan struct{}), make(chan error, 100)
	var logins atomic.Int64
	var load sync.WaitGroup
	for worker := range 4 {
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := logInAndWork(t.Context(), s, p, fmt.Sprintf("work.t%d_%d", worker, n)); err != nil {
					failed <- err
					return
				}
				logins.Add(1)
			}
		})
	}
	names := map[string]bool{}
	for range rotations {
		_, cr, err := s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop")
		if err != nil {
			t.Error(err)
			break
		}
		names[cr.Username] = true
		runDue(t, s)
	}
	close(stop)
	load.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if len(names) != rotations || logins.Load() == 0 {
		t.Errorf("%d rotations have made %d names; %d logins", rotations, len(names), logins.Load())
	}
	if others := pgtest.Value[int](t, s.PG, `SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE nspname = 'work' AND relowner <> 'app'::regrole`); others != 0 {
		t.Errorf("%d objects belong to others", others)
	}
	t.Logf("%d rotations, %d logins", rotations, logins.Load())
	// All that were replaced end.
	execControl(t, s, `UPDATE credentials SET rotated_at = rotated_at - interval '1 minute'`)
	due(t, s)
	if left := leasesOf(t, s); len(left) != 1 || left[0].ID != credential(t, s, p).Lease {
		t.Errorf("%d leases are left", len(left))
	}
}

// logInAndWork reads the current password, logs in with it, and makes a table.
func logInAndWork(ctx context.Context, s *servicetest.Service, p *account.Principal, table string) error {
	_, c, err := s.Users.CurrentCredential(ctx, p, s.ClusterID, "shop")
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/postgres?sslmode=disable", c.Username,
		string(c.Password), s.PG.Port))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `CREATE TABLE `+table+` (); CREATE SEQUENCE `+table+`_seq`)
	return err
}

// The passwords of many credentials are on the disk of the control database, but none of them in clear.
func TestCredentialsOnDisk(t *testing.T) {
	t.Parallel()
	s, _ := leaseService(t)
	store := &lease.Store{DB: s.DB}
	const shown, hidden = "this-is-shown-in-clear", "this-begins-a-password"
	for n := range 2 {
		if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error {
			for i := range 100 {
				cr := &lease.Credential{ID: uuid.New(), Cluster: uuid.MustParse(s.ClusterID), Name: fmt.Sprint(n*100 + i), For: "app",
					RotateEvery: time.Hour, CreatedBy: shown}
				next, secretText := uuid.New(), hidden+rand.Text()
				if err := errors.Join(store.InsertCredential(t.Context(), tx, cr),
					store.SetNext(t.Context(), tx, cr.ID, next, secret.Text(secretText))); err != nil {
					return err
				}
				if i%2 == 0 { // else it stays the next one
					if _, err := store.Promote(t.Context(), tx, cr.ID, next, time.Now()); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	s.PG.Exec(t, `CHECKPOINT`)
	found, foundShown := 0, false
	err := filepath.WalkDir(pgtest.Value[string](t, s.PG, `SHOW data_directory`), func(path string, d fs.DirEntry,
		err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // PostgreSQL has removed it
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		found += bytes.Count(data, []byte(hidden))
		foundShown = foundShown || bytes.Contains(data, []byte(shown))
		return err
	})
	if err != nil || found > 0 || !foundShown {
		t.Errorf("passwords are on disk %d times; what is not secret is found: %v; %v", found, foundShown, err)
	}
}
