package dbuser

import "time"

// Observation is what looking at a cluster again and again has shown about one of its users.
type Observation struct {
	// PasswordChangedOutside says whether the password was changed by SQL since Rolecall last set it, or since the user was
	// first seen; nil: the administering role may not read verifiers, or the user was not looked at yet.
	PasswordChangedOutside *bool
	// LastSeen is when a session of the user was last seen, and LastSeenSince when the cluster was first looked at; nil: not
	// yet. The user may have had sessions between two looks, a minute apart.
	LastSeen, LastSeenSince *time.Time
}
