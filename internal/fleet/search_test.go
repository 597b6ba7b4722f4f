package fleet_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/label"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var admin = &account.Principal{GUID: "g-admin", Username: "root", Scopes: account.AdminScopes, RequestID: "r-1",
	Address: "192.0.2.1"}

// user is a database user as a test makes it and expects to find it.
type user struct {
	cluster, name string
	createdBy     string
	createdAt     time.Time
	validUntil    time.Time
	state         string // disabled, deleting or ""
	lease         bool
	md5           bool
}

// statements make the user with a record.
func (u *user) statements() string {
	ident := `"` + strings.ReplaceAll(u.name, `"`, `""`) + `"`
	sql := `CREATE ROLE ` + ident
	if u.state == "" {
		sql += ` LOGIN`
	}
	if !u.validUntil.IsZero() {
		sql += ` VALID UNTIL '` + u.validUntil.Format(time.RFC3339Nano) + `'`
	}
	if u.md5 {
		sql += ` PASSWORD 'md5` + strings.Repeat("0", 32) + `'`
	}
	sql += ";"
	if u.createdBy == "" {
		return sql
	}
	record := fmt.Sprintf(`{"created":%q,"createdBy":%q,"revision":1,"attempt":%q`, u.createdAt.Format(time.RFC3339Nano),
		u.createdBy, uuid.NewString())
	if u.state != "" {
		record += fmt.Sprintf(`,"state":%q,"password":"kept"`, u.state)
	}
	if u.lease {
		record += fmt.Sprintf(`,"lease":%q,"for":"app","ends":"2040-01-01T00:00:00Z"`, uuid.NewString())
	}
	return sql + `COMMENT ON ROLE ` + ident + ` IS 'by hand` + "\n" + `rolecall:v1 ` + strings.ReplaceAll(record, "'",
		"''") + `}';`
}

// world is a service with the clusters B, a and b, in this order.
type world struct {
	*servicetest.Service
	servers map[string]*pgtest.Cluster
	ids     map[string]string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	first := pgtest.New(t, nil)
	w := &world{servicetest.New(t, first), map[string]*pgtest.Cluster{"B": first}, map[string]string{}}
	if _, err := w.DB.Pool.Exec(t.Context(), `UPDATE clusters SET display_name = 'B'`); err != nil {
		t.Fatal(err)
	}
	w.ids["B"] = w.ClusterID
	for _, name := range []string{"a", "b"} {
		w.servers[name] = pgtest.New(t, nil)
		w.register(t, name, w.servers[name])
	}
	return w
}

func (w *world) register(t testing.TB, name string, pg *pgtest.Cluster) {
	t.Helper()
	role, password := servicetest.Administrator(t, pg)
	w.ids[name] = w.Register(t, name, pg, role, password)
}

func (w *world) make(t testing.TB, users ...user) {
	t.Helper()
	sql := map[string]string{}
	for _, u := range users {
		sql[u.cluster] += u.statements()
	}
	for c, text := range sql {
		w.servers[c].Exec(t, text)
	}
}

// pages reads all pages, and returns "cluster/name" of each user in its order, and the names of unreachable clusters.
func (w *world) pages(t testing.TB, p *account.Principal, f fleet.Filter, order fleet.Sort, limit int) (
	found, unreachable []string) {
	t.Helper()
	after := ""
	for {
		page, err := w.Fleet.Search(t.Context(), p, f, order, after, limit)
		if err != nil {
			t.Fatalf("%+v by %+v: %v", f, order, err)
		}
		if len(page.Users) > limit {
			t.Fatalf("a page of %d users, and the limit was %d", len(page.Users), limit)
		}
		found = append(found, names(page)...)
		for _, u := range page.Unreachable {
			unreachable = append(unreachable, u.Cluster.DisplayName)
		}
		if after = page.Next; after == "" {
			return found, unreachable
		}
	}
}

func names(page *fleet.Page) (found []string) {
	for _, u := range page.Users {
		found = append(found, u.Cluster.DisplayName+"/"+u.Name)
	}
	return found
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// TestModel compares random searches of random users with a model of them.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := pgtest.Seed(t)
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	w := newWorld(t)
	administrator, _ := servicetest.Administrator(t, w.PG)
	eve := w.Account(t, "eve", nil, map[string]string{"team": "payments"})
	adam := w.Account(t, "adam", nil, map[string]string{"team": "shop"})
	labels := map[string]map[string]string{eve: {"team": "payments"}, adam: {"team": "shop"}}
	creators := []string{"", eve, adam, "g-deleted", `g"quoted\`}
	now := time.Now().UTC().Truncate(time.Microsecond)
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	var users []user
	made := map[string]bool{}
	for range 150 {
		u := user{cluster: pick("B", "a", "b"), name: pick("app", "App", "a%b", "a_b", `a\b`, "é", "a*", "z", "x") + pick("",
			"1", "_2", "%")}
		if made[u.cluster+"/"+u.name] {
			continue
		}
		made[u.cluster+"/"+u.name] = true
		if u.createdBy = pick(creators...); u.createdBy != "" {
			// Some are of the same time.
			u.createdAt = now.Add(-time.Duration(random.IntN(20)) * time.Hour)
			u.state = pick("", "", "", "disabled", "deleting")
			u.lease = random.IntN(5) == 0
		}
		if random.IntN(2) == 0 {
			u.validUntil = now.Add(time.Duration(random.IntN(20)-10) * time.Hour)
		}
		u.md5 = random.IntN(4) == 0
		users = append(users, u)
	}
	w.make(t, users...)
	state := func(u user) string {
		switch {
		case u.state != "":
			return u.state
		case !u.validUntil.IsZero() && u.validUntil.Before(now.Add(time.Minute)):
			return pgrole.StateExpired
		}
		return pgrole.StateActive
	}
	passwordKind := func(u user) string {
		switch {
		case w.PG.User != administrator: // which may not read it
			return pgrole.PasswordUnknown
		case u.md5:
			return pgrole.PasswordMD5
		}
		return pgrole.PasswordNone
	}
	for range 150 {
		var f fleet.Filter
		var keep []func(user) bool
		if random.IntN(2) == 0 {
			f.Name = pick("*", "a*", "*b*", "A*", "a%b", "a_b*", `a\b*`, "*1", "é*", "a*b*2", "nobody")
			pattern := regexp.MustCompile(`(?s)\A` + strings.ReplaceAll(regexp.QuoteMeta(f.Name), `\*`, `.*`) + `\z`)
			keep = append(keep, func(u user) bool { return pattern.MatchString(u.name) })
		}
		if random.IntN(3) == 0 {
			f.CreatedBy = pick(creators[1:]...)
			by := f.CreatedBy
			if f.CreatedBy == eve {
				f.CreatedBy = "EVE"
			}
			keep = append(keep, func(u user) bool { return u.createdBy == by })
		}
		if random.IntN(4) == 0 {
			text := pick("team", "team=payments", "team!=payments", "team in (shop,payments)")
			f.CreatorSelector, _ = label.Parse(text)
			keep = append(keep, func(u user) bool {
				return labels[u.createdBy] != nil &&
					f.CreatorSelector.Matches(labels[u.createdBy])
			})
		}
		if random.IntN(4) == 0 {
			c := pick("B", "a", "b")
			f.Cluster = pick(c, w.ids[c])
			keep = append(keep, func(u user) bool { return u.cluster == c })
		}
		if random.IntN(3) == 0 {
			f.States = []string{pick(pgrole.States...), pick(pgrole.States...)}
			keep = append(keep, func(u user) bool { return slices.Contains(f.States, state(u)) })
		}
		if random.IntN(4) == 0 {
			f.PasswordKind = pick(pgrole.PasswordKinds...)
			kind := f.PasswordKind
			keep = append(keep, func(u user) bool { return kind == passwordKind(u) })
		}
		if random.IntN(4) == 0 {
			f.ExpiresBefore = now.Add(time.Duration(random.IntN(20)-10) * time.Hour)
			keep = append(keep, func(u user) bool { return !u.validUntil.IsZero() && u.validUntil.Before(f.ExpiresBefore) })
		}
		if random.IntN(4) == 0 {
			want := random.IntN(2) == 0
			f.Lease = &want
			keep = append(keep, func(u user) bool { return u.lease == want })
		}
		order := fleet.Sort{By: pick("", "cluster", "name", "createdAt", "validUntil"), Descending: random.IntN(2) == 0}
		var want []user
		for _, u := range users {
			if !slices.ContainsFunc(keep, func(k func(user) bool) bool { return !k(u) }) {
				want = append(want, u)
			}
		}
		slices.SortFunc(want, func(a, b user) int { return compareUsers(order, a, b) })
		var texts []string
		for _, u := range want {
			texts = append(texts, u.cluster+"/"+u.name)
		}
		limit := 1 + random.IntN(40)
		found, unreachable := w.pages(t, admin, f, order, limit)
		same(t, fmt.Sprintf("%+v by %+v, limit %d", f, order, limit), found, texts)
		same(t, "unreachable", unreachable, nil)
		if order == (fleet.Sort{By: "cluster"}) || order == (fleet.Sort{}) {
			matches, _, err := w.Fleet.Matches(t.Context(), admin, f, fleet.MaxUsers)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, m := range matches {
				all = append(all, m.Cluster.DisplayName+"/"+m.Name)
			}
			same(t, fmt.Sprintf("matches of %+v", f), all, texts)
		}
		if t.Failed() {
			return
		}
	}
}

// compareUsers is the order that is documented.
func compareUsers(order fleet.Sort, a, b user) int {
	var first int
	none := 0
	switch times := [2]time.Time{}; order.By {
	case "", "cluster":
		first = strings.Compare(a.cluster, b.cluster)
	case "name":
		first = strings.Compare(a.name, b.name)
	default:
		if times = [2]time.Time{a.createdAt, b.createdAt}; order.By == "validUntil" {
			times = [2]time.Time{a.validUntil, b.validUntil}
		}
		if times[0].IsZero() != times[1].IsZero() {
			none = 1
			if times[1].IsZero() {
				none = -1
			}
		} else {
			first = times[0].Compare(times[1])
		}
	}
	if order.Descending {
		first = -first
	}
	return cmp.Or(none, first, strings.Compare(a.cluster, b.cluster), strings.Compare(a.name, b.name))
}

// Names that are not UTF-8, and clusters and users whose names differ in case only, are different to each search.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.servers["a"].Exec(t, `CREATE DATABASE latin1 ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`)
	conn := w.servers["a"].Connect(t, w.PG.User, w.PG.Password, "latin1")
	for _, sql := range []string{`SET client_encoding = UTF8`, `CREATE ROLE "f_é1" LOGIN; CREATE ROLE "f_é2" LOGIN`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	w.make(t, user{cluster: "b", name: "f_é1"}, user{cluster: "B", name: "f_É1"}, user{cluster: "B", name: "F_é1"})
	for _, limit := range []int{1, 2, 10} {
		same := func(f fleet.Filter, order fleet.Sort, want ...string) {
			t.Helper()
			found, _ := w.pages(t, admin, f, order, limit)
			same(t, fmt.Sprintf("%+v by %+v", f, order), found, want)
		}
		same(fleet.Filter{Name: "f_*"}, fleet.Sort{}, "B/f_É1", "a/f_\xe91", "a/f_\xe92", "b/f_é1")
		same(fleet.Filter{Name: "f_*"}, fleet.Sort{By: "name"}, "B/f_É1", "b/f_é1", "a/f_\xe91", "a/f_\xe92")
		same(fleet.Filter{Name: "f_*"}, fleet.Sort{By: "name", Descending: true}, "a/f_\xe92", "a/f_\xe91", "b/f_é1", "B/f_É1")
		same(fleet.Filter{Name: "f_\xe9*"}, fleet.Sort{By: "validUntil"}, "a/f_\xe91", "a/f_\xe92")
		same(fleet.Filter{Name: "f_é*"}, fleet.Sort{}, "b/f_é1")
		same(fleet.Filter{Name: "F_*", Cluster: "B"}, fleet.Sort{}, "B/F_é1")
		same(fleet.Filter{Name: "F_*", Cluster: "b"}, fleet.Sort{})
	}
}

// A cluster that hangs, one that is dead and one that may not be viewed neither fail nor delay the others.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make(t, user{cluster: "B", name: "u1"}, user{cluster: "a", name: "u2"}, user{cluster: "b", name: "u3"})
	proxy := pgtest.NewProxy(t, w.servers["a"])
	role, password := servicetest.Administrator(t, w.servers["a"])
	url := fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", role, proxy.Port)
	hangs := &cluster.Cluster{ID: uuid.New(), DisplayName: "A hangs", Location: "de/fra", CreatedBy: "test",
		Connection: cluster.Connection{
			URL: url, TLS: cluster.TLS{Mode: "disable"}, Password: secret.Text(password)}}
	if err := w.Clusters.Ensure(t.Context(), hangs, audit.Entry{AccountGUID: "test", AccountName: "test"}); err != nil {
		t.Fatal(err)
	}
	proxy.Hang()
	w.servers["b"].Stop(t)
	w.Access(t, w.ids["B"], nil, []string{"team=x"})
	w.Access(t, w.ids["b"], nil, []string{"team=x"})
	viewer := &account.Principal{GUID: "g-viewer", Username: "viewer", Scopes: []string{account.ScopeRead},
		Labels: map[string]string{"team": "x"}}
	w.Fleet.Limit = 8 * time.Second // a busy machine takes seconds to connect to a cluster that answers
	for _, order := range []fleet.Sort{{}, {By: "name"}, {By: "createdAt", Descending: true}} {
		begin := time.Now()
		page, err := w.Fleet.Search(t.Context(), admin, fleet.Filter{Name: "u*"}, order, "", 10)
		if took := time.Since(begin); err != nil || took > time.Minute {
			t.Fatalf("%v after %s", err, took)
		}
		same(t, "found", names(page), []string{"B/u1", "a/u2"})
		var away []string
		for _, u := range page.Unreachable {
			away = append(away, u.Cluster.DisplayName)
			if !fault.Is(u.Err, fault.Unavailable) {
				t.Errorf("%s: %v", u.Cluster.DisplayName, u.Err)
			}
		}
		same(t, "unreachable", away, []string{"A hangs", "b"})
		if page, err = w.Fleet.Search(t.Context(), viewer, fleet.Filter{Name: "u*"}, order, "", 10); err != nil {
			t.Fatal(err)
		}
		same(t, "found by the viewer", names(page), []string{"B/u1"})
		if len(page.Unreachable) != 1 || page.Unreachable[0].Cluster.DisplayName != "b" {
			t.Errorf("to the viewer %+v is unreachable", page.Unreachable)
		}
	}
	matches, unreachable, err := w.Fleet.Matches(t.Context(), admin, fleet.Filter{Name: "u*"}, fleet.MaxUsers)
	if err != nil || len(matches) != 2 || len(unreachable) != 2 {
		t.Errorf("got %v, %v, %v", matches, unreachable, err)
	}
	// The first page has room for a cluster only: what comes later is not asked, and not named.
	page, err := w.Fleet.Search(t.Context(), viewer, fleet.Filter{Name: "u*", Cluster: "B"}, fleet.Sort{}, "", 1)
	if err != nil || page.Next != "" || len(page.Unreachable) > 0 {
		t.Errorf("got %+v, %v", page, err)
	}
	nobody := &account.Principal{GUID: "g-nobody", Username: "nobody", Scopes: []string{account.ScopeRead}}
	page, err = w.Fleet.Search(t.Context(), nobody, fleet.Filter{}, fleet.Sort{}, "", 10)
	if err != nil || len(page.Users)+len(page.Unreachable) > 0 {
		t.Errorf("an account without a view got %+v, %v", page, err)
	}
	for _, name := range []string{"a", "nowhere", w.ids["a"]} {
		if _, err := w.Fleet.Search(t.Context(), viewer, fleet.Filter{Cluster: name}, fleet.Sort{}, "", 1); !fault.Is(err,
			fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Users, clusters and labels that change between two pages neither hide nor repeat others.
func TestChangesBetweenPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eve := w.Account(t, "eve", nil, map[string]string{"team": "x"})
	for _, c := range []string{"B", "a"} {
		for _, name := range []string{"c1", "c3", "c5"} {
			w.make(t, user{cluster: c, name: name, createdBy: eve, createdAt: time.Unix(1_700_000_000, 0)})
		}
	}
	team, _ := label.Parse("team=x")
	f := fleet.Filter{CreatorSelector: team}
	for _, order := range []fleet.Sort{{}, {By: "name"}, {By: "createdAt"}, {By: "validUntil", Descending: true}} {
		page, err := w.Fleet.Search(t.Context(), admin, f, order, "", 2)
		if err != nil {
			t.Fatal(err)
		}
		found := names(page)
		w.make(t, user{cluster: "B", name: "c0", createdBy: eve, createdAt: time.Unix(1_600_000_000, 0)})
		w.servers["B"].Exec(t, `DROP ROLE c1`)
		w.register(t, "Aa", w.servers["a"])
		for page.Next != "" {
			if page, err = w.Fleet.Search(t.Context(), admin, f, order, page.Next, 2); err != nil {
				t.Fatal(err)
			}
			found = append(found, names(page)...)
		}
		for _, want := range []string{"B/c1", "B/c3", "B/c5", "a/c1", "a/c3", "a/c5"} {
			count := 0
			for _, name := range found {
				if name == want {
					count++
				}
			}
			if count != 1 {
				t.Errorf("by %+v %s was found %d times: %q", order, want, count, found)
			}
		}
		w.servers["B"].Exec(t, `DROP ROLE c0`)
		w.make(t, user{cluster: "B", name: "c1", createdBy: eve, createdAt: time.Unix(1_700_000_000, 0)})
		if _, err := w.DB.Pool.Exec(t.Context(), `DELETE FROM clusters WHERE display_name = 'Aa'`); err != nil {
			t.Fatal(err)
		}
		if err := w.Clusters.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	page, err := w.Fleet.Search(t.Context(), admin, f, fleet.Sort{}, "", 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.DB.Pool.Exec(t.Context(), `UPDATE accounts SET labels = '{}' WHERE guid = $1`, eve); err != nil {
		t.Fatal(err)
	}
	if page, err = w.Fleet.Search(t.Context(), admin, f, fleet.Sort{}, page.Next, 2); err != nil || len(page.Users) > 0 {
		t.Errorf("got %v, %v", names(page), err)
	}
}

// A cluster with 50,000 users is searched in parts, each within the bounds of a response.
func TestManyUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// A transaction has a lock for each role that it makes.
	w.servers["a"].Exec(t, `DO $$ BEGIN FOR i IN 1..50000 LOOP
		EXECUTE format('CREATE ROLE many_%s LOGIN', lpad(i::text, 5, '0'));
		IF i % 1000 = 0 THEN COMMIT; END IF; END LOOP; END $$`)
	w.Fleet.Limit = time.Minute // the machine may be busy
	matches, unreachable, err := w.Fleet.Matches(t.Context(), admin, fleet.Filter{Name: "many_*"}, fleet.MaxUsers)
	if err != nil || len(unreachable) > 0 || len(matches) != 50000 || matches[49999].Name != "many_50000" ||
		matches[0].OID == 0 {
		t.Fatalf("%d, %v, %v", len(matches), unreachable, err)
	}
	for _, order := range []fleet.Sort{{}, {By: "name"}, {By: "validUntil"}} {
		page, err := w.Fleet.Search(t.Context(), admin, fleet.Filter{Name: "many_4999*"}, order, "", 3)
		if err != nil {
			t.Fatal(err)
		}
		same(t, order.By, names(page), []string{"a/many_49990", "a/many_49991", "a/many_49992"})
	}
}

// FuzzCursor sends forged cursors: none is an internal error, and none shows what the filter does not match.
func FuzzCursor(f *testing.F) {
	w := newWorld(f)
	w.make(f, user{cluster: "B", name: "fz1"}, user{cluster: "a", name: "fz2"}, user{cluster: "b", name: "other"})
	filter := fleet.Filter{Name: "fz*"}
	orders := []fleet.Sort{{By: "cluster"}, {By: "name", Descending: true}, {By: "validUntil"}}
	for i, order := range orders {
		page, err := w.Fleet.Search(f.Context(), admin, filter, order, "", 1)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, []byte(page.Next))
		for at := range len(page.Next) {
			forged := []byte(page.Next)
			forged[at] ^= 0xff
			f.Add(i, forged)
			f.Add(i, forged[:at])
		}
	}
	f.Fuzz(func(t *testing.T, i int, after []byte) {
		order := orders[uint(i)%uint(len(orders))]
		page, err := w.Fleet.Search(t.Context(), admin, filter, order, string(after), 10)
		if err != nil {
			if !fault.Is(err, fault.Malformed) {
				t.Fatalf("%q: %v", after, err)
			}
			return
		}
		if len(page.Unreachable) > 0 {
			t.Fatalf("%q: %v", after, page.Unreachable[0].Err)
		}
		for _, name := range names(page) {
			if name != "B/fz1" && name != "a/fz2" {
				t.Fatalf("%q shows %s", after, name)
			}
		}
	})
}
