// Package cluster is the registry of managed PostgreSQL clusters: what is known of each, how it is reached, and its pool
// of connections. What is done over those connections, beyond finding out which cluster is at their other end, belongs
// to package pgrole.
package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/failpoint"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
	"rolecall/internal/primary"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
)

// Cluster is one managed PostgreSQL cluster, as it was when the registry last looked.
type Cluster struct {
	ID               uuid.UUID
	DisplayName      string
	Location         string
	Connection       Connection
	SystemIdentifier string              // of the only cluster that anything is done in; "": not known
	IdentifiedAt     time.Time           // when an admin said that another cluster has taken this one's place; zero: never
	Capabilities     pgrole.Capabilities // as the last probe found them; zero: never probed
	SystemRoles      []string            // globs of role names that are protected
	MemberOf         []string            // roles that a new user is made a member of
	Grantable        []string            // roles that a user may be made a member of
	Manage, View     []label.Selector
	Leases           lease.Limits
	CreatedBy        string // guid of the account that registered it
	CreatedAt        time.Time
	UpdatedAt        time.Time
	Revision         int64 // moves with every change of what an admin sets

	controlDatabase, controlRole string      // Rolecall's own, if they lie in this cluster
	FingerprintKey               secret.Text // of this installation
	maximumWaits                 pgrole.Waits

	rotatedBy uuid.UUID // the attempt that generated the password; zero: an admin gave it
	err       error     // why its row cannot be read, and so nothing can be done in it
	version   string    // of the row
	batcher   *pgrole.Batcher
	connector *connector
}

// connector is how a cluster is reached. It outlives changes that do not concern it: a new access rule costs no connection.
type connector struct {
	config *pgxpool.Config
	log    *slog.Logger
	queues *Queues
	asking sync.Mutex // held while Health asks

	signIns signIns
	waits   Waits

	mu          sync.Mutex
	pool        *pgxpool.Pool
	health      Health
	unsure      bool                // the connection that was begun last does not confirm health
	unconfirmed bool                // a COMMIT was not confirmed in time, and nobody has asked why
	pending     string              // the next password, while the cluster may or may not know it
	identity    string              // the system identifier of the cluster that it must lead to; "": any
	refused     string              // why it was not known to lead there when it was last tried; "": it was
	major       int                 // the PostgreSQL that it led to last, such as 17; 0: not known
	primary     netip.AddrPort      // where it was last
	addresses   map[string][]string // of hosts, by name
}

// Health is what the last contact with a cluster showed.
type Health struct {
	Reachable bool
	Stopped   bool   // nothing is done in the cluster until an admin has corrected the registration
	Version   string // as the server says it: "15.18 (Debian 15.18-0+deb12u1)"
	Problem   string // what keeps changes waiting; "": nothing
	Error     string
	Checked   time.Time
	Since     time.Time // when this process first saw it as Reachable as it is
}

// Pool returns the cluster's pool, which is opened at first use and holds no connection while nobody asks.
func (c *Cluster) Pool(ctx context.Context) (*pgxpool.Pool, error) {
	if c.err != nil {
		return nil, c.err
	}
	c.connector.mu.Lock()
	defer c.connector.mu.Unlock()
	if c.connector.pool != nil {
		return c.connector.pool, nil
	}
	var err error
	c.connector.pool, err = c.connector.newPool(ctx)
	return c.connector.pool, err
}

// Connect opens a connection to another database of the cluster, whose encoding it keeps. The caller closes it.
func (c *Cluster) Connect(ctx context.Context, database, encoding string) (*pgx.Conn, error) {
	if c.err != nil {
		return nil, c.err
	}
	config := c.connector.config.ConnConfig.Copy()
	if err := c.connector.prepare(ctx, config); err != nil {
		return nil, err
	}
	return pgrole.ConnectTo(ctx, config, database, encoding)
}

// Server is the cluster as pgrole works on it. Objects of a deleted user may go to the reassignable roles; nil: to any.
func (c *Cluster) Server(ctx context.Context, reassignable []string) (*pgrole.Server, error) {
	pool, err := c.Pool(ctx)
	if err != nil {
		return nil, err
	}
	return &pgrole.Server{
		Pool:            pool,
		Connect:         c.Connect,
		OneHost:         len(c.connector.config.ConnConfig.Fallbacks) == 0,
		SystemRoles:     c.SystemRoles,
		MemberOf:        c.MemberOf,
		Grantable:       c.Grantable,
		Reassignable:    reassignable,
		ControlDatabase: c.controlDatabase,
		ControlRole:     c.controlRole,
		FingerprintKey:  c.FingerprintKey,
		Waits:           c.maximumWaits,
		Batcher:         c.batcher,
	}, nil
}

// Queues bound what is done in the cluster at a time. They outlive changes of its access rules.
func (c *Cluster) Queues() *Queues { return c.connector.queues }

// Host is the first host of the connection, for people.
func (c *Cluster) Host() string { return c.connector.config.ConnConfig.Host }

// Role is the administering role.
func (c *Cluster) Role() string { return c.connector.config.ConnConfig.User }

// Stat returns the pool's counters, nil while it was never opened.
func (c *Cluster) Stat() *pgxpool.Stat {
	c.connector.mu.Lock()
	defer c.connector.mu.Unlock()
	if c.connector.pool == nil {
		return nil
	}
	return c.connector.pool.Stat()
}

// Waits is how long requests have waited for a connection of the pool.
func (c *Cluster) Waits() *Waits { return &c.connector.waits }

// healthFor is how long a look at a cluster counts.
const healthFor = 10 * time.Second

// Unconfirmed asks the cluster why a COMMIT was not confirmed in time.
func (c *Cluster) Unconfirmed(ctx context.Context) Health {
	c.connector.mu.Lock()
	c.connector.unconfirmed = true
	c.connector.mu.Unlock()
	return c.Health(ctx)
}

// suspectsStandby reports whether changes may wait for a standby: one did so, and it is not known that this has ended.
func (c *Cluster) suspectsStandby() bool {
	if c.connector == nil { // it is not registered yet
		return false
	}
	c.connector.mu.Lock()
	defer c.connector.mu.Unlock()
	suspected := c.connector.unconfirmed || c.connector.health.Problem != ""
	c.connector.unconfirmed = false
	return suspected
}

// Health says whether the cluster answers, by asking it if nobody did within the last 10 seconds, or if a connection has
// shown otherwise since.
func (c *Cluster) Health(ctx context.Context) Health { return c.healthWithin(ctx, healthFor) }

// healthWithin is what was found within an age. Only one asks: while the answer is awaited, all others make do with the last
// one.
func (c *Cluster) healthWithin(ctx context.Context, age time.Duration) Health {
	h, valid := c.connector.lastHealth(age)
	if c.err != nil || valid {
		return h
	}
	if !c.connector.asking.TryLock() {
		if !h.Checked.IsZero() {
			return h
		}
		c.connector.asking.Lock()
	}
	defer c.connector.asking.Unlock()
	if h, valid := c.connector.lastHealth(age); valid {
		return h
	}
	// What is found out counts for everybody, so it must not depend on whether this caller hangs up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	facts, err := c.ask(ctx)
	if err == nil && len(facts.Version) > maxFact {
		err = tooLong(c.connector.config.ConnConfig)
	}
	if err != nil {
		err = whyNot(err, c.connector.config.ConnConfig)
	}
	return c.recordHealth(facts, err)
}

// ask asks over a connection that the pool has, and else over one that it closes: a request for a list of a
// thousand clusters leaves no thousand connections behind.
func (c *Cluster) ask(ctx context.Context) (Facts, error) {
	if stat := c.Stat(); stat != nil && stat.TotalConns() > 0 {
		pool, err := c.Pool(ctx)
		if err != nil {
			return Facts{}, err
		}
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return Facts{}, err
		}
		defer conn.Release()
		return c.askOver(ctx, conn.Conn())
	}
	config := c.connector.config.ConnConfig.Copy()
	if err := c.connector.prepare(ctx, config); err != nil {
		return Facts{}, err
	}
	conn, err := connect(ctx, config)
	if err != nil {
		return Facts{}, err
	}
	defer closeConn(conn)
	return c.askOver(ctx, conn)
}

func (c *Cluster) askOver(ctx context.Context, conn *pgx.Conn) (facts Facts, err error) {
	facts.Version = conn.PgConn().ParameterStatus("server_version")
	if facts.StandbyProblem, err = pgrole.StandbyProblem(ctx, conn, c.suspectsStandby()); err != nil {
		return facts, err
	}
	return facts, writable(conn)
}

// writable says why the cluster takes no changes; nil if it does.
func writable(conn *pgx.Conn) error {
	if primary.TakesWrites(conn.PgConn()) {
		return nil
	}
	return primary.Refusal(conn.PgConn())
}

// Healths looks at clusters side by side, so that an unreachable one delays a list only briefly.
func Healths(ctx context.Context, clusters []*Cluster) []Health {
	return healthsWithin(ctx, clusters, healthFor)
}

func healthsWithin(ctx context.Context, clusters []*Cluster, age time.Duration) []Health {
	healths := make([]Health, len(clusters))
	slots := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for i, c := range clusters {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			healths[i] = c.healthWithin(ctx, age)
		})
	}
	wg.Wait()
	return healths
}

// recordHealth notes what a contact with the cluster showed, or why there was none.
func (c *Cluster) recordHealth(facts Facts, err error) Health {
	c.connector.mu.Lock()
	defer c.connector.mu.Unlock()
	h := Health{Reachable: err == nil, Stopped: errors.Is(err, ErrOther), Version: facts.Version,
		Problem: facts.StandbyProblem, Checked: time.Now()}
	if err != nil {
		h.Error, h.Version, h.Problem = fault.Of(explainAuthError(err)).Message, c.connector.health.Version, ""
		if other, ok := errors.AsType[*intruder](err); ok {
			h.Error = other.Error()
		}
	}
	h.Since = h.Checked
	if last := c.connector.health; last.Reachable == h.Reachable && !last.Since.IsZero() {
		h.Since = last.Since
	}
	c.connector.health, c.connector.unsure = h, false
	if err == nil {
		c.connector.signIns.end(nil) // registering and probing have connections of their own
	}
	return h
}

// explainAuthError adds what an admin can do if the stored password is no longer accepted.
func explainAuthError(err error) error {
	if !sqlstate.Is(err, sqlstate.InvalidPassword) {
		return err
	}
	return fault.New(fault.Of(err).Kind, "%s It was changed since, or the control database was restored from a backup from "+
		"before its last rotation. "+
		"Give the role a new password in the cluster, and update the registration with it.", fault.Of(err).Message).Because(err)
}

// LastHealth is what the last look showed, however long ago that was.
func (c *Cluster) LastHealth() Health {
	h, _ := c.connector.lastHealth(0)
	return h
}

// Unreachable reports that the cluster did not answer when it was last asked. What is due in it waits.
func (c *Cluster) Unreachable() bool {
	h := c.LastHealth()
	return !h.Checked.IsZero() && !h.Reachable
}

// lastHealth returns the last health, and whether it is of the last age and no connection has shown otherwise since.
func (l *connector) lastHealth(age time.Duration) (h Health, valid bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.health, time.Since(l.health.Checked) < age && !l.unsure && !l.unconfirmed
}

func (l *connector) close() {
	l.mu.Lock()
	pool := l.pool
	l.mu.Unlock()
	if pool != nil {
		go pool.Close() // waits for connections that requests still use
	}
}

// Registry is all clusters, in memory, and told of changes by the control database.
type Registry struct {
	// CheckEvery is how often Watch asks each cluster whether it answers; 0: every 15 seconds.
	CheckEvery time.Duration
	// MaximumWaits are those in clusters that are read from now on; the zero value is for production.
	MaximumWaits pgrole.Waits

	db    *control.DB
	audit *audit.Log
	log   *slog.Logger

	// reload is held through a whole Reload: of two at once, the one that read first must not have the last word.
	reload sync.Mutex

	mu     sync.RWMutex
	byID   map[uuid.UUID]*Cluster
	sorted []*Cluster
}

// Open reads the registry. A cluster that cannot be read is an error here, and not when it is used later: an admin who
// starts with the wrong master key is to know at once.
func Open(ctx context.Context, db *control.DB, log *slog.Logger) (*Registry, error) {
	r := &Registry{db: db, audit: &audit.Log{DB: db}, log: log}
	if err := r.Reload(ctx); err != nil {
		return nil, err
	}
	var unusable []error
	for _, c := range r.All() {
		if c.err != nil {
			unusable = append(unusable, c.err)
		}
	}
	return r, errors.Join(unusable...)
}

// Get returns a cluster, or NotFound.
func (r *Registry) Get(id string) (*Cluster, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if parsed, err := uuid.Parse(id); err == nil && len(id) == 36 {
		if c := r.byID[parsed]; c != nil {
			return c, nil
		}
	}
	return nil, NotFound(id)
}

// NotFound is the answer for a cluster that does not exist, and for one that the principal may not view.
func NotFound(id string) error {
	return fault.New(fault.NotFound, "There is no cluster %.64q.", id)
}

// All returns the clusters in the order of their display names.
func (r *Registry) All() []*Cluster {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sorted
}

// Control returns the control database and its role if they lie in a cluster, so that they are out of reach there. A
// restored copy of that cluster has the same identifier and is treated the same, to be on the safe side.
func (r *Registry) Control(systemIdentifier string) (database, role string) {
	if systemIdentifier != r.db.Identity.System {
		return "", ""
	}
	return r.db.Identity.Database, r.db.Identity.Role
}

// credential is what is sealed of a connection.
type credential struct {
	Password string `json:"password"`
	Key      string `json:"key,omitempty"`
	// Attempt is the recorded attempt that generated the password, which then only Rolecall knows. Zero: an admin gave it.
	Attempt uuid.UUID `json:"attempt,omitzero"`
}

func sealPlace(id uuid.UUID) string    { return "clusters/" + id.String() + "/credential" }
func pendingPlace(id uuid.UUID) string { return "clusters/" + id.String() + "/pending" }

func (r *Registry) seal(place string, s credential) ([]byte, error) {
	opened, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return r.db.Keys.Seal(place, opened), nil
}

func (r *Registry) open(place string, sealed []byte) (s credential, err error) {
	opened, err := r.db.Keys.Open(place, sealed)
	if err != nil {
		return s, err
	}
	if json.Unmarshal(opened, &s) != nil {
		return s, errors.New(place + " cannot be decoded")
	}
	return s, nil
}

const selectClusters = `
	SELECT id, display_name, location, url, tls, credential, pending, system_identifier, capabilities, system_roles,
	  member_of, grantable,
	       manage, view, created_by, created_at, updated_at, revision, synchronous_commit, identified_at,
	       lease_default_ttl, lease_max_ttl, lease_max_per_account, xmin::text
	FROM clusters `

// changed is Reload after a change of this replica's own.
func (r *Registry) changed(ctx context.Context) error {
	if err := r.Reload(ctx); err != nil {
		return fault.New(fault.Unavailable, "The change was made, and then the control database did not answer any more. Read "+
			"the cluster to see it.").
			After(5 * time.Second).Because(err)
	}
	return nil
}

// Reload reads the clusters from the control database. A cluster that did not change stays the same object, and one whose
// connection did not keeps its pool. One that cannot be read is out of service, and keeps none of the others.
func (r *Registry) Reload(ctx context.Context) error {
	r.reload.Lock()
	defer r.reload.Unlock()
	rows, err := r.db.Pool.Query(ctx, selectClusters+`ORDER BY display_name COLLATE "C"`)
	if err != nil {
		return control.Fault(err)
	}
	clusters, err := pgx.CollectRows(rows, r.scan)
	if err != nil {
		return control.Fault(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	byID := make(map[uuid.UUID]*Cluster, len(clusters))
	for i, c := range clusters {
		switch old := r.byID[c.ID]; {
		case old == nil:
		case old.version == c.version:
			clusters[i] = old
		case old.Connection == c.Connection && old.err == nil && c.err == nil:
			old.connector.mu.Lock()
			old.connector.pending, old.connector.identity = c.connector.pending, c.connector.identity
			if old.SystemIdentifier != c.SystemIdentifier && old.connector.pool != nil {
				old.connector.pool.Reset()
			}
			old.connector.mu.Unlock()
			old.connector.signIns.end(nil) // it may have failed for the identity
			c.connector = old.connector
		}
		byID[c.ID] = clusters[i]
		if now := clusters[i]; now.err != nil && r.byID[now.ID] != now {
			r.log.Error("a cluster is out of service", "cluster", now.ID, "error", now.err)
		}
	}
	for id, old := range r.byID {
		if now := byID[id]; now == nil || now.connector != old.connector {
			time.AfterFunc(grace, old.connector.close)
		}
	}
	r.byID, r.sorted = byID, clusters
	return nil
}

// grace is how long a cluster that was changed or removed keeps its pool: requests that found it go on with it.
const grace = 2 * time.Minute

// scan reads a row. What keeps the cluster from being worked with is noted in it, and no error.
func (r *Registry) scan(row pgx.CollectableRow) (*Cluster, error) {
	c := &Cluster{
		batcher: pgrole.NewBatcher(12 * time.Second),
		connector: &connector{
			config:    &pgxpool.Config{ConnConfig: &pgx.ConnConfig{}},
			queues:    newQueues(),
			addresses: map[string][]string{},
		},
	}
	var sealed, pending, capabilities []byte
	var manage, view []string
	var synchronousCommit *string
	var identifiedAt *time.Time
	err := row.Scan(&c.ID, &c.DisplayName, &c.Location, &c.Connection.URL, &c.Connection.TLS, &sealed, &pending,
		&c.SystemIdentifier,
		&capabilities, &c.SystemRoles, &c.MemberOf, &c.Grantable, &manage, &view, &c.CreatedBy, &c.CreatedAt, &c.UpdatedAt,
		&c.Revision,
		&synchronousCommit, &identifiedAt, &c.Leases.DefaultTTL, &c.Leases.MaxTTL, &c.Leases.MaxPerAccount, &c.version)
	if err != nil {
		return nil, err
	}
	if synchronousCommit != nil {
		c.Connection.SynchronousCommit = *synchronousCommit
	}
	if identifiedAt != nil {
		c.IdentifiedAt = *identifiedAt
	}
	_ = json.Unmarshal(capabilities, &c.Capabilities) // one of another release may be none; the next probe stores it again
	c.controlDatabase, c.controlRole = r.Control(c.SystemIdentifier)
	c.FingerprintKey, c.maximumWaits = r.db.FingerprintKey, r.MaximumWaits
	c.connector.log, c.connector.identity = r.log.With("cluster", c.ID), c.SystemIdentifier
	if err := r.openRow(c, sealed, pending, manage, view); err != nil {
		why := fault.New(fault.Unavailable, "The registration of the cluster %q cannot be read, so nothing is done in it until "+
			"an admin has corrected it.", c.DisplayName)
		c.err = why.AsOutage().After(time.Minute).Because(err)
		c.connector.health = Health{Stopped: true, Error: why.Message + " " + err.Error(), Checked: time.Now()}
	}
	return c, nil
}

// openRow opens and parses the secrets and selectors of a row.
func (r *Registry) openRow(c *Cluster, sealed, pending []byte, manage, view []string) error {
	var err error
	if c.Manage, err = selectors(manage); err != nil {
		return err
	}
	if c.View, err = selectors(view); err != nil {
		return err
	}
	s, err := r.open(sealPlace(c.ID), sealed)
	if err != nil {
		return err
	}
	c.Connection.Password, c.Connection.Key, c.rotatedBy = secret.Text(s.Password), secret.Text(s.Key), s.Attempt
	if pending != nil {
		s, err := r.open(pendingPlace(c.ID), pending)
		if err != nil {
			return err
		}
		c.connector.pending = s.Password
	}
	config, err := c.Connection.config()
	if err != nil {
		return err
	}
	c.connector.config = config
	c.connector.signIns.database, c.connector.signIns.cluster = config.ConnConfig.Database, c.ID.String()
	config.ConnConfig.Tracer = &c.connector.signIns
	config.ConnConfig.ValidateConnect, config.ConnConfig.LookupFunc = c.connector.validate, c.connector.lookUp
	failpoint.On(config.ConnConfig)
	return nil
}

func selectors(texts []string) ([]label.Selector, error) {
	var parsed []label.Selector
	for _, text := range texts {
		s, err := label.ParseRule(text)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, s)
	}
	return parsed, nil
}

// locked reads a cluster within tx and holds its row.
func (r *Registry) locked(ctx context.Context, tx pgx.Tx, id uuid.UUID) (*Cluster, error) {
	rows, err := tx.Query(ctx, selectClusters+`WHERE id = $1 FOR UPDATE`, id)
	if err != nil {
		return nil, err
	}
	c, err := pgx.CollectExactlyOneRow(rows, r.scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, NotFound(id.String())
	}
	return c, err
}

// Ensure registers a cluster without a look at it, or changes the connection of one that is registered, and records it in
// the audit log. A registered one that is the same already is left alone. A password that Rolecall gave itself since is
// kept: the caller cannot know it.
func (r *Registry) Ensure(ctx context.Context, c *Cluster, by audit.Entry) error {
	if _, err := c.Connection.config(); err != nil {
		return err
	}
	err := r.db.Tx(ctx, func(tx pgx.Tx) error {
		s := credential{Password: string(c.Connection.Password), Key: string(c.Connection.Key)}
		switch old, err := r.locked(ctx, tx, c.ID); {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return err
		default:
			now := c.Connection
			if old.rotatedBy != uuid.Nil {
				s.Password, s.Attempt = string(old.Connection.Password), old.rotatedBy
				now.Password = old.Connection.Password
			}
			now.SynchronousCommit = old.Connection.SynchronousCommit
			if old.Connection == now && old.SystemIdentifier == c.SystemIdentifier {
				return nil
			}
		}
		sealed, err := r.seal(sealPlace(c.ID), s)
		if err != nil {
			return err
		}
		var inserted bool
		err = tx.QueryRow(ctx, `
			INSERT INTO clusters (id, display_name, location, url, tls, credential, system_identifier, created_by)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (id) DO UPDATE SET url = excluded.url, tls = excluded.tls, credential = excluded.credential,
			  system_identifier = excluded.system_identifier, updated_at = clock_timestamp(), revision = clusters.revision + 1
			RETURNING xmax = 0`,
			c.ID, c.DisplayName, c.Location, c.Connection.URL, c.Connection.TLS, sealed, c.SystemIdentifier,
			c.CreatedBy).Scan(&inserted)
		if err != nil {
			return err
		}
		by.Action, by.Cluster = audit.UpdateCluster, c.ID
		if inserted {
			by.Action = audit.RegisterCluster
		}
		return r.record(ctx, tx, by)
	})
	if err != nil {
		return err
	}
	return r.Reload(ctx)
}

const checkEvery = 15 * time.Second

// Watch asks each cluster now and then whether it answers, until ctx ends: metrics must not depend on requests.
func (r *Registry) Watch(ctx context.Context) {
	every := cmp.Or(r.CheckEvery, checkEvery)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		healthsWithin(ctx, r.All(), every/2)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Away returns the clusters that did not answer when they were last asked.
func (r *Registry) Away() (ids []uuid.UUID) {
	for _, c := range r.All() {
		if c.Unreachable() {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// Run keeps the registry up to date until ctx ends: at once when the control database says so, and every 30 seconds in
// case a notification was lost with its connection.
func (r *Registry) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.listen(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("the registry of clusters is not up to date", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (r *Registry) listen(ctx context.Context) error {
	pooled, err := r.db.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `LISTEN rolecall_clusters`); err != nil {
		return err
	}
	for {
		if err := r.Reload(ctx); err != nil {
			return err
		}
		if err := awaitChange(ctx, conn); err != nil {
			return err
		}
	}
}

// awaitChange returns when a notification comes, or after 30 seconds. Now and then it asks whether the connection is
// alive: over a dead one no notification comes, and nobody says so.
func awaitChange(ctx context.Context, conn *pgx.Conn) error {
	for range 6 {
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := conn.WaitForNotification(wait)
		silent := wait.Err() != nil && ctx.Err() == nil && !conn.IsClosed()
		cancel()
		if err == nil || !silent {
			return err
		}
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		err = conn.Ping(ask)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// Close ends all connections.
func (r *Registry) Close() {
	for _, c := range r.All() {
		c.connector.close()
	}
}
