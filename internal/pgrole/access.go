package pgrole

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// Access is a level in a database.
type Access struct {
	Database string
	Level    Level
}

// SetAccess gives a user exactly one level in a database that has access roles. With own, the sessions that it begins there
// from now on run as the access role, so what it makes belongs to that. If own is taken away, its sessions there are ended:
// PostgreSQL lets a session keep a role that it runs as. All other sessions go on, with the rights of the level.
func (s *Server) SetAccess(ctx context.Context, name string, access Access, match etag.Match, by Actor) (*Details, error) {
	if err := CheckLevel(access.Level); err != nil {
		return nil, err
	}
	return s.changeAccess(ctx, name, access, match, by)
}

// RemoveAccess takes a user's level in a database away, if it has one. Sessions go on, or are ended, as in SetAccess.
func (s *Server) RemoveAccess(ctx context.Context, name, database string, match etag.Match, by Actor) (*Details, error) {
	return s.changeAccess(ctx, name, Access{Database: database}, match, by)
}

// changeAccess is SetAccess, or RemoveAccess if the level is "".
func (s *Server) changeAccess(ctx context.Context, name string, access Access, match etag.Match, by Actor) (*Details,
	error) {
	if !storable(access.Database) {
		return nil, databaseNotFound(access.Database)
	}
	var c accessChange
	err := s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) (err error) {
		if err := checkOrdinary(u, name, match); err != nil {
			return err
		}
		c, err = s.changeAccessIn(ctx, tx, u, access, by)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, u := range c.losers {
		if _, err := s.endSessionsOf(ctx, u, whichSessions{database: access.Database},
			"End its sessions, or it acts as "+c.owner+" in them."); err != nil {
			return c.user, err // the level is changed
		}
	}
	return c.user, nil
}

// accessChange is what a change of a user's level has done.
type accessChange struct {
	user   *Details
	owner  string  // the access role of own
	losers []*User // the user and its leases, if they have lost own
}

// changeAccessIn changes the level of a user, and of the leases for it.
func (s *Server) changeAccessIn(ctx context.Context, tx *transaction, u *User, access Access, by Actor) (c accessChange,
	err error) {
	of, err := s.levelRoles(ctx, tx, access.Database)
	if access.Level == "" && of.any() {
		err = nil // a level can be taken away also if its role may not connect, which the owner of the database decides
	}
	if err != nil {
		return c, err
	}
	if access.Level != "" {
		if err := s.checkAccess(ctx, tx, of, access.Level, u.Name); err != nil {
			return c, err
		}
	}
	all, err := s.lockMemberships(ctx, tx, u)
	if err != nil {
		return c, err
	}
	lost := false // own
	for _, m := range all {
		level := of.level(m.role)
		if level == "" || level == access.Level && !m.admin {
			continue
		}
		lost = lost || level == Own && access.Level != Own
		if err := tx.revoke(ctx, m, u.Name); err != nil {
			return c, err
		}
	}
	if access.Level == "" {
		err = tx.resetOwn(ctx, of, u.Name)
	} else {
		err = s.giveAccess(ctx, tx, of, access.Level, u.Name)
	}
	if err != nil {
		return c, err
	}
	leases, err := readLeasesFor(ctx, tx, u.oid)
	if err != nil {
		return c, err
	}
	for _, l := range leases {
		if err := tx.beginAs(ctx, of, access.Level, l.Name); err != nil {
			return c, err
		}
	}
	if c.user, err = s.recordMemberships(ctx, tx, u, by); err != nil {
		return c, err
	}
	if lost {
		c.losers = append(leases, c.user.User)
	}
	c.owner = of.name(Own)
	return c, nil
}

// levelRoles are the names of a database's access roles, in the order of Levels; "" for a level whose role is missing, or
// was not made for this database.
type levelRoles struct {
	database string
	names    []string
}

// any reports whether there is one of them.
func (l levelRoles) any() bool {
	return slices.ContainsFunc(l.names, func(name string) bool { return name != "" })
}

func (l levelRoles) name(level Level) string { return l.names[slices.Index(Levels, level)] }

// level is the level of a role's members; "" if it is no access role of the database.
func (l levelRoles) level(role string) Level {
	if i := slices.Index(l.names, role); role != "" && i >= 0 {
		return Levels[i]
	}
	return ""
}

// levelRoles reads the access roles of a database, under a lock for which a change of them waits. Their records say what
// they are, and only a role with CREATEROLE writes those. They also have to be allowed to connect, by a grant of their own:
// a database that was renamed keeps its access roles, and must not be mistaken for the one that has its name now. Together
// with an error, of still names the access roles that were found.
func (s *Server) levelRoles(ctx context.Context, tx *transaction, database string) (of levelRoles, err error) {
	of = levelRoles{database: database, names: make([]string, len(Levels))}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock_shared($1)`, databaseLock(database)); err != nil {
		return of, err
	}
	d, err := s.database(ctx, tx, database)
	if err != nil {
		return of, err
	}
	names := make([]string, len(Levels))
	for i, level := range Levels {
		if names[i], err = AccessRole(database, level); err != nil {
			return of, err
		}
	}
	sql, args := s.selectRoles(names)
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return of, err
	}
	roles, err := collectPage(rows, len(names), scanUser)
	if err != nil {
		return of, err
	}
	connecting, err := readConnecting(ctx, tx, d)
	if err != nil {
		return of, err
	}
	may := make([]bool, len(Levels)) // it may connect
	for _, role := range roles {
		if i := slices.Index(names, role.Name); role.accessRole(database, Levels[i]) {
			of.names[i], may[i] = role.Name, slices.Contains(connecting, role.oid)
		}
	}
	if i := slices.Index(may, false); i >= 0 {
		return of, fault.New(fault.Invalid, "The database %q has no access roles, or they are incomplete: %q is missing or may "+
			"not connect. Create or complete them first.", database, names[i])
	}
	return of, nil
}

// readConnecting reads which roles were granted CONNECT on a database themselves; of none, if it is nil, none.
func readConnecting(ctx context.Context, q querier, d *Database) ([]uint32, error) {
	if d == nil {
		return nil, nil
	}
	rows, err := q.Query(ctx, selectConnecting, d.oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[uint32])
}

// selectConnecting lists the roles that were granted CONNECT on a database ($1) themselves.
const selectConnecting = `
	SELECT DISTINCT x.grantee FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
	WHERE d.oid = $1 AND x.privilege_type = 'CONNECT' AND x.grantee <> 0`

// checkAccess refuses a level that a user cannot have.
func (s *Server) checkAccess(ctx context.Context, tx *transaction, of levelRoles, level Level, user string) error {
	if err := s.checkGrant(ctx, tx, of.name(level), user); err != nil || level != Own {
		return err
	}
	role, err := tx.roleSetting(ctx, of.database, user)
	if err != nil || role == "" || role == of.name(Own) {
		return err
	}
	return fault.New(fault.Invalid, "The user %q has the default role %q in the database %q, so what it makes there would not "+
		"belong to %q. Remove that first: %s.", user, role, of.database, of.name(Own), resetRoleIn(user, of.database))
}

// giveAccess makes the user a member of the access role of a level, without ADMIN OPTION.
func (s *Server) giveAccess(ctx context.Context, tx *transaction, of levelRoles, level Level, user string) error {
	if err := s.checkAccess(ctx, tx, of, level, user); err != nil {
		return err
	}
	if err := s.grant(ctx, tx, of.name(level), user); err != nil {
		return err
	}
	return tx.beginAs(ctx, of, level, user)
}

// beginAs makes the sessions of a user, or of a lease for it, begin as the access role of own if that is the user's level.
func (tx *transaction) beginAs(ctx context.Context, of levelRoles, level Level, name string) error {
	if level != Own {
		return tx.resetOwn(ctx, of, name)
	}
	// A setting for one database takes precedence over one for all (ALTER ROLE … SET role), which may stay.
	_, err := tx.Exec(ctx, setRoleIn(name, of.database, of.name(Own)))
	return err
}

// resetOwn removes the setting of the level own. The user may have set another role itself, which stays.
func (tx *transaction) resetOwn(ctx context.Context, of levelRoles, user string) error {
	role, err := tx.roleSetting(ctx, of.database, user)
	if err == nil && role != "" && role == of.name(Own) {
		_, err = tx.Exec(ctx, resetRoleIn(user, of.database))
	}
	return err
}

// roleSetting is the role that is set for the user's sessions in a database; "": none.
func (tx *transaction) roleSetting(ctx context.Context, database, user string) (role string, err error) {
	err = tx.QueryRow(ctx, `
		SELECT coalesce((SELECT substr(c, length('role=') + 1) FROM pg_db_role_setting s, unnest(s.setconfig) c
		  WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = $1)
		    AND s.setrole = (SELECT oid FROM pg_roles WHERE rolname = $2) AND starts_with(c, 'role=')), '')`,
		database, user).Scan(&role)
	return role, err
}

// NewUser is a user to create, with its rights.
type NewUser struct {
	Name     string
	Password string
	Access   []Access
	Roles    []string // grantable ones
	Limits   Limits
}

// CheckNewUser refuses a user that cannot be created, whatever state the cluster is in.
func CheckNewUser(n NewUser, systemRoles, grantable []string) error {
	err := cmp.Or(CheckName(n.Name, systemRoles), CheckPassword(n.Password), CheckLimits(n.Limits),
		CheckGrantable(n.Roles, grantable))
	for i, a := range n.Access {
		err = cmp.Or(err, CheckLevel(a.Level))
		if slices.ContainsFunc(n.Access[:i], func(b Access) bool { return a.Database == b.Database }) {
			err = cmp.Or(err, error(fault.New(fault.Invalid, "The database %q has two levels. Choose one.", a.Database)))
		}
	}
	return err
}

// CreateWith creates a user with its levels, roles and limits in one transaction. A role of that name is fault.Exists; a
// system role is fault.Forbidden; a database without access roles, or a role outside Grantable, is fault.Invalid.
func (s *Server) CreateWith(ctx context.Context, n NewUser, by Actor) (d *Details, err error) {
	if err := s.notAccessRoles(ctx, n.Roles, CheckNewUser(n, s.SystemRoles, s.Grantable)); err != nil {
		return nil, err
	}
	// Two calls lock the databases in the same order.
	n.Access = slices.SortedFunc(slices.Values(n.Access), func(a, b Access) int {
		return strings.Compare(a.Database, b.Database)
	})
	made, err := s.newPassword(ctx, n.Password)
	if err != nil {
		return nil, s.fault(err, n.Name)
	}
	err = s.change(ctx, n.Name, by, func(ctx context.Context, tx *transaction, existing *User) error {
		u, err := s.create(ctx, tx, existing, n, made, by)
		if err != nil {
			return err
		}
		d, err = s.detailsOf(ctx, tx, u)
		return err
	})
	if err != nil {
		return nil, notEncodable(err, n.Name)
	}
	return d, nil
}

// creation returns the statements that make a user with its limits, and what they record of it.
func (s *Server) creation(ctx context.Context, tx *transaction, existing *User, n NewUser, made *newPassword, by Actor) (
	p Provenance, sql string, err error) {
	if existing != nil {
		return p, "", exists(n.Name)
	}
	verifier, err := tx.verifier(ctx, made)
	if err != nil {
		return p, "", err
	}
	unlimited := &Details{ConnectionLimit: -1}
	p = Provenance{Created: tx.now, CreatedBy: by.Account, Fingerprint: s.fingerprint(verifier)}.changed(tx.now, by)
	return p, createRole(n.Name, verifier) + alterLimits(n.Name, unlimited.otherValidUntil(n.Limits),
		unlimited.otherConnectionLimit(n.Limits)) + commentOnRole(n.Name, p.comment("")), nil
}

// create makes a user in a transaction, whose databases are locked in the order of n.Access.
func (s *Server) create(ctx context.Context, tx *transaction, existing *User, n NewUser, made *newPassword, by Actor) (
	*User, error) {
	_, sql, err := s.creation(ctx, tx, existing, n, made, by)
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		return nil, err
	}
	for _, role := range slices.Concat(s.MemberOf, n.Roles) {
		if err := s.grant(ctx, tx, role, n.Name); err != nil {
			return nil, err
		}
	}
	for _, a := range n.Access {
		of, err := s.levelRoles(ctx, tx, a.Database)
		if fault.Is(err, fault.NotFound) {
			return nil, fault.New(fault.Invalid, "There is no database %q in this cluster to give %q access to.", a.Database, n.Name)
		}
		if err != nil {
			return nil, err
		}
		if err := s.giveAccess(ctx, tx, of, a.Level, n.Name); err != nil {
			return nil, err
		}
	}
	u, err := s.role(ctx, tx, n.Name)
	if err != nil {
		return nil, err
	}
	if u == nil {
		return nil, fmt.Errorf("the role %q cannot be read back", n.Name)
	}
	return u, checkNotProtected(u) // a role that it was made a member of may have become a superuser in the meantime
}

// notEncodable is err, or why a user of that name was not made.
func notEncodable(err error, name string) error {
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Invalid, "The encoding of the cluster's database has not all the characters of the name %q.", name)
	}
	return err
}

// Disable takes LOGIN from a user, which keeps its password, and ends its sessions. ended is how many there were. A new
// password does not enable the user: it may be set by somebody who does not know why the user is disabled. Only Enable does.
func (s *Server) Disable(ctx context.Context, name string, match etag.Match, by Actor) (d *Details, ended int, err error) {
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) error {
		if err := checkOrdinary(u, name, match); err != nil {
			return err
		}
		p := u.Provenance
		if u.login {
			p.Password = PasswordKept // else it stays as it was disabled before
		}
		p.State = StateDisabled
		d, err = s.alterAndRecord(ctx, tx, u, alterLogin(name, false), p, by)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	ended, err = s.endSessionsOf(ctx, d.User, whichSessions{all: true}, "Disable it again.")
	return d, ended, err
}

// Enable gives LOGIN back to a user that is disabled. One from which a blocked deletion has taken the password is refused: a
// new password enables it.
func (s *Server) Enable(ctx context.Context, name string, match etag.Match, by Actor) (d *Details, err error) {
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) error {
		if err := checkOrdinary(u, name, match); err != nil {
			return err
		}
		p := u.Provenance
		if p.State == StateDisabled && !u.login && p.Password != PasswordKept {
			verifier := ""
			if tx.readsVerifiers { // an admin may have set a password by SQL
				if err := tx.QueryRow(ctx, selectVerifier, u.oid).Scan(&verifier); err != nil {
					return err
				}
			}
			if verifier == "" {
				return fault.New(fault.Invalid, "The user %q has no password. Set a password: that enables it.", name)
			}
		}
		p.State, p.Password = "", ""
		d, err = s.alterAndRecord(ctx, tx, u, alterLogin(name, true), p, by)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// endSessionsOf ends sessions that a user has after it was changed. remedy is what to do if that fails, as a sentence.
func (s *Server) endSessionsOf(ctx context.Context, u *User, which whichSessions, remedy string) (ended int, err error) {
	conn, err := s.acquire(ctx)
	if err == nil {
		defer conn.Release()
		ended, err = endSessions(ctx, conn.Conn(), []*User{u}, which)
	}
	switch {
	case err == nil:
		return ended, nil
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		return ended, fault.New(fault.Forbidden, "The user %q was changed, but Rolecall's administering role may not end its "+
			"sessions: GRANT pg_signal_backend TO <administering role>.", u.Name).Because(err)
	}
	return ended, fault.New(fault.Unavailable, "The user %q was changed, but it could not be made sure that its sessions "+
		"have ended. %s", u.Name, remedy).After(2 * time.Second).Because(err)
}
