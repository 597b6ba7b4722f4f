package server

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long anything may take before a test fails.
const patience = 60 * time.Second

// The rule is the same for a minute, which is what serve has, and for half a second.
func TestReadiness(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	db := servicetest.Control(t, pg, "control")
	patient, impatient := newReadiness(db, time.Hour), newReadiness(db, 500*time.Millisecond)
	status := func(rd *readiness) int {
		w := httptest.NewRecorder()
		rd.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		return w.Code
	}
	becomes := func(rd *readiness, want int) {
		t.Helper()
		for end := time.Now().Add(patience); status(rd) != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("/readyz: %d, want %d", status(rd), want)
			}
		}
	}
	for range 2 {
		becomes(impatient, http.StatusOK)
		pg.Stop(t)
		becomes(impatient, http.StatusServiceUnavailable)
		if got := status(patient); got != http.StatusOK {
			t.Errorf("/readyz within the time in which reads go on: %d, want 200", got)
		}
		pg.Start(t)
	}
	becomes(impatient, http.StatusOK)
	asked, began := db.SignIn.Stat().AcquireCount(), time.Now()
	var flood sync.WaitGroup
	for range 200 {
		flood.Go(func() { status(impatient) })
	}
	flood.Wait()
	if looks, most := db.SignIn.Stat().AcquireCount()-asked, 1+int64(time.Since(began)/time.Second); looks > most {
		t.Errorf("200 requests asked the control database %d times, want at most %d", looks, most)
	}
	impatient.stopping.Store(true)
	becomes(impatient, http.StatusServiceUnavailable)
}
