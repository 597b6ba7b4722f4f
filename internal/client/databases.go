package client

import "time"

// Levels are what a user may do in a database that has access roles, the highest first.
var Levels = []string{"own", "write", "read"}

// Database is a database of a cluster.
type Database struct {
	Name        string     `json:"name"`
	Owner       string     `json:"owner"`
	System      bool       `json:"system"`
	AccessRoles bool       `json:"accessRoles"`
	CreatedAt   *time.Time `json:"createdAt"`
	CreatedBy   string     `json:"createdBy"`
}

// AccessRoles are the access roles of a database.
type AccessRoles struct {
	Database string `json:"database"`
	Roles    []struct {
		Level   string   `json:"level"`
		Role    string   `json:"role"`
		Members []string `json:"members"`
	} `json:"roles"`
	Schemas    []string    `json:"schemas"` // "*" alone: all
	Adopt      bool        `json:"adopt"`
	Complete   bool        `json:"complete"`
	Problems   []string    `json:"problems"`   // what could not be granted, and what helps
	Statements []Statement `json:"statements"` // what was run, or with a plan would be
}

// Statement is SQL in a database.
type Statement struct {
	Database string `json:"database"`
	SQL      string `json:"sql"`
}

// EffectiveAccess is what a database user can do.
type EffectiveAccess struct {
	Username    string `json:"username"`
	Memberships []struct {
		Role    string   `json:"role"`
		Path    []string `json:"path"`
		Inherit bool     `json:"inherit"`
		Set     bool     `json:"set"`
	} `json:"memberships"`
	Databases []struct {
		Database string       `json:"database"`
		Level    string       `json:"level"` // "": none
		Via      []string     `json:"via"`
		Connect  bool         `json:"connect"`
		Grants   []GrantCount `json:"grants"`
		Problem  string       `json:"problem"`
	} `json:"databases"`
}

// GrantCount counts the objects of a kind on which the user itself has a privilege.
type GrantCount struct {
	Kind      string `json:"kind"`
	Privilege string `json:"privilege"`
	Count     int    `json:"count"`
}
