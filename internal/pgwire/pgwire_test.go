package pgwire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"rolecall/internal/pgwire"
)

func message(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))) + body
}

// begun is the beginning of a message that announces a body of n bytes.
func begun(kind byte, n int) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+n)))
}

var (
	authenticated = message('R', "\x00\x00\x00\x00")
	ready         = message('Z', "I")
)

func setting(name, value string) string { return message('S', name+"\x00"+value+"\x00") }

func notice(n int) string { return message('N', "M"+strings.Repeat("x", n)+"\x00\x00") }

func iterations(n string) string {
	return message('R', "\x00\x00\x00\x0br=nonce,s=c2FsdA==,i="+n)
}

// receive returns how many messages a driver receives, and what ends that.
func receive(g *pgwire.Guard, from io.Reader) (n int, err error) {
	f := g.Frontend(from, io.Discard)
	for {
		if _, err := f.Receive(); err != nil {
			return n, err
		}
		n++
	}
}

// TestBounds has a server say what none may: it is refused before what it announces has come, and with less memory.
func TestBounds(t *testing.T) {
	row := message('D', "\x00\x01"+"\x00\x03\xff\xf0"+strings.Repeat("x", 0x3fff0))
	for name, tt := range map[string]struct {
		says string
		n    int // messages that are passed on
		why  string
	}{
		"long message before the session":  {begun('E', 150<<20), 0, "longer than 65536 bytes"},
		"longest message":                  {begun('N', math.MaxInt32-4), 0, "longer than"},
		"negative length":                  {begun('N', -5), 0, "longer than"},
		"of no known type":                 {begun('q', 70<<10), 0, "longer than"},
		"many before the session is ready": {strings.Repeat(notice(1000), 300), 207, "before the session was ready"},
		"long message": {authenticated + ready + begun('D', 2<<20), 2,
			"longer than 1048576 bytes"},
		"long description": {authenticated + ready + begun('T', 20<<10), 2, "longer than"},
		"long parameters":  {authenticated + ready + begun('t', 20<<10), 2, "longer than"},
		"long error":       {authenticated + ready + begun('E', 70<<10), 2, "longer than"},
		"long setting":     {authenticated + ready + begun('S', 10<<10), 2, "longer than"},
		"endless rows":     {authenticated + ready + strings.Repeat(row, 200), 129, "at a time"},
		"endless notices":  {authenticated + ready + strings.Repeat(notice(60<<10), 600), 545, "at a time"},
		"short rows":       {authenticated + ready + strings.Repeat(message('D', "\x00\x00"), 150000), 127585, "at a time"},
		"iterations":       {iterations("1000001"), 0, `asks for "1000001" iterations`},
		"more iterations":  {iterations("10000000"), 0, "iterations"},
		"too many digits":  {iterations(strings.Repeat("9", 1000)), 0, "iterations"},
		"no iterations":    {iterations(""), 0, "iterations"},
		"no number":        {iterations("-1"), 0, "iterations"},
	} {
		n, err := receive(pgwire.NewGuard(), strings.NewReader(tt.says))
		refused, ok := errors.AsType[*pgwire.Refused](err)
		if !ok || !strings.Contains(refused.Error(), tt.why) || n != tt.n {
			t.Errorf("%s: %v after %d messages; want %q after %d", name, err, n, tt.why, tt.n)
		}
	}

	settings := authenticated + ready
	for i := range 100 {
		settings += setting(strings.Repeat("x", i), "")
	}
	n, err := receive(pgwire.NewGuard(), strings.NewReader(settings))
	if n != 66 || !strings.Contains(err.Error(), "64 settings") {
		t.Errorf("settings: %v after %d messages", err, n)
	}
}

// TestPassesOn sends what PostgreSQL does, in whatever pieces.
func TestPassesOn(t *testing.T) {
	long := strings.Repeat("y", 900<<10)
	says := iterations("4096") + message('R', "\x00\x00\x00\x0cv=x") + authenticated + setting("a", "b") + ready
	want := 5
	for range 50 {
		value := string(binary.BigEndian.AppendUint32(nil, uint32(len(long)))) + long
		says += setting("a", "c") + message('T', "\x00\x00") + message('D', "\x00\x01"+value) + message('D', "\x00\x00") +
			message('C', "SELECT 1\x00") + ready
		want += 6
	}
	for name, from := range map[string]io.Reader{
		"at once":        strings.NewReader(says),
		"by single byte": iotest.OneByteReader(strings.NewReader(says[:1<<10])),
		"in halves":      iotest.HalfReader(strings.NewReader(says)),
		"with the end":   iotest.DataErrReader(strings.NewReader(says)),
	} {
		n, err := receive(pgwire.NewGuard(), from)
		if name == "by single byte" && n == 7 && errors.Is(err, io.ErrUnexpectedEOF) {
			continue
		}
		if n != want || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %d messages, then %v; want %d", name, n, err, want)
		}
	}
}

// TestHeldIsGivenBack closes connections in the middle of a response. What they held counts until it is collected.
func TestHeldIsGivenBack(t *testing.T) {
	g := pgwire.NewGuard()
	row := message('D', "\x00\x01\x00\x0f\xff\xf0"+strings.Repeat("x", 0xffff0))
	cut := authenticated + ready + strings.Repeat(row, 10)
	for range 10 {
		n, err := receive(g, strings.NewReader(cut))
		for try := 0; n != 12 && try < 1000; try++ {
			runtime.GC()
			n, err = receive(g, strings.NewReader(cut))
		}
		if n != 12 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d messages, then %v", n, err)
		}
	}
}

// TestRefusedIsClosed has a server go on after what is refused. Nothing more of it is read: the connection is closed.
func TestRefusedIsClosed(t *testing.T) {
	server, client := net.Pipe()
	defer server.Close()
	sent := make(chan error)
	go func() {
		_, err := io.WriteString(server, begun('N', 150<<20))
		for err == nil {
			_, err = server.Write(make([]byte, 1<<16))
		}
		sent <- err
	}()
	if _, err := pgwire.NewGuard().Frontend(client, client).Receive(); err == nil {
		t.Error("it was not refused")
	}
	if err := <-sent; !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// TestHeldIsCollected closes connections in the middle of a response until one is refused. Later ones are accepted again, on
// an idle process, too.
func TestHeldIsCollected(t *testing.T) {
	g := pgwire.NewGuard()
	row := message('D', "\x00\x01\x00\x0f\xff\xf0"+strings.Repeat("x", 0xffff0))
	cut := authenticated + ready + strings.Repeat(row, 20)
	n, err := receive(g, strings.NewReader(cut))
	for n == 22 {
		n, err = receive(g, strings.NewReader(cut))
	}
	for try := 0; n != 22 && try < 6000; try++ {
		time.Sleep(10 * time.Millisecond)
		n, err = receive(g, strings.NewReader(cut))
	}
	if n != 22 {
		t.Errorf("%d messages, then %v", n, err)
	}
}

// TestKeysAreDerivedOneAtATime begins a second sign-in while a first one has not answered yet.
func TestKeysAreDerivedOneAtATime(t *testing.T) {
	g := pgwire.NewGuard()
	first := g.Frontend(strings.NewReader(iterations("4096")), io.Discard)
	if _, err := first.Receive(); err != nil {
		t.Fatal(err)
	}
	server, client := net.Pipe()
	defer server.Close()
	second := g.Frontend(client, client)
	derives := make(chan error)
	go func() {
		_, err := second.Receive()
		derives <- err
	}()
	if _, err := server.Write([]byte(iterations("4096"))); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-derives:
		t.Fatal("two keys are derived at a time:", err)
	default:
	}
	// Another cluster does not wait for it.
	if _, err := pgwire.NewGuard().Frontend(strings.NewReader(iterations("4096")), io.Discard).Receive(); err != nil {
		t.Fatal(err)
	}
	first.Send(&pgproto3.SASLResponse{Data: []byte("c=biws,r=nonce,p=cHJvb2Y=")})
	if err := first.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := <-derives; err != nil {
		t.Fatal(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(authenticated + setting("a", "b") + ready + message('D', "\x00\x00")))
	f.Add([]byte(iterations("4096")))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = receive(pgwire.NewGuard(), iotest.HalfReader(bytes.NewReader(data)))
	})
}
