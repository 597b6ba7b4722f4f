package fleet

import (
	"context"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/pgrole"
)

// Sort is the order of found users; ties are in the order of the cluster's display name, then the user's name.
type Sort struct {
	By         string // cluster, name, createdAt, validUntil or lastSeen; "": cluster
	Descending bool
}

// Found is a database user of the fleet.
type Found struct {
	Cluster *cluster.Cluster
	*pgrole.Details
	dbuser.Observation
}

// Unreachable is a cluster that did not answer the search within its limit.
type Unreachable struct {
	Cluster *cluster.Cluster
	Err     error
}

// Page is a part of what was found.
type Page struct {
	Users       []Found
	Next        string // key of the next page; "" on the last
	Unreachable []Unreachable
}

// Search returns up to limit of the users that match, behind the key of a page before, "" for the first page. A cluster that
// does not answer is named in the page, and delays it by at most 5 seconds.
func (s *Service) Search(ctx context.Context, p *account.Principal, f Filter, order Sort, after string, limit int) (
	*Page, error) {
	panic("lane search")
}

// Match is a user that matches a filter, as an operation remembers it.
type Match struct {
	Cluster *cluster.Cluster
	Name    string
	OID     uint32
}

// Matches returns all users that match, in the order of cluster and name, without what only a page shows, so that tens of
// thousands can be found.
func (s *Service) Matches(ctx context.Context, p *account.Principal, f Filter) ([]Match, []Unreachable, error) {
	panic("lane search")
}
