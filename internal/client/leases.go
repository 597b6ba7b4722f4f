package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
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

// Leases returns leases, the newest first: those of a cluster, or with nil of all. filter may be nil.
func (c *Client) Leases(ctx context.Context, cl *ClusterRef, filter url.Values) ([]*Lease, error) {
	path := LeasesPath
	if cl != nil {
		path = cl.Path("leases")
	}
	return resources[Lease](ctx, c, path, filter)
}

// Lease returns a lease, without its password.
func (c *Client) Lease(ctx context.Context, id string) (*Lease, error) {
	return resource[Lease](ctx, c, Request{Method: http.MethodGet, Path: LeasePath(id)})
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

// PutCredential creates a credential, or replaces its settings if it has the entity tag; "": whatever it has.
func (c *Client) PutCredential(ctx context.Context, cl *ClusterRef, name string, s CredentialSettings, ifMatch string) (
	*Credential, error) {
	return resource[Credential](ctx, c, Request{Method: http.MethodPut, Path: cl.CredentialPath(name), Body: s,
		IfMatch: ifMatch})
}

// Credentials returns the credentials of a cluster.
func (c *Client) Credentials(ctx context.Context, cl *ClusterRef) ([]*Credential, error) {
	return resources[Credential](ctx, c, cl.CredentialPath(), nil)
}

// Credential returns a credential, without its password.
func (c *Client) Credential(ctx context.Context, cl *ClusterRef, name string) (*Credential, error) {
	return resource[Credential](ctx, c, Request{Method: http.MethodGet, Path: cl.CredentialPath(name)})
}

// CurrentCredential returns what to log in with.
func (c *Client) CurrentCredential(ctx context.Context, cl *ClusterRef, name string) (*CurrentCredential, error) {
	return resource[CurrentCredential](ctx, c, Request{Method: http.MethodGet, Path: cl.CredentialPath(name, "current")})
}

// RotateCredential replaces the current lease of a credential.
func (c *Client) RotateCredential(ctx context.Context, cl *ClusterRef, name string) (*Credential, error) {
	return resource[Credential](ctx, c, Request{Method: http.MethodPost, Path: cl.CredentialPath(name, "rotate")})
}

// DeleteCredential ends a credential and its leases, if it has the entity tag; "": whatever it has.
func (c *Client) DeleteCredential(ctx context.Context, cl *ClusterRef, name, ifMatch string) error {
	_, err := c.Do(ctx, Request{Method: http.MethodDelete, Path: cl.CredentialPath(name), IfMatch: ifMatch})
	return err
}

// NewToken is what a personal access token is created with. nil is no limit.
type NewToken struct {
	Name        string     `json:"name"`
	ReadOnly    bool       `json:"readOnly,omitempty"`
	Clusters    []string   `json:"clusters"`    // ids
	Credentials []string   `json:"credentials"` // <id of the cluster>/<name>
	ExpiresAt   *time.Time `json:"expiresAt"`   // nil: never
}

// CreateToken creates a personal access token of the caller.
func (c *Client) CreateToken(ctx context.Context, n NewToken) (*Token, error) {
	return resource[Token](ctx, c, Request{Method: http.MethodPost, Path: TokensPath, Body: n})
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

func resources[T any](ctx context.Context, c *Client, path string, query url.Values) ([]*T, error) {
	items, err := c.Items(ctx, path, query)
	if err != nil {
		return nil, err
	}
	all := make([]*T, len(items))
	for i, item := range items {
		if all[i], err = decode[T](c, Answer{JSON: item}); err != nil {
			return nil, err
		}
	}
	return all, nil
}
