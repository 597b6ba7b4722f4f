package adminapi

import (
	"cmp"
	"net/http"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/web"
)

// offboardingSummary is a report without what is in it.
type offboardingSummary struct {
	ID        string       `json:"id"`
	CreatedAt time.Time    `json:"createdAt"`
	Account   leaseAccount `json:"account"`
	By        leaseAccount `json:"by"`
	Users     int          `json:"users"`
	Operation *string      `json:"operation"`
	State     *string      `json:"operationState"`
}

// offboarding is a report or, without an id, a plan.
type offboarding struct {
	ID        *string       `json:"id"`
	CreatedAt *time.Time    `json:"createdAt"`
	By        *leaseAccount `json:"by"`
	Operation *string       `json:"operation"`
	// OperationState is null without an operation, and after that is no longer kept.
	OperationState *string `json:"operationState"`
	*fleet.Report
	Users []offboardedUser `json:"users"` // those of the report
}

// offboardedUser is a user of a report, with what has become of it.
type offboardedUser struct {
	fleet.ReportedUser
	State *string `json:"state"` // null: nothing is done to it
}

func presentOffboarding(o *fleet.Offboarding) offboarding {
	res := offboarding{Operation: presentID(o.Operation), OperationState: given(o.State), Report: o.Report,
		Users: []offboardedUser{}}
	if o.ID != uuid.Nil {
		res.ID, res.CreatedAt, res.By = presentID(o.ID), known(o.Time), &leaseAccount{o.By.GUID, o.By.Name}
	}
	for _, u := range o.Report.Users {
		res.Users = append(res.Users, offboardedUser{u, given(u.State)})
	}
	return res
}

// presentID is null for no id.
func presentID(id uuid.UUID) *string {
	if id == uuid.Nil {
		return nil
	}
	return new(id.String())
}

func (a *API) offboard(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	plan, err := q.yes("plan")
	if err != nil {
		return err
	}
	o, err := optionalBody(w, r)
	if err != nil {
		return err
	}
	l := fleet.Leaver{Account: r.PathValue("guid"), Action: fleet.Keep}
	if users := o.object("users"); users != nil {
		l.Action = fleet.Action(cmp.Or(orEmpty(users.text("default")), string(fleet.Keep)))
		if after := users.duration("after"); after != nil {
			if l.After = *after; l.After <= 0 && *users.err == nil {
				*users.err = fault.New(fault.Invalid, "The field users.after must be longer than 0s.")
			}
		}
		l.Kept = users.targets("keep", "username")
		if err := users.done(); err != nil {
			return err
		}
	}
	if err := o.done(); err != nil {
		return err
	}
	if plan {
		report, err := a.Fleet.OffboardingPlan(r.Context(), p, l)
		if err != nil {
			return err
		}
		web.JSON(w, http.StatusOK, "application/json", presentOffboarding(&fleet.Offboarding{Report: report}))
		return nil
	}
	done, err := a.Fleet.Offboard(r.Context(), p, l)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentOffboarding(done))
	return nil
}

func (a *API) listOffboardings(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	of, err := q.text("account")
	if err != nil {
		return err
	}
	after, err := page.id()
	if err != nil {
		return err
	}
	found, more, err := a.Fleet.Offboardings(r.Context(), p, of, after, page.Limit)
	if err != nil {
		return err
	}
	l := list[offboardingSummary]{Items: []offboardingSummary{}}
	for _, o := range found {
		l.Items = append(l.Items, offboardingSummary{o.ID.String(), o.Time.UTC(), leaseAccount{o.Account.GUID, o.Account.Name},
			leaseAccount{o.By.GUID, o.By.Name}, o.Users, presentID(o.Operation), given(o.State)})
	}
	if more {
		l.Next = cursor(found[len(found)-1].ID.String())
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) getOffboarding(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := a.Fleet.Offboarding(r.Context(), p, r.PathValue("offboardingId"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentOffboarding(o))
	return nil
}
