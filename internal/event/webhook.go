package event

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/invisible"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
	"rolecall/internal/task"
)

// State is whether a webhook gets events.
type State string

// The states.
const (
	Active State = "ACTIVE"
	Paused State = "PAUSED" // by an admin
	Failed State = "FAILED" // it accepted none for 24 hours, or wants no more
)

// Webhook is a receiver of events that an admin has made.
type Webhook struct {
	ID            uuid.UUID
	Name, URL     string
	Events        []string // patterns of types
	State         State
	DeliveredSeq  int64     // the last row of the audit log that it has
	DeliveredAt   time.Time // when it last accepted an event; zero: never
	FailingSince  time.Time // zero: it does not fail
	LastError     string    // "": it does not fail
	GapFrom       int64     // the last rows that were lost before it got them; 0: none
	GapTo         int64
	PreviousUntil time.Time // until when the secret before the last rotation signs as well; zero: it does not
	CreatedAt     time.Time
	CreatedBy     string
	// Backlog is how many rows of the log are behind DeliveredSeq.
	Backlog int64
}

// NewWebhook is what a webhook is made of.
type NewWebhook struct {
	Name, URL string
	Events    []string // nil: all
}

// WebhookChange is what is changed of a webhook; nil: nothing.
type WebhookChange struct {
	Name, URL *string
	Events    *[]string
	State     *State // Active or Paused
}

// The limits of webhooks. Each takes up a connection and a task of a replica.
const (
	maxWebhooks = 20
	maxName     = 100
	maxPatterns = 50
)

const webhookColumns = `w.id, w.name, w.url, w.events, w.state, f.seq, coalesce(f.delivered_at, '0001-01-01'),
	coalesce(f.failing_since, '0001-01-01'), f.last_error, coalesce(f.gap_from, 0), coalesce(f.gap_to, 0),
	CASE WHEN w.previous_until > clock_timestamp() THEN w.previous_until ELSE '0001-01-01' END, w.created_at, w.created_by,
	greatest(coalesce((SELECT max(seq) FROM audit_seals), (SELECT seq FROM audit_checkpoint), 0) - f.seq, 0)`

const fromWebhooks = ` FROM webhooks w JOIN followers f USING (id) `

// Webhooks returns all webhooks, by their names. They are for those who may see the whole audit log.
func (s *Service) Webhooks(ctx context.Context, p *account.Principal) ([]*Webhook, error) {
	if !access.MayAudit(p) {
		return nil, access.ErrMayNotAudit
	}
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+webhookColumns+fromWebhooks+`ORDER BY w.name COLLATE "C"`)
	if err != nil {
		return nil, control.Fault(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[Webhook])
	return list, control.Fault(err)
}

// Webhook returns a webhook.
func (s *Service) Webhook(ctx context.Context, p *account.Principal, id string) (*Webhook, error) {
	if !access.MayAudit(p) {
		return nil, access.ErrMayNotAudit
	}
	return s.webhook(ctx, s.DB.Pool, id)
}

func (s *Service) webhook(ctx context.Context, q control.Querier, id string) (*Webhook, error) {
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return nil, noWebhook(id)
	}
	rows, err := q.Query(ctx, `SELECT `+webhookColumns+fromWebhooks+`WHERE w.id = $1`, parsed)
	if err != nil {
		return nil, control.Fault(err)
	}
	w, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Webhook])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noWebhook(id)
	}
	return w, control.Fault(err)
}

func noWebhook(id string) error { return fault.New(fault.NotFound, "There is no webhook %.64q.", id) }

// lock locks a webhook until tx ends. A transaction that also locks its follower locks the webhook first.
func lock(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	_, err := tx.Exec(ctx, `SELECT FROM webhooks WHERE id = $1 FOR UPDATE`, id)
	return err
}

// admin refuses who may not change webhooks: they get all rows of the log. A token that is limited to some clusters has no
// scope of an admin.
func (s *Service) admin(ctx context.Context, p *account.Principal, action, target string) error {
	if p.Has(account.ScopeAdmin) {
		return nil
	}
	return s.Audit.Refuse(ctx, p.Entry(action, target, nil), access.ErrAdminOnly)
}

// CreateWebhook makes a webhook, which gets the rows that are sealed from now on. Its secret is returned only here.
func (s *Service) CreateWebhook(ctx context.Context, p *account.Principal, n NewWebhook) (*Webhook, secret.Text, error) {
	if err := s.admin(ctx, p, audit.CreateWebhook, ""); err != nil {
		return nil, "", err
	}
	if n.Events == nil {
		n.Events = []string{"*"}
	}
	if err := s.check(ctx, WebhookChange{Name: &n.Name, URL: &n.URL, Events: &n.Events}); err != nil {
		return nil, "", err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, "", err
	}
	key := newSecret()
	var w *Webhook
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		// The lock enforces the limit.
		if _, err := tx.Exec(ctx, `LOCK TABLE webhooks IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var count int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM webhooks`).Scan(&count); err != nil {
			return err
		}
		if count >= maxWebhooks {
			return fault.New(fault.Invalid, "There are %d webhooks, which is the most. Delete one first.", count)
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO followers (id, kind, seq, mac)
			SELECT $1, 'webhook', coalesce(s.seq, c.seq, 0), coalesce(s.mac, c.mac, '')
			FROM (VALUES (1)) one LEFT JOIN audit_checkpoint c ON true
			LEFT JOIN (SELECT seq, mac FROM audit_seals ORDER BY seq DESC LIMIT 1) s ON true`, id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO webhooks (id, name, url, events, secret, created_by) VALUES ($1, $2, $3, $4, $5, $6)`,
			id, n.Name, n.URL, n.Events, s.DB.Keys.Seal(secretPlace(id), []byte(key)), p.GUID)
		if err != nil {
			return taken(err, n.Name)
		}
		if err := task.Set(ctx, tx, task.Task{Kind: webhookTask, Key: id}); err != nil {
			return err
		}
		if w, err = s.webhook(ctx, tx, id.String()); err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, p.Entry(audit.CreateWebhook, n.Name, detailOf(w)))
	})
	if err != nil {
		return nil, "", err
	}
	return w, key, nil
}

func taken(err error, name string) error {
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		return fault.New(fault.Exists, "There is a webhook of the name %q already.", name).At("name")
	}
	return err
}

// secretPlace is what the secrets of a webhook are encrypted for.
func secretPlace(id uuid.UUID) string { return "webhooks/" + id.String() + "/secret" }

// detailOf is what the audit log keeps of a webhook. Of its URL it has only the host: the rest may be a secret.
func detailOf(w *Webhook) map[string]any {
	return map[string]any{"id": w.ID, "host": hostOf(w.URL), "events": w.Events, "state": w.State}
}

// UpdateWebhook changes a webhook. One that becomes active, or gets another URL, is tried at once.
func (s *Service) UpdateWebhook(ctx context.Context, p *account.Principal, id string, c WebhookChange) (*Webhook, error) {
	if err := s.admin(ctx, p, audit.UpdateWebhook, id); err != nil {
		return nil, err
	}
	if err := s.check(ctx, c); err != nil {
		return nil, err
	}
	return s.change(ctx, id, func(tx pgx.Tx, w *Webhook) error {
		if c.Name != nil {
			w.Name = *c.Name
		}
		if c.URL != nil {
			w.URL = *c.URL
		}
		if c.Events != nil {
			w.Events = *c.Events
		}
		if c.State != nil {
			w.State = *c.State
		}
		_, err := tx.Exec(ctx, `
			UPDATE webhooks SET name = $2, url = $3, events = $4, state = $5, revision = revision + 1 WHERE id = $1`,
			w.ID, w.Name, w.URL, w.Events, w.State)
		if err != nil {
			return taken(err, w.Name)
		}
		if w.State == Active && (c.State != nil || c.URL != nil) {
			if err := s.resume(ctx, tx, w.ID); err != nil {
				return err
			}
		}
		return s.Audit.Record(ctx, tx, p.Entry(audit.UpdateWebhook, w.Name, detailOf(w)))
	})
}

// change locks a webhook, and returns it as it is after the change.
func (s *Service) change(ctx context.Context, id string, do func(tx pgx.Tx, w *Webhook) error) (w *Webhook, err error) {
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if w, err = s.locked(ctx, tx, id); err != nil {
			return err
		}
		if err := do(tx, w); err != nil {
			return err
		}
		w, err = s.webhook(ctx, tx, id)
		return err
	})
	return w, err
}

// locked locks a webhook and reads it.
func (s *Service) locked(ctx context.Context, tx pgx.Tx, id string) (*Webhook, error) {
	w, err := s.webhook(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, tx, w.ID); err != nil {
		return nil, err
	}
	return s.webhook(ctx, tx, id) // as it is now
}

// resume ends the failure of a webhook, and has it tried at once.
func (s *Service) resume(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	if _, err := tx.Exec(ctx, `UPDATE followers SET failures = 0, failing_since = NULL, last_error = '' WHERE id = $1`,
		id); err != nil {
		return err
	}
	return task.Set(ctx, tx, task.Task{Kind: webhookTask, Key: id})
}

// DeleteWebhook deletes a webhook.
func (s *Service) DeleteWebhook(ctx context.Context, p *account.Principal, id string) error {
	if err := s.admin(ctx, p, audit.DeleteWebhook, id); err != nil {
		return err
	}
	return s.DB.Tx(ctx, func(tx pgx.Tx) error {
		w, err := s.locked(ctx, tx, id)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM followers WHERE id = $1`, w.ID); err != nil {
			return err
		}
		if err := task.Remove(ctx, tx, webhookTask, w.ID); err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, p.Entry(audit.DeleteWebhook, w.Name, detailOf(w)))
	})
}

// Replay has a webhook get the rows from a seq on, whatever it has got, and makes it active.
func (s *Service) Replay(ctx context.Context, p *account.Principal, id string, from int64) (*Webhook, error) {
	if err := s.admin(ctx, p, audit.ReplayWebhook, id); err != nil {
		return nil, err
	}
	start, head, err := s.Audit.Ends(ctx)
	if err != nil {
		return nil, err
	}
	return s.change(ctx, id, func(tx pgx.Tx, w *Webhook) error {
		if from <= start.Seq || from > head.Seq+1 {
			return fault.New(fault.Invalid, "The audit log has no row %d. Give a fromSeq from %d to %d.", from, start.Seq+1,
				head.Seq+1).At("fromSeq")
		}
		cursor, err := s.Audit.PointAt(ctx, tx, from-1)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE followers SET seq = $2, mac = $3 WHERE id = $1`, w.ID, cursor.Seq, cursor.MAC)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE webhooks SET state = 'ACTIVE', revision = revision + 1 WHERE id = $1`,
			w.ID); err != nil {
			return err
		}
		if err := s.resume(ctx, tx, w.ID); err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, p.Entry(audit.ReplayWebhook, w.Name, map[string]any{"id": w.ID, "fromSeq": from}))
	})
}

// RotateSecret gives a webhook a new secret, which is returned only here. The one before it signs as well for a day.
func (s *Service) RotateSecret(ctx context.Context, p *account.Principal, id string) (*Webhook, secret.Text, error) {
	if err := s.admin(ctx, p, audit.RotateWebhook, id); err != nil {
		return nil, "", err
	}
	key := newSecret()
	w, err := s.change(ctx, id, func(tx pgx.Tx, w *Webhook) error {
		_, err := tx.Exec(ctx, `
			UPDATE webhooks SET previous_secret = secret, previous_until = clock_timestamp() + $2::interval, secret = $3,
			  revision = revision + 1
			WHERE id = $1`, w.ID, cmp.Or(s.Overlap, overlap), s.DB.Keys.Seal(secretPlace(w.ID), []byte(key)))
		if err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, p.Entry(audit.RotateWebhook, w.Name, map[string]any{"id": w.ID}))
	})
	if err != nil {
		return nil, "", err
	}
	return w, key, nil
}

// SendTest sends a test to a webhook in whatever state, and returns why it was not accepted; nil: it was.
func (s *Service) SendTest(ctx context.Context, p *account.Principal, id string) (refused error, err error) {
	if !p.Has(account.ScopeAdmin) {
		return nil, access.ErrAdminOnly
	}
	w, err := s.webhook(ctx, s.DB.Pool, id)
	if err != nil {
		return nil, err
	}
	r, _, err := s.receiverOf(ctx, w.ID)
	if err != nil {
		return nil, err
	}
	if r == nil { // it was deleted in the meantime
		return nil, noWebhook(id)
	}
	e := notice(Test, audit.Point{}, Notice{Message: "A test that " + p.Username + " has sent."})
	refused = r.sender.(*webhookSender).post(ctx, "evt_"+strings.ReplaceAll(uuid.NewString(), "-", ""),
		message{e.Type, e.Time, e.Notice})
	if refused != nil {
		refused = errors.New(short(refused.Error()))
	}
	return refused, nil
}

// deliverWebhook delivers to a webhook, as its task.
func (d *deliverer) deliverWebhook(ctx context.Context, id uuid.UUID) (time.Duration, error) {
	return d.deliver(ctx, id, d.activeReceiver)
}

// activeReceiver reads the receiver that a webhook is; nil: there is none, or it is not active.
func (s *Service) activeReceiver(ctx context.Context, id uuid.UUID) (*receiver, error) {
	r, state, err := s.receiverOf(ctx, id)
	if state != Active {
		return nil, err
	}
	return r, err
}

// receiverOf reads the receiver that a webhook is, in whatever state; nil: there is none.
func (s *Service) receiverOf(ctx context.Context, id uuid.UUID) (*receiver, State, error) {
	r := &receiver{ID: id, Kind: "webhook"}
	w := &webhookSender{client: s.webhookClient(), agent: s.agent(), id: id, plainHTTP: s.AllowPrivate}
	var current, previous []byte
	var state State
	err := s.DB.Pool.QueryRow(ctx, `
		SELECT w.name, w.url, w.events, w.state, w.secret,
		  CASE WHEN w.previous_until > clock_timestamp() THEN w.previous_secret END, w.revision, f.seq, f.mac, f.failures,
		  f.last_error`+fromWebhooks+`WHERE w.id = $1`, id).
		Scan(&r.Name, &w.url, &w.events, &state, &current, &previous, &r.Revision, &r.Cursor.Seq, &r.Cursor.MAC, &r.Failures,
			&r.LastErr)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", control.Fault(err)
	}
	for _, sealed := range [][]byte{current, previous} {
		if sealed == nil {
			continue
		}
		key, err := s.DB.Keys.Open(secretPlace(id), sealed)
		if err != nil {
			return nil, "", err
		}
		w.Secrets = append(w.Secrets, secret.Text(key))
	}
	r.sender = w
	return r, state, nil
}

// check refuses what a webhook cannot have. The URL is the last: its host is resolved.
func (s *Service) check(ctx context.Context, c WebhookChange) error {
	if c.Name != nil {
		if err := checkName(*c.Name); err != nil {
			return err
		}
	}
	if c.Events != nil {
		if err := checkEvents(*c.Events); err != nil {
			return err
		}
	}
	if c.State != nil && *c.State != Active && *c.State != Paused {
		return fault.New(fault.Invalid, "The state of a webhook can be set to %s or %s.", Active, Paused).At("state")
	}
	if c.URL != nil {
		return checkURL(ctx, *c.URL, s.AllowPrivate)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > maxName:
		return fault.New(fault.Invalid, "The name of a webhook has 1 to %d characters.", maxName).At("name")
	case !utf8.ValidString(name) || invisible.In(name):
		return fault.New(fault.Invalid, "The name of a webhook has only characters that are shown, and no control characters.").
			At("name")
	}
	return nil
}

func checkEvents(patterns []string) error {
	if len(patterns) == 0 || len(patterns) > maxPatterns {
		return fault.New(fault.Invalid, "A webhook has 1 to %d events.", maxPatterns).At("events")
	}
	for _, pattern := range patterns {
		if !slices.ContainsFunc(audit.Actions, func(action string) bool { return match(pattern, action) }) {
			return fault.New(fault.Invalid, "The event %.100q is not known. Give *, an action of the audit log such as user.create, "+
				"or the beginning of one and *, such as user.*.", pattern).At("events")
		}
	}
	return nil
}
