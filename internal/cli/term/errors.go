// Package term is what the commands have in common at the terminal: arguments, flags, prompts, output, and errors with their
// exit codes. It knows nothing of the server.
package term

import (
	"errors"
	"fmt"
)

// The exit codes that scripts can rely on.
const (
	ExitFailed   = 1
	ExitUsage    = 2
	ExitNotFound = 3
	ExitDenied   = 4
	// ExitMoved is that of apply if something is not as its plan knows it.
	ExitMoved = 5
	// ExitIncomplete is that of a list or a plan that lacks clusters which did not answer.
	ExitIncomplete = 6
	// ExitNotExecutable and ExitNoCommand are those of a command that runs another one, which could not be started.
	ExitNotExecutable = 126
	ExitNoCommand     = 127
	// ExitInterrupted is that of a command that SIGINT has ended, as shells have it.
	ExitInterrupted = 130
)

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

// Unwrap returns the error without the exit code.
func (e *exitError) Unwrap() error { return e.error }

// Usage is an error in the command line or in a setting.
func Usage(format string, args ...any) error {
	return &exitError{fmt.Errorf(format, args...), ExitUsage}
}

// NotFound is an error about something that does not exist.
func NotFound(format string, args ...any) error {
	return &exitError{fmt.Errorf(format, args...), ExitNotFound}
}

// Denied is an error of a command that needs another sign-in.
func Denied(format string, args ...any) error {
	return &exitError{fmt.Errorf(format, args...), ExitDenied}
}

// Exit is an error with an exit code.
func Exit(code int, format string, args ...any) error {
	return &exitError{fmt.Errorf(format, args...), code}
}

// Ended is the result of a command that ran another one: nil or, without a message, an error with its exit code.
func Ended(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{errors.New(""), code}
}

// ExitCode is the exit code of an error that has one of its own, else ExitFailed.
func ExitCode(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return ExitFailed
}
