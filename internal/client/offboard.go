package client

import "time"

// OffboardingsPath is where the reports of offboardings are.
const OffboardingsPath = "/rolecall/v1/offboardings"

// OffboardRequest says what is done to the database users that an account could still use.
type OffboardRequest struct {
	Users struct {
		Default string `json:"default"`
		After   string `json:"after,omitempty"`
	} `json:"users"`
}

// Person is an account as reports name it.
type Person struct {
	GUID     string `json:"guid"`
	Username string `json:"username"`
}

// Name is what people call the account.
func (p Person) Name() string {
	if p.Username == "" {
		return p.GUID
	}
	return p.Username
}

// OffboardingSummary is a report without what is in it.
type OffboardingSummary struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	Account   Person    `json:"account"`
	By        Person    `json:"by"`
	Users     int       `json:"users"`
	State     string    `json:"operationState"`
}

// Offboarding is what an account could still use, and what becomes of it.
type Offboarding struct {
	ID        string     `json:"id"` // "" in a plan
	CreatedAt *time.Time `json:"createdAt"`
	By        *Person    `json:"by"`
	Operation string     `json:"operation"`
	State     string     `json:"operationState"`
	Account   struct {
		Person
		Origin string `json:"origin"`
		Active bool   `json:"active"`
	} `json:"account"`
	Users []struct {
		Cluster        ClusterRef `json:"cluster"`
		Username       string     `json:"username"`
		Why            string     `json:"why"`
		Action         string     `json:"action"`
		Detail         string     `json:"detail"`
		State          string     `json:"state"`
		ValidUntil     *time.Time `json:"validUntil"`
		ChangedOutside bool       `json:"passwordChangedOutside"`
	} `json:"users"`
	Leases []struct {
		Cluster   ClusterRef `json:"cluster"`
		Username  string     `json:"username"`
		ExpiresAt *time.Time `json:"expiresAt"`
	} `json:"leases"`
	Tokens []struct {
		Name string `json:"name"`
	} `json:"tokens"`
	Sessions []struct {
		Client string     `json:"client"`
		Count  int        `json:"count"`
		LastAt *time.Time `json:"lastAt"`
	} `json:"sessions"`
	Credentials []struct {
		Cluster ClusterRef `json:"cluster"`
		Name    string     `json:"name"`
		Made    bool       `json:"made"`
		ReadAt  *time.Time `json:"readAt"`
	} `json:"credentials"`
	Verifiers []struct {
		Cluster ClusterRef `json:"cluster"`
		ReadAt  *time.Time `json:"readAt"`
		Users   []string   `json:"users"`
	} `json:"verifiers"`
	Unreachable []Unreachable `json:"unreachable"`
	ExpiresAt   *time.Time    `json:"expiresAt"`
	AuditSince  *time.Time    `json:"auditSince"`
}
