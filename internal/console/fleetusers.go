package console

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/pgrole"
)

const fleetUsersPath = Prefix + "/users"

func (c *Console) fleetUserRoutes() []door.Route {
	return []door.Route{
		read(fleetUsersPath, c.fleetUsers),
		read(fleetUsersPath+"/plan", c.planOfFilter),
		action(fleetUsersPath+"/plan", c.planPage, c.planPage),
		action(fleetUsersPath+"/start", c.planPage, c.startOperation),
	}
}

// fleetUsersData is the search of all clusters.
type fleetUsersData struct {
	Table       *userTable // nil: the search was refused
	Unreachable []unreachableCluster
	Clusters    int // that the person may view
	Narrowed    bool
	MoreUsed    bool // one of the conditions that are folded away
	Pager       pager
	Choices     fleetChoices
}

// foldedFields are the conditions that are folded away until they are used.
var foldedFields = []string{"notSeenFor", "passwordKind", "passwordChangedOutside", "lease", "creatorSelector", "system"}

// unreachableCluster is a cluster whose users are missing, and why.
type unreachableCluster struct {
	Cluster crumb
	Why     string
}

func unreachableOf(clusters []fleet.Unreachable) (list []unreachableCluster) {
	for _, u := range clusters {
		list = append(list, unreachableCluster{crumb{u.Cluster.DisplayName, pagePath("clusters", u.Cluster.ID.String())},
			fault.Of(u.Err).Message})
	}
	return list
}

// fleetChoices are the lists to choose from in the form of the search.
type fleetChoices struct{ States, PasswordKinds, YesOrNo, System []option }

var choices = fleetChoices{
	States: []option{{"", "Any"}, {pgrole.StateActive, "Active"}, {pgrole.StateExpired, "Expired"},
		{pgrole.StateDisabled, "Disabled"}, {pgrole.StateDeleting, "Deletion not finished"}},
	PasswordKinds: []option{{"", "Any"}, {pgrole.PasswordSCRAM, "SCRAM-SHA-256"}, {pgrole.PasswordMD5, "MD5"},
		{pgrole.PasswordNone, "None"}, {pgrole.PasswordUnknown, "Not visible"}},
	YesOrNo: []option{{"", "Any"}, {"true", "Yes"}, {"false", "No"}},
	System:  []option{{"", "Leave out"}, {"true", "Show"}},
}

func (c *Console) fleetUsers(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	f := filterForm(r)
	s, err := readUserSearch(f)
	if err != nil {
		f.refuse(err)
	}
	shown := fleetUsersData{Clusters: len(c.Users.ViewableClusters(p)), Narrowed: s.Narrowed(), Choices: choices}
	for _, name := range foldedFields {
		shown.MoreUsed = shown.MoreUsed || s.Values.Has(name)
	}
	if f.Problem == "" && shown.Clusters > 0 {
		found, err := c.Fleet.Search(r.Context(), p, s.Filter, s.Order, s.After, pageSize)
		switch {
		case fault.Is(err, fault.NotFound):
			f.refuse(wrongField("cluster", "%s", fault.Of(err).Message))
		case mendable(err) || fault.Is(err, fault.Malformed):
			f.refuse(err)
		case err != nil:
			return err
		default:
			if shown.Table, err = c.userTable(r, p, found, s); err != nil {
				return err
			}
			shown.Table.Fleet = true
			shown.Table.Columns = columnsOf(r, s, []column{{"Name", fleet.SortName, ""}, {"Cluster", fleet.SortCluster, ""},
				{"State", "", ""}, {"Created by", "", ""}, {"Created", fleet.SortCreatedAt, ""}, {"Expires", fleet.SortValidUntil, ""},
				{"Roles", "", ""}, {"Password", "", ""}, {"Last seen", fleet.SortLastSeen, ""}})
			shown.Unreachable = unreachableOf(found.Unreachable)
			shown.Pager = pagerOf(r, encodeCursor(found.Next))
		}
	}
	return c.show(w, r, p, page{Template: "users/fleet.html", Title: "Database users", Area: "users", Form: f, Data: shown})
}
