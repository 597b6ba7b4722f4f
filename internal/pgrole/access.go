package pgrole

import (
	"context"

	"rolecall/internal/etag"
)

// Access is a level in a database.
type Access struct {
	Database string
	Level    Level
}

// SetAccess gives a user exactly one level in a database that has access roles.
func (s *Server) SetAccess(ctx context.Context, name string, access Access, match etag.Match, by Actor) (*Details, error) {
	return nil, errUnbuilt
}

// RemoveAccess takes a user's level in a database away, if it has one. Its sessions go on, with the rights that are left.
func (s *Server) RemoveAccess(ctx context.Context, name, database string, match etag.Match, by Actor) (*Details, error) {
	return nil, errUnbuilt
}

// NewUser is a user that is to be made with all that it may do.
type NewUser struct {
	Name     string
	Password string
	Access   []Access
	Roles    []string // grantable ones
	Limits   Limits
}

// CreateWith makes a user, all or nothing.
func (s *Server) CreateWith(ctx context.Context, n NewUser, by Actor) (*Details, error) {
	return nil, errUnbuilt
}

// Disable takes LOGIN from a user, which keeps its password, and ends its sessions. ended is how many there were.
func (s *Server) Disable(ctx context.Context, name string, match etag.Match, by Actor) (d *Details, ended int, err error) {
	return nil, 0, errUnbuilt
}

// Enable gives LOGIN back to a user that is disabled. One without a password is refused: a new password enables it.
func (s *Server) Enable(ctx context.Context, name string, match etag.Match, by Actor) (*Details, error) {
	return nil, errUnbuilt
}
