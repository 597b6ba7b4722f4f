// Package event hands the rows of the audit log to receivers outside of Rolecall, in their order: to webhooks, and to the
// operator's syslog, HTTPS collector and file. What a receiver has accepted is stored afterwards. So after a kill it may get
// the last rows again, but misses none.
package event

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
)

// The types of events that are about no row of the log. They have a prefix that no action has.
const (
	// Gap: the retention has removed rows before the receiver got them.
	Gap = "rolecall.gap"
	// Restored: the log is not the one that the receiver has got. It was restored from a backup.
	Restored = "rolecall.restored"
	// Continued begins a file, and says which row the file before it has ended with.
	Continued = "rolecall.continued"
	// Test is sent on request.
	Test = "rolecall.test"
	// missing: the log has a seal without a row. Someone has removed the row from the control database.
	missing = "rolecall.row_missing"
)

// Event is a row of the audit log, or a notice about rows that cannot be handed over.
type Event struct {
	Type   string
	Time   time.Time
	Row    *audit.Row // nil: a notice
	Notice *Notice
	// Behind is the place in the chain behind the event.
	Behind audit.Point
}

// Notice says which rows the receiver does not get, or did not get as they are now.
type Notice struct {
	FromSeq int64 `json:"fromSeq,omitzero"`
	ToSeq   int64 `json:"toSeq,omitzero"`
	// Message explains the notice to people.
	Message string `json:"message"`
}

func rowEvent(r *audit.Row) Event {
	kind := r.Action
	if kind == "" {
		kind = missing
	}
	return Event{Type: kind, Time: r.Time.UTC(), Row: r, Behind: r.Point}
}

func notice(kind string, behind audit.Point, n Notice) Event {
	return Event{Type: kind, Time: time.Now().UTC().Truncate(time.Microsecond), Notice: &n, Behind: behind}
}

// data is what an event is about, in JSON.
func (e *Event) data() any {
	if e.Row != nil {
		return e.Row.Line()
	}
	return e.Notice
}

// idFor is the id of an event for a receiver. It is the same one when the event is sent again. It does not depend on the
// seq, which another row gets after a restore.
func (e *Event) idFor(receiver uuid.UUID) string {
	name := e.Type
	switch {
	case e.Row != nil && e.Row.Attempt != uuid.Nil:
		name = e.Row.Attempt.String() + "/" + e.Row.Phase
	default:
		about, _ := json.Marshal(e.data())
		name += "/" + e.Behind.String() + "/" + string(about)
	}
	return "evt_" + strings.ReplaceAll(uuid.NewSHA1(receiver, []byte(name)).String(), "-", "")
}

// matches reports whether one of the patterns selects a type. Notices are for all receivers.
func (e *Event) matches(patterns []string) bool {
	return e.Row == nil || slices.ContainsFunc(patterns, func(pattern string) bool { return match(pattern, e.Type) })
}

// match reports whether a pattern selects a type: it is the type, or its beginning and *.
func match(pattern, kind string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == kind || open && strings.HasPrefix(kind, prefix)
}
