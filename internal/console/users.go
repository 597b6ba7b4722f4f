package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/pgrole"
)

const (
	usersPattern = Prefix + "/clusters/{id}/users"
	userPattern  = usersPattern + "/{username}"
)

func (c *Console) userRoutes() []door.Route {
	return slices.Concat(
		[]door.Route{read(Prefix+"/clusters/{id}", c.usersTab)},
		formPage(usersPattern+"/new", c.newUserPage, c.once(c.createUser)),
		c.userPageRoutes(),
		formPage(userPattern+"/delete", c.deletePage, c.deleteUser),
		c.fleetUserRoutes(),
	)
}

// userPath is the path of the page of a database user, or of one below it. "new" is the page that makes users, so the page
// of a user of that name has another path.
func userPath(clusterID, name string, below ...string) string {
	if name == "new" && len(below) == 0 {
		below = []string{"page"}
	}
	return pagePath(slices.Concat([]string{"clusters", clusterID, "users", name}, below)...)
}

// linkable reports whether a browser can be led to the page of a user: it resolves these names as parts of a path.
func linkable(name string) bool { return name != "." && name != ".." }

// shownText is a text of a cluster as pages show it: one that was stored in another encoding has other bytes.
func shownText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// userStates are the badges of the states.
var userStates = map[string]badge{
	pgrole.StateActive:   {"Active", "good"},
	pgrole.StateExpired:  {"Expired", "warn"},
	pgrole.StateDisabled: {"Disabled", ""},
	pgrole.StateDeleting: {"Deletion not finished", "bad"},
}

// link leads to a page. Path is "" if the person may not see it; Name is an id then.
type link struct{ Name, Path string }

// linkAccount leads to the page of an account whose name is among names: those that the person may see.
func linkAccount(names map[string]string, guid string) link {
	if name, seen := names[guid]; seen {
		return link{name, pagePath("accounts", guid)}
	}
	return link{Name: guid}
}

// userRow is a database user in a table.
type userRow struct {
	Name, Path    string
	Value         string // by which a form names it
	Cluster       crumb
	State         badge
	Notes         []badge
	CreatedBy     link
	CreatedAt     time.Time
	ValidUntil    *time.Time
	Roles         []string
	Connections   string
	Password      badge // with a class: it should be renewed
	LastSeen      *time.Time
	LastSeenSince *time.Time
	Selectable    bool
	oid           uint32
}

// userTable is users with the boxes to select them.
type userTable struct {
	Columns []column
	Rows    []userRow
	Fleet   bool // of several clusters
	Selects bool // some can be selected
	// Self is the page with the table, All the page that acts on all that match, "" if there is none.
	Self, All string
}

// Shown is how many users the table has.
func (t *userTable) Shown() int { return len(t.Rows) }

// column is the head of a column. Path sorts by it, "": it cannot be sorted by; Sorted is how it is, "": it is not.
type column struct{ Title, Path, Sorted string }

// targetValue is how a form names a user: the name may have any bytes.
func targetValue(clusterID, name string) string { return clusterID + "/" + url.PathEscape(name) }

// userTable presents users that were found.
func (c *Console) userTable(r *http.Request, p *account.Principal, found *fleet.Page, s *userSearch) (*userTable, error) {
	names, err := c.creators(r.Context(), p, found.Users)
	if err != nil {
		return nil, err
	}
	t := &userTable{Self: r.URL.RequestURI()}
	for _, u := range found.Users {
		id := u.Cluster.ID.String()
		row := userRow{
			Name: shownText(u.Name), Path: userPath(id, u.Name), Value: targetValue(id, u.Name),
			Cluster: crumb{u.Cluster.DisplayName, pagePath("clusters", id)},
			State:   userStates[u.State], CreatedBy: linkAccount(names, u.Provenance.CreatedBy), CreatedAt: u.Provenance.Created,
			ValidUntil: u.ValidUntil, Password: passwordOf(u), LastSeen: u.LastSeen, LastSeenSince: u.LastSeenSince,
			Selectable: access.MayManage(p, u.Cluster) && !u.System(), oid: u.OID(),
		}
		if !linkable(u.Name) {
			row.Path = ""
		}
		for _, role := range u.MemberOf {
			row.Roles = append(row.Roles, shownText(role))
		}
		row.Notes = notesOf(u)
		t.Selects = t.Selects || row.Selectable
		t.Rows = append(t.Rows, row)
	}
	if t.Selects && s.Narrowed() {
		t.All = planPath(s.Conditions(), t.Self)
	}
	return t, nil
}

// planPath is the page that acts on all users that match conditions, and leads back to another page.
func planPath(conditions url.Values, from string) string {
	return withQuery(fleetUsersPath+"/plan", url.Values{"filter": {conditions.Encode()}, "from": {from}})
}

// notesOf is what stands out about a user.
func notesOf(u fleet.Found) (notes []badge) {
	if u.System() {
		notes = append(notes, badge{"System user", ""})
	}
	if u.Provenance.Lease != uuid.Nil {
		notes = append(notes, badge{"Lease", ""})
	}
	if u.PasswordChangedOutside != nil && *u.PasswordChangedOutside {
		notes = append(notes, badge{"Password changed outside", "warn"})
	}
	return notes
}

// passwordOf is the kind of a user's password.
func passwordOf(u fleet.Found) badge {
	shown := badge{Word: passwordKinds[u.PasswordKind]}
	if u.PasswordKind == pgrole.PasswordMD5 || u.PasswordKind == pgrole.PasswordNone && u.State == pgrole.StateActive {
		shown.Class = "warn"
	}
	return shown
}

// passwordKinds are the kinds of passwords as a page names them.
var passwordKinds = map[string]string{
	pgrole.PasswordSCRAM:   "SCRAM-SHA-256",
	pgrole.PasswordMD5:     "MD5",
	pgrole.PasswordNone:    "None",
	pgrole.PasswordUnknown: "Not visible",
}

// creators are the names of the accounts that made users, by guid.
func (c *Console) creators(ctx context.Context, p *account.Principal, users []fleet.Found) (map[string]string, error) {
	var guids []string
	for _, u := range users {
		if guid := u.Provenance.CreatedBy; guid != "" && !slices.Contains(guids, guid) {
			guids = append(guids, guid)
		}
	}
	if len(guids) == 0 {
		return nil, nil
	}
	return c.Accounts.Names(ctx, p, guids)
}

// usersData is the tab of a cluster with its users.
type usersData struct {
	Head  *clusterHead
	Table *userTable // nil: the cluster does not answer
	Chips []chip
	// Toggle is the same list with protected users, or without them; System says that they are in it.
	Toggle   string
	System   bool
	Narrowed bool
	Pager    pager
}

// chip is a filter by one click.
type chip struct {
	Title, Path string
	Current     bool
}

// expiringSoon is how far ahead users count as about to expire.
const expiringSoon = 14 * 24 * time.Hour

// chipsOf are those of a list of users. Each keeps the name that is searched for, the order, and whether protected users are
// shown.
func chipsOf(r *http.Request, s *userSearch) (chips []chip) {
	soon := time.Now().Add(expiringSoon).UTC().Format(time.DateOnly)
	for _, of := range []struct {
		title string
		with  url.Values
	}{
		{"All", url.Values{}},
		{"Active", url.Values{"state": {pgrole.StateActive}}},
		{"Expire within 14 days", url.Values{"state": {pgrole.StateActive}, "expiresBefore": {soon}}},
		{"Expired", url.Values{"state": {pgrole.StateExpired}}},
		{"Disabled", url.Values{"state": {pgrole.StateDisabled}}},
		{"Deletion not finished", url.Values{"state": {pgrole.StateDeleting}}},
		{"Leases", url.Values{"lease": {"true"}}},
		{"Password changed outside", url.Values{"passwordChangedOutside": {"true"}}},
		{"MD5 password", url.Values{"passwordKind": {pgrole.PasswordMD5}}},
		{"Not seen for 90 days", url.Values{"notSeenFor": {"90d"}}},
	} {
		query := url.Values{}
		for _, kept := range []string{"name", "sort", "system"} {
			if v := s.Values.Get(kept); v != "" {
				query.Set(kept, v)
			}
		}
		for name, values := range of.with {
			query[name] = values
		}
		current := query.Encode() == s.Values.Encode()
		chips = append(chips, chip{of.title, pathWith(r, query), current})
	}
	return chips
}

func (c *Console) usersTab(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	head, err := c.clusterHead(r, p, "users")
	if err != nil {
		return err
	}
	f := filterForm(r)
	s, err := readUserSearch(f)
	if err != nil {
		f.refuse(err)
	}
	shown := usersData{Head: head, Chips: chipsOf(r, s), System: s.Filter.System, Narrowed: s.Narrowed()}
	toggled := s.Conditions()
	if toggled.Del("system"); !shown.System {
		toggled.Set("system", "true")
	}
	shown.Toggle = pathWith(r, toggled)
	if f.Problem == "" && head.Why == "" {
		s.Filter.Cluster = head.ID
		if err := c.findUsers(r, p, s, &shown); mendable(err) {
			f.refuse(err)
		} else if err != nil {
			return err
		}
	}
	return c.show(w, r, p, page{Template: "users/tab.html", Title: "Users of " + head.Name, Area: "clusters",
		Crumbs: clusterCrumbs(head), Form: f, Data: shown})
}

// findUsers fills in the users of a cluster.
func (c *Console) findUsers(r *http.Request, p *account.Principal, s *userSearch, shown *usersData) error {
	found, err := c.Fleet.Search(r.Context(), p, s.Filter, s.Order, s.After, pageSize)
	if err != nil {
		return err
	}
	if len(found.Unreachable) > 0 { // it has answered a moment ago
		shown.Head.Why = fault.Of(found.Unreachable[0].Err).Message
		return nil
	}
	if shown.Table, err = c.userTable(r, p, found, s); err != nil {
		return err
	}
	if shown.Table.All != "" { // of this cluster only
		conditions := s.Conditions()
		conditions.Set("cluster", shown.Head.ID)
		shown.Table.All = planPath(conditions, shown.Table.Self)
	}
	shown.Table.Columns = columnsOf(r, s, []column{{"Name", fleet.SortName, ""}, {"State", "", ""}, {"Created by", "", ""},
		{"Created", fleet.SortCreatedAt, ""}, {"Expires", fleet.SortValidUntil, ""}, {"Roles", "", ""}, {"Connections", "", ""},
		{"Password", "", ""}, {"Last seen", fleet.SortLastSeen, ""}})
	shown.Pager = pagerOf(r, encodeCursor(found.Next))
	c.countConnections(r.Context(), p, shown.Head.ID, found.Users, shown.Table.Rows)
	return nil
}

// countConnections says how many connections users have, and may have. If they cannot be counted, all else is shown.
func (c *Console) countConnections(ctx context.Context, p *account.Principal, clusterID string, users []fleet.Found,
	rows []userRow) {
	oids := make([]uint32, len(rows))
	for i, row := range rows {
		oids[i] = row.oid
	}
	counts, err := c.Users.SessionCounts(ctx, p, clusterID, oids)
	if err != nil {
		return
	}
	for i := range rows {
		rows[i].Connections = connectionsText(counts[rows[i].oid], users[i].ConnectionLimit)
	}
}

// connectionsText is how many connections there are, and may be.
func connectionsText(now, limit int) string {
	if limit < 0 {
		return fmt.Sprint(now)
	}
	return fmt.Sprintf("%d of %d", now, limit)
}
