// Package lease holds what the control database knows of leases and stored credentials: a lease is a database user that
// ends by itself, and a credential is a lease that is kept and replaced. What is done to their roles is in package dbuser.
package lease

import (
	"time"

	"github.com/google/uuid"
)

// State is where a lease is.
type State string

// The states. An active one may be used; an ending one is being dropped; a blocked one can no longer log in, and something
// keeps its role from being dropped.
const (
	Active  State = "active"
	Ending  State = "ending"
	Blocked State = "blocked"
	Ended   State = "ended"
)

// States are all of them.
var States = []State{Active, Ending, Blocked, Ended}

// Reason is why a lease ends.
type Reason string

// The reasons.
const (
	Expired      Reason = "expired"
	Deleted      Reason = "deleted"      // by a person or program
	AccountEnded Reason = "accountEnded" // its account was deactivated or deleted
	AccessEnded  Reason = "accessEnded"  // its account may no longer manage the cluster, or nobody may hand out the role
	ByCredential Reason = "credential"   // it was replaced, or its credential deleted
	Gone         Reason = "gone"         // its role, or the one that it acts for, was dropped by others
)

// Lease is a database user that ends by itself.
type Lease struct {
	ID            uuid.UUID
	Cluster       uuid.UUID
	Username, For string
	RoleOID       uint32 // of its role; 0: not known
	// Account is the guid of who made it, "" for a credential's; Credential is the name of that, "" for an account's.
	Account, AccountName string
	Credential           string
	Token                uuid.UUID // that it was made with; zero: another credential
	Note                 string
	TTL                  time.Duration // that a renewal without one takes
	Databases            []string      // that it could connect to when it was made
	// By the clock of the cluster:
	CreatedAt, ExpiresAt, MaxExpiresAt time.Time

	RenewedAt, EndedAt time.Time // zero: never, or not yet
	State              State
	Reason             Reason   // "" while it is active
	BlockedBy          []string // sentences
}

// Filter chooses leases. Zero fields choose all.
type Filter struct {
	Clusters      []uuid.UUID // any of these, or those of Own; nil: all
	Own           string      // an account whose leases are chosen in any cluster; "": none
	Account       string      // guid or user name
	For           string
	Username      string    // of the lease
	Credential    string    // by its name
	Token         uuid.UUID // that it was made with
	Live          bool      // it has not ended
	States        []State
	ExpiresBefore time.Time
	After         uuid.UUID // of a list, newest first: the last one that was read; zero: from the start
	Limit         int       // 0: no limit
}

// Limits are what an admin allows in a cluster.
type Limits struct {
	DefaultTTL, MaxTTL time.Duration
	MaxPerAccount      int
}

// The limits of a cluster whose admin said nothing of them.
var DefaultLimits = Limits{DefaultTTL: time.Hour, MaxTTL: 24 * time.Hour, MaxPerAccount: 100}

// MinTTL is the shortest time that a lease is made for.
const MinTTL = time.Second
