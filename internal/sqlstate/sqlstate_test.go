package sqlstate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/sqlstate"
)

func pgError(severity, code string) error {
	return fmt.Errorf("wrapped: %w", &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: severity, Code: code,
		Message: "permission denied"})
}

func TestKinds(t *testing.T) {
	connect := func(err error) error {
		_, connectErr := pgconn.Connect(context.Background(), "postgres://127.0.0.1:1/x?sslmode=disable")
		return fmt.Errorf("%w: %w", connectErr, err)
	}
	for _, tt := range []struct {
		name              string
		err               error
		retry, away, lost bool
	}{
		{"nil", nil, false, false, false},
		{"foreign", errors.New("08006"), false, false, false},
		{"duplicate", pgError("ERROR", sqlstate.DuplicateObject), false, false, false},
		{"privilege", pgError("ERROR", sqlstate.InsufficientPrivilege), false, false, false},
		{"tuple concurrently updated", pgError("ERROR", sqlstate.InternalError), true, false, false},
		{"deadlock", pgError("ERROR", sqlstate.DeadlockDetected), true, false, false},
		{"serialization", pgError("ERROR", sqlstate.SerializationFailure), true, false, false},
		{"lock", pgError("ERROR", sqlstate.LockNotAvailable), false, true, false},
		{"canceled", pgError("ERROR", sqlstate.QueryCanceled), false, true, false},
		{"read-only", pgError("ERROR", sqlstate.ReadOnly), false, true, false},
		{"disk full", pgError("ERROR", "53100"), false, true, false},
		{"terminated", pgError("FATAL", "57P01"), false, true, true},
		{"crash of another", pgError("FATAL", "57P02"), false, true, true},
		{"idle in transaction", pgError("FATAL", "25P03"), false, true, true},
		{"panic", pgError("PANIC", "XX000"), false, true, true},
		{"connection failure", pgError("ERROR", "08006"), false, true, true},
		{"no connection", connect(errors.New("x")), false, true, true},
		{"EOF", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), false, true, true},
		{"closed", net.ErrClosed, false, true, true},
		{"reset", &net.OpError{Op: "read", Err: os.NewSyscallError("read", errors.New("reset"))}, false, true, true},
		{"deadline", context.DeadlineExceeded, false, true, true},
		{"canceled by the caller", context.Canceled, false, true, true},
	} {
		if got := sqlstate.Retry(tt.err); got != tt.retry {
			t.Errorf("%s: Retry is %v", tt.name, got)
		}
		if got := sqlstate.Away(tt.err); got != tt.away {
			t.Errorf("%s: Away is %v", tt.name, got)
		}
		if got := sqlstate.Lost(tt.err); got != tt.lost {
			t.Errorf("%s: Lost is %v", tt.name, got)
		}
	}
}

func TestCode(t *testing.T) {
	err := pgError("ERROR", sqlstate.UndefinedObject)
	if got := sqlstate.Code(err); got != "42704" {
		t.Errorf("Code is %q", got)
	}
	if !sqlstate.Is(err, sqlstate.DuplicateObject, sqlstate.UndefinedObject) || sqlstate.Is(err, sqlstate.DuplicateObject) ||
		sqlstate.Is(err) {
		t.Error("Is is wrong for 42704")
	}
	if sqlstate.Is(nil, "") || sqlstate.Is(io.EOF, "") || sqlstate.Code(io.EOF) != "" {
		t.Error("an error without a code has one")
	}
}
