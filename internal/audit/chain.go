package audit

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Point is a place in the chain: everything up to seq, as mac proves it. Noted outside of the control database, it shows
// later that nothing before it was altered, and that nothing up to it was cut off. The zero Point is the beginning.
type Point struct {
	Seq int64
	MAC []byte
}

// String is the form in which a Point is noted: seq:mac.
func (p Point) String() string { return fmt.Sprintf("%d:%x", p.Seq, p.MAC) }

// ParsePoint reads what String wrote.
func ParsePoint(s string) (Point, error) {
	seq, mac, _ := strings.Cut(s, ":")
	var p Point
	var seqErr, macErr error
	p.Seq, seqErr = strconv.ParseInt(seq, 10, 64)
	p.MAC, macErr = hex.DecodeString(mac)
	if seqErr != nil || macErr != nil || p.Seq < 1 || len(p.MAC) != sha256.Size || p.String() != s {
		return Point{}, fault.New(fault.Invalid, "%.200q is not a head of the audit chain; write seq:mac, as the head is shown "+
			"and logged.", s)
	}
	return p, nil
}

// chainVersion is the encoding that a mac covers: the columns of canonical, in this order. An encoding with other columns
// gets the next number; the ones before stay, to verify what they sealed.
const chainVersion = 1

// canonical is every column of an audit row as text, which depends neither on the settings of a session nor on the
// release of PostgreSQL, and survives a dump.
const canonical = `ARRAY[a.id::text, a.attempt::text, a.phase, extract(epoch FROM a.time)::text, a.action, a.outcome,
	a.account_guid, a.account_name, a.cluster_id::text, a.target, a.request_id, a.address, a.detail::text,
	extract(epoch FROM a.settle_after)::text]`

// chainKey is a key of the chain. The stored secret is random, so the master key can be replaced without a new chain.
type chainKey struct {
	id                int
	sealed            []byte // as the table has it
	chain, checkpoint []byte
	writer            []byte    // of the MACs that writers make
	required          time.Time // from which on each row needs one
	signs             bool      // whether required is known: the key is one of a release whose writers make MACs
	err               error     // why it does not open
}

func newChainKey(id int, secret []byte) (*chainKey, error) {
	k := &chainKey{id: id}
	k.required, k.signs = control.MACsRequired(secret)
	for info, key := range map[string]*[]byte{"rolecall audit chain": &k.chain, "rolecall audit checkpoint": &k.checkpoint,
		"rolecall audit writer": &k.writer} {
		var err error
		if *key, err = hkdf.Key(sha256.New, secret, nil, info, sha256.Size); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// mac seals a row behind prev. Each part is written with its length, so that no two rows are written alike.
func (k *chainKey) mac(prev Point, seq int64, row []*string) []byte {
	b := []byte{chainVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(seq))
	return sum(k.chain, appendRow(appendPart(b, string(prev.MAC)), row))
}

func appendRow(b []byte, row []*string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(row)))
	for _, column := range row {
		if column == nil {
			b = append(b, 0)
			continue
		}
		b = appendPart(append(b, 1), *column)
	}
	return b
}

// proof seals a checkpoint, of which the mac alone says nothing: it stood in a row that everybody could read.
func (k *chainKey) proof(p Point, at time.Time) []byte {
	b := []byte{chainVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(p.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixMicro()))
	return sum(k.checkpoint, appendPart(b, string(p.MAC)))
}

func appendPart(b []byte, part string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}

func sum(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil)
}

// keys reads the keys of the chain, the newest last. One that does not open is there, with the reason.
func (l *Log) keys(ctx context.Context, q control.Querier) ([]*chainKey, error) {
	rows, err := q.Query(ctx, `SELECT id, key FROM audit_keys ORDER BY id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*chainKey, error) {
		var id int
		var sealed []byte
		if err := row.Scan(&id, &sealed); err != nil {
			return nil, err
		}
		secret, err := l.DB.Keys.OpenAuditKey(id, sealed)
		if err != nil {
			return &chainKey{id: id, err: err}, nil
		}
		k, err := newChainKey(id, secret)
		if err == nil {
			k.sealed = sealed
		}
		return k, err
	})
}

// sealingKey returns the newest key, and all.
func (l *Log) sealingKey(ctx context.Context, q control.Querier) (*chainKey, []*chainKey, error) {
	keys, err := l.keys(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	if len(keys) == 0 {
		return nil, nil, errors.New("the audit log has no key; restart Rolecall, which makes one")
	}
	newest := keys[len(keys)-1]
	return newest, keys, newest.err
}

func keyOf(keys []*chainKey, id int) (*chainKey, error) {
	for _, k := range keys {
		if k.id == id {
			return k, k.err
		}
	}
	return nil, fmt.Errorf("audit_keys/%d is missing", id)
}

// Checkpoint is what the retention has left of the rows that it removed: those up to Seq.
type Checkpoint struct {
	Point
	Time time.Time
}

// errCheckpoint is a checkpoint that the retention did not write.
var errCheckpoint = errors.New("the checkpoint was altered")

// checkpoint returns where the chain begins, the zero Checkpoint when nothing was ever removed.
func checkpoint(ctx context.Context, tx pgx.Tx, keys []*chainKey) (c Checkpoint, err error) {
	var keyID int
	var proof []byte
	err = tx.QueryRow(ctx, `SELECT seq, mac, time, key_id, proof FROM audit_checkpoint`).
		Scan(&c.Seq, &c.MAC, &c.Time, &keyID, &proof)
	if errors.Is(err, pgx.ErrNoRows) {
		return Checkpoint{}, nil
	}
	if err != nil {
		return c, err
	}
	k, err := keyOf(keys, keyID)
	if err != nil {
		return c, fmt.Errorf("%w: %w", errCheckpoint, err)
	}
	if !hmac.Equal(proof, k.proof(c.Point, c.Time)) {
		return c, errCheckpoint
	}
	return c, nil
}

// headOf returns the head of the chain. It reads the checkpoint only if there is no seal: altering it must
// not stop the sealer.
func headOf(ctx context.Context, tx pgx.Tx, keys []*chainKey) (head Point, err error) {
	err = tx.QueryRow(ctx, `SELECT seq, mac FROM audit_seals ORDER BY seq DESC LIMIT 1`).Scan(&head.Seq, &head.MAC)
	if errors.Is(err, pgx.ErrNoRows) {
		begin, err := checkpoint(ctx, tx, keys)
		return begin.Point, err
	}
	return head, err
}

// Problem is the first place at which the log is not what was recorded.
type Problem struct {
	Seq    int64 // 0: it has none
	ID     int64 // of the row; 0: not known
	Reason string
}

// Error makes a Problem the reason why the retention stops.
func (p *Problem) Error() string {
	return fmt.Sprintf("the audit log is damaged at seq %d, id %d: %s", p.Seq, p.ID, p.Reason)
}

// link is a row with its seal.
type link struct {
	point  Point
	id     int64
	keyID  int
	time   time.Time
	forged string // why Rolecall did not write the row, which is in its place; "": it did
}

// walk checks up to limit links of the chain behind from, and returns those that are intact. A nil problem with fewer links
// than the limit means that the end was reached.
func walk(ctx context.Context, tx pgx.Tx, keys []*chainKey, from Point, origin *origin,
	limit int) (good []link, problem *Problem, err error) {
	again, err := repeated(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	rows, err := tx.Query(ctx, `
		SELECT s.seq, s.audit_id, s.key_id, s.version, s.mac, a.id IS NOT NULL, `+plainTime+`,
		       (s.time, s.action, s.outcome, s.account_guid, s.account_name, s.cluster_id, s.target)
		         IS DISTINCT FROM (a.time, `+copied+`),
		       CASE WHEN a.id IS NOT NULL THEN `+canonical+` END, a.writer_mac, a.id IS NOT NULL AND `+again+`
		FROM (SELECT * FROM audit_seals WHERE seq > $1 ORDER BY seq LIMIT $2) s LEFT JOIN audit a ON a.id = s.audit_id
		ORDER BY s.seq`, from.Seq, limit)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for problem == nil && rows.Next() {
		var l link
		var version int
		var exists, moved, isCopy bool
		var row []*string
		var writerMAC []byte
		if err := rows.Scan(&l.point.Seq, &l.id, &l.keyID, &version, &l.point.MAC, &exists, &l.time, &moved, &row, &writerMAC,
			&isCopy); err != nil {
			return nil, nil, err
		}
		bad := func(format string, args ...any) {
			problem = &Problem{Seq: l.point.Seq, ID: l.id, Reason: fmt.Sprintf(format, args...)}
		}
		k, keyErr := keyOf(keys, l.keyID)
		switch {
		case l.point.Seq != from.Seq+1:
			problem = &Problem{Seq: from.Seq + 1, Reason: fmt.Sprintf("Its seal is missing; the next one is %d.", l.point.Seq)}
		case !exists:
			bad("The row is missing.")
		case version != chainVersion:
			bad("It was sealed by another release of Rolecall, with encoding %d.", version)
		case keyErr != nil:
			bad("The key that sealed it is missing: %v.", keyErr)
		case !hmac.Equal(l.point.MAC, k.mac(from, l.point.Seq, row)):
			bad("The row or its seal was altered, or is not in its place.")
		case moved:
			bad("The columns by which it is found differ from the row.")
		case l.keyID < origin.keyID:
			bad("It was sealed with an older key than the row before it: the newer key was hidden.")
		default:
			l.forged = origin.judge(keys, row, writerMAC, l.time, isCopy)
			origin.pass(keys, &l)
			good = append(good, l)
			from = l.point
		}
	}
	rows.Close()
	return good, problem, rows.Err()
}

// plainTime is the time of a row; an altered one may be anything.
const plainTime = `least(greatest(a.time, timestamptz 'epoch'), timestamptz '9999-01-01')`

// repeated is SQL that finds another row of the same attempt and phase. None can be there while the constraint is.
func repeated(ctx context.Context, q control.Querier) (string, error) {
	var unique bool
	err := q.QueryRow(ctx, `
		SELECT EXISTS (
		  SELECT FROM pg_index i WHERE i.indrelid = 'audit'::regclass AND i.indisunique AND i.indisvalid AND i.indimmediate
		    AND i.indpred IS NULL AND i.indexprs IS NULL AND (
		      SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
		      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) = '{attempt,phase}')`).Scan(&unique)
	if unique {
		return "false", err
	}
	return "EXISTS (SELECT FROM audit b WHERE b.attempt = a.attempt AND b.phase = a.phase AND b.id <> a.id)", err
}

// copied is the columns of a row that its seal repeats, apart from its time.
const copied = `a.action, a.outcome, left(a.account_guid, 200), left(a.account_name, 200), a.cluster_id, left(a.target, 200)`
