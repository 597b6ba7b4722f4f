package manifest

import (
	"slices"

	"rolecall/internal/client"
)

// The file as it was read: checked, with durations and times in the form of the API. A list that the file does not have is
// nil, and an empty one is not.

// Place is where something begins in the file.
type Place struct {
	Line   int `json:"@line"`
	Column int `json:"@column"`
}

// Manifest is a file.
type Manifest struct {
	Mode     string    `json:"mode"`
	Accounts []Account `json:"accounts"`
	Clusters []Cluster `json:"clusters"`
	Retired  []Retired `json:"retired"`
}

// Account is an account of Rolecall.
type Account struct {
	Place
	Username    string            `json:"username"`
	Origin      string            `json:"origin"`
	Active      *bool             `json:"active"`
	Scopes      []string          `json:"scopes"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Password    Secret            `json:"password"`
}

// Cluster is a PostgreSQL cluster with what is in it.
type Cluster struct {
	Place
	Name              string       `json:"name"`
	Location          *string      `json:"location"`
	Connection        *Connection  `json:"connection"`
	Access            Access       `json:"access"`
	MemberOf          []string     `json:"memberOf"`
	Grantable         []string     `json:"grantable"`
	SystemRoles       []string     `json:"systemRoles"`
	SynchronousCommit *string      `json:"synchronousCommit"`
	Leases            Leases       `json:"leases"`
	Databases         []Database   `json:"databases"`
	Users             []User       `json:"users"`
	Credentials       []Credential `json:"credentials"`
}

// Connection is how a cluster is registered.
type Connection struct {
	URL      string `json:"url"`
	Password Secret `json:"password"`
	TLS      struct {
		Mode string `json:"mode"`
		CA   Secret `json:"ca"`
		Cert Secret `json:"cert"`
		Key  Secret `json:"key"`

		AllowPlaintext bool `json:"allowPlaintext"`
	} `json:"tls"`
}

// Access are the rules of a cluster.
type Access struct {
	Manage []string `json:"manage"`
	View   []string `json:"view"`
}

// Leases are the limits of leases.
type Leases struct {
	DefaultTTL    *string `json:"defaultTtl"`
	MaxTTL        *string `json:"maxTtl"`
	MaxPerAccount *int    `json:"maxPerAccount"`
}

// Database is a database of a cluster.
type Database struct {
	Place
	Name        string       `json:"name"`
	Owner       string       `json:"owner"`
	AccessRoles *AccessRoles `json:"accessRoles"`
}

// AccessRoles are those of a database.
type AccessRoles struct {
	Schemas []string `json:"schemas"`
	Adopt   *bool    `json:"adopt"`
}

// User is a database user.
type User struct {
	Place
	Name            string            `json:"name"`
	Access          map[string]string `json:"access"`
	Roles           []string          `json:"roles"`
	ValidUntil      *string           `json:"validUntil"` // Never, or as in RFC 3339
	ConnectionLimit *int              `json:"connectionLimit"`
	Disabled        *bool             `json:"disabled"`
	Password        Secret            `json:"password"`
}

// Credential is a stored credential.
type Credential struct {
	Place
	Name        string         `json:"name"`
	For         string         `json:"for"`
	RotateEvery string         `json:"rotateEvery"`
	Overlap     string         `json:"overlap"`
	Window      *client.Window `json:"window"`
}

// Retired is something to delete.
type Retired struct {
	Place
	Account     string `json:"account"`
	Origin      string `json:"origin"`
	Cluster     string `json:"cluster"`
	User        string `json:"user"`
	ReassignTo  string `json:"reassignTo"`
	Database    string `json:"database"`
	DestroyData *bool  `json:"destroyData"`
	Credential  string `json:"credential"`
}

// Secret is where a secret comes from. The zero value is none.
type Secret struct {
	Word string `json:"word,omitempty"` // Generate or Keep
	Env  string `json:"env,omitempty"`
	File string `json:"file,omitempty"`
}

// Given reports whether the secret comes from the environment or from a file.
func (s Secret) Given() bool { return s.Env != "" || s.File != "" }

// Covers reports whether the file has a cluster.
func (m *Manifest) Covers(cluster string) bool {
	return slices.ContainsFunc(m.Clusters, func(c Cluster) bool { return c.Name == cluster })
}

// CoversAccounts reports whether the file has accounts, also retired ones.
func (m *Manifest) CoversAccounts() bool {
	return m.Accounts != nil || slices.ContainsFunc(m.Retired, func(r Retired) bool { return r.Account != "" })
}

// Credentials are the stored credentials of a cluster that the file names.
func (m *Manifest) Credentials(cluster string) (credentials []string) {
	for _, c := range m.Clusters {
		if c.Name == cluster {
			for _, cr := range c.Credentials {
				credentials = append(credentials, cr.Name)
			}
		}
	}
	for _, r := range m.Retired {
		if r.Cluster == cluster && r.Credential != "" {
			credentials = append(credentials, r.Credential)
		}
	}
	return credentials
}

// RetiredUsers are the retired users of a cluster, and who gets what they own.
func (m *Manifest) RetiredUsers(cluster string) map[string]string {
	users := map[string]string{}
	for _, r := range m.Retired {
		if r.Cluster == cluster && r.User != "" {
			users[r.User] = r.ReassignTo
		}
	}
	return users
}
