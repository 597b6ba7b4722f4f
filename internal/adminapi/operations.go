package adminapi

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/label"
	"rolecall/internal/web"
)

// maxPlanned is how many users of a plan are in an answer. The results of an operation have all of them.
const maxPlanned = 1000

type operationPlan struct {
	Plan        []plannedUser        `json:"plan"`
	Total       int                  `json:"total"`
	Skipped     int                  `json:"skipped"`
	Unchecked   int                  `json:"unchecked"`
	Unreachable []unreachableCluster `json:"unreachable"`
}

// startedOperation is a plan that is carried out.
type startedOperation struct {
	ID string `json:"id"`
	operationPlan
}

type plannedUser struct {
	Cluster  clusterRef `json:"cluster"`
	Username string     `json:"username"`
	Action   string     `json:"action"`
	Blockers []string   `json:"blockers"`
	Skipped  *string    `json:"skipped"`
	// ValidUntil is that of now, NewValidUntil that which it gets; both null unless it expires.
	ValidUntil    *time.Time `json:"validUntil"`
	NewValidUntil *time.Time `json:"newValidUntil"`
}

type operationResource struct {
	ID          string               `json:"id"`
	Action      string               `json:"action"`
	Options     fleet.Options        `json:"options"`
	State       string               `json:"state"`
	Reason      *string              `json:"reason"`
	Counts      operationCounts      `json:"counts"`
	CreatedAt   time.Time            `json:"createdAt"`
	EndedAt     *time.Time           `json:"endedAt"`
	Account     leaseAccount         `json:"account"`
	Unreachable []unreachableCluster `json:"unreachable"`
}

type operationCounts struct {
	Total   int `json:"total"`
	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

type operationResult struct {
	Cluster  clusterRef `json:"cluster"`
	Username string     `json:"username"`
	State    string     `json:"state"`
	Detail   *string    `json:"detail"`
}

func presentPlan(plan *fleet.Plan) operationPlan {
	res := operationPlan{Plan: []plannedUser{}, Total: len(plan.Users), Unchecked: plan.Unchecked,
		Unreachable: presentUnreachable(plan.Unreachable)}
	for i, u := range plan.Users {
		if u.Skipped != "" {
			res.Skipped++
		}
		if i >= maxPlanned {
			continue
		}
		item := plannedUser{Cluster: presentRef(u.Cluster), Username: u.Name,
			Action: string(u.Action), Blockers: append([]string{}, u.Blockers...), Skipped: given(u.Skipped)}
		if u.Action == fleet.Expire && u.Skipped == "" {
			at := plan.ValidUntil.UTC()
			item.ValidUntil, item.NewValidUntil = u.ValidUntil, &at
		}
		res.Plan = append(res.Plan, item)
	}
	return res
}

func presentOperation(o *fleet.Operation) operationResource {
	res := operationResource{
		ID:          o.ID.String(),
		Action:      string(o.Action),
		Options:     o.Options,
		State:       o.State,
		Reason:      given(o.Reason),
		Counts:      operationCounts(o.Counts),
		CreatedAt:   o.CreatedAt.UTC(),
		EndedAt:     known(o.EndedAt),
		Account:     leaseAccount{o.Account, o.AccountName},
		Unreachable: []unreachableCluster{},
	}
	for _, u := range o.Stuck {
		res.Unreachable = append(res.Unreachable, unreachableCluster{clusterRef{u.Cluster.String(), u.Name}, u.Error})
	}
	return res
}

func (a *API) startOperation(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	only, err := q.yes("plan")
	if err != nil {
		return err
	}
	read := body
	if p.Has(account.ScopeAdmin) {
		read = largeBody
	}
	o, err := read(w, r)
	if err != nil {
		return err
	}
	request, err := o.operation()
	if err != nil {
		return err
	}
	if only {
		plan, err := a.Fleet.Plan(r.Context(), p, request)
		if err != nil {
			return err
		}
		web.JSON(w, http.StatusOK, "application/json", presentPlan(plan))
		return nil
	}
	id, plan, err := a.Fleet.Start(r.Context(), p, request)
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.PublicURL+Prefix+"/operations/"+id.String())
	web.JSON(w, http.StatusAccepted, "application/json", startedOperation{id.String(), presentPlan(plan)})
	return nil
}

// operation reads what is to be done to whom.
func (o *object) operation() (r fleet.Request, err error) {
	action, filter, options := o.text("action"), o.object("filter"), o.object("options")
	if filter != nil {
		f := filter.userFilter()
		r.Filter = &f
	}
	users, credentials := o.targets("users", "username"), o.targets("credentials", "name")
	if options != nil {
		until, after := options.moment("validUntil"), options.duration("after")
		reassignTo, onBlocked := options.text("reassignTo"), options.text("onBlocked")
		switch {
		case *o.err != nil:
		case until != nil && *until == nil || after != nil && *after <= 0:
			*o.err = fault.New(fault.Invalid, "Give a time in options.validUntil, or in options.after a duration "+
				"that is not 0.")
		case onBlocked != nil && *onBlocked != "disable":
			*o.err = fault.New(fault.Invalid, "The field options.onBlocked must be disable.")
		case reassignTo != nil && *reassignTo == "":
			*o.err = fault.New(fault.Invalid, "The field options.reassignTo is empty; give the name of a role.")
		}
		if until != nil && *until != nil {
			r.ValidUntil = **until
		}
		if after != nil {
			r.After = *after
		}
		r.ReassignTo, r.Disable = orEmpty(reassignTo), onBlocked != nil
		_ = options.done() // it is the first mistake of the body
	}
	if err := o.done(); err != nil {
		return r, err
	}
	r.Action, r.Targets = fleet.Action(orEmpty(action)), users
	switch {
	case action == nil:
		return r, fault.New(fault.Invalid, "The field action is missing.")
	case r.Action == fleet.RotateCredential && users != nil:
		return r, fault.New(fault.Invalid, "The action rotateCredential has credentials in place of users.")
	case r.Action == fleet.RotateCredential:
		r.Targets = credentials
	case credentials != nil:
		return r, fault.New(fault.Invalid, "The field credentials is for the action rotateCredential.")
	}
	return r, nil
}

// targets reads a list of users or credentials; nil when the field is not there.
func (o *object) targets(name, field string) (list []fleet.Target) {
	if _, there := o.get(name); there {
		list = []fleet.Target{}
	}
	for _, in := range o.objects(name) {
		cluster, target := in.text("cluster"), in.text(field)
		if _ = in.done(); *o.err != nil {
			return nil
		}
		if orEmpty(cluster) == "" || orEmpty(target) == "" {
			*o.err = fault.New(fault.Invalid, "The field %scluster or %[1]s%s is missing or empty.", in.at, field)
			return nil
		}
		list = append(list, fleet.Target{Cluster: *cluster, Name: *target})
	}
	return list
}

// userFilter reads the conditions of a search from a body.
func (o *object) userFilter() (f fleet.Filter) {
	condition := func(name string) string {
		s := o.text(name)
		if s != nil && *s == "" && *o.err == nil {
			*o.err = fault.New(fault.Invalid, "The field %s%s is empty. Leave it out, or give a condition.", o.at, name)
		}
		return orEmpty(s)
	}
	f.Name, f.CreatedBy, f.Cluster = condition("name"), condition("createdBy"), condition("cluster")
	f.PasswordKind = condition("passwordKind")
	if selector := condition("creatorSelector"); selector != "" {
		var err error
		if f.CreatorSelector, err = label.Parse(selector); err != nil && *o.err == nil {
			*o.err = fault.New(fault.Invalid, "The field %screatorSelector: %s.", o.at, fault.Of(err).Message)
		}
	}
	if v, _ := o.get("state"); v != nil {
		if state, one := v.(string); one {
			f.States = []string{state}
		} else if states := o.texts("state"); states != nil {
			f.States = *states
		}
	}
	if before := o.moment("expiresBefore"); before != nil && *before != nil {
		f.ExpiresBefore = **before
	}
	if long := o.duration("notSeenFor"); long != nil {
		f.NotSeenFor = *long
	}
	f.Lease, f.ChangedOutside = o.flag("lease"), o.flag("passwordChangedOutside")
	system := o.flag("system")
	f.System = system != nil && *system
	_ = o.done() // it is the first mistake of the body
	return f
}

func (a *API) listOperations(w http.ResponseWriter, r *http.Request, p *account.Principal, _ query, page page) error {
	before, err := page.id()
	if err != nil {
		return err
	}
	found, more, err := a.Fleet.Operations(r.Context(), p, fleet.OperationFilter{}, before, page.Limit)
	if err != nil {
		return err
	}
	l := list[operationResource]{Items: []operationResource{}}
	for _, o := range found {
		l.Items = append(l.Items, presentOperation(o))
	}
	if more {
		l.Next = cursor(l.Items[len(l.Items)-1].ID)
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) getOperation(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := a.Fleet.Operation(r.Context(), p, r.PathValue("operationId"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentOperation(o))
	return nil
}

func (a *API) cancelOperation(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := a.Fleet.Cancel(r.Context(), p, r.PathValue("operationId"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentOperation(o))
	return nil
}

func (a *API) listOperationResults(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	after := -1
	if page.After != "" {
		var err error
		if after, err = strconv.Atoi(page.After); err != nil || after < 0 || after >= fleet.MaxUsers {
			return errCursor
		}
	}
	states := q.Values["state"]
	for _, state := range states {
		if !slices.Contains(fleet.ResultStates, state) {
			return fault.New(fault.Malformed, "The query parameter state must be pending, done, failed or skipped.")
		}
	}
	found, more, err := a.Fleet.Results(r.Context(), p, r.PathValue("operationId"), states, after, page.Limit)
	if err != nil {
		return err
	}
	l := list[operationResult]{Items: []operationResult{}}
	for _, one := range found {
		l.Items = append(l.Items, operationResult{clusterRef{one.Cluster.String(), one.ClusterName}, one.Name, one.State,
			given(one.Detail)})
	}
	if more {
		l.Next = cursor(strconv.Itoa(found[len(found)-1].Position))
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}
