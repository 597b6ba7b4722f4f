package lease

import (
	"time"

	"github.com/google/uuid"

	"rolecall/internal/secret"
)

// Credential is a named lease that is kept and replaced on a schedule.
type Credential struct {
	ID, Cluster uuid.UUID
	Name, For   string
	RotateEvery time.Duration
	Overlap     time.Duration // that a replaced password is still accepted for
	Window      *Window       // in which it rotates; nil: any time
	Lease       uuid.UUID     // the current one; zero: none yet
	Username    string        // of the current one
	Next        uuid.UUID     // the lease that is being made to replace it; zero: none
	LastError   string        // of the last rotation; "": it worked
	RotatedAt   time.Time     // by the clock of the control database, as are the times below
	RotatesAt   time.Time
	LeaseSince  time.Time // before the role of the current lease was made
	NextSince   time.Time // before the role of the next lease is made
	Clock       Clock     // as of when the credential was read
	CreatedAt   time.Time
	CreatedBy   string // guid of the account
	Revision    int64

	password []byte // sealed
}

// Ends is when the current lease ends, or a little earlier, by the clock of the control database.
func (c *Credential) Ends(current *Lease) time.Time {
	return c.LeaseSince.Add(current.ExpiresAt.Sub(current.CreatedAt))
}

// State is "active", or "failing" after a rotation that did not work.
func (c *Credential) State() string {
	if c.LastError != "" {
		return "failing"
	}
	return "active"
}

// Current is what a program needs to log in.
type Current struct {
	*Credential
	Password  secret.Text
	Databases []string
	ExpiresAt time.Time // when this password is no longer accepted
}

// Window is when a credential may rotate.
type Window struct {
	Days     []string `json:"days"` // mon, tue, wed, thu, fri, sat, sun
	From     string   `json:"from"` // 02:00
	To       string   `json:"to"`   // exclusive; before From: on the next day
	Timezone string   `json:"timezone"`
}
