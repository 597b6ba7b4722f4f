package fleet_test

import (
	"testing"
	"time"

	"rolecall/internal/fleet"
	"rolecall/internal/pgtest"
)

// TestObserved searches by what was observed: B was looked at for a hundred days, a for ten, and b never. In B the users are
// old unless their names say otherwise.
func TestObserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now, day := time.Now(), 24*time.Hour
	by := admin.GUID
	old := now.Add(-200 * day)
	w.make(t,
		user{cluster: "B", name: "o_away", createdBy: by, createdAt: old},
		user{cluster: "B", name: "o_never", createdBy: by, createdAt: old},
		user{cluster: "B", name: "o_seen", createdBy: by, createdAt: old},
		user{cluster: "B", name: "o_young", createdBy: by, createdAt: now.Add(-day)},
		user{cluster: "B", name: "o_unlooked", createdBy: by, createdAt: old},
		user{cluster: "a", name: "o_away", createdBy: by, createdAt: old},
		user{cluster: "b", name: "o_away", createdBy: by, createdAt: old})
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := w.DB.Pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	looked := func(cluster string, since time.Duration) {
		exec(`INSERT INTO observed_clusters (cluster_id, looks, verifiers, since) VALUES ($1, 9, true, $2)`, w.ids[cluster],
			now.Add(-since))
	}
	observed := func(cluster, name string, outside bool, lastSeen *time.Time) {
		oid := pgtest.Value[uint32](t, w.servers[cluster], `SELECT oid FROM pg_roles WHERE rolname = '`+name+`'`)
		exec(`INSERT INTO observations (cluster_id, role_oid, name, recorded, fingerprint, outside, outside_at, last_seen)
			VALUES ($1, $2, $3, '', 'x', $4, CASE WHEN $4 THEN now() END, $5)`, w.ids[cluster], oid, []byte(name), outside, lastSeen)
	}
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	looked("B", 100*day)
	looked("a", 10*day)
	observed("B", "o_away", true, ago(50*day))
	observed("B", "o_never", false, nil)
	observed("B", "o_seen", true, ago(day))
	observed("B", "o_young", false, nil)
	observed("a", "o_away", false, ago(9*day))
	yes, no := true, false
	for _, limit := range []int{1, 2, 10} {
		for what, search := range map[string]struct {
			filter fleet.Filter
			order  fleet.Sort
			want   []string
		}{
			"not seen for 30 days": {fleet.Filter{NotSeenFor: 30 * day}, fleet.Sort{}, []string{"B/o_away", "B/o_never",
				"B/o_unlooked"}},
			"not seen for 60 days":  {fleet.Filter{NotSeenFor: 60 * day}, fleet.Sort{}, []string{"B/o_never", "B/o_unlooked"}},
			"not seen for 120 days": {fleet.Filter{NotSeenFor: 120 * day}, fleet.Sort{}, nil},
			"not seen for 5 days": {fleet.Filter{NotSeenFor: 5 * day}, fleet.Sort{By: "name"},
				[]string{"B/o_away", "a/o_away", "B/o_never", "B/o_unlooked"}},
			"changed outside":     {fleet.Filter{ChangedOutside: &yes}, fleet.Sort{}, []string{"B/o_away", "B/o_seen"}},
			"not changed outside": {fleet.Filter{ChangedOutside: &no}, fleet.Sort{}, []string{"B/o_never", "B/o_young", "a/o_away"}},
			"both": {fleet.Filter{ChangedOutside: &yes, NotSeenFor: 30 * day}, fleet.Sort{By: "createdAt", Descending: true},
				[]string{"B/o_away"}},
			"last seen": {fleet.Filter{}, fleet.Sort{By: "lastSeen"},
				[]string{"B/o_away", "a/o_away", "B/o_seen", "B/o_never", "B/o_unlooked", "B/o_young", "b/o_away"}},
			"last seen, descending": {fleet.Filter{}, fleet.Sort{By: "lastSeen", Descending: true},
				[]string{"B/o_seen", "a/o_away", "B/o_away", "B/o_never", "B/o_unlooked", "B/o_young", "b/o_away"}},
		} {
			search.filter.Name = "o_*"
			found, away := w.pages(t, admin, search.filter, search.order, limit)
			same(t, what, found, search.want)
			same(t, what+": unreachable", away, nil)
		}
	}
}
