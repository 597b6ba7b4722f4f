package pgrole

import (
	"fmt"

	"rolecall/internal/fault"
)

// Level is what a user may do in a database that has access roles.
type Level string

// The levels. Each includes the one before it.
const (
	Read  Level = "read"  // SELECT in all covered schemas
	Write Level = "write" // and INSERT, UPDATE, DELETE, and the use of sequences
	Own   Level = "own"   // and CREATE; what its members make belongs to the access role
)

// Levels are all levels, the highest first.
var Levels = []Level{Own, Write, Read}

// suffix ends the name of a level's access role.
func (l Level) suffix() string {
	if l == Own {
		return "_owner"
	}
	return "_" + string(l)
}

// maxName is the longest name of a role, in bytes.
const maxName = 63

// AccessRole is the name of the access role of a level in a database. A name that would be longer than 63 bytes is refused,
// never cut.
func AccessRole(database string, level Level) (string, error) {
	name := database + level.suffix()
	if len(name) > maxName {
		return "", fault.New(fault.Invalid, "The database %q cannot have access roles: the name %q would have %d bytes, and "+
			"a role's name has at most %d. Give the database a shorter name.", database, name, len(name), maxName)
	}
	return name, nil
}

// CheckLevel refuses a level that there is not.
func CheckLevel(level Level) error {
	for _, l := range Levels {
		if l == level {
			return nil
		}
	}
	return fault.New(fault.Invalid, "The level %q is unknown: it is own, write or read.", level)
}

// AccessRecord is kept in the comment of an access role.
type AccessRecord struct {
	Database string `json:"database"`
	Level    Level  `json:"level"`
	// Schemas are those that the roles cover; "*" alone: all, and those that members of own make. Only the role of own keeps
	// this and what follows.
	Schemas []string `json:"schemas,omitempty"`
	Adopt   bool     `json:"adopt,omitempty"` // objects that other owners make are covered, too
	// TookConnect and TookCreate say that PUBLIC had CONNECT on the database, and CREATE on its schema public, until the
	// access roles were made.
	TookConnect bool `json:"tookConnect,omitempty"`
	TookCreate  bool `json:"tookCreate,omitempty"`
}

// Statement is SQL to be run, or that was run, in a database.
type Statement struct{ Database, SQL string }

func (s Statement) String() string { return fmt.Sprintf("in %s: %s", s.Database, s.SQL) }
