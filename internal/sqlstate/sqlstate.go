// Package sqlstate reads PostgreSQL's error codes. It matches codes and never texts, which vary with version and locale. The
// codes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html.
package sqlstate

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// The codes that decisions depend on.
const (
	ProtocolViolation        = "08P01"
	InsufficientPrivilege    = "42501"
	InvalidGrant             = "0LP01"
	DuplicateObject          = "42710"
	DuplicateDatabase        = "42P04"
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
	DependentObjects         = "2BP01"
	NotInPrerequisiteState   = "55000"
	ObjectInUse              = "55006"
	LockNotAvailable         = "55P03"
	QueryCanceled            = "57014"
	TooManyConnections       = "53300"
	InternalError            = "XX000"
	SerializationFailure     = "40001"
	DeadlockDetected         = "40P01"
	ReadOnly                 = "25006"
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

// Retry reports that a transaction was rolled back for a passing reason: a deadlock, a serialization failure, or XX000,
// which is PostgreSQL's code for "tuple concurrently updated".
func Retry(err error) bool {
	return Is(err, InternalError, SerializationFailure, DeadlockDetected) && !Lost(err)
}

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
