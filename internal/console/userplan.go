package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/moment"
)

// manages reports whether the person may change the users of any cluster.
func (c *Console) manages(p *account.Principal) bool {
	for _, one := range c.Users.ViewableClusters(p) {
		if access.MayManage(p, one) {
			return true
		}
	}
	return false
}

// planOfFilter is the plan page for all users that match a search.
func (c *Console) planOfFilter(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return c.planPage(w, r, p, filterForm(r))
}

// planData is the plan of an operation before it is started.
type planData struct {
	Action actionWords
	Words  []actionWords // to choose from, if none was chosen
	From   string        // the page to go back to
	Users  []string      // that were selected, as the form names them
	Filter string        // in place of them: the query of a search
	Asks   []string      // the conditions of the filter
	Plan   *fleet.Plan   // nil: none yet
	Rows   []fleet.Planned
	More   int // of the plan, not shown
	Doing  int // that are not skipped
	// Unreachable are clusters whose users are not in the plan, or were not checked.
	Unreachable []unreachableCluster
}

// ConfirmLabel is what has to be typed before many users are deleted.
func (d *planData) ConfirmLabel() string { return fmt.Sprintf("Type %d, the number of users", d.Doing) }

// actionWords are those of an action.
type actionWords struct {
	Action                  fleet.Action
	Verb, Explained, Button string
	Danger                  bool
}

// actions are those that the console offers.
var actions = []actionWords{
	{fleet.Disable, "Disable", "They can no longer log in, their sessions and leases end, and their passwords are kept.",
		"Disable", true},
	{fleet.Enable, "Enable", "Users that were disabled with their passwords can log in again.", "Enable", false},
	{fleet.EndSessions, "End sessions of", "Their open sessions end. They can log in again at once.",
		"End the sessions of", false},
	{fleet.Expire, "Set the expiry of", "From then on their passwords are not accepted. Open sessions go on.",
		"Set the expiry of", true},
	{fleet.Delete, "Delete", "They are dropped, with all that was granted to them. This cannot be undone.", "Delete", true},
}

func wordsOf(action fleet.Action) actionWords {
	for _, words := range actions {
		if words.Action == action {
			return words
		}
	}
	return actionWords{}
}

// shownPlanned is how many users of a plan are shown.
const shownPlanned = 100

// planPage shows what an operation would do. It is the answer to the form of a list, and to its own form with other options.
func (c *Console) planPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if !c.manages(p) {
		return fault.New(fault.Forbidden, "You may manage no cluster, so you cannot change users.")
	}
	shown := &planData{Action: wordsOf(fleet.Action(f.Get("do"))), Words: actions, From: fleetUsersPath,
		Users: f.Values["user"], Filter: f.Get("filter")}
	if from := f.Get("from"); from != "" {
		shown.From = ownPath(from)
	}
	if query, err := parseQuery(shown.Filter); err == nil {
		for _, name := range searchFields {
			for _, v := range query.Values[name] {
				shown.Asks = append(shown.Asks, name+": "+v)
			}
		}
	}
	if f.Problem == "" && shown.ready(f) {
		if err := c.plan(r, p, f, shown); mendable(err) {
			f.refuse(err)
		} else if err != nil {
			return err
		}
	}
	title := "Change many users"
	if shown.Action.Verb != "" {
		title = shown.Action.Verb + " many users"
	}
	return c.show(w, r, p, page{Template: "users/plan.html", Title: title, Area: "users",
		Crumbs: []crumb{{"Database users", fleetUsersPath}}, Form: f, Data: shown})
}

// ready reports whether a form says all that a plan needs.
func (d *planData) ready(f *form) bool {
	return d.Action.Action != "" && (d.Action.Action != fleet.Expire || f.Get("expires") != "")
}

// plan fills in the plan.
func (c *Console) plan(r *http.Request, p *account.Principal, f *form, shown *planData) error {
	request, err := requestOf(f)
	if err != nil {
		return err
	}
	plan, err := c.Fleet.Plan(r.Context(), p, request)
	if err != nil {
		return err
	}
	shown.Plan, shown.Rows, shown.Unreachable = plan, plan.Users, unreachableOf(plan.Unreachable)
	for _, u := range plan.Users {
		if u.Skipped == "" {
			shown.Doing++
		}
	}
	if n := len(shown.Rows) - shownPlanned; n > 0 {
		shown.Rows, shown.More = shown.Rows[:shownPlanned], n
	}
	return nil
}

// parseQuery reads the search that a form names.
func parseQuery(text string) (*userSearch, error) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "The search that this page acts on is damaged. Go back and search again.")
	}
	return readUserSearch(&form{Values: values})
}

// requestOf reads what is to be done to which users.
func requestOf(f *form) (request fleet.Request, err error) {
	request.Action = fleet.Action(f.Get("do"))
	if !slices.ContainsFunc(actions, func(words actionWords) bool { return words.Action == request.Action }) {
		return request, wrongField("do", "Choose what to do.")
	}
	if text := f.Get("filter"); text != "" {
		s, err := parseQuery(text)
		if err != nil {
			return request, err
		}
		request.Filter = &s.Filter
	} else {
		if request.Targets, err = targetsOf(f.Values["user"]); err != nil {
			return request, err
		}
	}
	switch request.Action {
	case fleet.Expire:
		err = readExpiry(f, &request)
	case fleet.Delete:
		request.ReassignTo, request.Disable = f.Get("reassign-to"), f.Checked("on-blocked", "disable", false)
	}
	return request, err
}

// targetsOf reads the users that were selected.
func targetsOf(values []string) ([]fleet.Target, error) {
	if len(values) == 0 {
		return nil, fault.New(fault.Invalid, "You selected no user. Go back and tick those that you mean.")
	}
	targets := make([]fleet.Target, len(values))
	for i, value := range values {
		id, escaped, _ := strings.Cut(value, "/")
		name, err := url.PathUnescape(escaped)
		if err != nil || name == "" {
			return nil, fault.New(fault.Invalid, "The selection is damaged. Go back and select the users again.")
		}
		targets[i] = fleet.Target{Cluster: id, Name: name}
	}
	return targets, nil
}

// readExpiry reads when users expire: now, after a duration, or at a time.
func readExpiry(f *form, request *fleet.Request) error {
	text := f.Get("expires")
	if text == "now" {
		request.ValidUntil = time.Now()
		return nil
	}
	if d, err := moment.Duration(text); err == nil && d > 0 {
		request.After = d
		return nil
	}
	at, err := moment.Time(text)
	if err != nil {
		return wrongField("expires", "The expiry is %.50q. Use now, %s, or %s.", text, moment.DurationForm, moment.TimeForm)
	}
	request.ValidUntil = at
	return nil
}

func (c *Console) startOperation(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	request, err := requestOf(f)
	if err != nil {
		return err
	}
	if planned := f.Get("planned"); request.Action == fleet.Delete && f.Get("confirm") != planned {
		return wrongField("confirm", "You typed %.20q. Type %s, the number of users that would be deleted.", f.Get("confirm"),
			planned)
	}
	id, _, err := c.Fleet.Start(r.Context(), p, request)
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("operations", id.String()), "The operation has started. It goes on when you leave this page.")
}
