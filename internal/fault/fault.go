// Package fault says what went wrong, in terms of the product: a Kind, and a message meant for the caller.
// It knows nothing of HTTP: each dialect maps kinds to its own statuses, codes and envelope.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// A Kind is what went wrong.
type Kind int

// The kinds, in the order in which a request meets them.
const (
	// Internal is every error that is not an *Error: its text is for the log, never for the caller.
	Internal        Kind = iota
	Malformed            // the request cannot be parsed
	TooLarge             // the body is larger than the limit
	MediaType            // the media type of the body is not supported
	UnknownRoute         // no such path
	UnknownMethod        // the path exists, the method does not
	Unauthenticated      // no credentials, or wrong ones
	Forbidden            // known, but not allowed
	NotFound             // it does not exist, or is not visible to this principal
	Invalid              // parsed, but a value is not acceptable
	Exists               // the name is taken
	InUse                // something still depends on it
	Stale                // If-Match does not name the current state
	TooMany              // too many requests or failed sign-ins
	Unavailable          // a database cannot be reached or did not answer in time
)

// Kinds lists all kinds, for the tests that hold each dialect's table complete.
func Kinds() []Kind {
	kinds := make([]Kind, 0, Unavailable+1)
	for k := Internal; k <= Unavailable; k++ {
		kinds = append(kinds, k)
	}
	return kinds
}

// A Hint is a remedy. The domain names it, and each surface words it in its own terms.
type Hint string

// The hints. Their texts are stable words, which programs may match.
const (
	NoHint Hint = ""
	// Reassign: the deletion would go on if another role were named that gets what the user owns.
	Reassign Hint = "reassign"
)

// Error is a failure with a message that the caller may see.
type Error struct {
	Kind    Kind
	Message string
	// Hint is what the caller can do, NoHint if there is nothing beyond the message.
	Hint Hint
	// RetryAfter is how long the caller should wait, for TooMany and Unavailable. Zero: unknown; negative: the failure does
	// not pass by itself.
	RetryAfter time.Duration
	// Outage marks an Unavailable: nothing answers where something should, which may last for hours. Other causes of
	// Unavailable pass in seconds.
	Outage bool
	// Field is the field of the request that is not acceptable, as our own API names it; "": not known, or not one alone.
	Field string
	// Cause is for the log only.
	Cause error
}

// New returns an error of the kind with a message for the caller.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Because adds the cause, for the log and not for the caller.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// Add adds a sentence to the message.
func (e *Error) Add(format string, args ...any) *Error {
	c := *e
	c.Message += " " + fmt.Sprintf(format, args...)
	return &c
}

// Suggest adds what the caller can do.
func (e *Error) Suggest(h Hint) *Error {
	c := *e
	c.Hint = h
	return &c
}

// At adds the field of the request that is not acceptable.
func (e *Error) At(field string) *Error {
	c := *e
	c.Field = field
	return &c
}

// After adds how long the caller should wait before it tries again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// AsOutage marks the failure as an outage.
func (e *Error) AsOutage() *Error {
	c := *e
	c.Outage = true
	return &c
}

// Error is the text for the log: message and cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Of returns the *Error in err's chain, or an Internal one whose message gives nothing away.
func Of(err error) *Error {
	if fe, ok := errors.AsType[*Error](err); ok {
		return fe
	}
	return &Error{Kind: Internal, Message: "An internal error occurred. Its request id is in the log.", Cause: err}
}

// Is reports whether err is of the kind. A nil err is of none.
func Is(err error, kind Kind) bool {
	return err != nil && Of(err).Kind == kind
}
