package pgrole

import (
	"fmt"
	"slices"
	"strings"
)

// Right is something that the administering role of a server may do, or may not.
type Right struct {
	Name string
	Has  bool
	// Needed says that the server cannot be managed without it.
	Needed bool
	// Without says what does not work without it, and SQL gives it to the role; "": no statement does.
	Without, SQL string
}

// Rights are what the administering role needs for Rolecall's work, the most important first.
func (c *Capabilities) Rights() []Right {
	createRole := ""
	if !c.CreateRole {
		createRole = c.createRoleRemedy()
	}
	return []Right{
		{"Create and change users", c.ManageUsers, true,
			"Nothing can be managed here.", createRole},
		{"Change users that other roles created", c.ForeignRoles, false,
			"Users that another role created are shown, but not changed or deleted, until they are granted to this role.",
			c.foreignRolesRemedy()},
		{"Create databases", c.CreateDB, false,
			"No database can be created here.", c.createDBRemedy()},
		{"End the sessions of any user", c.SignalBackend, false,
			"To end sessions of a user, Rolecall becomes a member of that user for a moment. Sessions of users that it may not " +
				"change stay.",
			fmt.Sprintf("GRANT pg_signal_backend TO %s;", ident(c.Role))},
		{"Read verifiers of passwords", c.ReadVerifiers, false,
			"The kind of a password is unknown, a password that SQL has changed is not noticed, and there is no user list for " +
				"PgBouncer. Only a superuser reads them.", ""},
	}
}

// Problem is a sentence about what keeps Rolecall from its work, and the SQL that fixes it; "": there is none.
type Problem struct{ Text, SQL string }

// OtherProblems are those of Problems that are not about one of Rights, with their remedies apart.
func (c *Capabilities) OtherProblems() []Problem {
	var problems []Problem
	rights := c.Rights()
	for i, text := range c.Problems {
		remedy := ""
		if i < len(c.Remedies) { // a probe of an older release has stored none
			remedy = c.Remedies[i]
		}
		if remedy != "" && slices.ContainsFunc(rights, func(r Right) bool { return r.SQL == remedy }) {
			continue
		}
		problems = append(problems, Problem{strings.TrimSuffix(text, ": "+remedy), remedy})
	}
	return problems
}

func (c *Capabilities) createRoleRemedy() string {
	return fmt.Sprintf("ALTER ROLE %s CREATEROLE;", ident(c.Role))
}

func (c *Capabilities) createDBRemedy() string {
	return fmt.Sprintf("ALTER ROLE %s CREATEDB;", ident(c.Role))
}

// foreignRolesRemedy has a place for the name of the user: there is one statement for each.
func (c *Capabilities) foreignRolesRemedy() string {
	return fmt.Sprintf("GRANT <user> TO %s WITH ADMIN OPTION;", ident(c.Role))
}
