package pgrole

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

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

// AccessRole is the name of the access role of a level in a database. A name that would be longer than 63 bytes is refused,
// never cut.
func AccessRole(database string, level Level) (string, error) {
	name := database + level.suffix()
	if len(name) > MaxName {
		return "", fault.New(fault.Invalid, "The database %q cannot have access roles: the name %q would have %d bytes, and "+
			"a role's name has at most %d. Give the database a shorter name.", database, name, len(name), MaxName)
	}
	return name, nil
}

// accessNames are the names of all access roles of a database, in the order of Levels.
func (s *Server) accessNames(database string) (names []string, err error) {
	for _, level := range Levels {
		name, err := AccessRole(database, level)
		if err != nil {
			return nil, err
		}
		if CheckName(name, s.SystemRoles) != nil {
			return nil, fault.New(fault.Invalid, "The database %q cannot have access roles: the name %q is reserved.", database,
				name)
		}
		names = append(names, name)
	}
	return names, nil
}

// CheckLevel refuses an unknown level.
func CheckLevel(level Level) error {
	if slices.Contains(Levels, level) {
		return nil
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
	// GaveConnect says that the administering role was granted CONNECT, because it had that through PUBLIC only.
	GaveConnect bool `json:"gaveConnect,omitempty"`
}

// MarshalJSON writes ASCII: the comment is written in the database, whose encoding may not have all characters of a name.
func (a AccessRecord) MarshalJSON() ([]byte, error) {
	type plain AccessRecord
	data, err := json.Marshal(plain(a))
	var ascii strings.Builder
	for _, r := range string(data) {
		switch {
		case r < 0x7f:
			ascii.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&ascii, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&ascii, `\u%04x`, r)
		}
	}
	return []byte(ascii.String()), err
}

// valid reports whether Rolecall can have written the record.
func (a *AccessRecord) valid() bool {
	return nameable(a.Database) && CheckLevel(a.Level) == nil &&
		!slices.ContainsFunc(a.Schemas, func(schema string) bool { return !nameable(schema) })
}

// accessRole reports whether the role was made to be the access role of a level in a database.
func (u *User) accessRole(database string, level Level) bool {
	a := u.Provenance.Access
	return a != nil && a.Database == database && a.Level == level
}

// Statement is SQL to be run, or that was run, in a database.
type Statement struct{ Database, SQL string }

func (s Statement) String() string { return fmt.Sprintf("in %s: %s", s.Database, s.SQL) }

// same reports whether two records say the same.
func (a *AccessRecord) same(b AccessRecord) bool {
	return slices.Equal(a.Schemas, b.Schemas) && a.Adopt == b.Adopt && a.TookConnect == b.TookConnect &&
		a.TookCreate == b.TookCreate && a.GaveConnect == b.GaveConnect
}
