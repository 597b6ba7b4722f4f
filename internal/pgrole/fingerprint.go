package pgrole

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgwire"
	"rolecall/internal/secret"
)

// A fingerprint is in the record of a role whose password Rolecall has set: a tag of the key, so that another installation
// recognizes it as not its own, and an HMAC of the verifier, cut to 16 bytes. Every role can read it. That is harmless:
// without the key, which is 32 random bytes, it cannot be compared with anything, least of all with the verifiers of guessed
// passwords; and each verifier has a new salt, so that two equal passwords have two fingerprints. Only "no password" has
// always the same one, and the record of such a user says that it was disabled.
const tagSize, macSize = 4, 16

// fingerprint is that of a verifier, "" being no password. Without a key it is "".
func (s *Server) fingerprint(verifier string) string {
	if s.FingerprintKey == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append(s.tag(), s.mac("verifier " + verifier)[:macSize]...))
}

func (s *Server) tag() []byte { return s.mac("tag")[:tagSize] }

func (s *Server) mac(text string) []byte {
	h := hmac.New(sha256.New, []byte(s.FingerprintKey))
	h.Write([]byte(text))
	return h.Sum(nil)
}

// isOwn reports whether a fingerprint was made with the key of this installation.
func (s *Server) isOwn(fingerprint string) bool {
	data, err := base64.RawURLEncoding.DecodeString(fingerprint)
	return err == nil && len(data) == tagSize+macSize && hmac.Equal(data[:tagSize], s.tag())
}

// Sight is a role as it was when its verifier was looked at.
type Sight struct {
	OID               uint32
	Name              string
	Attempt, Previous uuid.UUID // of its record
	Recorded          string    // the fingerprint in its record; "": none
	Own               bool      // that is of this installation
	Fingerprint       string    // of the verifier that it has
}

// Sights are the roles of a cluster.
type Sights struct {
	// Readable says that the administering role may read verifiers; else there are no roles.
	Readable bool
	Roles    []Sight
	Active   []uint32 // the OIDs of the roles that have sessions
}

const (
	// sightsAtOnce is for a round trip. With the longest comments and verifiers it reads 5 MB.
	sightsAtOnce = 2000
	// maxRoles ends a look at a server that goes on sending roles, maxSessions bounds the sessions.
	maxRoles, maxSessions = 2_000_000, 300_000
)

// selectSights reads up to $4 roles behind an OID ($5). One snapshot has the record and the verifier: both are as one change
// has left them. pg_authid is read alone, as for selectUserlist. A verifier that is too long is none that anybody logs in
// with.
var selectSights = withKnown(`$4::bigint`) + `
  SELECT r.oid, r.rolname, ` + commentUpTo(maxListed) + `,
    CASE WHEN r.rolpassword IS NULL THEN '' WHEN octet_length(r.rolpassword) <= ` + maxVerifier + ` THEN r.rolpassword
      ELSE 'too long' END
  FROM (
    SELECT r.oid, r.rolname, r.rolpassword FROM pg_authid r WHERE r.oid > $5::oid AND ` + opaque(unprotected) + `
    ORDER BY r.oid LIMIT $4) r
  LEFT JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass
  ORDER BY r.oid`

// selectActive shows every role all sessions' users: only what they do is kept from others.
// https://www.postgresql.org/docs/current/monitoring-stats.html
const selectActive = `SELECT DISTINCT usesysid FROM pg_stat_activity WHERE usesysid IS NOT NULL`

// Look reads the fingerprints of all roles that are not protected, whose passwords are set by SQL, and who has sessions.
func (s *Server) Look(ctx context.Context) (*Sights, error) {
	if s.FingerprintKey == "" {
		return nil, fault.New(fault.Internal, "There is no key for fingerprints.")
	}
	var found Sights
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectActive)
		if err != nil {
			return err
		}
		if found.Active, err = collectPage(rows, maxSessions, pgx.RowTo[uint32]); err != nil {
			return err
		}
		return conn.QueryRow(ctx, `SELECT `+readsVerifiers).Scan(&found.Readable)
	})
	if err != nil || !found.Readable {
		return &found, err
	}
	for after := uint32(0); ; {
		page, err := s.sightsAfter(ctx, after)
		if err != nil {
			return nil, err
		}
		found.Roles = append(found.Roles, page...)
		if len(page) < sightsAtOnce {
			return &found, nil
		}
		last := page[len(page)-1].OID
		if last <= after || len(found.Roles) > maxRoles {
			return nil, s.fault(pgwire.Refuse("it shows roles out of order, or more than %d", maxRoles), "")
		}
		after = last
	}
}

func (s *Server) sightsAfter(ctx context.Context, after uint32) (page []Sight, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectSights, s.protection(sightsAtOnce, after)...)
		if err != nil {
			return err
		}
		page, err = collectPage(rows, sightsAtOnce, s.scanSight)
		return verifiersHidden(err)
	})
	return page, err
}

func (s *Server) scanSight(row pgx.CollectableRow) (found Sight, err error) {
	var comment []byte
	var verifier secret.Text
	if err := row.Scan(&found.OID, &found.Name, &comment, &verifier); err != nil {
		return found, err
	}
	if len(comment) > maxListed || max(len(found.Name), len(verifier)) > maxColumn {
		return found, pgwire.Refuse("it shows a role that is longer than a role can be")
	}
	_, p := parseComment(string(comment))
	found.Attempt, found.Previous, found.Recorded = p.Attempt, p.Previous, p.Fingerprint
	found.Own, found.Fingerprint = s.isOwn(p.Fingerprint), s.fingerprint(string(verifier))
	return found, nil
}

// Gone returns those of the OIDs that no role has any more.
func (s *Server) Gone(ctx context.Context, oids []uint32) (gone []uint32, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT o.oid FROM unnest($1::oid[]) o(oid) LEFT JOIN pg_roles r ON r.oid = o.oid WHERE r.oid IS NULL`, oids)
		if err != nil {
			return err
		}
		gone, err = collectPage(rows, len(oids), pgx.RowTo[uint32])
		return err
	})
	return gone, err
}
