package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"rolecall/internal/secret"
)

// Lease is a database user that ends by itself.
type Lease struct {
	ID           string     `json:"id"`
	Cluster      string     `json:"cluster"` // the id
	For          string     `json:"for"`
	Username     string     `json:"username"`
	Connection   Connection `json:"connection"`
	State        string     `json:"state"`
	CreatedAt    time.Time  `json:"createdAt"`
	ExpiresAt    time.Time  `json:"expiresAt"`
	MaxExpiresAt time.Time  `json:"maxExpiresAt"`
	RenewedAt    *time.Time `json:"renewedAt"`
	EndedAt      *time.Time `json:"endedAt"`
	EndReason    string     `json:"endReason"`
	BlockedBy    []string   `json:"blockedBy"`
	Account      *struct {
		GUID     string `json:"guid"`
		Username string `json:"username"`
	} `json:"account"` // nil: it belongs to a credential
	Credential string      `json:"credential"`
	Note       string      `json:"note"`
	Password   secret.Text `json:"password"` // of a new lease only
}

// LeasePath is the path of a lease, or of something below it.
func LeasePath(id string, segments ...string) string { return Path(Path(LeasesPath, id), segments...) }

// NewLease is what a lease is taken with. Durations are like 90s, 36h or 7d.
type NewLease struct {
	For    string `json:"for"`
	TTL    string `json:"ttl,omitempty"`
	MaxTTL string `json:"maxTtl,omitempty"`
	Note   string `json:"note,omitempty"`
}

// CreateLease takes a lease.
func (c *Client) CreateLease(ctx context.Context, cl *ClusterRef, n NewLease) (*Lease, error) {
	return resource[Lease](ctx, c, Request{Method: http.MethodPost, Path: cl.Path("leases"), Body: n})
}

// RenewLease moves the end of a lease to ttl from now, with "" by the time that it was made for.
func (c *Client) RenewLease(ctx context.Context, id, ttl string) (*Lease, error) {
	body := map[string]string{}
	if ttl != "" {
		body["ttl"] = ttl
	}
	return resource[Lease](ctx, c, Request{Method: http.MethodPost, Path: LeasePath(id, "renew"), Body: body})
}

// EndLease ends a lease. If something keeps its user from being dropped, the lease is returned; otherwise nil.
func (c *Client) EndLease(ctx context.Context, id string) (blocked *Lease, err error) {
	answer, err := c.Do(ctx, Request{Method: http.MethodDelete, Path: LeasePath(id)})
	if err != nil || answer.JSON == nil {
		return nil, err
	}
	return decode[Lease](c, answer)
}

// Credential is a lease that Rolecall keeps and rotates.
type Credential struct {
	Name        string     `json:"name"`
	Cluster     string     `json:"cluster"` // the id
	For         string     `json:"for"`
	RotateEvery string     `json:"rotateEvery"`
	Overlap     string     `json:"overlap"`
	Window      *Window    `json:"window"` // nil: any time
	Username    string     `json:"username"`
	State       string     `json:"state"`
	LastError   string     `json:"lastError"`
	RotatedAt   *time.Time `json:"rotatedAt"`
	RotatesAt   *time.Time `json:"rotatesAt"`
	CreatedAt   time.Time  `json:"createdAt"`
	CreatedBy   string     `json:"createdBy"`
}

// Window is when a credential rotates.
type Window struct {
	Days     []string `json:"days"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Timezone string   `json:"timezone"`
}

// CredentialSettings are what a credential is stored with. Durations are like 90s, 36h or 7d.
type CredentialSettings struct {
	For         string  `json:"for"`
	RotateEvery string  `json:"rotateEvery"`
	Overlap     string  `json:"overlap"`
	Window      *Window `json:"window"`
}

// CurrentCredential is what a program logs in with.
type CurrentCredential struct {
	Username   string      `json:"username"`
	Password   secret.Text `json:"password"`
	Connection Connection  `json:"connection"`
	ExpiresAt  time.Time   `json:"expiresAt"`
	RotatesAt  time.Time   `json:"rotatesAt"`
}

// CredentialPath is the path of the credentials of the cluster, or of something below it.
func (cl *ClusterRef) CredentialPath(segments ...string) string {
	return Path(cl.Path("credentials"), segments...)
}

// resource sends a request that is answered with a resource.
func resource[T any](ctx context.Context, c *Client, r Request) (*T, error) {
	answer, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	return decode[T](c, answer)
}

func decode[T any](c *Client, a Answer) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(a.JSON, v); err != nil {
		return nil, fmt.Errorf("%s does not answer like Rolecall; check the URL", c.URL)
	}
	return v, nil
}
