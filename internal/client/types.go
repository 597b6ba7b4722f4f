package client

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/secret"
)

// The resources of Rolecall's own API, with the fields that commands read.

// ClusterRef is a cluster by its two names.
type ClusterRef struct {
	ID   string `json:"id"`
	Name string `json:"displayName"`
}

// Path is the path of the cluster, or of something below it.
func (cl *ClusterRef) Path(segments ...string) string {
	return Path(Path(ClustersPath, cl.ID), segments...)
}

// Where the resources are.
const (
	WhoamiPath   = "/rolecall/v1/whoami"
	AccountsPath = "/rolecall/v1/accounts"
	ClustersPath = "/rolecall/v1/clusters"
	LeasesPath   = "/rolecall/v1/leases"
	TokensPath   = "/rolecall/v1/tokens"
	SessionsPath = "/rolecall/v1/sessions"
	KeysPath     = "/rolecall/v1/keys"
	AuditPath    = "/rolecall/v1/audit"
	StatusPath   = "/rolecall/v1/status"
)

// LocalOrigin is the origin of accounts that sign in with a password of this server.
const LocalOrigin = "uaa"

// Whoami is the caller's account and what it may do.
type Whoami struct {
	Account struct {
		GUID     string `json:"guid"`
		Username string `json:"username"`
		Origin   string `json:"origin"`
	} `json:"account"`
	Scopes []string          `json:"scopes"`
	Labels map[string]string `json:"labels"`
	// LabelSources are the names of the issuers that set labels, by the keys of these.
	LabelSources map[string]string `json:"labelSources"`
	Clusters     []struct {
		ClusterRef
		Manage bool `json:"manage"`
	} `json:"clusters"`
}

// Account is a user or an OAuth client of Rolecall.
type Account struct {
	GUID        string            `json:"guid"`
	Username    string            `json:"username"`
	Origin      string            `json:"origin"`
	Active      bool              `json:"active"`
	OAuthClient bool              `json:"oauthClient"`
	Scopes      []string          `json:"scopes"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	// LabelSources are the names of the issuers that set labels, by the keys of these.
	LabelSources map[string]string `json:"labelSources"`
	CreatedAt    *time.Time        `json:"createdAt"`
	UpdatedAt    *time.Time        `json:"updatedAt"`
	LastSignInAt *time.Time        `json:"lastSignInAt"`
}

// Name is what people call the account.
func (a *Account) Name() string {
	if a.Username == "" {
		return a.GUID
	}
	return a.Username
}

// AdminLabels are the labels that admins set, and no issuer.
func (a *Account) AdminLabels() map[string]string {
	labels := maps.Clone(a.Labels)
	maps.DeleteFunc(labels, func(key, _ string) bool { return a.LabelSources[key] != "" })
	return labels
}

// Path is the path of the account, or of something below it.
func (a *Account) Path(segments ...string) string {
	return Path(Path(AccountsPath, a.GUID), segments...)
}

// Cluster is a registered cluster.
type Cluster struct {
	ClusterRef
	Location     string  `json:"location"`
	Version      string  `json:"version"`
	State        string  `json:"state"`
	Reachable    bool    `json:"reachable"`
	LastError    *string `json:"lastError"`
	Capabilities struct {
		Role           string   `json:"role"`
		ForeignRoles   bool     `json:"foreignRoles"`
		ReadVerifiers  bool     `json:"readVerifiers"`
		MaxConnections int      `json:"maxConnections"`
		Problems       []string `json:"problems"`
	} `json:"capabilities"`
	Access struct {
		Manage []string `json:"manage"`
		View   []string `json:"view"`
	} `json:"access"`
	Connection struct {
		URL              string `json:"url"`
		TLS              TLS    `json:"tls"`
		SystemIdentifier string `json:"systemIdentifier"`
	} `json:"connection"`
	MayManage         bool        `json:"mayManage"`
	SystemRoles       []string    `json:"systemRoles"`
	MemberOf          []string    `json:"memberOf"`
	Grantable         []string    `json:"grantable"`
	SynchronousCommit *string     `json:"synchronousCommit"`
	Leases            LeaseLimits `json:"leases"`
	CreatedAt         *time.Time  `json:"createdAt"`
	UpdatedAt         *time.Time  `json:"updatedAt"`
}

// ServerStatus is what an operator wants to know of an installation.
type ServerStatus struct {
	Version      string   `json:"version"`
	Installation string   `json:"installation"`
	Replicas     []string `json:"replicas"`
	Control      struct {
		Version         string `json:"version"`
		Database        string `json:"database"`
		Bytes           int64  `json:"bytes"`
		Migration       int    `json:"migration"`
		NewerMigrations int    `json:"newerMigrations"`
	} `json:"control"`
	Audit struct {
		UnsealedRows                int64   `json:"unsealedRows"`
		OldestUnsealedRowSeconds    float64 `json:"oldestUnsealedRowSeconds"`
		OverdueAttempts             int64   `json:"overdueAttempts"`
		OldestOverdueAttemptSeconds float64 `json:"oldestOverdueAttemptSeconds"`
	} `json:"audit"`
	Clusters struct {
		Registered  int      `json:"registered"`
		Unreachable []string `json:"unreachable"`
	} `json:"clusters"`
	OperationsRunning int `json:"operationsRunning"`
	LateLeases        int `json:"lateLeases"`
}

// TLS is how the connection to a cluster is protected.
type TLS struct {
	Mode           string `json:"mode"`
	CA             string `json:"ca"`
	Cert           string `json:"cert"`
	AllowPlaintext bool   `json:"allowPlaintext"`
}

// LeaseLimits are what an admin allows in a cluster.
type LeaseLimits struct {
	DefaultTTL    string `json:"defaultTtl"`
	MaxTTL        string `json:"maxTtl"`
	MaxPerAccount int    `json:"maxPerAccount"`
}

func (l LeaseLimits) String() string {
	return fmt.Sprintf("%s, at most %s, %d for each account", l.DefaultTTL, l.MaxTTL, l.MaxPerAccount)
}

// Access is what an account may do in a cluster, with the rules that decide.
type Access struct {
	Account struct {
		GUID     string            `json:"guid"`
		Username string            `json:"username"`
		Origin   string            `json:"origin"`
		Scopes   []string          `json:"scopes"`
		Labels   map[string]string `json:"labels"`
	} `json:"account"`
	View   Decision `json:"view"`
	Manage Decision `json:"manage"`
}

// Decision is whether an account may do something, and why.
type Decision struct {
	Allowed bool   `json:"allowed"`
	Why     string `json:"why"`
}

// Session is one sign-in of an account.
type Session struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind"` // token, console or login
	CreatedAt  *time.Time `json:"createdAt"`
	LastUsedAt *time.Time `json:"lastUsedAt"`
	Address    string     `json:"address"`
	Client     string     `json:"client"`
	Current    bool       `json:"current"` // the request belongs to it
}

// Connection is how to connect as a database user.
type Connection struct {
	Host      string   `json:"host"`
	Port      int      `json:"port"`
	Databases []string `json:"databases"`
	URL       string   `json:"url"` // without the password
}

// User is a database user.
type User struct {
	Username        string     `json:"username"`
	System          bool       `json:"system"`
	State           string     `json:"state"`
	ValidUntil      *time.Time `json:"validUntil"`
	ConnectionLimit int        `json:"connectionLimit"`
	MemberOf        []string   `json:"memberOf"`
	NotInherited    []string   `json:"notInherited"`
	PasswordKind    string     `json:"passwordKind"`
	Comment         string     `json:"comment"`
	Connection      Connection `json:"connection"`
	Lease           *struct {
		ID        string    `json:"id"`
		For       string    `json:"for"`
		ExpiresAt time.Time `json:"expiresAt"`
	} `json:"lease"` // nil: it is none
	CreatedBy  string     `json:"createdBy"`
	CreatedAt  *time.Time `json:"createdAt"`
	ModifiedBy string     `json:"modifiedBy"`
	ModifiedAt *time.Time `json:"modifiedAt"`
	ETag       string     `json:"etag"`
	// Observed in the cluster; nil: not known.
	PasswordChangedOutside   *bool      `json:"passwordChangedOutside"`
	PasswordChangedOutsideAt *time.Time `json:"passwordChangedOutsideAt"`
	LastSeen                 *time.Time `json:"lastSeen"`
	LastSeenSince            *time.Time `json:"lastSeenSince"`

	// Of the answer to a change only.
	EndedSessions int         `json:"endedSessions"`
	KeptRoles     []string    `json:"keptRoles"` // those that the cluster may not revoke
	Password      secret.Text `json:"password"`  // generated by the server
}

// PasswordProblem is a database user whose password should be renewed.
type PasswordProblem struct {
	Username     string `json:"username"`
	System       bool   `json:"system"`
	PasswordKind string `json:"passwordKind"`
	Problem      string `json:"problem"`
}

// DeletionPlan is what the deletion of a database user would do.
type DeletionPlan struct {
	Blockers  []string `json:"blockers"`
	Sessions  int      `json:"sessions"`
	Unvisited int      `json:"unvisited"`
	Databases []struct {
		Name       string  `json:"name"`
		Objects    Listing `json:"objects"`
		Definers   Listing `json:"definers"`
		Privileges Listing `json:"privileges"`
		Defaults   Listing `json:"defaultPrivileges"`
	} `json:"databases"`
}

// Listing is a number of things, with the names of the first ones.
type Listing struct {
	Count int      `json:"count"`
	First []string `json:"first"`
}

func (l Listing) String() string {
	text := strconv.Itoa(l.Count)
	if len(l.First) > 0 {
		text += ": " + strings.Join(l.First, "; ")
	}
	if l.Count > len(l.First) && len(l.First) > 0 {
		text += "; …"
	}
	return text
}

// Token is a personal access token.
type Token struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	ReadOnly bool     `json:"readOnly"`
	Clusters []string `json:"clusters"` // ids; nil: all
	// Credentials are the only ones that it reads, as <id of the cluster>/<name>, and it does nothing else; nil: no such limit.
	Credentials []string    `json:"credentials"`
	CreatedAt   *time.Time  `json:"createdAt"`
	ExpiresAt   *time.Time  `json:"expiresAt"`
	LastUsedAt  *time.Time  `json:"lastUsedAt"`
	Secret      secret.Text `json:"secret"` // of a new token only
}

// KeyRotation is what a rotation of the server's keys did.
type KeyRotation struct {
	MasterKey  string `json:"masterKey"`
	Resealed   int    `json:"resealed"`
	SigningKey string `json:"signingKey"` // "": none was created
}

// AuditRow is a row of the audit log.
type AuditRow struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Phase   string    `json:"phase"`
	Attempt string    `json:"attempt"`
	Action  string    `json:"action"`
	Outcome *string   `json:"outcome"`
	Account struct {
		GUID     string `json:"guid"`
		Username string `json:"username"`
	} `json:"account"`
	Cluster *string         `json:"cluster"`
	User    string          `json:"user"`
	Address string          `json:"address"`
	Detail  json.RawMessage `json:"detail"`
}

// Verification is the result of a check of the audit log.
type Verification struct {
	OK      bool  `json:"ok"`
	Checked int64 `json:"checked"`
	Head    struct {
		Seq int64  `json:"seq"`
		MAC string `json:"mac"`
	} `json:"head"`
	Unsealed struct {
		Count  int64      `json:"count"`
		Oldest *time.Time `json:"oldest"`
	} `json:"unsealed"`
	AnchorRemoved bool `json:"anchorRemoved"`
	Problem       *struct {
		Seq    *int64 `json:"seq"`
		ID     *int64 `json:"id"`
		Reason string `json:"reason"`
	} `json:"problem"`
}

// FailedSignIns is how often sign-ins of one account from one address failed in one minute.
type FailedSignIns struct {
	Minute  time.Time `json:"minute"`
	Account string    `json:"account"`
	Address string    `json:"address"`
	Count   int       `json:"count"`
}
