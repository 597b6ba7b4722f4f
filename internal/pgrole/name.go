package pgrole

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"rolecall/internal/fault"
	"rolecall/internal/invisible"
	"rolecall/internal/scram"
)

// MaxName is the longest name in characters, and in bytes: PostgreSQL cuts what is longer and only says so in a notice.
// https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
const MaxName = 63

// The shortest and longest password of a database user, in characters.
const (
	MinPassword = 10
	MaxPassword = 63
)

// reserved names mean something else in SQL, or belong to a cloud.
var reserved = []string{
	"public", "none", "current_role", "current_user", "session_user", "user",
	"rdsadmin", "rds_*", "azure_*", "azuresu", "cloudsql*", "alloydb*", "neon_*", "doadmin",
}

// CheckName refuses names that a new database user cannot have. PostgreSQL takes any other, and case counts.
func CheckName(name string, systemRoles []string) error {
	if err := checkIdentifier("user", name); err != nil {
		return err
	}
	if strings.HasPrefix(name, "pg_") || matches(reserved, name) || matches(systemRoles, name) {
		return fault.New(fault.Invalid, "The name %q is reserved; choose another.", name)
	}
	return nil
}

func checkIdentifier(what, name string) error {
	switch {
	case name == "":
		return fault.New(fault.Invalid, "The name of a %s must not be empty.", what)
	case !utf8.ValidString(name):
		return fault.New(fault.Invalid, "The name of a %s must be valid UTF-8.", what)
	case utf8.RuneCountInString(name) > MaxName:
		return fault.New(fault.Invalid, "The name of a %s has at most %d characters, this one %d.", what, MaxName,
			utf8.RuneCountInString(name))
	case len(name) > MaxName:
		return fault.New(fault.Invalid, "The name %q is %d bytes long; PostgreSQL keeps %d, so it would become another name.",
			name, len(name), MaxName)
	case invisible.In(name):
		return fault.New(fault.Invalid, "The name %+q has a character that is not shown, such as a control character, a space of "+
			"zero width, or a line separator; leave it out.", name)
	case name == "." || name == "..":
		return fault.New(fault.Invalid, "The name %q cannot stand in a URL; choose another.", name)
	}
	return nil
}

// storable reports whether a role or database could have the name at all. Longer ones must not reach PostgreSQL, which
// would cut them and find another one.
func storable(name string) bool { return utf8.ValidString(name) && nameable(name) }

// nameable reports whether a role or database may have been given the name in a database of some encoding.
func nameable(name string) bool {
	return name != "" && len(name) <= MaxName && !strings.ContainsRune(name, 0)
}

// errForeign says that a name is not text.
var errForeign = errors.New("the name is not valid UTF-8")

// IsForeign reports whether a change was refused because the name of its role or database is not text.
func IsForeign(err error) bool { return errors.Is(err, errForeign) }

// foreign refuses to change a role or database whose name is not text. what is its kind in SQL, and of is the query for its
// name after SELECT. No statement may have such bytes, but PostgreSQL can put them into one itself.
func foreign(what, of string) *fault.Error {
	return fault.New(fault.Invalid, "The name of this %s is not valid UTF-8, because it was made in a database of another "+
		"encoding. Rename it to change or delete it here: DO $$ BEGIN EXECUTE "+
		"format('ALTER %s %%I RENAME TO new_name', (SELECT %s)); END $$;", what, strings.ToUpper(what), of).Because(errForeign)
}

// CheckStorable answers for a user whose name no role can have: there is none.
func CheckStorable(name string) error {
	if !storable(name) {
		return notFound(name)
	}
	return nil
}

// Storable is a name as the control database can store it: characters that are not valid are replaced.
func Storable(name string) string { return strings.ReplaceAll(valid(name), "\x00", "\uFFFD") }

// CheckStorableDatabase is CheckStorable for a database.
func CheckStorableDatabase(name string) error {
	if !storable(name) {
		return databaseNotFound(name)
	}
	return nil
}

// CheckReassign refuses a role that the objects of a user cannot go to, whatever the cluster.
func CheckReassign(name, to string) error {
	if to == name {
		return fault.New(fault.Invalid, "The objects of %q cannot be reassigned to %q itself.", name, name)
	}
	if !storable(to) {
		return fault.New(fault.Invalid, "There is no role %q to reassign to.", to)
	}
	return nil
}

// CheckDatabaseName refuses names that a new database cannot have.
func CheckDatabaseName(name string) error {
	if err := checkIdentifier("database", name); err != nil {
		return err
	}
	if slices.Contains(reservedDatabases, name) || strings.HasPrefix(name, unfinishedPrefix) {
		return fault.New(fault.Invalid, "The name %q is reserved; choose another.", name)
	}
	return nil
}

// CheckOwner refuses the name of an owner that no role can have.
func CheckOwner(owner string) error {
	if !storable(owner) {
		return noOwner(owner)
	}
	return nil
}

// CheckPassword refuses passwords outside the contract's limits. Control characters are refused too: clients do not
// agree on what becomes of them (RFC 4013 prohibits them, PostgreSQL takes them).
func CheckPassword(password string) error {
	n := utf8.RuneCountInString(password)
	switch {
	case n < MinPassword || n > MaxPassword:
		return fault.New(fault.Invalid, "A password has %d to %d characters, this one %d.", MinPassword, MaxPassword, n)
	case !utf8.ValidString(password):
		return fault.New(fault.Invalid, "A password must be valid UTF-8.")
	case strings.ContainsFunc(password, unicode.IsControl):
		return fault.New(fault.Invalid, "A password must not contain control characters.")
	case scram.Check(password) != nil:
		return fault.New(fault.Invalid, "A password must not have more than 30 combining marks in a row.")
	}
	return nil
}

func matches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool { return likeMatch(glob, name) })
}

// likeMatch is what PostgreSQL decides with the LIKE pattern of the same glob. path.Match is not it: there `*` stops at
// a slash and brackets mean something.
func likeMatch(glob, name string) bool {
	g, n := []rune(glob), []rune(name)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(n) {
		switch {
		case i < len(g) && g[i] == '*':
			star, mark = i, j
			i++
		case i < len(g) && (g[i] == '?' || g[i] == n[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(g) && g[i] == '*' {
		i++
	}
	return i == len(g)
}
