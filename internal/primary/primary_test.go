package primary_test

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/primary"
	"rolecall/internal/sqlstate"
)

func TestTakesWrites(t *testing.T) {
	config, err := pgconn.ParseConfig("postgres://127.0.0.1/postgres")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		status map[string]string
		want   bool
	}{
		{map[string]string{"in_hot_standby": "off", "default_transaction_read_only": "off"}, true},
		{map[string]string{"in_hot_standby": "on", "default_transaction_read_only": "off"}, false},
		{map[string]string{"in_hot_standby": "off", "default_transaction_read_only": "on"}, false},
	} {
		conn, err := pgconn.Construct(&pgconn.HijackedConn{Config: config, ParameterStatuses: tt.status})
		if err != nil {
			t.Fatal(err)
		}
		if got := primary.TakesWrites(conn); got != tt.want {
			t.Errorf("%v: %v", tt.status, got)
		}
		if !tt.want && !primary.Missing(primary.Require(t.Context(), conn)) {
			t.Errorf("%v: Require accepts it", tt.status)
		}
	}
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("refused"), false},
		{fmt.Errorf("connect: %w", primary.ErrReplica), true},
		{errors.Join(errors.New("host a is unreachable"), primary.ErrReplica), true},
		{&pgconn.PgError{Code: sqlstate.ReadOnly}, true},
		{&pgconn.PgError{Code: sqlstate.CannotConnectNow}, false},
	} {
		if got := primary.Missing(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}

// A refused address is not dialed, and the reason is in the error. All others are.
func TestDialer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	refused := errors.New("this address is refused")
	refuse := func(a string) error {
		if a == address {
			return refused
		}
		return nil
	}
	if _, err := primary.Dialer(time.Second, refuse)(t.Context(), "tcp", address); !errors.Is(err, refused) {
		t.Errorf("the refused address: %v", err)
	}
	conn, err := primary.Dialer(time.Second)(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
