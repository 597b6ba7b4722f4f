package fleet

import (
	"time"

	"rolecall/internal/label"
)

// Filter chooses database users of the clusters that a principal may view. Every condition that is set must match.
type Filter struct {
	Name            string         // * stands for any characters
	CreatedBy       string         // guid or user name of an account
	CreatorSelector label.Selector // of the labels of the account that made the user
	Cluster         string         // id or display name
	States          []string
	PasswordKind    string
	ExpiresBefore   time.Time     // its VALID UNTIL is before that
	NotSeenFor      time.Duration // no session for so long, and observed for as long
	Lease           *bool
	ChangedOutside  *bool // its password was changed by SQL since Rolecall set it
	System          bool  // protected users as well
}

// Empty reports whether no condition is set. System alone is none: it only adds users.
func (f Filter) Empty() bool {
	return f.Name == "" && f.CreatedBy == "" && len(f.CreatorSelector) == 0 && f.Cluster == "" && len(f.States) == 0 &&
		f.PasswordKind == "" && f.ExpiresBefore.IsZero() && f.NotSeenFor == 0 && f.Lease == nil && f.ChangedOutside == nil
}
