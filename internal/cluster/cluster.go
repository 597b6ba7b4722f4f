// Package cluster is the registry of managed PostgreSQL clusters: what is known of each, how it is reached, and its pool
// of connections. What is done over those connections belongs to package pgrole.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/label"
)

// Cluster is one managed PostgreSQL cluster, as it was when the registry last looked.
type Cluster struct {
	ID               uuid.UUID
	DisplayName      string
	Location         string
	Connection       Connection
	SystemIdentifier string
	SystemRoles      []string // globs of role names that are protected
	Manage, View     []label.Selector
	CreatedBy        string // guid of the account that registered it
	CreatedAt        time.Time
	UpdatedAt        time.Time

	config *pgxpool.Config
	mu     sync.Mutex
	pool   *pgxpool.Pool
	health Health
}

// Health is what the last contact with a cluster showed.
type Health struct {
	Reachable bool
	Version   string // as the server says it: "15.18 (Debian 15.18-0+deb12u1)"
	Error     string
	Checked   time.Time
}

// Pool returns the cluster's pool, which is opened at first use and holds no connection while nobody asks.
func (c *Cluster) Pool(ctx context.Context) (*pgxpool.Pool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool != nil {
		return c.pool, nil
	}
	var err error
	c.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), c.config.Copy())
	return c.pool, err
}

// Connect opens a connection to another database of the cluster, whose encoding it keeps. The caller closes it.
func (c *Cluster) Connect(ctx context.Context, database, encoding string) (*pgx.Conn, error) {
	return connect(ctx, c.config.ConnConfig, database, encoding)
}

// Host is the first host of the connection, for people.
func (c *Cluster) Host() string { return c.config.ConnConfig.Host }

// Stat returns the pool's counters, nil while it was never opened.
func (c *Cluster) Stat() *pgxpool.Stat {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool == nil {
		return nil
	}
	return c.pool.Stat()
}

// healthFor is how long a look at a cluster counts.
const healthFor = 10 * time.Second

// Health says whether the cluster answers, by asking it if nobody did within the last 10 seconds.
func (c *Cluster) Health(ctx context.Context) Health {
	if h := c.LastHealth(); time.Since(h.Checked) < healthFor {
		return h
	}
	h := Health{Checked: time.Now()}
	// What is found out counts for everybody, so it must not depend on whether this caller hangs up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	pool, err := c.Pool(ctx)
	if err == nil {
		err = pool.QueryRow(ctx, `SELECT current_setting('server_version')`).Scan(&h.Version)
	}
	if h.Reachable = err == nil; !h.Reachable {
		h.Error = err.Error()
		h.Version = c.LastHealth().Version
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health = h
	return h
}

// LastHealth is what the last look showed, however long ago that was.
func (c *Cluster) LastHealth() Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health
}

func (c *Cluster) close() {
	c.mu.Lock()
	pool := c.pool
	c.mu.Unlock()
	if pool != nil {
		go pool.Close() // waits for connections that requests still use
	}
}

// Registry is all clusters, in memory, and told of changes by the control database.
type Registry struct {
	db  *control.DB
	log *slog.Logger

	// reload is held through a whole Reload: of two at once, the one that read first must not have the last word.
	reload sync.Mutex

	mu     sync.RWMutex
	byID   map[uuid.UUID]*Cluster
	sorted []*Cluster
}

// Open reads the registry.
func Open(ctx context.Context, db *control.DB, log *slog.Logger) (*Registry, error) {
	r := &Registry{db: db, log: log}
	return r, r.Reload(ctx)
}

// Get returns a cluster, or NotFound in words that say no more than they must.
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

// Control says where the control database lies if that is in the cluster, so that it can be kept out of reach there.
// A restored copy of that cluster has the same identifier and is treated the same: too careful is the right side.
func (r *Registry) Control(c *Cluster) (database, role string) {
	if c.SystemIdentifier != r.db.Identity.System {
		return "", ""
	}
	return r.db.Identity.Database, r.db.Identity.Role
}

// secret is what is sealed of a connection.
type secret struct {
	Password string `json:"password"`
	Key      string `json:"key,omitempty"`
}

func sealPlace(id uuid.UUID) string { return "clusters/" + id.String() + "/credential" }

// Reload reads the clusters from the control database. A cluster that did not change keeps its pool.
func (r *Registry) Reload(ctx context.Context) error {
	r.reload.Lock()
	defer r.reload.Unlock()
	rows, err := r.db.Pool.Query(ctx, `
		SELECT id, display_name, location, url, tls, credential, system_identifier, system_roles, manage, view, created_by, created_at, updated_at
		FROM clusters ORDER BY display_name COLLATE "C"`)
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
		if old := r.byID[c.ID]; old != nil && old.UpdatedAt.Equal(c.UpdatedAt) {
			clusters[i] = old
		}
		byID[c.ID] = clusters[i]
	}
	for id, old := range r.byID {
		if byID[id] != old {
			time.AfterFunc(grace, old.close)
		}
	}
	r.byID, r.sorted = byID, clusters
	return nil
}

// grace is how long a cluster that was changed or removed keeps its pool: requests that found it go on with it.
const grace = 2 * time.Minute

func (r *Registry) scan(row pgx.CollectableRow) (*Cluster, error) {
	c := &Cluster{}
	var sealed []byte
	var manage, view []string
	err := row.Scan(&c.ID, &c.DisplayName, &c.Location, &c.Connection.URL, &c.Connection.TLS, &sealed, &c.SystemIdentifier,
		&c.SystemRoles, &manage, &view, &c.CreatedBy, &c.CreatedAt, &c.UpdatedAt)
	if err != nil {
		return nil, err
	}
	opened, err := r.db.Keys.Open(sealPlace(c.ID), sealed)
	if err != nil {
		return nil, err
	}
	var s secret
	if err := json.Unmarshal(opened, &s); err != nil {
		return nil, errors.New(sealPlace(c.ID) + " cannot be decoded")
	}
	c.Connection.Password, c.Connection.Key = s.Password, s.Key
	if c.config, err = c.Connection.config(); err != nil {
		return nil, err
	}
	if c.Manage, err = selectors(manage); err != nil {
		return nil, err
	}
	c.View, err = selectors(view)
	return c, err
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

// Put registers a cluster, or changes the connection of one that is registered, and records it in the audit log. A
// registered one that is the same already is left alone.
func (r *Registry) Put(ctx context.Context, c *Cluster, by audit.Entry) error {
	if _, err := c.Connection.config(); err != nil {
		return err
	}
	if old, err := r.Get(c.ID.String()); err == nil && old.Connection == c.Connection && old.SystemIdentifier == c.SystemIdentifier {
		return nil
	}
	opened, err := json.Marshal(secret{c.Connection.Password, c.Connection.Key})
	if err != nil {
		return err
	}
	err = r.db.Tx(ctx, func(tx pgx.Tx) error {
		var inserted bool
		err := tx.QueryRow(ctx, `
			INSERT INTO clusters (id, display_name, location, url, tls, credential, system_identifier, created_by)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (id) DO UPDATE SET url = excluded.url, tls = excluded.tls, credential = excluded.credential,
			  system_identifier = excluded.system_identifier, updated_at = clock_timestamp()
			RETURNING xmax = 0`,
			c.ID, c.DisplayName, c.Location, c.Connection.URL, c.Connection.TLS, r.db.Keys.Seal(sealPlace(c.ID), opened),
			c.SystemIdentifier, c.CreatedBy).Scan(&inserted)
		if err != nil {
			return err
		}
		by.Action, by.Cluster = audit.UpdateCluster, c.ID
		if inserted {
			by.Action = audit.RegisterCluster
		}
		return audit.Record(ctx, tx, by)
	})
	if err != nil {
		return err
	}
	return r.Reload(ctx)
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
		wait, cancel := context.WithTimeout(ctx, 30*time.Second)
		_, err := conn.WaitForNotification(wait)
		cancel()
		if err != nil && (wait.Err() == nil || ctx.Err() != nil || conn.IsClosed()) {
			return err
		}
	}
}

// Close ends all connections.
func (r *Registry) Close() {
	for _, c := range r.All() {
		c.close()
	}
}
