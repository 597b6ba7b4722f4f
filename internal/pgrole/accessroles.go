package pgrole

import (
	"context"
	"errors"
)

// AccessRoles are the access roles of a database: NOLOGIN groups whose members may do what their level says.
type AccessRoles struct {
	Database string
	Roles    []AccessRoleState // of own, write and read; those that are there
	Schemas  []string          // as in AccessRecord
	Adopt    bool
	Complete bool // nothing would be run to complete them
	// Statements are what was run, or would be.
	Statements []Statement
}

// AccessRoleState is one access role.
type AccessRoleState struct {
	Level   Level
	Name    string
	Members []string // in the order of their names' bytes, leases among them
}

// AccessRolesWish is what the access roles of a database are to be.
type AccessRolesWish struct {
	Database string
	// Schemas are the names of those to be covered; nil: as it is, or all; "*" alone: all.
	Schemas []string
	// Adopt covers objects of other owners, and takes a role that has an access role's name; nil: as it is, or not.
	Adopt *bool
}

var errUnbuilt = errors.New("not built")

// AccessRoles returns the access roles of a database. There are none: fault.NotFound.
func (s *Server) AccessRoles(ctx context.Context, database string) (*AccessRoles, error) {
	return nil, errUnbuilt
}

// PlanAccessRoles says what CompleteAccessRoles would run.
func (s *Server) PlanAccessRoles(ctx context.Context, wish AccessRolesWish) (*AccessRoles, error) {
	return nil, errUnbuilt
}

// CompleteAccessRoles makes the access roles of a database, or what they lack: a second call runs nothing. Nothing is taken
// from anybody but CONNECT on the database, and CREATE on the schema public, from PUBLIC. What it does last writes the
// attempt into the record of the role of own, and nothing before does: so the settler knows what became of it.
func (s *Server) CompleteAccessRoles(ctx context.Context, wish AccessRolesWish, by Actor) (*AccessRoles, error) {
	return nil, errUnbuilt
}

// RemoveAccessRoles takes back what the access roles of a database were granted, and drops them. It refuses if one of them
// has a member, or owns something and reassignTo is "". The role of own goes last.
func (s *Server) RemoveAccessRoles(ctx context.Context, database, reassignTo string, by Actor) error {
	return errUnbuilt
}
