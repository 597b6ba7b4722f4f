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
	RotatedAt   time.Time
	RotatesAt   time.Time
	CreatedAt   time.Time
	CreatedBy   string // guid of the account
	Revision    int64

	password, nextPassword []byte // sealed
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
