package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/pgtest"
)

// soakTime is how long TestSoak lasts unless SOAK_SECONDS says more: make soak.
const soakTime = 3 * time.Second

// TestSoak keeps a server busy over both APIs, with good clients and bad ones. What it holds in memory, goroutines, files
// and connections must not grow; each answer must be one that was to be expected; and in the end the catalog, the audit
// log and the answers must agree.
func TestSoak(t *testing.T) {
	t.Parallel()
	lasts := pgtest.SoakTime(t, soakTime)
	s := newSoak(t)
	before := s.look(t)

	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var load sync.WaitGroup
	for w := range 3 {
		load.Go(func() { s.manageUsers(ctx, w) })
	}
	load.Go(func() { s.labelAccounts(ctx) })
	load.Go(func() { s.signIn(ctx) })
	load.Go(func() { s.guess(ctx) })
	load.Go(func() { s.misbehave(ctx) })

	// What counts is from after the first quarter, when pools, caches and the heap have got their size.
	var looks []standing
	for ticks := time.Tick(max(lasts/60, 200*time.Millisecond)); ctx.Err() == nil; {
		select {
		case <-ticks:
			looks = append(looks, s.look(t))
			if lasts > soakTime {
				fmt.Printf("soak: %v\n", looks[len(looks)-1])
			}
		case <-ctx.Done():
		}
	}
	load.Wait()
	s.client.CloseIdleConnections()
	warm, end := usual(looks[len(looks)/4:len(looks)/2]), usual(looks[3*len(looks)/4:])
	fmt.Printf("soak: %s, %d requests, %d users made, %d passwords set, %d users deleted\n", lasts, s.sent(), s.made, s.changed,
		s.deleted)
	fmt.Printf("soak: at the start %v\nsoak: warm         %v\nsoak: at the end   %v\n", before, warm, end)
	for _, name := range slices.Sorted(maps.Keys(s.answers)) {
		fmt.Printf("soak: %6d × %s\n", s.answers[name], name)
	}
	for _, problem := range s.problems {
		t.Error(problem)
	}

	allowed := warm.memory/5 + 8<<10
	if lasts < time.Minute {
		allowed = 64 << 10 // what sign-ins have left is given back every 5 seconds
	}
	if grown := end.memory - warm.memory; grown > allowed {
		t.Errorf("the memory has grown by %d kB", grown)
	}
	if end.goroutines > warm.goroutines+20 || end.files > warm.files+20 || end.connections > warm.connections+10 {
		t.Errorf("something has grown: %v at first, %v at the end", warm, end)
	}
	// When nobody asks any more, nothing is left of the requests.
	for until := time.Now().Add(settled); ; time.Sleep(50 * time.Millisecond) {
		now := s.look(t)
		if now.goroutines <= before.goroutines+30 && now.files <= before.files+20 {
			fmt.Printf("soak: afterwards   %v\n", now)
			break
		}
		if time.Now().After(until) {
			t.Errorf("afterwards: %v, was %v", now, before)
			break
		}
	}
	s.compare(t)
}

// soak is a server under load, and what it has answered.
type soak struct {
	*server
	metrics string
	guid    string // of a platform user
	client  *http.Client

	mu                     sync.Mutex
	answers                map[string]int // by request and status
	problems               []string
	made, changed, deleted int
	alive                  map[string]string // passwords by user
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := &soak{
		server:  newServer(t, "--metrics-listen="+l.Addr().String()),
		metrics: "http://" + l.Addr().String() + "/metrics",
		client:  &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		answers: map[string]int{},
		alive:   map[string]string{},
	}
	body := s.ask(t.Context(), "make an account", "POST", "/uaa/Users", s.bearer(),
		`{"userName":"soaker","password":"soaker's password"}`, 201)
	var made struct{ ID string }
	if err := json.Unmarshal(body, &made); err != nil || made.ID == "" {
		t.Fatalf("an account: %s, %v", body, s.problems)
	}
	s.guid = made.ID
	s.ask(t.Context(), "make a platform user", "POST", "/v3/users", s.bearer(), `{"guid":"`+s.guid+`"}`, 201)
	return s
}

func (s *soak) bearer() string { return "Bearer " + s.env["IONOS_TOKEN"] }

func basic(username, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}

// ask sends a request and counts the answer, which must have one of the statuses. It returns nil when there was none
// because the load is over, and when the status was another.
func (s *soak) ask(ctx context.Context, what, method, path, authorization, body string, want ...int) []byte {
	// A request that was sent is answered: what was done must be known.
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), method, s.env["ROLECALL_URL"]+path,
		strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	switch {
	case strings.HasSuffix(path, "/oauth/token"):
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case body != "":
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.problem("%s: %v", what, err)
		return nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	s.mu.Lock()
	s.answers[fmt.Sprintf("%s: %d", what, resp.StatusCode)]++
	s.mu.Unlock()
	if err != nil || !slices.Contains(want, resp.StatusCode) {
		s.problem("%s: %d %.300s, %v; want %d", what, resp.StatusCode, answer, err, want)
		return nil
	}
	return answer
}

func (s *soak) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Sprintf(format, args...))
	}
}

func (s *soak) sent() (n int) {
	for _, count := range s.answers {
		n += count
	}
	return n
}

// every runs f with 0, 1, 2 …, at most once in each pause, until ctx ends.
func every(ctx context.Context, pause time.Duration, f func(n int)) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		f(n)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// manageUsers makes, reads, changes and deletes database users, and keeps the last few.
func (s *soak) manageUsers(ctx context.Context, worker int) {
	const kept = 10
	users := "/databases/postgresql/clusters/" + s.cluster() + "/users"
	authorization := s.bearer()
	if worker == 0 {
		authorization = basic(s.env["IONOS_USERNAME"], s.env["IONOS_PASSWORD"])
	}
	var mine []string
	every(ctx, 50*time.Millisecond, func(n int) {
		name := fmt.Sprintf("soak %d-%d", worker, n)
		password := "password of " + name
		if s.ask(ctx, "make a user", "POST", users, authorization, fmt.Sprintf(`{"properties":{"username":%q,"password":%q}}`,
			name, password), 200) == nil {
			return
		}
		mine = append(mine, name)
		s.mu.Lock()
		s.made++
		s.alive[name] = password
		s.mu.Unlock()
		place := users + "/" + url.PathEscape(name)
		s.ask(ctx, "read a user", "GET", place, authorization, "", 200)
		s.ask(ctx, "list users", "GET", users+"?limit=100", authorization, "", 200)
		s.ask(ctx, "read a user that is not there", "GET", users+"/nobody", authorization, "", 404)
		s.ask(ctx, "make a user again", "POST", users, authorization,
			fmt.Sprintf(`{"properties":{"username":%q,"password":%q}}`, name, password), 422)
		password += "!"
		if s.ask(ctx, "set a password", "PATCH", place, authorization, fmt.Sprintf(`{"properties":{"password":%q}}`, password),
			200) != nil {
			s.mu.Lock()
			s.changed++
			s.alive[name] = password
			s.mu.Unlock()
		}
		if len(mine) > kept {
			if s.ask(ctx, "delete a user", "DELETE", users+"/"+url.PathEscape(mine[0]), authorization, "", 204) != nil {
				s.mu.Lock()
				s.deleted++
				delete(s.alive, mine[0])
				s.mu.Unlock()
			}
			mine = mine[1:]
		}
	})
}

// labelAccounts reads, lists and labels accounts.
func (s *soak) labelAccounts(ctx context.Context) {
	place := "/v3/users/" + s.guid
	every(ctx, 20*time.Millisecond, func(n int) {
		s.ask(ctx, "label an account", "PATCH", place, s.bearer(),
			fmt.Sprintf(`{"metadata":{"labels":{"soak":"n%d"},"annotations":{"note":%q}}}`, n%7, strings.Repeat("x", n%1000)), 200)
		s.ask(ctx, "read an account", "GET", place, s.bearer(), "", 200)
		s.ask(ctx, "list accounts", "GET", "/v3/users?label_selector="+url.QueryEscape(fmt.Sprintf("soak=n%d", n%7)), s.bearer(),
			"", 200)
		s.ask(ctx, "list clusters", "GET", "/databases/postgresql/clusters", s.bearer(), "", 200)
	})
}

// signIn signs in again and again as an existing account, with its password and with its refresh token.
func (s *soak) signIn(ctx context.Context) {
	every(ctx, time.Second, func(int) {
		form := url.Values{"grant_type": {"password"}, "username": {"soaker"}, "password": {"soaker's password"}}
		for range 3 {
			var got struct {
				Access  string `json:"access_token"`
				Refresh string `json:"refresh_token"`
			}
			answer := s.ask(ctx, "ask for a token", "POST", "/uaa/oauth/token", basic("cf", ""), form.Encode(), 200, 429)
			if json.Unmarshal(answer, &got) != nil || got.Access == "" {
				return
			}
			s.ask(ctx, "read oneself", "GET", "/rolecall/v1/whoami", "Bearer "+got.Access, "", 200)
			form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.Refresh}}
		}
	})
}

// guess tries passwords and tokens.
func (s *soak) guess(ctx context.Context) {
	every(ctx, 100*time.Millisecond, func(n int) {
		s.ask(ctx, "guess a password", "GET", "/databases/postgresql/clusters", basic(fmt.Sprint("guessed", n%50), "guess"), "",
			401, 429)
		s.ask(ctx, "guess a token", "GET", "/databases/postgresql/clusters", fmt.Sprint("Bearer guess", n), "", 401, 429)
		s.ask(ctx, "ask as nobody", "GET", "/v3/users", "", "", 401, 429)
	})
}

// misbehave sends what cannot be read, and hangs up.
func (s *soak) misbehave(ctx context.Context) {
	users := "/databases/postgresql/clusters/" + s.cluster() + "/users"
	every(ctx, 100*time.Millisecond, func(int) {
		s.ask(ctx, "send nonsense", "POST", users, s.bearer(), `{"properties":`, 400)
		s.ask(ctx, "send a deep body", "POST", users, s.bearer(), strings.Repeat("[", 1000), 400)
		s.ask(ctx, "send a huge body", "POST", users, s.bearer(), strings.Repeat("x", 100_000), 413)
		// Nobody is signed in there, so the limit of the address counts.
		s.ask(ctx, "ask for what is not there", "GET", "/nonsense", s.bearer(), "", 404, 429)
		for _, text := range []string{
			"", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", "nonsense\r\n\r\n",
			"POST " + users + " HTTP/1.1\r\nHost: x\r\nAuthorization: " + s.bearer() + "\r\nContent-Length: 1000\r\n\r\n{",
			"GET " + users + "?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: " + s.bearer() + "\r\n\r\n",
		} {
			conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.env["ROLECALL_URL"], "http://"), patience)
			if err != nil {
				s.problem("connect: %v", err)
				return
			}
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	})
}

// standing is what the server holds.
type standing struct{ memory, goroutines, files, connections int }

func (l standing) String() string {
	return fmt.Sprintf("%6.1f MB resident, %3d goroutines, %3d files, %2d connections to PostgreSQL", float64(l.memory)/1024,
		l.goroutines, l.files, l.connections)
}

func (s *soak) look(t *testing.T) (l standing) {
	t.Helper()
	resp, err := http.Get(s.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for scanner := bufio.NewScanner(resp.Body); scanner.Scan(); {
		name, text, _ := strings.Cut(scanner.Text(), " ")
		value, _ := strconv.ParseFloat(text, 64)
		switch {
		case name == "go_goroutines":
			l.goroutines = int(value)
		case name == "process_open_fds":
			l.files = int(value)
		case strings.HasPrefix(name, "rolecall_cluster_connections{"), strings.HasPrefix(name, "rolecall_control_connections{"):
			l.connections += int(value)
		}
	}
	l.memory = s.server.memory(t, "VmRSS")
	if l.goroutines == 0 || l.files == 0 {
		t.Fatalf("the metrics lack something: %v", l)
	}
	return l
}

// usual is the median of each, but of the memory the least: what is no longer needed is given back now and then only.
func usual(looks []standing) standing {
	sorted := func(of func(l standing) int) []int {
		var all []int
		for _, l := range looks {
			all = append(all, of(l))
		}
		slices.Sort(all)
		return all
	}
	half := len(looks) / 2
	return standing{
		memory:      sorted(func(l standing) int { return l.memory })[0],
		goroutines:  sorted(func(l standing) int { return l.goroutines })[half],
		files:       sorted(func(l standing) int { return l.files })[half],
		connections: sorted(func(l standing) int { return l.connections })[half],
	}
}

// compare holds the catalog and the audit log to what was answered.
func (s *soak) compare(t *testing.T) {
	t.Helper()
	s.waitFor(t, "rolecall", `SELECT count(*) FROM rolecall.audit a WHERE phase = 'attempt'
		AND NOT EXISTS (SELECT FROM rolecall.audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome')`, "0")
	recorded := func(what, sql string, want int) {
		t.Helper()
		if got := s.query(t, "rolecall", `SELECT count(*) FROM rolecall.audit WHERE `+sql); got != strconv.Itoa(want) {
			t.Errorf("%s: %s are recorded, %d were answered", what, got, want)
		}
	}
	recorded("users made", `outcome = 'done' AND action = 'user.create'`, s.made)
	recorded("passwords set", `outcome = 'done' AND action = 'user.password'`, s.changed)
	recorded("users deleted", `outcome = 'done' AND action = 'user.delete'`, s.deleted)
	recorded("users made again", `outcome = 'not_done' AND action = 'user.create'`, s.answers["make a user again: 422"])
	recorded("outcomes that are not known", `outcome = 'unknown'`, 0)

	// A role's comment has the id of the last change.
	found := map[string]bool{}
	for line := range strings.Lines(s.query(t, "postgres", `SELECT rolname || '|' ||
			(substring(shobj_description(oid, 'pg_authid') FROM 'rolecall:v1 (.*)')::json ->> 'attempt')
		FROM pg_roles WHERE rolname LIKE 'soak %'`)) {
		name, attempt, _ := strings.Cut(strings.TrimSpace(line), "|")
		found[name] = true
		password, made := s.alive[name]
		if !made {
			t.Errorf("there is a role %q, whose deletion was answered", name)
			continue
		}
		last := s.query(t, "rolecall", `SELECT attempt FROM rolecall.audit WHERE outcome = 'done' AND target = '`+name+`'
			ORDER BY id DESC LIMIT 1`)
		if attempt != last {
			t.Errorf("%s carries the attempt %s, the last that is recorded is %s", name, attempt, last)
		}
		s.login(t, name, password)
	}
	for name := range s.alive {
		if !found[name] {
			t.Errorf("%q was made, and is not there", name)
		}
	}
	// Rows are sealed within a second.
	for until := time.Now().Add(settled); ; time.Sleep(100 * time.Millisecond) {
		var log struct {
			OK       bool
			Checked  int
			Unsealed struct{ Count int }
		}
		answer := s.ask(t.Context(), "verify the audit log", "GET", "/rolecall/v1/audit/verify", s.bearer(), "", 200)
		if err := json.Unmarshal(answer, &log); err != nil || !log.OK {
			t.Fatalf("the audit log: %s, %v, %q", answer, err, s.problems)
		}
		if log.Unsealed.Count == 0 {
			fmt.Printf("soak: %d rows of the audit log hold\n", log.Checked)
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d rows of the audit log are not sealed", log.Unsealed.Count)
		}
	}
}
