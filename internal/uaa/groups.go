package uaa

import (
	"cmp"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
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
	Members     []member `json:"members"`
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

func group(scope string, members []account.Member) groupResource {
	return groupResource{
		ID:          groupID(scope),
		Meta:        meta{version(members), groupsSince, groupsSince},
		DisplayName: scope,
		Description: descriptions[scope],
		ZoneID:      account.LocalOrigin,
		Members:     present(members),
		Schemas:     scimSchemas,
	}
}

// version is another one for other members. Clients want a number, of at most 31 bits.
func version(members []account.Member) int {
	sum := crc32.NewIEEE()
	for _, m := range members {
		_, _ = io.WriteString(sum, m.GUID+"\x00") // never fails
	}
	return int(sum.Sum32() & math.MaxInt32)
}

func present(members []account.Member) []member {
	all := make([]member, len(members))
	for n, m := range members {
		all[n] = member{m.Origin, "USER", m.GUID}
	}
	return all
}

var (
	groupFields = map[string]string{"id": "id", "displayName": "scope"}
	groupOrders = map[string]string{"id": "id", "displayName": "scope", "created": "", "meta.created": "", "lastModified": "",
		"meta.lastModified": ""}
)

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
	order, err := parseOrder(values, groupOrders)
	if err != nil {
		return err
	}
	if err := p.MayReadIdentities(); err != nil {
		return err
	}
	scopes := inOrder(order, slices.DeleteFunc(slices.Clone(account.Scopes), func(scope string) bool {
		return !selects(filter, map[string]string{"id": groupID(scope), "scope": scope})
	}))
	total, from := len(scopes), min(page.start-1, len(scopes))
	scopes = scopes[from:min(from+page.count, total)]
	found := make([]groupResource, len(scopes))
	asked := strings.ToLower(values.Get("attributes"))
	for n, scope := range scopes {
		var members []account.Member
		if asked == "" || strings.Contains(asked, "members") || strings.Contains(asked, "meta") {
			if members, err = a.Accounts.Members(r.Context(), p, scope); err != nil {
				return err
			}
		}
		found[n] = group(scope, members)
	}
	return writeAttributes(w, page, total, found, values.Get("attributes"))
}

// inOrder sorts scopes as groups. All were made at the same time.
func inOrder(o account.Order, scopes []string) []string {
	switch o.Field {
	case "id":
		slices.SortFunc(scopes, func(a, b string) int { return strings.Compare(groupID(a), groupID(b)) })
	case "scope":
		slices.Sort(scopes)
	}
	if o.Descending {
		slices.Reverse(scopes)
	}
	return scopes
}

// listExternalGroups lists the groups of other directories that give scopes: there are none.
func (a *API) listExternalGroups(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	values, err := query(r)
	if err != nil {
		return err
	}
	page, err := parsePage(values)
	if err != nil {
		return err
	}
	if err := p.MayReadIdentities(); err != nil {
		return err
	}
	writeList(w, page, 0, []struct{}{})
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

func (a *API) group(r *http.Request, p *account.Principal) (g groupResource, err error) {
	if err := p.MayReadIdentities(); err != nil {
		return g, err
	}
	scope, err := scopeOf(r)
	if err != nil {
		return g, err
	}
	members, err := a.Accounts.Members(r.Context(), p, scope)
	return group(scope, members), err
}

func writeGroup(w http.ResponseWriter, g groupResource) {
	w.Header().Set("ETag", strconv.Quote(strconv.Itoa(g.Meta.Version)))
	web.JSON(w, http.StatusOK, "application/json", g)
}

func (a *API) getGroup(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	g, err := a.group(r, p)
	if err != nil {
		return err
	}
	writeGroup(w, g)
	return nil
}

// putGroup gives a group the members in the body and no others, as the UAA does: without members it has none.
func (a *API) putGroup(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	match, err := neededIfMatch(r)
	if err != nil {
		return err
	}
	scope, err := scopeOf(r)
	if err != nil {
		return err
	}
	name := scope
	if err := field(o, "displayName", &name); err != nil {
		return err
	}
	if name != scope {
		return fault.New(fault.Invalid, "The group %s cannot be renamed.", scope)
	}
	guids, err := decodeMembers(o)
	if err != nil {
		return err
	}
	members, err := a.Accounts.SetMembers(r.Context(), p, scope, guids, func(are []account.Member) error {
		if is := strconv.Itoa(version(are)); !match.Allows(is) {
			return fault.New(fault.Stale, "It was changed concurrently: its version is %s.", is)
		}
		return nil
	})
	if err != nil {
		return err
	}
	writeGroup(w, group(scope, members))
	return nil
}

func decodeMembers(o *web.Object) (guids []string, err error) {
	var list []any
	if err := field(o, "members", &list); err != nil {
		return nil, err
	}
	for _, entry := range list {
		m, ok := entry.(*web.Object)
		if !ok {
			return nil, fault.New(fault.Invalid, "The field members holds objects, not %s.", web.TypeName(entry))
		}
		guid, err := decodeMember(m)
		if err != nil {
			return nil, err
		}
		guids = append(guids, guid)
	}
	return guids, nil
}

func decodeMember(o *web.Object) (guid string, err error) {
	var kind string
	if err := cmp.Or(field(o, "value", &guid), field(o, "type", &kind)); err != nil {
		return "", err
	}
	if guid == "" || kind != "" && kind != "USER" {
		return "", fault.New(fault.Invalid, "A member is the id of a user, in the field value, with the type USER.")
	}
	return guid, nil
}

func (a *API) listMembers(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	g, err := a.group(r, p)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", g.Members)
	return nil
}

func (a *API) addMember(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	value, err := decodeMember(o)
	if err != nil {
		return err
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
