package adminapi

import (
	"net/http"
	"slices"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/label"
	"rolecall/internal/moment"
	"rolecall/internal/web"
)

type foundUser struct {
	userResource
	Cluster clusterRef `json:"cluster"`
}

type clusterRef struct {
	ID          string `json:"id"`
	DisplayName string `json:"displayName"`
}

func presentRef(c *cluster.Cluster) clusterRef { return clusterRef{c.ID.String(), c.DisplayName} }

type unreachableCluster struct {
	Cluster clusterRef `json:"cluster"`
	Error   string     `json:"error"`
}

// presentUnreachable is never nil: an empty list shows that no cluster is missing.
func presentUnreachable(clusters []fleet.Unreachable) []unreachableCluster {
	list := make([]unreachableCluster, len(clusters))
	for i, u := range clusters {
		list[i] = unreachableCluster{presentRef(u.Cluster), fault.Of(u.Err).Message}
	}
	return list
}

type searchPage struct {
	list[foundUser]
	Unreachable []unreachableCluster `json:"unreachable"`
}

var searchParameters = []string{"name", "createdBy", "creatorSelector", "cluster", "state...", "passwordKind",
	"expiresBefore",
	"notSeenFor", "lease", "passwordChangedOutside", "system", "sort"}

func (a *API) searchUsers(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	filter, err := q.userFilter()
	if err != nil {
		return err
	}
	order, err := q.sort()
	if err != nil {
		return err
	}
	found, err := a.Fleet.Search(r.Context(), p, filter, order, page.After, page.Limit)
	if err != nil {
		return err
	}
	l := searchPage{list[foundUser]{Items: []foundUser{}}, presentUnreachable(found.Unreachable)}
	for _, u := range found.Users {
		l.Items = append(l.Items, foundUser{presentUser(u.Cluster, u.Details, u.Observation), presentRef(u.Cluster)})
	}
	if found.Next != "" {
		l.Next = cursor(found.Next)
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

// userFilter reads the conditions of a search.
func (q query) userFilter() (f fleet.Filter, err error) {
	if f.Name = q.Get("name"); q.Has("name") && (f.Name == "" || strings.ContainsRune(f.Name, 0)) { // need not be UTF-8
		return f, fault.New(fault.Malformed, "The query parameter name must not be empty.")
	}
	if f.CreatedBy, err = q.text("createdBy"); err != nil {
		return f, err
	}
	if f.Cluster, err = q.text("cluster"); err != nil {
		return f, err
	}
	if f.PasswordKind, err = q.text("passwordKind"); err != nil {
		return f, err
	}
	if q.Has("creatorSelector") {
		if f.CreatorSelector, err = label.Parse(q.Get("creatorSelector")); err != nil {
			return f, fault.New(fault.Malformed, "The query parameter creatorSelector: %s.", fault.Of(err).Message)
		}
	}
	f.States = q.Values["state"]
	if f.ExpiresBefore, err = q.time("expiresBefore"); err != nil {
		return f, err
	}
	if q.Has("notSeenFor") {
		if f.NotSeenFor, err = moment.Duration(q.Get("notSeenFor")); err != nil || f.NotSeenFor == 0 {
			return f, fault.New(fault.Malformed, "The query parameter notSeenFor must be a duration like 90d or 36h, and not 0.")
		}
	}
	if f.Lease, err = q.flag("lease"); err != nil {
		return f, err
	}
	if f.ChangedOutside, err = q.flag("passwordChangedOutside"); err != nil {
		return f, err
	}
	if f.System, err = q.yes("system"); err != nil {
		return f, err
	}
	return f, f.Check()
}

// sort reads the order of a search.
func (q query) sort() (order fleet.Sort, err error) {
	if !q.Has("sort") {
		return order, nil
	}
	if order.By, order.Descending = strings.CutPrefix(q.Get("sort"), "-"); !slices.Contains(fleet.Sorts, order.By) {
		return order, fault.New(fault.Malformed, "The query parameter sort must be one of %s, with a - in front to sort "+
			"descending.", strings.Join(fleet.Sorts, ", "))
	}
	return order, nil
}
