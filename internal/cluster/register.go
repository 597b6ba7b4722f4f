package cluster

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

// probeTimeout is how long a cluster may take to be probed.
const probeTimeout = 25 * time.Second

// minVersion is the server_version_num of the oldest PostgreSQL that is managed.
const minVersion = 140000

// errPlaceTaken is the answer after placeAttempts in which other clusters of the same identity were registered or moved.
var errPlaceTaken = fault.New(fault.Unavailable, "Other clusters are being registered or moved at this moment.").After(
	time.Second)

const placeAttempts = 3

// Register puts a cluster under management. It is reachable, a primary and not registered yet, and its administering role
// can manage users.
func (r *Registry) Register(ctx context.Context, settings Settings, to Connection, by audit.Entry) (*Cluster, error) {
	purpose, err := settings.ofNew()
	if err != nil {
		return nil, err
	}
	for range placeAttempts {
		if err := r.nameIsFree(ctx, *settings.DisplayName); err != nil {
			return nil, err
		}
		found, err := r.probe(ctx, &to, purpose)
		if err != nil {
			return nil, err
		}
		c, err := r.add(ctx, settings, to, found, by)
		if err == nil {
			c.recordHealth(found.Facts, nil)
		}
		if !errors.Is(err, errNotCompared) {
			return c, err
		}
	}
	return nil, errPlaceTaken
}

// ofNew checks the settings of a cluster that is to be registered, and returns the cluster as far as a probe needs it.
func (s *Settings) ofNew() (*Cluster, error) {
	if s.DisplayName == nil {
		return nil, fault.New(fault.Invalid, "The field displayName is missing.").At("displayName")
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	if _, err := s.Leases.change(lease.DefaultLimits); err != nil {
		return nil, err
	}
	return &Cluster{MemberOf: orNone(s.MemberOf), Grantable: orNone(s.Grantable), SystemRoles: orNone(s.SystemRoles)}, nil
}

// nameIsFree refuses a name that a cluster has already, also one that another replica has registered.
func (r *Registry) nameIsFree(ctx context.Context, displayName string) error {
	if err := r.Reload(ctx); err != nil {
		return err
	}
	for _, c := range r.All() {
		if c.DisplayName == displayName {
			return taken(displayName)
		}
	}
	return nil
}

func orNone(list *[]string) []string {
	if list == nil {
		return nil
	}
	return *list
}

// probe is inspect, and refuses a cluster that cannot be managed.
func (r *Registry) probe(ctx context.Context, to *Connection, c *Cluster) (*found, error) {
	found, err := r.inspect(ctx, to, c)
	if err == nil {
		err = found.refusal()
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// refusal is why the cluster cannot be managed; nil if it can.
func (f *found) refusal() error {
	if can := f.Capabilities; !can.ManageUsers || can.Version < minVersion {
		return fault.New(fault.Invalid, "Rolecall cannot manage users there as the role %q. %s", can.Role,
			strings.Join(can.Problems, " "))
	}
	return nil
}

// inspect finds out what is behind a connection and what the administering role can do there. It refuses a cluster that is
// registered as another one than c, and, if c is registered, one that is not c.
func (r *Registry) inspect(ctx context.Context, to *Connection, c *Cluster) (*found, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, facts, err := to.Open(ctx)
	if err != nil {
		return nil, unacceptable(err)
	}
	defer closeConn(conn)
	if c.SystemIdentifier != "" && facts.SystemIdentifier != c.SystemIdentifier {
		return nil, fault.New(fault.Invalid, "This is another cluster: its system identifier is %s, not %s. If it has taken "+
			"that one's place, update the "+
			"registration with the system identifier %[1]s. Otherwise register it as a cluster of its own.", facts.SystemIdentifier,
			c.SystemIdentifier).
			Because(ErrOther)
	}
	same, compared, err := r.same(ctx, conn, facts.SystemIdentifier, c.ID)
	if err != nil {
		return nil, unacceptable(err)
	}
	if same != nil {
		return nil, fault.New(fault.Exists, "This cluster is registered already, as %q.", same.DisplayName)
	}
	purpose := pgrole.Purpose{MemberOf: c.MemberOf, Grantable: c.Grantable, SystemRoles: c.SystemRoles}
	purpose.ControlDatabase, purpose.ControlRole = r.Control(facts.SystemIdentifier)
	capabilities, err := pgrole.Probe(ctx, conn, purpose)
	if err != nil {
		return nil, fault.New(fault.Invalid, "The cluster went away, or did not answer, while it was probed.").Because(err)
	}
	facts.StandbyProblem, err = pgrole.StandbyProblem(ctx, conn, c.suspectsStandby())
	if err != nil {
		return nil, unacceptable(whyNot(err, conn.Config()))
	}
	return &found{Facts: facts, Capabilities: *capabilities, Compared: compared}, nil
}

// unacceptable turns a cluster that does not answer into a value that is not acceptable: the caller named it, and nothing
// of Rolecall's is unreachable.
func unacceptable(err error) error {
	if f := fault.Of(err); f.Kind == fault.Unavailable {
		return fault.New(fault.Invalid, "%s", f.Message).Because(err)
	}
	return err
}

// ConnectionChange is what changes in a connection; nil stays.
type ConnectionChange struct {
	URL      *string
	Password *secret.Text
	TLS      *TLS
	Key      *secret.Text // goes with TLS
	// SystemIdentifier is that of the cluster which has taken the place of the registered one.
	SystemIdentifier *string
}

// apply refuses to send a password that the caller does not know to where it could be read in clear.
func (ch *ConnectionChange) apply(to Connection) (Connection, error) {
	before := to
	if ch.URL != nil {
		to.URL = *ch.URL
	}
	if ch.Password != nil {
		to.Password = *ch.Password
	}
	if ch.TLS != nil {
		to.TLS = *ch.TLS
		if to.TLS.Cert != before.TLS.Cert {
			to.Key = ""
		}
		if ch.Key != nil {
			to.Key = *ch.Key
		}
	} else if hosts := to.hosts(); hosts != nil && !slices.Equal(hosts, before.hosts()) {
		to.TLS.AllowPlaintext = false // an admin has allowed it on the way to the hosts before
	}
	if ch.Password == nil && (to.URL != before.URL || to.TLS != before.TLS) && requireAuth(to.URL) != scram {
		return to, fault.New(fault.Invalid, "A connection with another require_auth than %s needs the password again: "+
			"a server could be made to ask for it in clear.", scram)
	}
	return to, nil
}

// scram is what a connection requires unless it says otherwise. With it the password is proven, and never shown.
const scram = "scram-sha-256"

func requireAuth(connectionURL string) string {
	u, err := url.Parse(connectionURL)
	if err != nil {
		return ""
	}
	return cmp.Or(u.Query().Get("require_auth"), scram)
}

// Update changes the registration of a cluster. A new connection must lead to the same cluster, or to the one that the
// caller says has taken its place.
func (r *Registry) Update(ctx context.Context, c *Cluster, match etag.Match, settings Settings, change *ConnectionChange,
	by audit.Entry) (*Cluster, error) {
	if err := settings.Check(); err != nil {
		return nil, err
	}
	if change == nil {
		return r.change(ctx, c, match, settings, nil, nil, by)
	}
	if change.SystemIdentifier != nil && *change.SystemIdentifier == "" {
		return nil, fault.New(fault.Invalid, "The field connection.systemIdentifier is empty; it takes the system identifier "+
			"of the cluster that "+
			"has taken the place of the registered one.")
	}
	unlock, err := r.LockCredential(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	id := c.ID
	for range placeAttempts {
		c, err = r.move(ctx, id, match, settings, change, by)
		if !errors.Is(err, errNotCompared) {
			return c, err
		}
	}
	return nil, errPlaceTaken
}

// move gives a cluster another connection, under the lock of its credential.
func (r *Registry) move(ctx context.Context, id uuid.UUID, match etag.Match, settings Settings, change *ConnectionChange,
	by audit.Entry) (*Cluster, error) {
	if err := r.Reload(ctx); err != nil {
		return nil, err
	}
	c, err := r.Get(id.String())
	if err != nil {
		return nil, err
	}
	pending, _, err := r.Rotation(ctx, id)
	if err != nil && change.Password == nil { // one that is given takes the place of all that is stored, be it unreadable
		return nil, err
	}
	if pending != nil && change.Password == nil {
		return nil, fault.New(fault.InUse, "A rotation of the cluster's credential was interrupted. Rotate it again first, or "+
			"give the password.")
	}
	to, err := change.apply(c.Connection)
	if err != nil {
		return nil, err
	}
	if pending != nil { // it is dropped, and the cluster must not get it after that
		if err := to.awaitRotation(ctx); err != nil {
			return nil, err
		}
	}
	expected := *c
	if change.SystemIdentifier != nil {
		expected.SystemIdentifier = *change.SystemIdentifier
	}
	found, err := r.probe(ctx, &to, &expected)
	if err != nil {
		return nil, err
	}
	c, err = r.change(ctx, c, match, settings, &to, found, by)
	if err == nil {
		c.recordHealth(found.Facts, nil)
	}
	return c, err
}

// Probe finds out again whether a cluster can be managed and what its administering role can do.
func (r *Registry) Probe(ctx context.Context, c *Cluster) (*Cluster, error) {
	if c.err != nil {
		return nil, c.err
	}
	to := c.workingConnection(ctx)
	found, err := r.probe(ctx, &to, c)
	if err != nil {
		c.recordHealth(Facts{}, err)
		return nil, explainAuthError(err)
	}
	c.recordHealth(found.Facts, nil)
	err = r.update(ctx, `UPDATE clusters SET capabilities = $2 WHERE id = $1 AND capabilities <> $2`, c.ID, found.Capabilities)
	if err != nil {
		return nil, err
	}
	return r.Get(c.ID.String())
}
