// Package fleet is what is asked of many clusters, and done to many database users, at once: the search, operations, and
// offboarding. Each step on one cluster is a call of package dbuser, which authorizes and records it.
package fleet

import (
	"log/slog"
	"time"

	"rolecall/internal/control"
	"rolecall/internal/dbuser"
)

// Service works on the clusters of one Rolecall.
type Service struct {
	DB    *control.DB
	Users *dbuser.Service
	Log   *slog.Logger
	// Limit is how long a cluster may delay a search; 0: 5 seconds.
	Limit time.Duration
}
