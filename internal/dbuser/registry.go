package dbuser

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

// inspectTimeout is how long a cluster may take to be inspected.
const inspectTimeout = 25 * time.Second

// administer returns a cluster whose registration the principal may change, which no token may that is limited to some
// clusters. A denied change is recorded.
func (s *Service) administer(ctx context.Context, p *account.Principal, id, action string) (*cluster.Cluster, error) {
	c, err := s.Cluster(p, id)
	if err != nil {
		return nil, err
	}
	if p.Has(account.ScopeAdmin) {
		return c, nil
	}
	e := p.Entry(action, c.DisplayName, nil)
	e.Cluster = c.ID
	return nil, s.Audit.Refuse(ctx, e, access.ErrAdminOnly)
}

// RegisterCluster puts a cluster under management: it can be reached, it is a primary, it is not registered already, and
// the role can do what managing users takes.
func (s *Service) RegisterCluster(ctx context.Context, p *account.Principal, settings cluster.Settings, to cluster.Connection) (*cluster.Cluster, error) {
	if !p.Has(account.ScopeAdmin) {
		return nil, s.Audit.Refuse(ctx, p.Entry(audit.RegisterCluster, "", nil), access.ErrAdminOnly)
	}
	if settings.DisplayName == nil {
		return nil, fault.New(fault.Invalid, "The field displayName is missing.")
	}
	if err := settings.Check(); err != nil {
		return nil, err
	}
	for range 3 {
		// What the other replicas have registered counts, too.
		if err := s.Clusters.Reload(ctx); err != nil {
			return nil, err
		}
		for _, c := range s.Clusters.All() {
			if c.DisplayName == *settings.DisplayName {
				return nil, fault.New(fault.Exists, "There is a cluster %q already.", c.DisplayName)
			}
		}
		found, err := s.inspect(ctx, &to, &cluster.Cluster{MemberOf: orNone(settings.MemberOf), Grantable: orNone(settings.Grantable), SystemRoles: orNone(settings.SystemRoles)})
		if err != nil {
			return nil, err
		}
		c, err := s.Clusters.Add(ctx, settings, to, *found, p.Entry(audit.RegisterCluster, "", nil))
		if err == nil {
			c.Saw(found.Version, nil)
		}
		if !errors.Is(err, cluster.ErrNotCompared) {
			return c, err
		}
	}
	return nil, errRegistering
}

func orNone(list *[]string) []string {
	if list == nil {
		return nil
	}
	return *list
}

// inspect looks at the cluster behind a connection, and refuses one that cannot be managed, that is registered as
// another one than c, or that is not c, where c is registered.
func (s *Service) inspect(ctx context.Context, to *cluster.Connection, c *cluster.Cluster) (*cluster.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	conn, facts, err := to.Open(ctx)
	if err != nil {
		return nil, unacceptable(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if c.SystemIdentifier != "" && facts.SystemIdentifier != c.SystemIdentifier {
		return nil, fault.New(fault.Invalid, "This is another cluster: its system identifier is %s, not %s. If it has taken that one's place, update the "+
			"registration with the system identifier %[1]s. Otherwise register it as a cluster of its own.", facts.SystemIdentifier, c.SystemIdentifier).
			Because(cluster.ErrOther)
	}
	same, compared, err := s.Clusters.Same(ctx, conn, facts.SystemIdentifier, c.ID)
	if err != nil {
		return nil, unacceptable(err)
	}
	if same != nil {
		return nil, fault.New(fault.Exists, "This cluster is registered already, as %q.", same.DisplayName)
	}
	purpose := pgrole.Purpose{MemberOf: c.MemberOf, Grantable: c.Grantable, SystemRoles: c.SystemRoles}
	purpose.ControlDatabase, purpose.ControlRole = s.Clusters.Control(&cluster.Cluster{SystemIdentifier: facts.SystemIdentifier})
	capabilities, err := pgrole.Probe(ctx, conn, purpose)
	if err != nil {
		return nil, fault.New(fault.Invalid, "The cluster went away, or did not answer, while it was probed.").Because(err)
	}
	if !capabilities.ManageUsers || capabilities.Version < minVersion {
		return nil, fault.New(fault.Invalid, "Rolecall cannot manage users there as the role %q. %s", capabilities.Role, strings.Join(capabilities.Problems, " "))
	}
	found := &cluster.Found{Facts: facts, Compared: compared}
	found.Capabilities, err = json.Marshal(capabilities)
	return found, err
}

// minVersion is the server_version_num of the oldest PostgreSQL that is managed.
const minVersion = 140000

// unacceptable turns a cluster that does not answer into a value that is not acceptable: the caller named it, and nothing
// of Rolecall's is away.
func unacceptable(err error) error {
	if f := fault.Of(err); f.Kind == fault.Unavailable {
		return fault.New(fault.Invalid, "%s", f.Message).Because(err)
	}
	return err
}

// Capabilities are what the administering role of a cluster can do, as the last probe found it. A cluster that never was
// probed has the zero value.
func Capabilities(c *cluster.Cluster) (capabilities pgrole.Capabilities) {
	_ = json.Unmarshal(c.Capabilities, &capabilities) // was marshalled by inspect
	return capabilities
}

// ConnectionChange is what changes in a connection; nil stays.
type ConnectionChange struct {
	URL      *string
	Password *secret.Text
	TLS      *cluster.TLS
	Key      *secret.Text // goes with TLS
	// SystemIdentifier is that of the cluster which has taken the place of the registered one.
	SystemIdentifier *string
}

// apply refuses to send a password that the caller does not know to where it could be read in clear.
func (ch *ConnectionChange) apply(to cluster.Connection) (cluster.Connection, error) {
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
	}
	if ch.Password == nil && (to.URL != before.URL || to.TLS != before.TLS) && requireAuth(to.URL) != scram {
		return to, fault.New(fault.Invalid, "A connection with another require_auth than %s needs the password again: a server could be made to ask for it in clear.", scram)
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

// UpdateCluster changes the registration of a cluster. A new connection must lead to the same cluster, or to the one that
// the caller says has taken its place.
func (s *Service) UpdateCluster(ctx context.Context, p *account.Principal, id string, match etag.Match, settings cluster.Settings, change *ConnectionChange) (*cluster.Cluster, error) {
	c, err := s.updateCluster(ctx, p, id, match, settings, change)
	if err == nil && (settings.MemberOf != nil || settings.Grantable != nil) {
		// Whether these roles can be granted is for a probe to say. Where there is no answer, the change is done all the same.
		if probed, err := s.Probe(ctx, c); err == nil {
			return probed, nil
		}
	}
	return c, err
}

func (s *Service) updateCluster(ctx context.Context, p *account.Principal, id string, match etag.Match, settings cluster.Settings, change *ConnectionChange) (*cluster.Cluster, error) {
	c, err := s.administer(ctx, p, id, audit.UpdateCluster)
	if err != nil {
		return nil, err
	}
	if err := settings.Check(); err != nil {
		return nil, err
	}
	if change != nil && change.SystemIdentifier != nil && *change.SystemIdentifier == "" {
		return nil, fault.New(fault.Invalid, "The field connection.systemIdentifier is empty; it takes the system identifier of the cluster that has taken the place of the registered one.")
	}
	if change == nil {
		return s.Clusters.Change(ctx, c, match, settings, nil, nil, p.Entry(audit.UpdateCluster, "", nil))
	}
	release, err := s.Clusters.Exclusive(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	for range 3 {
		c, err = s.connectAnew(ctx, p, id, match, settings, change)
		if !errors.Is(err, cluster.ErrNotCompared) {
			return c, err
		}
	}
	return nil, errRegistering
}

var errRegistering = fault.New(fault.Unavailable, "Other clusters are being registered or moved at this moment.").After(time.Second)

func (s *Service) connectAnew(ctx context.Context, p *account.Principal, id string, match etag.Match, settings cluster.Settings, change *ConnectionChange) (*cluster.Cluster, error) {
	if err := s.Clusters.Reload(ctx); err != nil {
		return nil, err
	}
	c, err := s.Cluster(p, id)
	if err != nil {
		return nil, err
	}
	pending, _, err := s.Clusters.Rotation(ctx, c.ID)
	if err != nil && change.Password == nil { // one that is given takes the place of all that is stored, be it unreadable
		return nil, err
	}
	if pending != nil && change.Password == nil {
		return nil, fault.New(fault.InUse, "A rotation of the cluster's credential was cut off. Rotate it again first, or give the password.")
	}
	to, err := change.apply(c.Connection)
	if err != nil {
		return nil, err
	}
	if pending != nil { // it is forgotten, and must not come to count after that
		if err := awaitRotation(ctx, &to); err != nil {
			return nil, err
		}
	}
	expected := *c
	if change.SystemIdentifier != nil {
		expected.SystemIdentifier = *change.SystemIdentifier
	}
	found, err := s.inspect(ctx, &to, &expected)
	if err != nil {
		return nil, err
	}
	c, err = s.Clusters.Change(ctx, c, match, settings, &to, found, p.Entry(audit.UpdateCluster, "", nil))
	if err == nil {
		c.Saw(found.Version, nil)
	}
	return c, err
}

// RemoveCluster ends the management of a cluster, which itself is not touched.
func (s *Service) RemoveCluster(ctx context.Context, p *account.Principal, id string, match etag.Match) error {
	c, err := s.administer(ctx, p, id, audit.RemoveCluster)
	if err != nil {
		return err
	}
	release, err := s.Clusters.Exclusive(ctx, c.ID)
	if err != nil {
		return err
	}
	defer release()
	return s.Clusters.Remove(ctx, c.ID, match, p.Entry(audit.RemoveCluster, "", nil))
}

// ProbeCluster looks anew at a cluster and at what its administering role can do.
func (s *Service) ProbeCluster(ctx context.Context, p *account.Principal, id string) (*cluster.Cluster, error) {
	c, err := s.Cluster(p, id)
	if err != nil {
		return nil, err
	}
	if !p.Has(account.ScopeAdmin) {
		return nil, access.ErrAdminOnly
	}
	return s.Probe(ctx, c)
}

// Probe is ProbeCluster for Rolecall itself.
func (s *Service) Probe(ctx context.Context, c *cluster.Cluster) (*cluster.Cluster, error) {
	if err := c.Unusable(); err != nil {
		return nil, err
	}
	to := c.Working(ctx)
	found, err := s.inspect(ctx, &to, c)
	if err != nil {
		c.Saw("", err)
		return nil, c.Explain(err)
	}
	c.Saw(found.Version, nil)
	if err := s.Clusters.Probed(ctx, c.ID, found.Capabilities); err != nil {
		return nil, err
	}
	if _, err := s.compare(ctx, c); err != nil {
		return nil, err
	}
	return s.Clusters.Get(c.ID.String())
}

// rotateTimeout ends a rotation, which goes on when its client hangs up.
const rotateTimeout = 40 * time.Second

// RotateCredential gives the administering role of a cluster a fresh password, which nobody but Rolecall knows.
func (s *Service) RotateCredential(ctx context.Context, p *account.Principal, id string) (*cluster.Cluster, error) {
	c, err := s.administer(ctx, p, id, audit.RotateCluster)
	if err != nil {
		return nil, err
	}
	if err := c.Unusable(); err != nil {
		return nil, err
	}
	if _, role := s.Clusters.Control(c); role == c.Role() {
		return nil, fault.New(fault.Invalid, "By the role %q Rolecall also reaches its control database: with another password it could not start any more. "+
			"Register the cluster with a role of its own.", role)
	}
	release, err := s.Clusters.Exclusive(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	e := p.Entry(audit.RotateCluster, c.DisplayName, nil)
	e.Cluster = c.ID
	attempt, err := s.Audit.Begin(ctx, e, rotateTimeout+settleMargin)
	if err != nil {
		return nil, err
	}
	rotating, cancel := context.WithTimeout(context.WithoutCancel(ctx), rotateTimeout)
	defer cancel()
	err = s.rotate(rotating, c.ID, attempt.ID.String())
	if !leavesOpen(err) {
		s.record(ctx, attempt, uuid.Nil, detail{}, err)
	}
	if err != nil {
		return nil, err
	}
	return s.Cluster(p, id)
}

func (s *Service) rotate(ctx context.Context, id uuid.UUID, attempt string) error {
	cutOff, _, err := s.Clusters.Rotation(ctx, id)
	if err != nil {
		return err
	}
	if cutOff != nil {
		if err := s.finish(ctx, cutOff); err != nil {
			return err
		}
	}
	pending, err := s.Clusters.Propose(ctx, id, attempt)
	if err != nil {
		return err
	}
	return s.finish(ctx, pending)
}

// awaitRotation waits until no session is about to set a password of the cluster's role.
func awaitRotation(ctx context.Context, to *cluster.Connection) error {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	conn, _, err := to.Open(ctx)
	if err != nil {
		return unacceptable(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := pgrole.AwaitOwnPassword(ctx, conn, string(to.Password)); err != nil {
		return fault.New(fault.InUse, "A rotation of the cluster's credential is still under way in the cluster. Try again when it has ended there.").Because(err)
	}
	return nil
}

// finish takes a rotation to its end from wherever it stands: the cluster may have the next password already. A failure
// that is not Unavailable means that the cluster has refused it; then the current password is the only one again.
func (s *Service) finish(ctx context.Context, r *cluster.Rotation) error {
	conn, err := r.Open(ctx, &r.Current)
	if fault.Is(err, fault.Invalid) {
		next, nextErr := r.Open(ctx, &r.Next)
		if fault.Is(nextErr, fault.Invalid) {
			return fault.New(fault.Invalid, "Rolecall gets in neither with the password that it has nor with the one that was to follow it. %s", fault.Of(err).Message).Because(err)
		}
		conn, err = next, nextErr
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	due := func(ctx context.Context) error { return s.Clusters.Due(ctx, r) }
	if err := pgrole.SetOwnPassword(ctx, conn, string(r.Next.Password), due); err != nil {
		return s.refused(ctx, r, err)
	}
	test, err := r.Open(ctx, &r.Next)
	if err != nil {
		return s.refused(ctx, r, err)
	}
	_ = test.Close(ctx)
	return s.Clusters.Adopt(ctx, r)
}

// refused drops the next password if the cluster has said no to it, and still takes the current one.
func (s *Service) refused(ctx context.Context, r *cluster.Rotation, why error) error {
	if fault.Is(why, fault.Unavailable) || fault.Is(why, fault.InUse) {
		return why
	}
	conn, err := r.Open(ctx, &r.Current)
	if err != nil {
		return fault.New(fault.Unavailable, "The rotation could not be finished, and is tried again.").Because(errors.Join(why, err))
	}
	_ = conn.Close(ctx)
	if err := s.Clusters.Drop(ctx, r); err != nil {
		return err
	}
	if fault.Is(why, fault.Internal) {
		return fault.New(fault.Invalid, "The cluster refuses the new password, and keeps the one that it has; its log says why.").Because(why)
	}
	return fault.New(fault.Invalid, "The cluster keeps the password that it has. %s", fault.Of(why).Message).Because(why)
}

// judgeRotation finishes a rotation that was cut off.
func (s *Service) judgeRotation(ctx context.Context, a *audit.Attempt) (audit.Outcome, string, error) {
	release, err := s.Clusters.Exclusive(ctx, a.Cluster)
	if err != nil {
		return "", "", err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	pending, madeBy, err := s.Clusters.Rotation(ctx, a.Cluster)
	switch {
	case fault.Is(err, fault.NotFound):
		return audit.Unknown, "the cluster is no longer registered", nil
	case err != nil:
		return "", "", err
	case madeBy == a.ID.String():
		return audit.Done, "its password is the current one", nil
	case pending != nil && pending.Attempt == a.ID.String() && time.Since(a.Time) > stale:
		return s.lookAtRotation(ctx, pending)
	case pending != nil && pending.Attempt == a.ID.String():
		err := s.finish(ctx, pending)
		if left, _, leftErr := s.Clusters.Rotation(ctx, a.Cluster); leftErr != nil || left != nil {
			return "", "", errors.Join(err, leftErr)
		}
		if err != nil {
			return audit.NotDone, fault.Of(err).Message, nil
		}
		return audit.Done, "it was finished", nil
	}
	later, err := s.Audit.Later(ctx, a)
	switch {
	case err != nil:
		return "", "", err
	case later:
		return audit.Unknown, "later attempts have been made on it", nil
	}
	return audit.NotDone, "no password of it is known", nil
}

// stale is the age from which on nothing is done about a rotation that was cut off, but to look what came of it. Whoever
// was only slow has ended, and the control database may have been restored from a backup: what it wants then, nobody wants
// any more.
const stale = 5 * time.Minute

// lookAtRotation finds out which of the two passwords the cluster takes, and forgets the other.
func (s *Service) lookAtRotation(ctx context.Context, r *cluster.Rotation) (audit.Outcome, string, error) {
	// The next one is asked again after the current one was: a change that was under way has ended then.
	for _, with := range []*cluster.Connection{&r.Next, &r.Current, &r.Next} {
		conn, err := r.Open(ctx, with)
		if err == nil {
			err = pgrole.AwaitOwnPassword(ctx, conn, string(with.Password))
			_ = conn.Close(context.WithoutCancel(ctx))
			if err == nil && with == &r.Next {
				return audit.Done, "the cluster takes its password", s.Clusters.Adopt(ctx, r)
			}
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			return "", "", err
		}
	}
	conn, err := r.Open(ctx, &r.Current)
	if fault.Is(err, fault.Invalid) {
		return audit.Unknown, "the cluster takes neither its password nor the one from before", nil
	}
	if err != nil {
		return "", "", err
	}
	_ = conn.Close(ctx)
	return audit.NotDone, "the cluster takes the password from before", s.Clusters.Drop(ctx, r)
}
