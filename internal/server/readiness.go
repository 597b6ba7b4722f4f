package server

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"rolecall/internal/control"
	"rolecall/internal/web"
)

func healthz(w http.ResponseWriter, _ *http.Request) {
	web.JSON(w, http.StatusOK, "application/json", map[string]string{"status": "ok"})
}

// readiness decides whether requests should come to this replica: not while it stops, and not after the control database has
// been unreachable for longer than tolerated, when nothing works any more. Until then reads still work. A balancer that
// removed the replica earlier would remove all of them, because the control database is unreachable for every replica at
// once.
type readiness struct {
	db        *control.DB
	tolerated time.Duration // of silence
	stopping  atomic.Bool

	mu       sync.Mutex // its holder asks the database on behalf of all who wait
	asked    time.Time
	failed   bool
	answered time.Time // when the control database answered last
}

func newReadiness(db *control.DB, tolerated time.Duration) *readiness {
	return &readiness{db: db, tolerated: tolerated, answered: time.Now()}
}

// unreachable reports that the control database has not answered for longer than tolerated.
func (rd *readiness) unreachable() bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if time.Since(rd.asked) >= readinessAge {
		// The request's own context would end when its client disconnects.
		ctx, cancel := context.WithTimeout(context.Background(), readinessTimeout)
		defer cancel()
		now, err := time.Now(), rd.db.SignIn.Ping(ctx)
		rd.asked = time.Now()
		if err == nil {
			rd.answered = now
		}
		rd.failed = err != nil
	}
	return rd.failed && time.Since(rd.answered) >= rd.tolerated
}

func (rd *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	switch {
	case rd.stopping.Load():
		notReady(w, "the server is stopping")
	case rd.unreachable():
		notReady(w, "the control database is unreachable")
	default:
		web.JSON(w, http.StatusOK, "application/json", map[string]string{"status": "ready"})
	}
}

func notReady(w http.ResponseWriter, detail string) {
	web.JSON(w, http.StatusServiceUnavailable, "application/problem+json", map[string]any{
		"status": http.StatusServiceUnavailable, "title": "Service Unavailable", "detail": detail,
	})
}
