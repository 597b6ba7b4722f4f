package pgrole

import "context"

// Effective is what a user can do, and why.
type Effective struct {
	Username    string
	Memberships []EffectiveMembership
	Databases   []EffectiveDatabase
}

// EffectiveMembership is a role that the user is a member of, directly or through others.
type EffectiveMembership struct {
	Role    string
	Path    []string // the roles from the user's own membership to this role, both included
	Inherit bool     // it has the role's privileges without SET ROLE
	Set     bool     // it may SET ROLE to it
}

// EffectiveDatabase is what the user can do in a database.
type EffectiveDatabase struct {
	Database string
	Level    Level    // the highest; "": none
	Via      []string // the roles by which it has the level
	Connect  bool
	Grants   []GrantCount // what was granted to the user itself
	Problem  string       // why the database could not be looked into; "" if it was
}

// GrantCount counts the objects of a kind on which the user itself was granted a privilege.
type GrantCount struct {
	Kind      string // table, sequence, schema, function, …
	Privilege string // as PostgreSQL names it
	Count     int
}

// EffectiveAccess says what a user can do in each database that takes connections.
func (s *Server) EffectiveAccess(ctx context.Context, name string) (*Effective, error) {
	return nil, errUnbuilt
}
