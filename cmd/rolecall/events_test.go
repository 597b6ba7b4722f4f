package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rolecall/internal/pgtest"
)

// deliveries is a webhook's receiver, which has the program that delivers killed at some messages.
type deliveries struct {
	mu      sync.Mutex
	ids     []string // of each message that it has processed: one that comes again is none
	seqs    []int64
	again   int
	texts   strings.Builder
	killAt  int      // how many messages there are when the program is killed before it has the answer; 0: it is not
	program *program // that delivers
}

func (d *deliveries) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m struct{ Data struct{ Seq int64 } }
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := r.Header.Get("webhook-id")
	if len(d.ids) > 0 && d.ids[len(d.ids)-1] == id {
		d.again++
		return
	}
	d.ids, d.seqs = append(d.ids, id), append(d.seqs, m.Data.Seq)
	d.texts.Write(body)
	if len(d.ids) == d.killAt {
		_ = d.program.process.Kill()
		<-d.program.done // it gets no answer
	}
}

func (d *deliveries) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ids)
}

// next has the next program deliver, and be killed at a message.
func (d *deliveries) next(p *program, killAt int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.program, d.killAt = p, killAt
}

// TestEventsThroughKills: a webhook gets each row of the audit log once, by its webhook-id, and in order, and so does the
// file of the export, though the server is killed while it delivers.
func TestEventsThroughKills(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	const password = "the password of admin"
	if code, _, errOut := bootstrap(t, flags, password); code != 0 {
		t.Fatal(errOut)
	}
	file := filepath.Join(t.TempDir(), "audit.log")
	var received deliveries
	receiver := httptest.NewServer(&received)
	defer receiver.Close()
	start := func(killAt int) (p *program, url string) {
		t.Helper()
		p = beginProcess(t, nil, append([]string{"serve", "--public-url", "http://rolecall.example.org", "--listen",
			"127.0.0.1:0", "--metrics-listen", "", "--drain-delay", "0s", "--webhook-allow-private", "--audit-file", file},
			flags...)...)
		received.next(p, killAt)
		return p, "http://" + p.servesAt(t) + "/rolecall/v1"
	}
	call := func(url, method, path, body string, status int) string {
		t.Helper()
		r := request(t, http.DefaultClient, method, url+path, basicAuth("admin", password), body)
		if r.status != status {
			t.Fatalf("%s %s: %d %s", method, path, r.status, r.body)
		}
		return r.body
	}
	rows := 0
	change := func(url string, n int) {
		t.Helper()
		for range n {
			rows++
			call(url, "POST", "/tokens", fmt.Sprintf(`{"name":"token %d"}`, rows), http.StatusCreated)
		}
	}
	_, url := start(0)
	var hook struct {
		ID, Secret   string
		DeliveredSeq int64
	}
	created := call(url, "POST", "/webhooks", fmt.Sprintf(`{"name":"siem","url":%q}`, receiver.URL), http.StatusCreated)
	if err := json.Unmarshal([]byte(created), &hook); err != nil {
		t.Fatal(err)
	}
	call(url, "PATCH", "/webhooks/"+hook.ID, `{"state":"PAUSED"}`, http.StatusOK)
	change(url, 10)
	received.mu.Lock()
	received.killAt = len(received.ids) + 4
	received.mu.Unlock()
	call(url, "PATCH", "/webhooks/"+hook.ID, `{"state":"ACTIVE"}`, http.StatusOK)
	<-received.program.done
	first := received.count()
	start(first + 3)
	<-received.program.done
	p, url := start(0)
	change(url, 3)
	call(url, "POST", "/accounts", `{"username":"ann","password":"hunter2 and more"}`, http.StatusCreated)
	var log struct {
		Items []struct {
			Seq    int64
			Action string
		}
	}
	eventually(t, func() error {
		if err := json.Unmarshal([]byte(call(url, "GET", "/audit?limit=1000", "", http.StatusOK)), &log); err != nil {
			return err
		}
		if n, want := received.count(), len(log.Items)-int(hook.DeliveredSeq); n < want || log.Items[len(log.Items)-1].Action !=
			"account.create" {
			return fmt.Errorf("the webhook got %d messages, want %d", n, want)
		}
		return nil
	})
	p.end(t)
	received.mu.Lock()
	defer received.mu.Unlock()
	seen := map[string]bool{}
	for i, id := range received.ids {
		if seen[id] || received.seqs[i] != hook.DeliveredSeq+int64(i)+1 {
			t.Errorf("message %d is row %d, with the id %s", i, received.seqs[i], id)
		}
		seen[id] = true
	}
	if received.again < 2 {
		t.Errorf("%d messages came again, want the 2 that the kills left without an answer", received.again)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := int64(0)
	for s := bufio.NewScanner(f); s.Scan(); {
		n++
		var line struct{ Seq int64 }
		if err := json.Unmarshal(s.Bytes(), &line); err != nil || line.Seq != n {
			t.Errorf("line %d of the file is %s", n, s.Text())
		}
		received.texts.WriteString(s.Text())
	}
	if n != int64(len(log.Items)) {
		t.Errorf("the file has %d rows, want %d", n, len(log.Items))
	}
	for _, secret := range []string{"hunter2", password, hook.Secret, "rolecall_pat_", "argon2"} {
		if strings.Contains(received.texts.String(), secret) || strings.Contains(p.errOut.String(), secret) {
			t.Errorf("an event or the log has %q", secret)
		}
	}
}
