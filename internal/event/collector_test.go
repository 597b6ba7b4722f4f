package event_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/event"
)

// exported is a line of an export in JSON.
type exported struct {
	Seq            int64
	MAC, User      string
	Notice         string
	FromSeq, ToSeq int64
}

func parse(t *testing.T, lines []byte) (list []exported) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var e exported
		if err := json.Unmarshal(line, &e); err != nil || e.MAC == "" || !bytes.HasSuffix(line, []byte("\n")) {
			t.Fatalf("the line %q: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}

func seqs(list []exported) (numbers []int64) {
	for _, e := range list {
		numbers = append(numbers, e.Seq)
	}
	return numbers
}

// upTo is the numbers from 1 on.
func upTo(n int64) (numbers []int64) {
	for i := range n {
		numbers = append(numbers, i+1)
	}
	return numbers
}

// caFile is a file with the certificate of a test server.
func caFile(t *testing.T, server *httptest.Server) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return name
}

// An HTTPS collector gets all rows once, in order, over a failure and a restart, with the token that the file has then.
func TestHTTPSCollector(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var mu sync.Mutex
	var got []byte
	fail := false
	var tokens []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, q.Header.Get("Authorization"))
		if fail {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got = append(got, body...)
	}))
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("first-token\n"), 0o600))
	f.Export = event.Export{HTTPS: server.URL, TokenFile: token, CAFile: caFile(t, server), Format: event.JSON}
	must(t, f.Export.Check())
	f.record(t, audit.CreateUser, "one", "two", "three")
	stop := f.run(t)
	read := func() []exported {
		mu.Lock()
		defer mu.Unlock()
		return parse(t, got)
	}
	eventually(t, "3 rows", func() bool { return len(read()) >= 3 })
	mu.Lock()
	fail = true
	mu.Unlock()
	must(t, os.WriteFile(token, []byte("second-token"), 0o600))
	f.record(t, audit.CreateUser, "four")
	eventually(t, "a failure", func() bool {
		list, err := f.Backlogs(t.Context())
		must(t, err)
		return len(list) == 1 && list[0].Kind == "https" && list[0].Failing && list[0].Rows == 1
	})
	stop()
	mu.Lock()
	fail = false
	mu.Unlock()
	f.record(t, audit.CreateUser, "five")
	f.run(t)
	eventually(t, "5 rows", func() bool { return len(read()) >= 5 })
	if list := read(); !slices.Equal(seqs(list), upTo(5)) || list[4].User != "five" {
		t.Errorf("the collector got %+v", list)
	}
	mu.Lock()
	defer mu.Unlock()
	if tokens[0] != "Bearer first-token" || tokens[len(tokens)-1] != "Bearer second-token" {
		t.Errorf("the tokens are %q", tokens)
	}
	if log := f.log.String(); strings.Contains(log, "-token") {
		t.Errorf("the log has a token:\n%s", log)
	}
}

// A syslog receiver gets all rows once, in order, as frames of RFC 5425 with messages of RFC 5424. What a receiver has not
// read when it ends is sent again.
func TestSyslogCollector(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	certificates := httptest.NewTLSServer(nil) // for its certificate
	defer certificates.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	var mu sync.Mutex
	var got []string
	dies := true // the first connection is cut after it was read
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			connection := tls.Server(raw, &tls.Config{Certificates: certificates.TLS.Certificates})
			all, err := io.ReadAll(connection)
			mu.Lock()
			if dies || err != nil {
				dies = false
				_ = raw.(*net.TCPConn).SetLinger(0)
				_ = raw.Close()
			} else {
				got = append(got, frames(all)...)
				_ = connection.Close()
			}
			mu.Unlock()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	f.Export = event.Export{Syslog: "tls://127.0.0.1:" + port, CAFile: caFile(t, certificates), Format: event.JSON}
	must(t, f.Export.Check())
	f.record(t, audit.CreateUser, "one", "two")
	f.record(t, audit.DeleteUser, "three")
	stop := f.run(t)
	read := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
	eventually(t, "3 messages", func() bool { return len(read()) >= 3 })
	stop()
	f.record(t, audit.DeleteUser, "four")
	f.run(t)
	eventually(t, "4 messages", func() bool { return len(read()) >= 4 })
	form := regexp.MustCompile(`^<110>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]+ rolecall \d+ user\.(create|delete) - ` +
		`(\{.*\})$`)
	for i, m := range read() {
		parts := form.FindStringSubmatch(m)
		if parts == nil {
			t.Fatalf("the message is %q", m)
		}
		if e := parse(t, []byte(parts[2]+"\n")); e[0].Seq != int64(i)+1 {
			t.Errorf("message %d is %s", i, m)
		}
	}
}

// frames splits what was read from a connection by the lengths of RFC 5425.
func frames(all []byte) (list []string) {
	for in := bufio.NewReader(bytes.NewReader(all)); ; {
		length, err := in.ReadString(' ')
		if err != nil {
			return list
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		m := make([]byte, n)
		if _, readErr := io.ReadFull(in, m); err != nil || readErr != nil {
			return append(list, "a frame is cut off")
		}
		list = append(list, string(m))
	}
}

// The file of an export goes on where its last line ends: after a restart, after half a line, and when it was renamed or
// emptied. Only one process writes it.
func TestFile(t *testing.T) {
	t.Parallel()
	for _, format := range []event.Format{event.JSON, event.OCSF} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			path := filepath.Join(t.TempDir(), "audit.log")
			f.Export = event.Export{File: path, Format: format}
			must(t, f.Export.Check())
			has := func(path string, n int) (lines []byte) {
				t.Helper()
				eventually(t, fmt.Sprintf("%d lines in %s", n, path), func() bool {
					lines, _ = os.ReadFile(path)
					return bytes.Count(lines, []byte("\n")) >= n
				})
				return lines
			}
			f.record(t, audit.CreateUser, "one", "two")
			stop := f.run(t)
			has(path, 2)
			stop()
			half, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = half.WriteString(`{"seq":3,"mac":"`)
			must(t, err)
			must(t, half.Close())
			f.record(t, audit.CreateUser, "three")
			stop = f.run(t)
			has(path, 3)
			must(t, os.Rename(path, path+".1"))
			has(path, 1) // the line that says where the other file ends
			f.record(t, audit.CreateUser, "four")
			has(path, 2)
			must(t, os.Truncate(path, 0))
			f.record(t, audit.CreateUser, "five")
			second := has(path, 1)
			stop()
			f.record(t, audit.CreateUser, "six")
			f.run(t)
			eventually(t, "the last row", func() bool { second, _ = os.ReadFile(path); return bytes.Contains(second, []byte("six")) })
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the file has the mode %v: %v", info.Mode(), err)
			}
			if format == event.OCSF {
				return
			}
			first := parse(t, has(path+".1", 3))
			if !slices.Equal(seqs(first), upTo(3)) {
				t.Errorf("the first file has %+v", first)
			}
			rest := parse(t, second)
			if rest[len(rest)-1].Seq != 6 || rest[len(rest)-2].Seq != 5 || rest[0].Notice != event.Continued && rest[0].Seq != 5 {
				t.Errorf("the second file has %+v", rest)
			}
			list, err := f.Backlogs(t.Context())
			if err != nil || len(list) != 1 || list[0].Kind != "file" || list[0].Rows != 0 {
				t.Errorf("the backlogs are %+v, %v", list, err)
			}
			// Another process, which finds the file locked, writes nothing; nor does one whose path has something else.
			other := newFixture(t)
			other.Export = f.Export
			other.record(t, audit.CreateUser, "of another")
			other.run(t)
			strange := newFixture(t)
			strange.Export = event.Export{File: filepath.Join(t.TempDir(), "other"), Format: event.JSON}
			must(t, os.WriteFile(strange.Export.File, []byte("something else\n"), 0o600))
			strange.run(t)
			for of, want := range map[*fixture]string{other: "another process writes", strange: "is not one of an export"} {
				eventually(t, want, func() bool { return strings.Contains(of.log.String(), want) })
			}
		})
	}
}

// The settings of an export are checked before the start, without quoting a secret.
func TestExportSettings(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, []byte(" \n"), 0o600))
	for want, x := range map[string]event.Export{
		"--audit-format is":                  {Format: "xml"},
		"--audit-syslog is":                  {Format: event.JSON, Syslog: "syslog://host"},
		"--audit-syslog is \"tls://\"":       {Format: event.JSON, Syslog: "tls://"},
		"--audit-https must":                 {Format: event.JSON, HTTPS: "http://collector.example.org"},
		"use --audit-https-token-file":       {Format: event.JSON, HTTPS: "https://user:hunter2@collector.example.org"},
		"goes with --audit-https only":       {Format: event.JSON, TokenFile: empty},
		"must have one token":                {Format: event.JSON, HTTPS: "https://collector.example.org", TokenFile: empty},
		"goes with --audit-https or":         {Format: event.JSON, CAFile: empty},
		"has no certificate in PEM":          {Format: event.JSON, Syslog: "tls://host", CAFile: empty},
		"--audit-ca-file: open /nonexistent": {Format: event.JSON, Syslog: "tls://host", CAFile: "/nonexistent"},
	} {
		if err := x.Check(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: %v, want %q", x, err, want)
		}
	}
}

// Each action is mapped to OCSF, with what the schema requires of its class, and docs/events.md has the mapping.
func TestOCSF(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/events.md")
	must(t, err)
	required := map[int]string{3001: "user", 3002: "user service", 3004: "entity", 3005: "user privileges"}
	for _, action := range audit.Actions {
		class, classID, activity, activityID, known := event.Activity(action)
		if !known {
			t.Errorf("%s is not mapped", action)
			continue
		}
		if len(action) > 32 {
			t.Errorf("%s is too long for the MSGID of RFC 5424", action)
		}
		row := fmt.Sprintf("| `%s` | %s (%d) | %s (%d) |", action, class, classID, activity, activityID)
		if !strings.Contains(string(document), row) {
			t.Errorf("docs/events.md lacks\n%s", row)
		}
		for _, outcome := range append([]audit.Outcome{""}, audit.Outcomes...) {
			line, err := event.Encoded(event.OCSF, &audit.Row{Point: audit.Point{Seq: 7, MAC: []byte("mac")}, Attempt: uuid.New(),
				Phase: "outcome", Action: action, Outcome: outcome, Time: time.UnixMilli(1_700_000_000_123), AccountName: "ann",
				AccountGUID: "guid", Target: "someone", Detail: json.RawMessage(`{}`)})
			must(t, err)
			var o map[string]any
			must(t, json.Unmarshal(line, &o))
			for _, field := range append(strings.Fields(required[classID]), "activity_id", "category_uid", "class_uid", "metadata",
				"severity_id", "time", "type_uid", "status_id", "actor", "unmapped") {
				if _, ok := o[field]; !ok {
					t.Errorf("%s has no %s: %s", action, field, line)
				}
			}
			if o["category_uid"] != 3.0 || o["class_uid"] != float64(classID) || o["time"] != 1_700_000_000_123.0 ||
				o["type_uid"] != float64(classID*100+activityID) || strings.Count(string(line), "\n") != 1 {
				t.Errorf("%s: %s", action, line)
			}
		}
	}
}
