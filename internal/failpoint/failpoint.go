//go:build !failpoint

// Package failpoint lets a test break the program, or one of its connections, at each statement that a request has
// PostgreSQL execute. Between two statements, and before the answer, nothing changes that anybody else could see: there
// are no other instants to die at. Only a program that was built with the tag failpoint can be broken so; in any other
// these functions are empty.
package failpoint

import (
	"time"

	"github.com/jackc/pgx/v5"
)

// On puts failpoints into the connections that are made with config.
func On(*pgx.ConnConfig) {}

// Soon is the time after which an attempt that was cut off may be judged.
func Soon(limit time.Duration) time.Duration { return limit }
