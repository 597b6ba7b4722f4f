package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"rolecall/internal/client"
)

// A POST of our own API is sent again with its key if its answer is missing, twice at most.
func TestRepeat(t *testing.T) {
	const lost = "lost"
	for name, test := range map[string]struct {
		method, path string
		answers      []string // status, then Retry-After
		sent         int
		status       int // of the error; 0: there is none
	}{
		"answered":            {"POST", "/rolecall/v1/x", []string{"201"}, 1, 0},
		"lost":                {"POST", "/rolecall/v1/x", []string{lost, "201"}, 2, 0},
		"lost twice":          {"POST", "/rolecall/v1/x", []string{lost, lost, "201"}, 3, 0},
		"lost for good":       {"POST", "/rolecall/v1/x", []string{lost, lost, lost}, 3, -1},
		"a proxy":             {"POST", "/rolecall/v1/x", []string{"502", "504", "201"}, 3, 0},
		"soon":                {"POST", "/rolecall/v1/x", []string{"503 2", "201"}, 2, 0},
		"an outage":           {"POST", "/rolecall/v1/x", []string{"503 5"}, 1, 503},
		"in progress":         {"POST", "/rolecall/v1/x", []string{lost, "409 2", "201"}, 3, 0},
		"in progress to last": {"POST", "/rolecall/v1/x", []string{"503 1", "409 2", "409 2"}, 3, 503},
		"answer lost":         {"POST", "/rolecall/v1/x", []string{lost, "409"}, 2, 409},
		"refused":             {"POST", "/rolecall/v1/x", []string{"422"}, 1, 422},
		"a conflict":          {"POST", "/rolecall/v1/x", []string{"409"}, 1, 409},
		"another API":         {"POST", "/v3/users", []string{lost}, 1, -1},
		"another method":      {"PUT", "/rolecall/v1/x", []string{lost}, 1, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var keys, bodies []string
			c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				if len(keys) == len(test.answers) {
					t.Error("it was sent once more")
					return
				}
				answer := test.answers[len(keys)]
				keys, bodies = append(keys, r.Header.Get("Idempotency-Key")), append(bodies, string(body))
				if answer == lost {
					panic(http.ErrAbortHandler)
				}
				status, after, wait := strings.Cut(answer, " ")
				if wait {
					w.Header().Set("Retry-After", after)
				}
				w.WriteHeader(map[string]int{"201": 201, "409": 409, "422": 422, "502": 502, "503": 503, "504": 504}[status])
			}, "token")
			c.Hasten()
			_, err := c.Do(t.Context(), client.Request{Method: test.method, Path: test.path, Body: map[string]string{"a": "b"}})
			mu.Lock()
			defer mu.Unlock()
			if got := client.Status(err); (err == nil) != (test.status == 0) || test.status > 0 && got != test.status ||
				test.status < 0 && got != 0 {
				t.Errorf("the error is %v", err)
			}
			if e, ok := errors.AsType[*client.Error](err); ok && e.Repeated != (e.Status == 409 && test.sent > 1) {
				t.Errorf("the error answers a repetition: %t", e.Repeated)
			}
			if len(keys) != test.sent || len(slices.Compact(slices.Clone(keys))) != 1 ||
				slices.ContainsFunc(bodies, func(b string) bool { return b != `{"a":"b"}` }) {
				t.Errorf("sent were %q with %q, want %d", bodies, keys, test.sent)
			}
			if ours := test.method == "POST" && strings.HasPrefix(test.path, "/rolecall/"); (keys[0] != "") != ours {
				t.Errorf("the key is %q", keys[0])
			}
		})
	}
}

// A server that cannot be reached is not waited for, and two requests have different keys.
func TestNoRepeat(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	c := client.New(server.URL, "test/1") // with the real pauses
	c.Token = newClient(t, nil, "token").Token
	if _, err := c.Do(t.Context(), client.Request{Method: "POST", Path: "/rolecall/v1/x"}); err == nil ||
		!strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("the error is %v", err)
	}
	keys := make(chan string, 2)
	c = newClient(t, func(_ http.ResponseWriter, r *http.Request) { keys <- r.Header.Get("Idempotency-Key") }, "token")
	for range 2 {
		if _, err := c.Do(t.Context(), client.Request{Method: "POST", Path: "/rolecall/v1/x"}); err != nil {
			t.Fatal(err)
		}
	}
	if one, two := <-keys, <-keys; one == two {
		t.Errorf("both have the key %s", one)
	}
}
