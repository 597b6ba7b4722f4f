package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fleet"
)

const operationsPath = Prefix + "/operations"

func (c *Console) operationRoutes() []door.Route {
	one := operationsPath + "/{operation}"
	return []door.Route{
		read(operationsPath, c.operationsPage),
		read(one, c.operationPage),
		action(one+"/cancel", c.operationWithForm, c.cancelOperation),
	}
}

// withFailures is the choice of the filter for operations that have failed, for one user at least.
const withFailures = "failures"

// operationStates are the choices of the filter.
var operationStates = []option{{"", "Any"}, {"running", "Running"}, {withFailures, "With failures"}, {"done", "Done"},
	{"failed", "Failed"}, {"cancelled", "Canceled"}}

// shownOperation is an operation as the pages show it.
type shownOperation struct {
	*fleet.Operation
	Path  string
	Title string // what is done to how many
	Badge badge
	// Ended is how many users have an outcome, and Open how many have none yet.
	Ended, Open int
	Running     bool // something of it is in progress
}

// badge is a state in a word, with the class that gives it a shape and a color.
type badge struct{ Word, Class string }

// operationVerbs say what an action does.
var operationVerbs = map[fleet.Action]string{
	fleet.Disable: "Disable", fleet.Enable: "Enable", fleet.EndSessions: "End the sessions of", fleet.Expire: "Expire",
	fleet.RotateCredential: "Rotate", fleet.Delete: "Delete",
}

func presentOperation(o *fleet.Operation) shownOperation {
	noun := plural(o.Counts.Total, "user", "users")
	if o.Action == fleet.RotateCredential {
		noun = plural(o.Counts.Total, "credential", "credentials")
	}
	s := shownOperation{Operation: o, Path: pagePath("operations", o.ID.String()),
		Title: fmt.Sprintf("%s %d %s", operationVerbs[o.Action], o.Counts.Total, noun),
		Ended: o.Counts.Done + o.Counts.Failed + o.Counts.Skipped, Running: o.EndedAt.IsZero()}
	s.Open = o.Counts.Total - s.Ended
	switch {
	case o.State == "running":
		s.Badge = badge{"Running", ""}
	case o.State == "failed":
		s.Badge = badge{"Failed", "bad"}
	case o.State == "cancelled":
		s.Badge = badge{"Canceled", "warn"}
	case o.Counts.Failed > 0:
		s.Badge = badge{"Done, with failures", "bad"}
	default:
		s.Badge = badge{"Done", "good"}
	}
	return s
}

type operationsList struct {
	Operations []shownOperation
	States     []option
	Pager      pager
	All        bool // no filter is set
}

func (c *Console) operationsPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	f := filterForm(r)
	l := operationsList{States: operationStates, All: f.Get("state") == ""}
	shown := page{Template: "operations/list.html", Title: "Operations", Area: "operations", Form: f}
	filter, before, err := operationFilter(f)
	if err != nil {
		f.refuse(err)
		shown.Data = l
		return c.show(w, r, p, shown)
	}
	found, more, err := c.Fleet.Operations(r.Context(), p, filter, before, pageSize)
	if err != nil {
		return err
	}
	for _, o := range found {
		l.Operations = append(l.Operations, presentOperation(o))
	}
	l.Pager = pagerAfter(r, found, more, func(o *fleet.Operation) string { return o.ID.String() })
	shown.Data = l
	return c.show(w, r, p, shown)
}

func operationFilter(f *form) (filter fleet.OperationFilter, before uuid.UUID, err error) {
	switch state := f.Get("state"); {
	case state == withFailures:
		filter.Failures = true
	case state == "" || slices.Contains(fleet.OperationStates, state):
		filter.State = state
	default:
		return filter, before, wrongField("state", "There is no state %.50q. Choose one of the list.", state)
	}
	before, err = afterID(f)
	return filter, before, err
}

// resultStates are the choices of the filter of results.
var resultStates = []option{{"", "Any"}, {"pending", "Pending"}, {"done", "Done"}, {"failed", "Failed"},
	{"skipped", "Skipped"}}

var resultBadges = map[string]badge{"pending": {"Pending", ""}, "done": {"Done", "good"}, "failed": {"Failed", "bad"},
	"skipped": {"Skipped", "warn"}}

type operationDetail struct {
	shownOperation
	MayCancel bool
	ByThisOne bool // the person has started it
	Results   []shownResult
	States    []option
	Pager     pager
	Self      string // the page, with its filter
	Poll      string // where the page asks for its next state; "": it has been open for so long that it asks no more
	Chosen    string // the state by which the results are filtered
}

type shownResult struct {
	fleet.Result
	Badge badge
	Path  string // of the user or the credential
}

func (c *Console) operationPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return c.operationWithForm(w, r, p, filterForm(r))
}

// operationWithForm is the page of an operation, with the filter of its results or with a refused cancellation.
func (c *Console) operationWithForm(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	o, err := c.Fleet.Operation(r.Context(), p, r.PathValue("operation"))
	if err != nil {
		return err
	}
	d := operationDetail{shownOperation: presentOperation(o), States: resultStates, Chosen: f.Get("state"),
		ByThisOne: o.Account == p.GUID}
	d.MayCancel = o.State == "running" && fleet.CancelRefusal(p, o) == nil
	d.Self, d.Poll = selfAndPoll(r, d.Path, time.Now())
	shown := page{Template: "operations/operation.html", Title: d.Title, Area: "operations",
		Crumbs: []crumb{{"Operations", operationsPath}}, Form: f}
	states, after, err := resultFilter(f)
	if err != nil {
		f.refuse(err)
		shown.Data = d
		return c.show(w, r, p, shown)
	}
	found, more, err := c.Fleet.Results(r.Context(), p, o.ID.String(), states, after, pageSize)
	if err != nil {
		return err
	}
	for _, one := range found {
		d.Results = append(d.Results, shownResult{one, resultBadges[one.State], resultPath(o.Action, one)})
	}
	d.Pager = pagerAfter(r, found, more, func(one fleet.Result) string { return strconv.Itoa(one.Position) })
	shown.Data = d
	return c.show(w, r, p, shown)
}

// selfAndPoll are the page of an operation with its filter, and where it asks for its next state. It asks for as long as a
// live view of the audit log does.
func selfAndPoll(r *http.Request, path string, now time.Time) (self, poll string) {
	query := url.Values{}
	if r.Method == http.MethodGet {
		query = r.URL.Query()
	}
	opened, err := strconv.ParseInt(query.Get(liveField), 10, 64)
	if err != nil {
		opened = now.Unix()
	}
	query.Del(liveField)
	self = withQuery(path, query)
	if now.Sub(time.Unix(opened, 0)) > longestLive {
		return self, ""
	}
	query.Set(liveField, strconv.FormatInt(opened, 10))
	return self, withQuery(path, query)
}

func resultPath(action fleet.Action, r fleet.Result) string {
	if action == fleet.RotateCredential {
		return pagePath("clusters", r.Cluster.String(), "credentials", r.Name)
	}
	return userPath(r.Cluster.String(), r.Name)
}

func resultFilter(f *form) (states []string, after int, err error) {
	if state := f.Get("state"); state != "" {
		if !slices.Contains(fleet.ResultStates, state) {
			return nil, 0, wrongField("state", "There is no state %.50q. Choose one of the list.", state)
		}
		states = []string{state}
	}
	if !f.Values.Has(afterField) {
		return states, -1, nil
	}
	if after, err = strconv.Atoi(f.Get(afterField)); err != nil || after < 0 || after >= fleet.MaxUsers {
		return nil, 0, errWrongPage
	}
	return states, after, nil
}

func (c *Console) cancelOperation(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	o, err := c.Fleet.Cancel(r.Context(), p, r.PathValue("operation"))
	if err != nil {
		return err
	}
	notice := "The operation is canceled. What was done stays done."
	if o.State != "cancelled" {
		notice = "The operation had ended before it could be canceled."
	}
	return c.redirect(w, presentOperation(o).Path, notice)
}
