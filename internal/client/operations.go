package client

import "time"

// OperationsPath is where operations are.
const OperationsPath = "/rolecall/v1/operations"

// OperationPath is the path of an operation, or of something below it.
func OperationPath(id string, segments ...string) string {
	return Path(Path(OperationsPath, id), segments...)
}

// Unreachable is a cluster that did not answer.
type Unreachable struct {
	Cluster ClusterRef `json:"cluster"`
	Error   string     `json:"error"`
}

// OperationPlan is what an operation will do.
type OperationPlan struct {
	ID          string        `json:"id"` // "": it was only planned
	Plan        []PlannedUser `json:"plan"`
	Total       int           `json:"total"`
	Skipped     int           `json:"skipped"`
	Unchecked   int           `json:"unchecked"`
	Unreachable []Unreachable `json:"unreachable"`
}

// PlannedUser is what an operation will do to one user.
type PlannedUser struct {
	Cluster       ClusterRef `json:"cluster"`
	Username      string     `json:"username"`
	Action        string     `json:"action"`
	Blockers      []string   `json:"blockers"`
	Skipped       string     `json:"skipped"`
	ValidUntil    *time.Time `json:"validUntil"`
	NewValidUntil *time.Time `json:"newValidUntil"`
}

// Operation is what is done to many users.
type Operation struct {
	ID     string `json:"id"`
	Action string `json:"action"`
	State  string `json:"state"`
	Reason string `json:"reason"`
	Counts struct {
		Total   int `json:"total"`
		Done    int `json:"done"`
		Failed  int `json:"failed"`
		Skipped int `json:"skipped"`
	} `json:"counts"`
	CreatedAt   time.Time     `json:"createdAt"`
	EndedAt     *time.Time    `json:"endedAt"`
	Account     Person        `json:"account"`
	Unreachable []Unreachable `json:"unreachable"`
}

// OperationResult is what came of one user.
type OperationResult struct {
	Cluster  ClusterRef `json:"cluster"`
	Username string     `json:"username"`
	State    string     `json:"state"`
	Detail   string     `json:"detail"`
}
