package adminapi

import (
	"net/http"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/web"
)

// status is what an operator wants to know of an installation at a glance.
type status struct {
	Version      string        `json:"version"`
	Installation string        `json:"installation"`
	Replicas     []string      `json:"replicas"`
	Control      controlStatus `json:"control"`
	Audit        auditStatus   `json:"audit"`
	Clusters     clusterStatus `json:"clusters"`
	Operations   int           `json:"operationsRunning"`
	LateLeases   int           `json:"lateLeases"`
}

type controlStatus struct {
	Version         string `json:"version"`
	Database        string `json:"database"`
	Bytes           int64  `json:"bytes"`
	Migration       int    `json:"migration"`
	NewerMigrations int    `json:"newerMigrations"`
}

// auditStatus is the backlog of the audit log.
type auditStatus struct {
	Unsealed      int64   `json:"unsealedRows"`
	UnsealedAge   float64 `json:"oldestUnsealedRowSeconds"`
	Overdue       int64   `json:"overdueAttempts"`
	OldestOverdue float64 `json:"oldestOverdueAttemptSeconds"`
}

type clusterStatus struct {
	Registered  int      `json:"registered"`
	Unreachable []string `json:"unreachable"`
}

func (a *API) getStatus(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if !access.MayAudit(p) {
		return access.ErrMayNotAudit
	}
	found, err := a.Identity.Installation(r.Context())
	if err != nil {
		return err
	}
	running, _, err := a.Fleet.Numbers(r.Context())
	if err != nil {
		return err
	}
	leases, err := a.Users.LeaseStore.Counts(r.Context())
	if err != nil {
		return err
	}
	db, log := found.Control, found.Log
	s := status{Version: a.Version, Installation: db.Installation.String(), Replicas: append([]string{}, db.Replicas...),
		Control: controlStatus{Version: db.Server, Database: db.Database, Bytes: db.Bytes,
			NewerMigrations: max(0, len(db.Migrations)-db.Known)},
		Audit:    auditStatus{log.Unsealed, log.OldestRow.Seconds(), log.Overdue, log.OldestTry.Seconds()},
		Clusters: clusterStatus{Unreachable: []string{}}, Operations: running}
	if n := len(db.Migrations); n > 0 {
		s.Control.Migration = db.Migrations[n-1].Version
	}
	for _, n := range leases {
		s.LateLeases += n.Late
	}
	for _, c := range a.Users.ViewableClusters(p) {
		s.Clusters.Registered++
		if c.Unreachable() {
			s.Clusters.Unreachable = append(s.Clusters.Unreachable, c.DisplayName)
		}
	}
	web.JSON(w, http.StatusOK, "application/json", s)
	return nil
}
