package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/moment"
	"rolecall/internal/pgrole"
)

// What found users can be sorted by.
const (
	SortCluster    = "cluster"
	SortName       = "name"
	SortCreatedAt  = "createdAt"
	SortValidUntil = "validUntil"
	SortLastSeen   = "lastSeen"
)

// Sorts are all of them.
var Sorts = []string{SortCluster, SortName, SortCreatedAt, SortValidUntil, SortLastSeen}

// Sort is the order of found users; ties are in the order of the cluster's display name, then the user's name. Users that
// have no such time come last in either direction.
type Sort struct {
	By         string // "": SortCluster
	Descending bool
}

// Found is a database user of the fleet.
type Found struct {
	Cluster *cluster.Cluster
	*pgrole.Details
	dbuser.Observation
}

// Unreachable is a cluster that did not answer a search in time.
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

// Match is a user that matches a filter, as an operation remembers it.
type Match struct {
	Cluster    *cluster.Cluster
	Name       string
	OID        uint32
	ValidUntil time.Time // zero: none
}

// The bounds of a search.
const (
	searchLimit = 5 * time.Second
	// maxReads is how many clusters are read at a time. Those that are slow are not counted: they only wait.
	maxReads = 16
	// maxHits is how many hits a cluster is asked for at a time when all are needed.
	maxHits = 1000
)

// limit is how long a cluster may delay a search.
func (s *Service) limit() time.Duration { return cmp.Or(s.Limit, searchLimit) }

// Search returns up to limit of the users that match, behind the key of a page before, "" for the first page. A cluster that
// does not answer is named in the page, and delays it by at most 5 seconds.
func (s *Service) Search(ctx context.Context, p *account.Principal, f Filter, order Sort, after string, limit int) (
	*Page, error) {
	order.By = cmp.Or(order.By, SortCluster)
	if !slices.Contains(Sorts, order.By) {
		return nil, fault.New(fault.Malformed, "There is no order %.50q.", order.By)
	}
	digest := f.digest(order)
	q := &search{order: order, want: limit + 1}
	if after != "" {
		at, err := parseCursor(after, digest)
		if err != nil {
			return nil, err
		}
		q.after = at
	}
	clusters, conditions, err := s.resolve(ctx, p, &f)
	if err != nil {
		return nil, err
	}
	q.conditions = conditions
	ending, cancel := context.WithTimeout(ctx, s.limit())
	defer cancel()
	reading, stop := context.WithTimeout(ending, s.limit()*4/5) // the rest is for the details
	defer stop()
	found, unreachable := s.gather(reading, p, q, clusters)
	var next string
	if len(found) > limit {
		found = found[:limit]
		next = found[limit-1].cursor(digest)
	}
	users, failed := s.complete(ending, p, q, found)
	if err := ctx.Err(); err != nil { // nobody waits for it, and no cluster is to blame
		return nil, err
	}
	page := &Page{Users: users, Next: next, Unreachable: append(unreachable, failed...)}
	sortUnreachable(page.Unreachable)
	return page, nil
}

// sortUnreachable sorts clusters in the order of a search.
func sortUnreachable(list []Unreachable) {
	slices.SortFunc(list, func(a, b Unreachable) int {
		return compareClusters(a.Cluster.DisplayName, a.Cluster.ID, b.Cluster.DisplayName, b.Cluster.ID)
	})
}

// Matches returns all users that match in the clusters that the principal may manage, in the order of cluster and name,
// without what only a page shows, so that tens of thousands can be found. If they are more than most, it stops and returns
// more than most. A cluster that does not answer within 5 seconds is unreachable.
func (s *Service) Matches(ctx context.Context, p *account.Principal, f Filter, most int) ([]Match, []Unreachable, error) {
	clusters, conditions, err := s.resolve(ctx, p, &f)
	if err != nil {
		return nil, nil, err
	}
	clusters = slices.DeleteFunc(clusters, func(c *cluster.Cluster) bool { return !access.MayManage(p, c) })
	q := &search{conditions: conditions, order: Sort{By: SortCluster}, most: most}
	found, unreachable := s.gather(ctx, p, q, clusters)
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	matches := make([]Match, len(found))
	for i, u := range found {
		matches[i] = Match{u.in, u.name, u.oid, u.validUntil}
	}
	return matches, unreachable, nil
}

// search is what is looked for in each cluster.
type search struct {
	*conditions
	order Sort
	after *position // nil: from the beginning
	want  int       // how many from the first on; 0: all
	most  int       // if all are wanted: after how many the search stops
}

// hit is a user that was found.
type hit struct {
	position
	index      int // of the cluster, in the order in which they are asked
	in         *cluster.Cluster
	oid        uint32
	validUntil time.Time
}

// answer is what a cluster has answered.
type answer struct {
	index int
	hits  []hit
	err   error
}

// inOrder returns the clusters in the order in which they are asked, without those that come before the page.
func (q *search) inOrder(clusters []*cluster.Cluster) []*cluster.Cluster {
	descending := q.order.By == SortCluster && q.order.Descending
	clusters = slices.SortedFunc(slices.Values(clusters), func(a, b *cluster.Cluster) int {
		if descending {
			a, b = b, a
		}
		return compareClusters(a.DisplayName, a.ID, b.DisplayName, b.ID)
	})
	if q.order.By != SortCluster || q.after == nil {
		return clusters
	}
	return slices.DeleteFunc(clusters, func(c *cluster.Cluster) bool {
		if descending {
			return q.after.compareCluster(c) > 0
		}
		return q.after.compareCluster(c) < 0
	})
}

// gather asks the clusters and returns what was found in the order of the search: the first q.want, or all. If that is the
// order of the clusters, it asks no more of them than it takes, and a later one is not unreachable: its page is to come.
func (s *Service) gather(ctx context.Context, p *account.Principal, q *search, clusters []*cluster.Cluster) (
	found []hit, unreachable []Unreachable) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clusters = q.inOrder(clusters)
	errs := make([]error, len(clusters))
	answers, slow := make(chan answer, len(clusters)), make(chan int, len(clusters))
	waiting := map[int]*time.Timer{} // for the answers of these clusters; nil: for so long that another one is asked
	next, busy, width := 0, 0, maxReads
	byCluster := q.order.By == SortCluster && q.want > 0
	if byCluster {
		width = 2 // they may have all
	}
	for !q.settled(found, waiting) {
		for ; next < len(clusters) && busy < width && !(byCluster && len(found) >= q.want); next++ {
			go s.ask(ctx, p, q, clusters[next], next, answers)
			index := next
			waiting[index] = time.AfterFunc(s.limit()/10, func() { slow <- index })
			busy++
		}
		if len(waiting) == 0 {
			break
		}
		select {
		case a := <-answers:
			if timer := waiting[a.index]; timer != nil {
				timer.Stop()
				busy--
			}
			delete(waiting, a.index)
			found, errs[a.index] = q.merge(found, a.hits), a.err
			width = min(width+1, maxReads)
		case index := <-slow:
			if waiting[index] != nil {
				waiting[index] = nil
				busy--
			}
		case <-ctx.Done():
			for index := range waiting {
				errs[index] = s.late(ctx)
			}
			for ; next < len(clusters); next++ {
				errs[next] = fault.New(fault.Unavailable, "The cluster was not asked, because too many others did not answer.")
			}
			clear(waiting)
		}
	}
	if q.want == 0 {
		q.sort(found)
	}
	for index, err := range errs {
		if err == nil || !s.views(p, clusters[index]) {
			continue
		}
		if byCluster && len(found) >= q.want && index > found[max(0, q.want-2)].index {
			break
		}
		unreachable = append(unreachable, s.unreachable(clusters[index], err))
	}
	return found, unreachable
}

// settled reports whether no cluster that is waited for, or not asked yet, can change the page.
func (q *search) settled(found []hit, waiting map[int]*time.Timer) bool {
	if q.want == 0 {
		return len(found) > q.most
	}
	if q.order.By != SortCluster || len(found) < q.want {
		return false
	}
	for index := range waiting {
		if index <= found[q.want-1].index {
			return false
		}
	}
	return true
}

// merge adds what a cluster has answered, and keeps what is wanted.
func (q *search) merge(found, more []hit) []hit {
	found = append(found, more...)
	if q.want > 0 {
		q.sort(found)
		found = found[:min(len(found), q.want)]
	}
	return found
}

func (q *search) sort(hits []hit) {
	slices.SortFunc(hits, func(a, b hit) int { return q.order.compare(&a.position, &b.position) })
}

// ask sends the answer of a cluster.
func (s *Service) ask(ctx context.Context, p *account.Principal, q *search, c *cluster.Cluster, index int,
	answers chan<- answer) {
	hits, err := s.hits(ctx, p, q, c, index)
	if err != nil && ctx.Err() != nil {
		err = s.late(ctx)
	}
	answers <- answer{index, hits, err}
}

// hits returns those of a cluster that the search wants of it.
func (s *Service) hits(ctx context.Context, p *account.Principal, q *search, c *cluster.Cluster, index int) (
	hits []hit, err error) {
	at, byName := q.stretch(c), q.order.By == SortCluster || q.order.By == SortName
	observed := &dbuser.Observed{}
	if q.observed() || q.order.By == SortLastSeen {
		if observed, err = s.Users.Observations(ctx, c.ID, nil); err != nil {
			return nil, err
		}
	}
	for {
		reading, cancel := context.WithTimeout(ctx, s.limit())
		in, found, more, err := s.Users.SearchUsers(reading, p, c.ID.String(), &q.Search, at)
		cancel()
		if err != nil {
			return nil, err
		}
		for i := range found {
			h := hit{position{cluster: c.DisplayName, id: c.ID, name: found[i].Name}, index, in, found[i].OID, found[i].ValidUntil}
			switch q.order.By {
			case SortCreatedAt:
				h.time = found[i].Created
			case SortValidUntil:
				h.time = found[i].ValidUntil
			case SortLastSeen:
				if seen := observed.OfHit(&found[i]).LastSeen; seen != nil {
					h.time = seen.UTC()
				}
			}
			if q.observed() && !q.matches(found[i].Created, observed.OfHit(&found[i])) {
				continue
			}
			if q.after == nil || q.order.compare(&h.position, q.after) > 0 {
				hits = append(hits, h)
			}
		}
		if q.want > 0 && len(hits) > 2*q.want {
			hits = q.merge(nil, hits)
		}
		if !more || byName && q.want > 0 && len(hits) >= q.want || q.want == 0 && len(hits) > q.most {
			return hits, nil
		}
		at.After, at.Including = found[len(found)-1].Name, false
	}
}

// stretch is the part of a cluster's users in which the search begins.
func (q *search) stretch(c *cluster.Cluster) pgrole.Stretch {
	at := pgrole.Stretch{Limit: maxHits}
	switch q.order.By {
	case SortCluster:
		if q.after != nil && q.after.compareCluster(c) == 0 {
			at.After = q.after.name
		}
	case SortName:
		at.Descending = q.order.Descending
		if q.after != nil {
			at.After, at.Including = q.after.name, q.after.compareCluster(c) > 0
		}
	default:
		return at
	}
	if q.want > 0 && !q.observed() {
		at.Limit = min(at.Limit, q.want)
	}
	return at
}

// late is why a cluster that has not answered is unreachable.
func (s *Service) late(ctx context.Context) error {
	return fault.New(fault.Unavailable, "The cluster did not answer within %s.", moment.DurationText(s.limit())).
		Because(context.Cause(ctx))
}

// unreachable names a cluster in the answer. What is a mistake of ours is logged.
func (s *Service) unreachable(c *cluster.Cluster, err error) Unreachable {
	if fault.Of(err).Kind == fault.Internal {
		s.Log.Error("a cluster was not searched", "cluster", c.ID, "error", err)
	}
	return Unreachable{c, fault.Of(err)}
}

// details is all about the users of a page in one cluster, by oid.
type details struct {
	in       *cluster.Cluster
	users    map[uint32]*pgrole.Details
	observed *dbuser.Observed
	err      error
}

// complete reads all about the users of a page. A user that was dropped, became protected, or was
// changed or seen so that it does not match any more, is left out.
func (s *Service) complete(ctx context.Context, p *account.Principal, q *search, found []hit) (
	users []Found, unreachable []Unreachable) {
	oids, reads := map[*cluster.Cluster][]uint32{}, map[*cluster.Cluster]*details{}
	for _, h := range found {
		oids[h.in] = append(oids[h.in], h.oid)
	}
	var group errgroup.Group
	group.SetLimit(maxReads)
	for c, some := range oids {
		d := &details{users: make(map[uint32]*pgrole.Details, len(some))}
		reads[c] = d
		group.Go(func() error {
			var list []*pgrole.Details
			if d.in, list, d.err = s.Users.DetailsOf(ctx, p, c.ID.String(), some); d.err == nil {
				d.observed, d.err = s.Users.Observations(ctx, c.ID, some)
			}
			if d.err != nil {
				if ctx.Err() != nil {
					d.err = s.late(ctx)
				}
				return nil
			}
			for _, u := range list {
				d.users[u.OID()] = u
			}
			return nil
		})
	}
	_ = group.Wait()
	for c, d := range reads {
		if d.err != nil && s.views(p, c) {
			unreachable = append(unreachable, s.unreachable(c, d.err))
		}
	}
	for _, h := range found {
		d := reads[h.in]
		u := d.users[h.oid]
		if u == nil || u.System() && !q.System {
			continue
		}
		if o := d.observed.OfUser(u.User); !q.observed() || q.matches(u.Provenance.Created, o) {
			users = append(users, Found{d.in, u, o})
		}
	}
	return users, unreachable
}

// views reports whether the principal may view a cluster now. To it any other does not exist.
func (s *Service) views(p *account.Principal, c *cluster.Cluster) bool {
	_, err := s.Users.Cluster(p, c.ID.String())
	return err == nil
}
