// Package sqlstate reads PostgreSQL's error codes. It matches codes and never texts, which vary with version and locale. The
// codes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html.
package sqlstate

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"
)

// The codes that decisions depend on.
const (
	ProtocolViolation        = "08P01"
	InsufficientPrivilege    = "42501"
	InvalidGrant             = "0LP01"
	DuplicateObject          = "42710"
	DuplicateDatabase        = "42P04"
	ForeignKeyViolation      = "23503"
	UniqueViolation          = "23505"
	UndefinedObject          = "42704"
	UndefinedTable           = "42P01"
	UndefinedSchema          = "3F000"
	UndefinedFunction        = "42883"
	UndefinedDatabase        = "3D000"
	SyntaxError              = "42601"
	InvalidParameterValue    = "22023"
	ReservedName             = "42939"
	InvalidName              = "42602"
	NameTooLong              = "42622"
	CharacterNotInRepertoire = "22021"
	UntranslatableCharacter  = "22P05"
	DivisionByZero           = "22012"
	DependentObjects         = "2BP01"
	NotInPrerequisiteState   = "55000"
	ObjectInUse              = "55006"
	LockNotAvailable         = "55P03"
	QueryCanceled            = "57014"
	TooManyConnections       = "53300"
	OutOfMemory              = "53200" // also for locks
	UndefinedFile            = "58P01"
	InternalError            = "XX000"
	DataCorrupted            = "XX001"
	IndexCorrupted           = "XX002"
	SerializationFailure     = "40001"
	DeadlockDetected         = "40P01"
	ReadOnly                 = "25006"
	TransactionTimeout       = "25P04" // from PostgreSQL 17 on
	InvalidPassword          = "28P01"
	InvalidAuthorization     = "28000"
	CannotConnectNow         = "57P03"
)

// Code returns the SQLSTATE of an error that the server sent, else "".
func Code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// Is reports whether the server sent one of the codes.
func Is(err error, codes ...string) bool {
	code := Code(err)
	return code != "" && slices.Contains(codes, code)
}

// Retry reports that a transaction was rolled back for a passing reason: a deadlock, a serialization failure, or "tuple
// concurrently updated" and "deleted". PostgreSQL has no code of its own for these, but XX000, which is also that of each
// error without a code; so the functions that report them tell.
func Retry(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || Lost(err) {
		return false
	}
	switch e.Code {
	case SerializationFailure, DeadlockDetected:
		return true
	case InternalError:
		return e.Routine == "simple_heap_update" || e.Routine == "simple_heap_delete"
	}
	return false
}

// Refusal reports that the server, or an extension or trigger in it, does not want what was asked for: the same call meets
// the same answer. Errors in the SQL itself, of the session's state, of the server's resources and of its storage are none.
func Refusal(err error) bool {
	code := Code(err)
	return code != "" && !Away(err) && !Retry(err) && code != DataCorrupted && code != IndexCorrupted &&
		!slices.Contains(noRefusals, code[:2])
}

// noRefusals are the classes of PostgreSQL that are no refusal. Extensions have their own beyond these.
var noRefusals = []string{"01", "02", "03", "08", "09", "0B", "0F", "0L", "0P", "0Z", "20", "21", "24", "25", "26", "27",
	"2B", "2D", "34", "3B", "3D", "3F", "40", "42", "53", "57", "58", "72", "F0", "HV"}

// maxMessage is how many characters of the server's message are passed on.
const maxMessage = 300

// Message is the server's primary message, in one line, without verifiers and not longer than a sentence or two; "" if the
// server sent none. Its details and context, which quote the statement, are left out.
func Message(err error) string {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return ""
	}
	message := e.Message
	if len(message) > 8*maxMessage {
		message = message[:8*maxMessage]
	}
	message = verifiers.ReplaceAllString(strings.ToValidUTF8(message, "\uFFFD"), "…")
	words := strings.FieldsFunc(message, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	line := []rune(strings.Join(words, " "))
	if len(line) > maxMessage {
		line = append(line[:maxMessage:maxMessage], '…')
	}
	return string(line)
}

// verifiers finds SCRAM verifiers and md5 hashes, also cut ones.
var verifiers = regexp.MustCompile(`SCRAM-SHA-256[^\s'"]*|md5[0-9a-fA-F]{8,}`)

// Away reports that the server was unreachable, stopped, lacked resources, took no writes or did not answer in time: classes
// 08 (connection), 53 (resources), 57 (shutdown, start-up, time limits) and 58 (system), a lock, a read-only server.
func Away(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if code := Code(err); code != "" {
		switch code[:2] {
		case "08", "53", "57", "58":
			return true
		}
		if code == LockNotAvailable || code == ReadOnly {
			return true
		}
	}
	return Lost(err)
}

// LoginRefused reports that the server answers and refuses the login: a wrong password, a role without LOGIN or whose
// password has expired, a rule of pg_hba.conf, a database that does not exist.
func LoginRefused(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.SeverityUnlocalized != "FATAL" {
		return false
	}
	return Is(err, InvalidPassword, InvalidAuthorization, UndefinedDatabase, InsufficientPrivilege)
}

// Lost reports that the connection failed, so that what was sent on it may or may not have been done.
func Lost(err error) bool {
	if err == nil {
		return false
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		// Severity itself is in the server's language.
		return e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC" || strings.HasPrefix(e.Code, "08")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	_, netErr := errors.AsType[net.Error](err)
	return netErr || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, pgconn.ErrConnClosed)
}
