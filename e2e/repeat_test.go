package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// repeat is a POST of our own API that makes something new each time, unless it is a repetition.
type repeat struct {
	name   string
	answer int
	// arrange makes what it works on. It returns the request, and how often that was carried out.
	arrange func(t *testing.T, w *world, name string) (request, func() string)
}

var repeats = []*repeat{
	{"user", 201, func(t *testing.T, w *world, name string) (request, func() string) {
		return request{"POST", w.own("users"), object(map[string]any{"username": name}), nil}, func() string {
			return w.query(t, "postgres", `SELECT count(*)::text FROM pg_roles WHERE rolname = $1`, name)[0]
		}
	}},
	{"password", 200, func(t *testing.T, w *world, name string) (request, func() string) {
		w.want(t, nil, 200, createUser(w, name, passwordBefore))
		return request{"POST", w.own("users", name, "password"), "", nil}, func() string {
			if w.pg.Login(name, passwordBefore) == nil {
				return "0"
			}
			return "1"
		}
	}},
	{"lease", 201, func(t *testing.T, w *world, name string) (request, func() string) {
		w.want(t, nil, 200, createUser(w, name, passwordBefore))
		return createLease(w, name), func() string {
			return w.query(t, "postgres", `SELECT count(*)::text FROM pg_roles WHERE starts_with(rolname, $1 || '_')`, name)[0]
		}
	}},
	{"database", 201, func(t *testing.T, w *world, name string) (request, func() string) {
		return request{"POST", w.own("databases"), object(map[string]any{"name": name}), nil}, func() string {
			return w.query(t, "postgres", `SELECT count(*)::text FROM pg_database WHERE datname = $1`, name)[0]
		}
	}},
	{"account", 201, func(t *testing.T, w *world, name string) (request, func() string) {
		name = strings.ReplaceAll(name, " ", "-")
		return request{"POST", "/rolecall/v1/accounts", object(map[string]any{"username": name}), nil}, func() string {
			return w.query(t, "control", `SELECT count(*)::text FROM rolecall.accounts WHERE username = $1`, name)[0]
		}
	}},
	{"token", 201, func(t *testing.T, w *world, name string) (request, func() string) {
		return request{"POST", "/rolecall/v1/tokens", object(map[string]any{"name": name}), nil}, func() string {
			return w.query(t, "control", `SELECT count(*)::text FROM rolecall.personal_tokens WHERE name = $1`, name)[0]
		}
	}},
	{"credential", 200, func(t *testing.T, w *world, name string) (request, func() string) {
		w.want(t, nil, 200, createUser(w, name, passwordBefore))
		credential := uuid.NewString()
		w.want(t, nil, 201, request{"PUT", w.own("credentials", credential), object(map[string]any{"for": name,
			"rotateEvery": "7d",
			"overlap":     "1h"}), nil})
		return request{"POST", w.own("credentials", credential, "rotate"), "", nil}, func() string {
			return w.query(t, "postgres", `SELECT (count(*) - 1)::text FROM pg_roles WHERE starts_with(rolname, $1 || '_')`, name)[0]
		}
	}},
}

// TestRepeatedAfterAKill breaks each POST after a statement, and sends it again with its Idempotency-Key until it is
// answered. It is carried out once, and the answer tells the truth: it is the first one, or says that this one is lost.
func TestRepeatedAfterAKill(t *testing.T) {
	t.Parallel()
	var seen counts
	w := newWorld(t, &seen)
	words, every := []string{"kill"}, 15
	switch {
	case everyInstant:
		words, every = []string{"kill", "send", "cut", "lose"}, 1
	case moreInstants:
		every = 4
	}
	became := map[string]int{}
	for n, x := range repeats {
		t.Run(x.name, func(t *testing.T) {
			for i, word := range words {
				for at := 1 + (n+i)%every; w.repeatAt(t, x, word, at, became); at += every {
				}
			}
		})
	}
	fmt.Printf("%s: %d POSTs broken: %v\n", t.Name(), len(repeats), became)
}

// repeatAt breaks a POST at a statement and repeats it. It reports whether the POST reached that statement.
func (w *world) repeatAt(t *testing.T, x *repeat, word string, at int, became map[string]int) (broken bool) {
	t.Helper()
	name := fmt.Sprintf("repeat %s %s %d", x.name, word, at)
	if w.process == nil || !w.runs() || time.Since(w.began) > 2*time.Second { // as breakAt
		w.restart(t)
	}
	r, made := x.arrange(t, w, name)
	w.signIn(t)
	r.headers = []string{`Idempotency-Key: "` + uuid.NewString() + `"`}
	defer os.Remove(w.point + ".reached")
	if err := os.WriteFile(w.point+".new", fmt.Appendf(nil, "%d %s", at, word), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.point+".new", w.point); err != nil {
		t.Fatal(err)
	}
	first, body, err := w.send(r)
	broken = os.Remove(w.point) != nil // or else it was reached, and has another name
	acknowledged := err == nil && first == x.answer
	if !broken && !acknowledged {
		t.Errorf("%s: %d %s, %v", name, first, body, err)
	}
	if broken && (word == "kill" || word == "send") {
		soon(t, w.ended)
	}
	if !w.runs() || !acknowledged {
		w.restart(t) // its settler resolves the attempt
	}

	var last *answered
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if last, err = w.answered(r); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, w.logged())
		}
		if last.status != http.StatusConflict || last.header.Get("Retry-After") == "" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s: still %d %s\n%s", name, last.status, last.body, w.logged())
		}
	}
	replayed := last.header.Get("Idempotency-Replayed") == "true"
	switch {
	case last.status == x.answer && replayed:
		became["replayed"]++
		if acknowledged && last.body != body {
			t.Errorf("%s: the answer was %s, and is repeated as %s", name, body, last.body)
		}
	case last.status == x.answer && !acknowledged:
		became["carried out again"]++
	case last.status == http.StatusConflict && strings.Contains(last.body, "answer is lost") && broken:
		became["lost"]++
	default:
		t.Errorf("%s: %d %s, then %d %s", name, first, body, last.status, last.body)
	}
	if n := made(); n != "1" {
		t.Errorf("%s: it was carried out %s times: %d %s, then %d %s", name, n, first, body, last.status, last.body)
	}
	var user struct{ Username, Password string }
	if json.Unmarshal([]byte(last.body), &user) == nil && user.Password != "" && x.name != "account" {
		w.logsIn(t, user.Username, user.Password)
	}
	return broken
}

// answered is a response, its body read.
type answered struct {
	status int
	header http.Header
	body   string
}

func (w *world) answered(r request) (*answered, error) {
	req, err := http.NewRequest(r.method, w.url+r.path, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	for _, h := range r.headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := onceOnly.Do(req)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(resp.Body)
	return &answered{resp.StatusCode, resp.Header, string(data)}, errors.Join(err, resp.Body.Close())
}
