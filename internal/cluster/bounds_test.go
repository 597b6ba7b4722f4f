package cluster

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"rolecall/internal/fault"
)

// hostileServer is a server that says the same to everybody who begins a session.
func hostileServer(t *testing.T, says string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var length [4]byte
				if _, err := io.ReadFull(conn, length[:]); err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length[:]))-4); err != nil {
					return
				}
				_, _ = io.WriteString(conn, says)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// TestHostileServer connects to servers that say what none may, and waits for nothing more of them.
func TestHostileServer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ says, why string }{
		"long message": {"E\x09\x00\x00\x00S", "it began a message that is longer than 65536 bytes"},
		"iterations": {"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" +
			"R\x00\x00\x00\x20\x00\x00\x00\x0br=x,s=c2FsdA==,i=9000000", "it asks for \"9000000\" iterations"},
	} {
		c := Connection{URL: fmt.Sprintf("postgres://role@%s/app", hostileServer(t, tt.says)), Password: "hunter2secret",
			TLS: TLS{Mode: "disable"}}
		_, _, err := c.Open(t.Context())
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Of(err).Message, "was not accepted: "+tt.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOldServer answers as PostgreSQL 13 does to a session that begins with a setting of a later release.
func TestOldServer(t *testing.T) {
	t.Parallel()
	fields := "SFATAL\x00VFATAL\x00C42704\x00Munrecognized configuration parameter \"idle_session_timeout\"\x00\x00"
	says := "E" + string(binary.BigEndian.AppendUint32(nil, uint32(4+len(fields)))) + fields
	c := Connection{URL: fmt.Sprintf("postgres://role@%s/app", hostileServer(t, says)), Password: "x",
		TLS: TLS{Mode: "disable"}}
	_, _, err := c.Open(t.Context())
	if !fault.Is(err, fault.Invalid) || !strings.Contains(fault.Of(err).Message, "is older than PostgreSQL 14, and") {
		t.Error(err)
	}
}
