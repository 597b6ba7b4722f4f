// Package pgrole is the roles and databases of one PostgreSQL cluster: the SQL that reads and changes them, passwords
// as SCRAM verifiers, which roles are protected, and who made a role, written with the role itself.
//
// Each change is decided in its own transaction, and not by what was read before. Package dbuser authorizes and records
// changes; nothing here knows accounts, HTTP or the control database.
package pgrole

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgwire"
	"rolecall/internal/scram"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
)

// Majors are the major versions of PostgreSQL that this package is made for.
var Majors = []string{"14", "15", "16", "17", "18", "19"}

// Server is one PostgreSQL cluster, reached as its administering role.
type Server struct {
	// Pool holds connections to the registered database. Advisory locks count within one database only, so all are taken
	// there; the connections must be direct ones, not through a transaction pooler.
	Pool *pgxpool.Pool
	// Connect opens a connection to another database, in that database's encoding. Names pass through it as bytes.
	Connect func(ctx context.Context, database, encoding string) (*pgx.Conn, error)
	// OneHost says that Pool has no other host, which could take writes when this one does not.
	OneHost bool
	// SystemRoles are globs (`*`, `?`) of role names that are protected.
	SystemRoles []string
	// Reassignable are the roles without LOGIN that objects may go to, and that may be adopted as access roles; nil: any. What
	// a role owns runs as it (functions with SECURITY DEFINER, triggers), so a principal that may give it objects may become
	// it.
	Reassignable []string
	// ControlDatabase and ControlRole are Rolecall's own, when they lie in this cluster.
	ControlDatabase, ControlRole string
	// FingerprintKey is the key of the fingerprints of verifiers; "": none are made.
	FingerprintKey secret.Text
	// MemberOf are roles that every new user is made a member of, and Grantable those that SetRoles may grant.
	MemberOf, Grantable []string
	// WithMembers lets Delete take from the members of a user what they have by it.
	WithMembers bool
	// Waits bounds what is waited for; the zero value is for production.
	Waits Waits
	// Batcher is shared by all who work on this cluster under the same rules.
	Batcher *Batcher
}

// User is a role as it is in the catalog.
type User struct {
	Name        string
	Provenance  Provenance
	protectedBy string // the role that makes it protected, itself or one that it is a member of; else ""
	dangerous   bool   // its members are protected, too; nobody is made one
	oid         uint32
	login       bool
	userComment string // the part of its comment that is not ours
	attributes  string

	expired         bool // its password is no longer accepted
	validUntil      pgtype.Timestamptz
	connectionLimit int
}

// System reports whether the role is protected: no call may change or delete it.
func (u *User) System() bool { return u.protectedBy != "" }

// LoginProblem says, in a sentence, why the user cannot log in whatever its password is; "" if nothing of the role itself
// keeps it from that.
func (u *User) LoginProblem() string {
	switch {
	case !u.login:
		return "This user has no LOGIN, so it cannot log in."
	case u.expired && u.validUntil.InfinityModifier == pgtype.Finite:
		return "This user is valid until " + u.validUntil.Time.UTC().Format(time.DateTime) + " UTC, so it cannot log in."
	case u.expired:
		return "This user is no longer valid, so it cannot log in."
	case u.connectionLimit == 0:
		return "This user has the connection limit 0, so it cannot log in."
	}
	return ""
}

// PortabilityProblem says, in a sentence, why some programs cannot log in with a password; "" if all of them can.
func PortabilityProblem(password string) string {
	if scram.Portable(password) {
		return ""
	}
	return "The password has characters that PostgreSQL drivers prepare in different ways: with some of them the user cannot " +
		"log in. Printable ASCII is safe."
}

// isUser reports whether the role is a database user: it has LOGIN, or Rolecall has disabled it.
func (u *User) isUser() bool {
	return u.login || u.Provenance.State == StateDeleting || u.Provenance.State == StateDisabled
}

// Revision names the current state of the role, for conditional requests. With provenance it moves with every change
// made here; without, with the role's attributes, which do not show a password that was changed by SQL.
func (u *User) Revision() string {
	if p := u.Provenance; p.Managed() {
		return fmt.Sprintf("%d-%.8s", p.Revision, p.Attempt.String()[28:])
	}
	sum := sha256.Sum256([]byte(u.attributes))
	return "0-" + hex.EncodeToString(sum[:8])
}

// Actor is who makes a change.
type Actor struct {
	Account string    // guid
	Attempt uuid.UUID // the recorded attempt
}

// checkMatch refuses a user that is not in the state that the caller has read. One whose deletion has begun also is in the
// state from before, so that the same call finishes it.
func checkMatch(m etag.Match, u *User) error {
	if m.Allows(u.Revision()) || u.Provenance.FormerRevision != "" && m.Allows(u.Provenance.FormerRevision) {
		return nil
	}
	return fault.New(fault.Stale, "The user %q has changed: it is at revision %q. Read it again before you change it.", u.Name,
		u.Revision())
}

func notFound(name string) error {
	return fault.New(fault.NotFound, "There is no user %q in this cluster.", name)
}

// checkNotProtected refuses what no call may change.
func checkNotProtected(u *User) error {
	switch {
	case !u.System():
		return nil
	case u.protectedBy == u.Name:
		return fault.New(fault.Forbidden, "The user %q is a system user: it cannot be changed or deleted here.", u.Name)
	}
	return fault.New(fault.Forbidden, "The user %q is a system user, because it is a member of %q: it cannot be changed or "+
		"deleted here.", u.Name, u.protectedBy)
}

// checkNotDeleting refuses a user whose deletion has begun, which can only go forward.
func checkNotDeleting(u *User) error {
	if u.Provenance.State == StateDeleting {
		return fault.New(fault.InUse, "The user %q is being deleted. Delete it again to finish that.", u.Name)
	}
	return nil
}

// Page is a part of a list.
type Page struct {
	Limit, Offset int
	After         string // of users: the page begins behind this name, wherever that is; "": at Offset
}

// list is a page of users, protected ones only if system is set.
type list struct {
	page   Page
	system bool
}

// Users lists the database users in the order of their names' bytes, protected ones only if system is set.
func (s *Server) Users(ctx context.Context, page Page, system bool) (*Listed, error) {
	if page.After != "" {
		page.Offset = 0 // pages that begin at the same place are one
	}
	key := list{page, system}
	l, err := s.Batcher.lists.Do(ctx, key, func(ctx context.Context) (l *Listed, err error) {
		err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			rows, err := s.queryUsers(ctx, conn, system, page, page.Limit+1)
			if err != nil {
				return err
			}
			l, err = allKept.read(pageKey{s.Batcher, key}, rows)
			return err
		})
		return l, err
	})
	if page.After != "" && sqlstate.Is(err, unwritable...) {
		return nil, noUserThere
	}
	return l, s.fault(err, "")
}

// CountUsers counts the database users that are not protected.
func (s *Server) CountUsers(ctx context.Context) (count int, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, countUsers, s.protection()...).Scan(&count)
	})
	return count, s.fault(err, "")
}

// User returns one database user, protected or not.
func (s *Server) User(ctx context.Context, name string) (u *User, err error) {
	u, err = s.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	if u == nil || !u.isUser() {
		return nil, notFound(name)
	}
	return u, nil
}

// role reads any role, nil when there is none of that name.
func (s *Server) role(ctx context.Context, q querier, name string) (*User, error) {
	sql, args := s.selectRoles([]string{name})
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	u, err := onlyUser(rows)
	if sqlstate.Is(err, unwritable...) {
		return nil, notFound(name)
	}
	return u, err
}

// selectRoles is the query for roles of names. Names that no role can have are left out.
func (s *Server) selectRoles(names []string) (sql string, args []any) {
	texts, bytes := []string{}, [][]byte{}
	for _, name := range names {
		if nameable(name) {
			texts, bytes = append(texts, name), append(bytes, []byte(name))
		}
	}
	if slices.ContainsFunc(texts, func(name string) bool { return !utf8.ValidString(name) }) {
		return selectRolesOfBytes, s.protection(bytes)
	}
	return selectRoles, s.protection(texts)
}

// onlyUser reads one role, nil when there is none.
func onlyUser(rows pgx.Rows) (*User, error) {
	users, err := collectPage(rows, 1, scanUser)
	if err != nil || len(users) == 0 {
		return nil, err
	}
	return users[0], nil
}

// collectPage refuses more rows than were asked for, and keeps none of them.
func collectPage[T any](rows pgx.Rows, limit int, scan pgx.RowToFunc[T]) ([]T, error) {
	defer rows.Close()
	page := []T{}
	for rows.Next() {
		if len(page) == limit {
			return nil, pgwire.Refuse("it sent more than the %d rows that were asked for", limit)
		}
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, row)
	}
	return page, rows.Err()
}

type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func scanUser(row pgx.CollectableRow) (*User, error) { return scanUserUpTo(row, maxComment) }

// scanListed reads a row of usersPage.
func scanListed(row pgx.CollectableRow) (*User, error) { return scanUserUpTo(row, maxListed) }

// maxColumn is more bytes than a name has, or what else is read of a role.
const maxColumn = 1024

// scanUserUpTo reads a role.
func scanUserUpTo(row pgx.CollectableRow, limit int) (*User, error) {
	raw, err := readRawRole(row)
	if err != nil {
		return nil, err
	}
	return raw.user(limit)
}

// user refuses what no PostgreSQL answers: it would be held until the client has read the response.
func (r rawRole) user(limit int) (*User, error) {
	name, comment, protectedBy, attributes := r[1], r[3], r[4], r[5]
	if len(comment) > limit || max(len(name), len(protectedBy), len(attributes)) > maxColumn {
		return nil, pgwire.Refuse("it shows a role that is longer than a role can be")
	}
	u := &User{Name: string(name), oid: r.oid(), login: r.login(), attributes: string(attributes), expired: r.expired(),
		validUntil: r.validUntil(), connectionLimit: r.connectionLimit()}
	switch {
	case protectedBy != nil:
		u.protectedBy, u.dangerous = string(protectedBy), true
	case strings.HasPrefix(u.Name, "pg_"):
		u.protectedBy = u.Name // nobody to change, or to give objects to, but pg_monitor and the like may have members
	}
	u.userComment, u.Provenance = parseComment(string(comment))
	u.userComment = readable(u.userComment)
	return u, nil
}

// Create makes a role that may log in with the password and is a member of s.MemberOf, and nothing else. It refuses a name
// that any role has, also one without LOGIN.
func (s *Server) Create(ctx context.Context, name, password string, by Actor) (u *User, err error) {
	if err := cmp.Or(CheckName(name, s.SystemRoles), CheckPassword(password)); err != nil {
		return nil, err
	}
	made, err := s.newPassword(ctx, password)
	if err != nil {
		return nil, s.fault(err, name)
	}
	n := NewUser{Name: name, Password: password}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, existing *User) (err error) {
		if len(s.MemberOf) > 0 {
			u, err = s.create(ctx, tx, existing, n, made, by)
			return err
		}
		p, sql, err := s.creation(ctx, tx, existing, n, made, by)
		if err != nil {
			return err
		}
		// Nobody else can see or change it yet, and it is a member of nothing: it is as it was made.
		u = &User{Name: name, Provenance: p, login: true, connectionLimit: -1}
		return tx.commit(ctx, sql)
	})
	return u, notEncodable(err, name)
}

func exists(name string) error {
	return fault.New(fault.Exists, "There is a role %q in this cluster already.", name)
}

// SetPassword gives a user a new password. It enables one from which a blocked deletion has taken the password. One that was
// disabled by Disable gets the new password and stays disabled.
func (s *Server) SetPassword(ctx context.Context, name, password string, match etag.Match, by Actor) (u *User, err error) {
	if err := CheckPassword(password); err != nil {
		return nil, err
	}
	made, err := s.newPassword(ctx, password)
	if err != nil {
		return nil, s.fault(err, name)
	}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, old *User) error {
		now, sql, err := s.setPassword(ctx, tx, old, name, made, match, by)
		if err != nil {
			return err
		}
		u = now
		return s.alterLast(ctx, tx, old, sql)
	})
	return u, err
}

// ChangePassword is SetPassword, and returns all about the user.
func (s *Server) ChangePassword(ctx context.Context, name, password string, match etag.Match, by Actor) (d *Details,
	err error) {
	if err := CheckPassword(password); err != nil {
		return nil, err
	}
	made, err := s.newPassword(ctx, password)
	if err != nil {
		return nil, s.fault(err, name)
	}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, old *User) error {
		_, sql, err := s.setPassword(ctx, tx, old, name, made, match, by)
		if err != nil {
			return err
		}
		if err := s.alter(ctx, tx, old, sql); err != nil {
			return err
		}
		d, err = s.readDetailsBack(ctx, tx, old)
		return err
	})
	return d, err
}

// setPassword returns the statements that give a user a new password, and the user as they leave it.
func (s *Server) setPassword(ctx context.Context, tx *transaction, old *User, name string, made *newPassword,
	match etag.Match, by Actor) (u *User, sql string, err error) {
	if err := checkOrdinary(old, name, match); err != nil {
		return nil, "", err
	}
	verifier, err := tx.verifierFor(ctx, old, made)
	if err != nil {
		return nil, "", err
	}
	p := old.Provenance.changed(tx.now, by)
	enable := !old.login && !(p.State == StateDisabled && p.Password == PasswordKept)
	if enable || old.login {
		p.State, p.Password = "", ""
	}
	p.Fingerprint = s.fingerprint(verifier)
	now := *old
	now.Provenance, now.login = p, old.login || enable
	return &now, alterPassword(name, verifier, enable) + commentOnRole(name, p.comment(old.userComment)), nil
}

// checkOrdinary refuses what checkChangeable refuses, a user whose deletion has begun, and a lease.
func checkOrdinary(u *User, name string, match etag.Match) error {
	if err := checkChangeable(u, name, match); err != nil {
		return err
	}
	return cmp.Or(checkNotDeleting(u), checkNoLease(u))
}

// checkChangeable refuses a role that is absent, no user, protected, not at the revision asked for, or has a name that no
// statement can have.
func checkChangeable(u *User, name string, match etag.Match) error {
	if u == nil || !u.isUser() {
		return notFound(name)
	}
	if err := cmp.Or(checkNotProtected(u), checkMatch(match, u)); err != nil {
		return err
	}
	if a := u.Provenance.Access; a != nil { // it was given LOGIN by SQL
		return fault.New(fault.Invalid, "The role %q is the access role of the level %s in the database %q, and no user: ALTER "+
			"ROLE %s NOLOGIN.", name, a.Level, a.Database, ident(name))
	}
	if !utf8.ValidString(u.Name) {
		return foreign("role", fmt.Sprintf("rolname FROM pg_roles WHERE oid = %d", u.oid))
	}
	return nil
}

// readChangeable reads a user and refuses one that may not be changed.
func (s *Server) readChangeable(ctx context.Context, q querier, name string, match etag.Match) (*User, error) {
	u, err := s.role(ctx, q, name)
	if err != nil {
		return nil, err
	}
	return u, checkChangeable(u, name, match)
}

// Changeable returns the user, or why it may not be changed.
func (s *Server) Changeable(ctx context.Context, name string, match etag.Match) (u *User, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		u, err = s.readChangeable(ctx, conn, name, match)
		return err
	})
	return u, err
}

// readBack reads a user that was changed by its name, and refuses one that is not the user that the change was decided on:
// SQL from elsewhere may rename roles, or make them protected, between our statements. The transaction is then rolled
// back.
func (s *Server) readBack(ctx context.Context, tx *transaction, old *User) (*User, error) {
	u, err := s.role(ctx, tx, old.Name)
	if err == nil && (u == nil || u.oid != old.oid) {
		return nil, old.replaced()
	}
	if err == nil {
		err = checkNotProtected(u)
	}
	return u, err
}

// Inspect reads any role after waiting for changes of it that are in progress; nil when there is none. It is how an attempt
// without an outcome is judged. The result is as durable as an acknowledged change.
func (s *Server) Inspect(ctx context.Context, name string) (u *User, err error) {
	err = s.withRole(ctx, name, func(ctx context.Context, tx *transaction, found *User) error {
		u = found
		return tx.confirm(ctx)
	})
	return u, s.fault(err, name)
}
