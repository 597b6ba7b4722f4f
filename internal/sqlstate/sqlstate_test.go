package sqlstate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/sqlstate"
)

func pgError(severity, code string) error {
	return fmt.Errorf("wrapped: %w", &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: severity, Code: code,
		Message: "permission denied"})
}

func internal(routine string) error {
	return &pgconn.PgError{SeverityUnlocalized: "ERROR", Code: sqlstate.InternalError, Routine: routine}
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
		{"tuple concurrently updated", internal("simple_heap_update"), true, false, false},
		{"tuple concurrently deleted", internal("simple_heap_delete"), true, false, false},
		{"elog", internal("check_password"), false, false, false},
		{"elog of no function", internal(""), false, false, false},
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

// Whatever an extension, a trigger or a rule of the server says is a refusal; mistakes of Rolecall and damage are none.
func TestRefusal(t *testing.T) {
	for code, want := range map[string]bool{
		"22023": true, "23514": true, "28000": true, "P0001": true, "XX000": true, "0A000": true, "38001": true, "54000": true,
		"55000": true, "CK001": true, "ZZ999": true,
		"42601": false, "42P01": false, "25P02": false, "26000": false, "XX001": false, "XX002": false, "53200": false,
		"57014": false, "58030": false, "40001": false, "40P01": false, "55P03": false, "08006": false, "": false,
	} {
		if got := sqlstate.Refusal(pgError("ERROR", code)); got != want {
			t.Errorf("%s: Refusal is %v", code, got)
		}
	}
	if sqlstate.Refusal(io.EOF) || sqlstate.Refusal(nil) || sqlstate.Refusal(internal("simple_heap_update")) {
		t.Error("what is no refusal is one")
	}
}

func TestMessage(t *testing.T) {
	long := strings.Repeat("é", 299)
	for message, want := range map[string]string{
		"password is too short": "password is too short",
		`password must not equal "SCRAM-SHA-256$4096:c2FsdA==$U3RvcmVk:U2VydmVy"`: `password must not equal "…"`,
		"SCRAM-SHA-256$4096:c2Fs":                           "…",
		"is md50123456789abcdef0123456789abcdef, which":     "is …, which",
		"two\nlines \x1b[31mred\u202e":                      "two lines [31mred",
		"bad \xff byte":                                     "bad \uFFFD byte",
		long + "ab":                                         long + "a…",
		strings.Repeat("x", 1<<20):                          strings.Repeat("x", 300) + "…",
		strings.Repeat("y", 2390) + " SCRAM-SHA-256$4096:c": strings.Repeat("y", 300) + "…",
	} {
		if got := sqlstate.Message(&pgconn.PgError{Message: message, Detail: "detail", Where: "context"}); got != want {
			t.Errorf("%.60q: got %.400q", message, got)
		}
	}
	if got := sqlstate.Message(io.EOF); got != "" {
		t.Errorf("EOF has the message %q", got)
	}
}
