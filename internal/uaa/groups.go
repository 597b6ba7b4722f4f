package uaa

import (
	"net/http"
	"strings"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// A group is a scope, and its members are the people who have it. Groups are neither created nor deleted.
type groupResource struct {
	ID          string   `json:"id"`
	Meta        meta     `json:"meta"`
	DisplayName string   `json:"displayName"`
	Description string   `json:"description"`
	ZoneID      string   `json:"zoneId"`
	Members     []member `json:"members,omitempty"` // of a group that was asked for by itself
	Schemas     []string `json:"schemas"`
}

type member struct {
	Origin string `json:"origin"`
	Type   string `json:"type"`
	Value  string `json:"value"`
}

// groups is the namespace of the ids of groups, which are UUIDs of version 5 (RFC 9562) of their names.
var groups = uuid.MustParse("7f1d6a53-0a5b-5d0e-9a36-5b1f8a3c2e90")

func groupID(scope string) string { return uuid.NewSHA1(groups, []byte(scope)).String() }

var descriptions = map[string]string{
	account.ScopeAdmin:         "May do everything in every cluster, and set labels",
	account.ScopeAdminReadOnly: "May read everything",
	account.ScopeAuditor:       "May read everything",
	account.ScopeRead:          "May read what their labels let them view",
	account.ScopeWrite:         "May change what their labels let them manage",
	account.ScopeSCIMRead:      "May read users, groups and clients",
	account.ScopeSCIMWrite:     "May change users, groups and clients",
}

// groupsSince is the creation time of all groups, for clients that read one.
const groupsSince = "2026-01-01T00:00:00.000Z"

func group(scope string) groupResource {
	return groupResource{
		ID:          groupID(scope),
		Meta:        meta{0, groupsSince, groupsSince},
		DisplayName: scope,
		Description: descriptions[scope],
		ZoneID:      account.LocalOrigin,
		Schemas:     scimSchemas,
	}
}

var groupFields = map[string]string{"id": "id", "displayName": "scope"}

func (a *API) listGroups(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	values, err := query(r)
	if err != nil {
		return err
	}
	page, err := parsePage(values)
	if err != nil {
		return err
	}
	filter, err := parseFilter(values.Get("filter"), groupFields)
	if err != nil {
		return err
	}
	if err := p.MayReadIdentities(); err != nil {
		return err
	}
	found := []groupResource{}
	for _, scope := range account.Scopes {
		if selects(filter, map[string]string{"id": groupID(scope), "scope": scope}) {
			found = append(found, group(scope))
		}
	}
	from := min(page.start-1, len(found))
	writeList(w, page, len(found), found[from:min(from+page.count, len(found))])
	return nil
}

// selects applies a filter to groups, which are not in the database. Names compare in any case.
func selects(f account.Filter, fields map[string]string) bool {
	for _, part := range f.All {
		if !selects(part, fields) {
			return false
		}
	}
	for _, part := range f.Any {
		if selects(part, fields) {
			return true
		}
	}
	return f.Any == nil && (f.Field == "" || strings.EqualFold(fields[f.Field], f.Value))
}

// scopeOf finds the scope of the group in the path.
func scopeOf(r *http.Request) (string, error) {
	for _, scope := range account.Scopes {
		if groupID(scope) == r.PathValue("id") {
			return scope, nil
		}
	}
	return "", fault.New(fault.NotFound, "There is no group %.100q.", r.PathValue("id"))
}

func (a *API) members(r *http.Request, p *account.Principal) (scope string, all []member, err error) {
	if err := p.MayReadIdentities(); err != nil {
		return "", nil, err
	}
	if scope, err = scopeOf(r); err != nil {
		return "", nil, err
	}
	members, err := a.Accounts.Members(r.Context(), p, scope)
	all = make([]member, len(members))
	for n, m := range members {
		all[n] = member{m.Origin, "USER", m.GUID}
	}
	return scope, all, err
}

func (a *API) getGroup(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	scope, members, err := a.members(r, p)
	if err != nil {
		return err
	}
	g := group(scope)
	g.Members = members
	web.JSON(w, http.StatusOK, "application/json", g)
	return nil
}

func (a *API) listMembers(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	_, members, err := a.members(r, p)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", members)
	return nil
}

func (a *API) addMember(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	var value, kind string
	if err := field(o, "value", &value); err != nil {
		return err
	}
	if err := field(o, "type", &kind); err != nil {
		return err
	}
	if value == "" || kind != "" && kind != "USER" {
		return fault.New(fault.Invalid, "A member is the id of a user, in the field value, with the type USER.")
	}
	scope, err := scopeOf(r)
	if err != nil {
		return err
	}
	i, err := a.Accounts.Grant(r.Context(), p, value, scope)
	if fault.Is(err, fault.Exists) {
		return fault.Of(err).Because(errMember)
	}
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusCreated, "application/json", member{i.Origin, "USER", i.GUID})
	return nil
}

func (a *API) removeMember(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	scope, err := scopeOf(r)
	if err != nil {
		return err
	}
	i, err := a.Accounts.Revoke(r.Context(), p, r.PathValue("memberId"), scope)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", member{i.Origin, "USER", i.GUID})
	return nil
}
