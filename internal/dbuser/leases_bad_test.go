package dbuser_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/servicetest"
)

// What is refused is not made, and leaves nothing.
func TestLeaseRefused(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	s.PG.Exec(t, `CREATE ROLE groupies; CREATE ROLE mighty LOGIN CREATEROLE SUPERUSER`)
	own, _ := take(t, s, p, dbuser.NewLease{For: "app"})
	onlyViews := manager(t, s, "views")
	onlyViews.Labels = map[string]string{"team": "viewers"}
	s.Access(t, s.ClusterID, []string{"team=leases"}, []string{"team=viewers"})
	readOnly, stranger := *p, manager(t, s, "stranger")
	readOnly.Limit(uuid.New(), true, nil)
	stranger.Labels = nil
	for name, c := range map[string]struct {
		p    *account.Principal
		n    dbuser.NewLease
		kind fault.Kind
		says string
	}{
		"absent":             {p, dbuser.NewLease{For: "nobody"}, fault.Invalid, `no role "nobody"`},
		"no role":            {p, dbuser.NewLease{}, fault.Invalid, "which role"},
		"not text":           {p, dbuser.NewLease{For: "a\xff"}, fault.Invalid, "no role"},
		"not storable":       {p, dbuser.NewLease{For: "a\x00"}, fault.Invalid, "no role"},
		"too long":           {p, dbuser.NewLease{For: strings.Repeat("x", 64)}, fault.Invalid, "no role"},
		"protected":          {p, dbuser.NewLease{For: "mighty"}, fault.Forbidden, "mighty"},
		"not grantable":      {p, dbuser.NewLease{For: "groupies"}, fault.Invalid, "groupies"},
		"a lease":            {p, dbuser.NewLease{For: own.Username}, fault.Invalid, own.Username},
		"too short":          {p, dbuser.NewLease{For: "app", TTL: time.Second - 1}, fault.Invalid, "too short"},
		"negative":           {p, dbuser.NewLease{For: "app", TTL: -1}, fault.Invalid, "too short"},
		"too long a ttl":     {p, dbuser.NewLease{For: "app", TTL: 25 * time.Hour}, fault.Invalid, "at most 24h"},
		"beyond its maximum": {p, dbuser.NewLease{For: "app", TTL: time.Hour, MaxTTL: time.Minute}, fault.Invalid, "at most 1m"},
		"too long a maximum": {p, dbuser.NewLease{For: "app", MaxTTL: 25 * time.Hour}, fault.Invalid, "at most 24h"},
		"long note":          {p, dbuser.NewLease{For: "app", Note: strings.Repeat("ü", 201)}, fault.Invalid, "201 characters"},
		"note with a line":   {p, dbuser.NewLease{For: "app", Note: "a\nb"}, fault.Invalid, "not shown"},
		"note not text":      {p, dbuser.NewLease{For: "app", Note: "a\xff"}, fault.Invalid, "not shown"},
		"only views":         {onlyViews, dbuser.NewLease{For: "app"}, fault.Forbidden, "not change"},
		"read-only token":    {&readOnly, dbuser.NewLease{For: "app"}, fault.Forbidden, "read-only"},
		"sees nothing":       {stranger, dbuser.NewLease{For: "app"}, fault.NotFound, "no cluster"},
	} {
		_, _, secret, err := s.Users.CreateLease(t.Context(), c.p, s.ClusterID, c.n)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || secret != "" {
			t.Errorf("%s: %v, want the kind %d and %q", name, err, c.kind, c.says)
		}
	}
	var rows, tasks int
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM leases), (SELECT count(*) FROM tasks)`).
		Scan(&rows, &tasks); err != nil || rows != 1 || tasks != 1 {
		t.Errorf("%d rows and %d tasks, want 1 of each; %v", rows, tasks, err)
	}

	for name, c := range map[string]struct {
		p                *account.Principal
		see, renew, stop fault.Kind // 0: it may
	}{
		"only views":      {onlyViews, 0, fault.Forbidden, fault.Forbidden},
		"read-only token": {&readOnly, 0, fault.Forbidden, fault.Forbidden},
		"sees nothing":    {stranger, fault.NotFound, fault.NotFound, fault.NotFound},
	} {
		_, _, err := s.Users.Lease(t.Context(), c.p, own.ID.String())
		_, _, _, renewErr := s.Users.RenewLease(t.Context(), c.p, own.ID.String(), 2*time.Hour)
		_, _, stopErr := s.Users.EndLease(t.Context(), c.p, own.ID.String())
		for _, got := range []struct {
			err  error
			want fault.Kind
		}{{err, c.see}, {renewErr, c.renew}, {stopErr, c.stop}} {
			if (got.err == nil) != (got.want == 0) || got.err != nil && !fault.Is(got.err, got.want) {
				t.Errorf("%s: %v, want the kind %d", name, got.err, got.want)
			}
		}
	}
	wantState(t, s, own, lease.Active, "")
	for _, id := range []string{"", "x", own.ID.String()[1:], "{" + own.ID.String() + "}", uuid.NewString()} {
		_, _, err := s.Users.Lease(t.Context(), p, id)
		wantKind(t, err, fault.NotFound)
	}
}

// An account sees, renews and ends its own lease without any right in the cluster, and its list has it.
func TestOwnLease(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, _ := take(t, s, p, dbuser.NewLease{For: "app", TTL: time.Minute})
	p.Labels = nil
	if list, _, err := s.Users.Leases(t.Context(), p, "", lease.Filter{}); err != nil || len(list) != 1 {
		t.Errorf("%d leases, %v", len(list), err)
	}
	if list, _, err := s.Users.Leases(t.Context(), p, s.ClusterID, lease.Filter{}); err != nil || len(list) != 1 {
		t.Errorf("%d leases of the cluster, %v", len(list), err)
	}
	nobody := *p
	nobody.GUID = "nobody"
	_, _, err := s.Users.Leases(t.Context(), &nobody, s.ClusterID, lease.Filter{})
	wantKind(t, err, fault.NotFound)
	if _, _, _, err := s.Users.RenewLease(t.Context(), p, l.ID.String(), time.Hour); err != nil {
		t.Error(err)
	}
	elsewhere := *p
	elsewhere.Limit(uuid.New(), false, []uuid.UUID{uuid.New()})
	_, _, err = s.Users.Lease(t.Context(), &elsewhere, l.ID.String())
	wantKind(t, err, fault.NotFound)
	if list, _, err := s.Users.Leases(t.Context(), &elsewhere, "", lease.Filter{}); err != nil || len(list) != 0 {
		t.Errorf("%d leases by a token for another cluster, %v", len(list), err)
	}
	if _, _, err := s.Users.EndLease(t.Context(), p, l.ID.String()); err != nil {
		t.Error(err)
	}
	wantState(t, s, l, lease.Ended, lease.Deleted)
}

// A renewal is cut to the last end, never shortens, and is refused at the last end.
func TestRenewLease(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, secret := take(t, s, p, dbuser.NewLease{For: "app", TTL: time.Hour, MaxTTL: 2 * time.Hour})
	for _, c := range []struct {
		ttl  time.Duration
		cut  bool
		same bool
	}{{time.Minute, false, true}, {90 * time.Minute, false, false}, {0, false, true}, {100 * time.Hour, true, false}} {
		before := stored(t, s, l).ExpiresAt
		_, now, cut, err := s.Users.RenewLease(t.Context(), p, l.ID.String(), c.ttl)
		if err != nil || cut != c.cut || now.ExpiresAt.Equal(before) != c.same || now.ExpiresAt.Before(before) {
			t.Errorf("renewed by %s: %+v, %v, %v; it ended at %s", c.ttl, now, cut, err, before)
			continue
		}
		if !stored(t, s, l).ExpiresAt.Equal(now.ExpiresAt) {
			t.Errorf("stored is %s, answered %s", stored(t, s, l).ExpiresAt, now.ExpiresAt)
		}
	}
	if end := stored(t, s, l).ExpiresAt; !end.Equal(l.MaxExpiresAt) {
		t.Errorf("it ends at %s, and at the latest at %s", end, l.MaxExpiresAt)
	}
	_, _, _, err := s.Users.RenewLease(t.Context(), p, l.ID.String(), time.Hour)
	wantKind(t, err, fault.Invalid)
	_, _, _, err = s.Users.RenewLease(t.Context(), p, l.ID.String(), time.Millisecond)
	wantKind(t, err, fault.Invalid)
	if err := s.PG.Login(l.Username, secret); err != nil {
		t.Error(err)
	}
}

// The limit holds however many requests come at once.
func TestLeaseLimit(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	execControl(t, s, `UPDATE clusters SET lease_max_per_account = 3, updated_at = clock_timestamp()`)
	if err := s.Clusters.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	var made, refused int
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			_, _, _, err := s.Users.CreateLease(t.Context(), p, s.ClusterID, dbuser.NewLease{For: "app"})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case fault.Is(err, fault.Invalid) && strings.Contains(err.Error(), "3 leases"):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made != 3 || refused != 5 {
		t.Errorf("%d leases were made, %d refused", made, refused)
	}
	list, _, err := s.Users.Leases(t.Context(), p, s.ClusterID, lease.Filter{})
	if err != nil || len(list) != 3 {
		t.Fatalf("%d leases, %v", len(list), err)
	}
	if _, _, err := s.Users.EndLease(t.Context(), p, list[0].ID.String()); err != nil {
		t.Error(err)
	}
	take(t, s, p, dbuser.NewLease{For: "app"}) // one that has ended does not count
}

// A name that a role has is not used, and that role is left alone.
func TestLeaseNameTaken(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	create(t, s, "app_taken222")
	l, err := s.Users.CreateLeaseNamed(t.Context(), p, s.ClusterID, dbuser.NewLease{For: "app"},
		[]string{"app_taken222", "app_free2222"})
	if err != nil || l.Username != "app_free2222" {
		t.Errorf("%+v, %v", l, err)
	}
	_, err = s.Users.CreateLeaseNamed(t.Context(), p, s.ClusterID, dbuser.NewLease{For: "app"}, []string{"app_taken222"})
	wantKind(t, err, fault.Exists)
	if err := s.PG.Login("app_taken222", password); err != nil {
		t.Error(err)
	}
	var rows int
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM leases`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows; %v", rows, err)
	}
	// 63 bytes, cut at a character.
	long := strings.Repeat("ü", 31)
	create(t, s, long)
	of, secret := take(t, s, p, dbuser.NewLease{For: long})
	if !strings.HasPrefix(of.Username, strings.Repeat("ü", 27)+"_") || len(of.Username) != 63 {
		t.Errorf("the name is %q", of.Username)
	}
	if err := s.PG.Login(of.Username, secret); err != nil {
		t.Error(err)
	}
}

// Deleting the role of a lease as a user ends the lease.
func TestDeleteLeaseAsUser(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, _ := take(t, s, p, dbuser.NewLease{For: "app"})
	_, u, err := s.Users.User(t.Context(), p, s.ClusterID, l.Username)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Users.DeleteUser(t.Context(), p, s.ClusterID, l.Username, dbuser.Deletion{}, []string{"another"})
	wantKind(t, err, fault.Stale)
	if err := s.Users.DeleteUser(t.Context(), p, s.ClusterID, l.Username, dbuser.Deletion{},
		[]string{u.Revision()}); err != nil {
		t.Error(err)
	}
	wantState(t, s, l, lease.Ended, lease.Deleted)
	err = s.Users.DeleteUser(t.Context(), p, s.ClusterID, l.Username, dbuser.Deletion{}, nil)
	wantKind(t, err, fault.NotFound)
	l, _ = take(t, s, p, dbuser.NewLease{For: "app"})
	if _, u, err := s.Users.DeleteOrDisableUser(t.Context(), p, s.ClusterID, l.Username, dbuser.Deletion{}, nil); err != nil ||
		u != nil {
		t.Errorf("%+v, %v", u, err)
	}
	wantState(t, s, l, lease.Ended, lease.Deleted)
}

// Disabling a user shuts the door of its leases, too.
func TestDisabledForLease(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, secret := take(t, s, p, dbuser.NewLease{For: "app"})
	s.PG.Exec(t, `CREATE TABLE keeps (); ALTER TABLE keeps OWNER TO app`)
	err := s.Users.DeleteUser(t.Context(), p, s.ClusterID, "app", dbuser.Deletion{}, nil)
	wantKind(t, err, fault.Invalid)
	if _, u, err := s.Users.DeleteOrDisableUser(t.Context(), p, s.ClusterID, "app", dbuser.Deletion{}, nil); err != nil ||
		u == nil {
		t.Fatalf("%+v, %v", u, err)
	}
	wantState(t, s, l, lease.Ending, lease.AccessEnded)
	runDue(t, s)
	wantState(t, s, l, lease.Ended, lease.AccessEnded)
	if s.PG.Login(l.Username, secret) == nil {
		t.Error("the lease still logs in")
	}
	_, _, _, err = s.Users.CreateLease(t.Context(), p, s.ClusterID, dbuser.NewLease{For: "app"})
	wantKind(t, err, fault.Invalid)
}

// What ends with a token are the leases made with it.
func TestEndLeasesOfToken(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	token := *p
	token.Limit(uuid.New(), false, nil)
	execControl(t, s, `
		INSERT INTO personal_tokens (id, account_id, name, secret_hash, scopes, read_only)
		SELECT $1, id, 'token', '', '{}', false FROM accounts WHERE guid = $2`, token.Token, p.GUID)
	with, _ := take(t, s, &token, dbuser.NewLease{For: "app"})
	without, _ := take(t, s, p, dbuser.NewLease{For: "app"})
	for _, id := range []uuid.UUID{uuid.Nil, uuid.New(), token.Token, token.Token} {
		if err := s.Users.EndLeasesOfToken(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	runDue(t, s)
	wantState(t, s, with, lease.Ended, lease.Deleted)
	wantState(t, s, without, lease.Active, "")
}

// A lease whose role cannot be dropped is disabled, and ends when what is in the way has gone. Until then the tries leave no
// rows in the audit log.
func TestBlockedLease(t *testing.T) {
	t.Parallel()
	s, p := leaseServiceOn(t, map[string]string{"max_prepared_transactions": "2"})
	l, secret := take(t, s, p, dbuser.NewLease{For: "app"})
	session := s.PG.Connect(t, l.Username, secret, "postgres")
	exec(t, session, `SET ROLE NONE`)
	exec(t, session, `BEGIN`)
	exec(t, session, `SELECT txid_current()`)
	exec(t, session, `PREPARE TRANSACTION 'of the lease'`)
	_, ended, err := s.Users.EndLease(t.Context(), p, l.ID.String())
	if err != nil || ended.State != lease.Blocked || len(ended.BlockedBy) == 0 {
		t.Fatalf("%+v, %v", ended, err)
	}
	wantState(t, s, l, lease.Blocked, lease.Deleted)
	if s.PG.Login(l.Username, secret) == nil {
		t.Error("the lease still logs in")
	}
	if _, err := session.Exec(t.Context(), `SELECT 1`); err == nil {
		t.Error("its session lives")
	}
	err = s.Users.DeleteUser(t.Context(), p, s.ClusterID, l.Username, dbuser.Deletion{}, nil)
	if !fault.Is(err, fault.InUse) || !strings.Contains(err.Error(), ended.BlockedBy[0]) {
		t.Errorf("deleted as a user: %v", err)
	}
	before := len(recorded(t, s, l.Username))
	for range 2 {
		execControl(t, s, `UPDATE tasks SET due = now() WHERE key = $1`, l.ID)
		runDue(t, s)
	}
	if rows := recorded(t, s, l.Username); len(rows) != before {
		t.Errorf("recorded: %q", rows[before:])
	}
	wantState(t, s, l, lease.Blocked, lease.Deleted)
	if got := stored(t, s, l).BlockedBy; !slices.Equal(got, ended.BlockedBy) {
		t.Errorf("blocked by %q, was %q", got, ended.BlockedBy)
	}
	_, _, _, err = s.Users.RenewLease(t.Context(), p, l.ID.String(), time.Hour)
	wantKind(t, err, fault.Invalid)

	s.PG.Exec(t, `ROLLBACK PREPARED 'of the lease'`)
	execControl(t, s, `UPDATE tasks SET due = now() WHERE key = $1`, l.ID)
	runDue(t, s)
	wantState(t, s, l, lease.Ended, lease.Deleted)
	if got := stored(t, s, l).BlockedBy; len(got) > 0 {
		t.Errorf("it has ended, and is blocked by %q", got)
	}
}

// Whichever of two ends a lease, it has ended once.
func TestLeaseEndsTwiceAtOnce(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	replica := &dbuser.Service{Clusters: s.Clusters, Audit: s.Audit, Accounts: s.Accounts, LeaseStore: s.Users.LeaseStore,
		Log: s.Users.Log}
	for range 10 {
		l, _ := take(t, s, p, dbuser.NewLease{For: "app"})
		var group sync.WaitGroup
		for _, users := range []*dbuser.Service{s.Users, replica, s.Users, replica} {
			group.Go(func() {
				if _, _, err := users.EndLease(context.Background(), p, l.ID.String()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		wantState(t, s, l, lease.Ended, lease.Deleted)
		done := 0
		for _, row := range recorded(t, s, l.Username) {
			if strings.HasPrefix(row, "done lease.end") {
				done++
			}
		}
		if done != 1 {
			t.Errorf("it was ended %d times: %q", done, recorded(t, s, l.Username))
		}
	}
}

// A lease that is to end while its cluster is unreachable ends when the cluster is back.
func TestLeaseEndsAfterOutage(t *testing.T) {
	t.Parallel()
	m := newLeaseModel(t)
	p := m.accounts[0].p
	l, secret := take(t, m.s, p, dbuser.NewLease{For: "app"})
	m.down(nil)
	_, _, err := m.users.EndLease(t.Context(), p, l.ID.String())
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "ends as soon as possible") {
		t.Errorf("ended while the cluster is unreachable: %v", err)
	}
	execControl(t, m.s, `UPDATE tasks SET due = now() WHERE key = $1`, l.ID)
	if _, err := worker(m.s).RunDue(t.Context()); err == nil {
		t.Error("its end was done while the cluster is unreachable")
	}
	if now := stored(t, m.s, l); now.State != lease.Ending || now.Reason != lease.Deleted {
		t.Errorf("it is %s because of %q", now.State, now.Reason)
	}
	if err := m.pg.Login(l.Username, secret); err != nil {
		t.Error(err) // nobody could shut it
	}
	m.up()
	execControl(t, m.s, `UPDATE tasks SET due = now() WHERE key = $1`, l.ID)
	runDue(t, m.s)
	if now := stored(t, m.s, l); now.State != lease.Ended || now.Reason != lease.Deleted {
		t.Errorf("it is %s because of %q", now.State, now.Reason)
	}
	if m.pg.Login(l.Username, secret) == nil {
		t.Error("it logs in after its end")
	}
}

// A role whose comment SQL has changed is not touched: the lease is blocked until people have dropped the role.
func TestLeaseCommentChanged(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	ended, secret := take(t, s, p, dbuser.NewLease{For: "app"})
	swept, _ := take(t, s, p, dbuser.NewLease{For: "app"})
	s.PG.Exec(t, `COMMENT ON ROLE `+ended.Username+` IS NULL; COMMENT ON ROLE `+swept.Username+` IS 'of somebody'`)
	_, l, err := s.Users.EndLease(t.Context(), p, ended.ID.String())
	if err != nil || l.State != lease.Blocked || len(l.BlockedBy) != 1 || !strings.Contains(l.BlockedBy[0], "Drop it by SQL") {
		t.Fatalf("%+v, %v", l, err)
	}
	old := aged() // a sweep leaves a lease alone that may be being made
	execControl(t, s, `UPDATE leases SET id = $2 WHERE id = $1`, swept.ID, old)
	execControl(t, s, `UPDATE tasks SET key = $2 WHERE key = $1`, swept.ID, old)
	swept.ID = old
	sweep(t, s)
	runDue(t, s)
	wantState(t, s, swept, lease.Blocked, lease.Gone)
	if err := s.PG.Login(ended.Username, secret); err != nil {
		t.Errorf("the role was touched: %v", err)
	}
	c, err := s.Clusters.Get(s.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	problems, err := s.Users.LeaseProblems(t.Context(), c)
	if err != nil || len(problems[c.ID]) != 2 || !strings.Contains(strings.Join(problems[c.ID], ""), ended.Username) {
		t.Errorf("the cluster has the problems %q, %v", problems, err)
	}

	before := len(recorded(t, s, ended.Username))
	again := func() {
		t.Helper()
		execControl(t, s, `UPDATE tasks SET due = now()`)
		runDue(t, s)
		sweep(t, s)
	}
	again()
	if rows := recorded(t, s, ended.Username); len(rows) != before {
		t.Errorf("recorded: %q", rows[before:])
	}
	wantState(t, s, ended, lease.Blocked, lease.Deleted)
	// One is dropped by SQL, the other is given to people under another name.
	s.PG.Exec(t, `DROP ROLE `+ended.Username+`; ALTER ROLE `+swept.Username+` RENAME TO kept`)
	again()
	wantState(t, s, ended, lease.Ended, lease.Deleted)
	wantState(t, s, swept, lease.Ended, lease.Gone)
	if !hasRole(t, s, "kept") {
		t.Error("a role that is no lease any more was dropped")
	}
}

// A role that is made again by SQL with the record of a lease is not the lease's, unless the whole cluster was.
func TestLeaseRoleMadeAgain(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, _ := take(t, s, p, dbuser.NewLease{For: "app"})
	administrator, _ := servicetest.Administrator(t, s.PG)
	again := func() {
		t.Helper()
		// From PostgreSQL 16 on the administering role has the option on what it has created only.
		s.PG.Exec(t, `DO $$ DECLARE record text = shobj_description(to_regrole('`+l.Username+`'), 'pg_authid'); BEGIN
			DROP ROLE `+l.Username+`; CREATE ROLE `+l.Username+` LOGIN IN ROLE app;
			EXECUTE format('COMMENT ON ROLE `+l.Username+` IS %L', record);
			IF '`+administrator+`' <> current_user THEN GRANT `+l.Username+` TO `+administrator+` WITH ADMIN OPTION; END IF;
			END $$`)
	}
	again()
	_, ended, err := s.Users.EndLease(t.Context(), p, l.ID.String())
	if err != nil || ended.State != lease.Blocked || !strings.Contains(ended.BlockedBy[0], "it is another role") {
		t.Errorf("%+v, %v", ended, err)
	}
	execControl(t, s, `UPDATE leases SET state = 'ended', blocked_by = '{}', ended_at = now() - interval '1 h'`)
	sweep(t, s)
	wantState(t, s, &lease.Lease{ID: l.ID}, lease.Ended, lease.Deleted)

	// Another cluster has taken its place, and was restored from a dump.
	l, _ = take(t, s, p, dbuser.NewLease{For: "app"})
	again()
	if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error { return lease.ClearRoles(t.Context(), tx, l.Cluster) }); err != nil {
		t.Fatal(err)
	}
	sweep(t, s)
	if now := stored(t, s, l); now.RoleOID == 0 || now.RoleOID == l.RoleOID {
		t.Errorf("the OID is %d, was %d", now.RoleOID, l.RoleOID)
	}
	if _, _, err := s.Users.EndLease(t.Context(), p, l.ID.String()); err != nil {
		t.Error(err)
	}
	wantState(t, s, l, lease.Ended, lease.Deleted)
}

// Two installations that manage one cluster leave the leases of each other alone.
func TestLeasesOfAnotherInstallation(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	other := servicetest.New(t, s.PG)
	l, secret := take(t, s, p, dbuser.NewLease{For: "app"})
	works := func(on *servicetest.Service, rows int) {
		t.Helper()
		sweep(t, on)
		runDue(t, on)
		if n := live(t, on); n != rows {
			t.Errorf("it knows %d leases, want %d", n, rows)
		}
		if err := s.PG.Login(l.Username, secret); err != nil {
			t.Error(err)
		}
	}
	works(other, 0)
	works(s, 1)
	// An older backup of the control database was restored: it is that of the same installation.
	execControl(t, s, `DELETE FROM leases`)
	execControl(t, s, `DELETE FROM tasks`)
	works(s, 1)
	works(other, 0)
	// An older release did not write which one it is.
	execControl(t, s, `DELETE FROM leases`)
	s.PG.Exec(t, `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE `+l.Username+` IS %L', regexp_replace(
		shobj_description(to_regrole('`+l.Username+`'), 'pg_authid'), ',"installation":"[^"]*"', '')); END $$`)
	works(s, 1)
}

// A role that becomes protected while there are leases for it ends them: they would be a way around the protection.
func TestLeaseForBecomesProtected(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, secret := take(t, s, p, dbuser.NewLease{For: "app"})
	put(t, s, p, settings())
	c := current(t, s, p)
	session := s.PG.Connect(t, l.Username, secret, "postgres")
	s.PG.Exec(t, `ALTER ROLE app CREATEROLE`)
	sweep(t, s)
	if _, err := worker(s).RunDue(t.Context()); err == nil {
		t.Error("a credential was rotated for a system role")
	}
	wantState(t, s, l, lease.Ended, lease.AccessEnded)
	wantState(t, s, &lease.Lease{ID: c.Lease, Username: c.Username}, lease.Ended, lease.AccessEnded)
	for name, secret := range map[string]string{l.Username: secret, c.Username: string(c.Password)} {
		if s.PG.Login(name, secret) == nil {
			t.Errorf("%s logs in", name)
		}
	}
	if _, err := session.Exec(t.Context(), `SELECT 1`); err == nil {
		t.Error("its session lives")
	}
	_, _, _, err := s.Users.CreateLease(t.Context(), p, s.ClusterID, dbuser.NewLease{For: "app"})
	wantKind(t, err, fault.Forbidden)
	rows := s.AuditRows(t, l.Username)
	if last := rows[len(rows)-1]; last.Outcome != "done" || !strings.Contains(last.Detail, `"endReason": "accessEnded"`) ||
		!strings.Contains(last.Detail, `"for": "app"`) || !strings.Contains(last.Detail, l.ID.String()) {
		t.Errorf("recorded %+v", last)
	}
}

// The control database loses all its sessions while leases end: each ends all the same.
func TestLeasesEndWhileControlFails(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	for range 10 {
		take(t, s, p, dbuser.NewLease{For: "app", TTL: time.Second})
	}
	w := worker(s)
	w.Every, w.Claim = 10*time.Millisecond, 5*time.Second
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() { w.Run(ctx) })
	conn := s.PG.Connect(t, s.PG.User, s.PG.Password, "postgres")
	for left := 10; left > 0; {
		var now int
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'app\_%'`).Scan(&now); err != nil {
			t.Fatal(err)
		}
		if now < left {
			exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`+s.DB.Identity.Database+`'`)
			left = now
		}
		time.Sleep(10 * time.Millisecond)
	}
	fresh := s.PG.Connect(t, s.PG.User, s.PG.Password, s.DB.Identity.Database)
	for left := 10; left > 0; time.Sleep(10 * time.Millisecond) {
		if err := fresh.QueryRow(t.Context(),
			`SELECT count(*) FROM rolecall.leases WHERE state <> 'ended'`).Scan(&left); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	working.Wait()
}
