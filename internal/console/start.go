package console

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/fleet"
	"rolecall/internal/pgrole"
)

func (c *Console) startRoutes() []door.Route {
	return []door.Route{read(startPath, c.startPage), read(Prefix, c.startPage)}
}

// countUsers is the query parameter that asks for what only the clusters know: they may take 5 seconds.
const countUsers = "users"

// start is what the start page shows.
type start struct {
	Concerns []concern
	// Counted says that the clusters were asked for their users, and Missing which of them did not answer.
	Counted bool
	Missing []place
	// CountPath is the page with the users counted.
	CountPath string
	Viewable  int
	Steps     []step
	Lost      *lost
}

// concern is one thing that needs attention.
type concern struct {
	Level string // class of its badge: bad, warn, or "" for what is only to be known
	Word  string // of the badge
	Count string
	Title string
	Hint  string // what to do
	Path  string // of the list of all of them; "": there is none but the places
	Link  string // what the link to it says
	In    places
}

// places are the first clusters in which something needs attention.
type places struct {
	Shown  []place
	Others int // how many more there are
}

// place is a cluster, and what is the matter there.
type place struct{ Name, Path, Why string }

// step is one of the first steps on a new server.
type step struct {
	Title, Why  string
	Done        bool
	Path, Link  string
	Command     string
	WaitsForOne bool // for the first step
}

// lost is what a person is told who sees no cluster.
type lost struct {
	Username string
	Labels   []string
	NoScope  bool   // the account may read nothing at all
	Command  string // for an admin
}

func (c *Console) startPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	known, err := c.Fleet.Attention(r.Context(), p)
	if err != nil {
		return err
	}
	s := &start{Viewable: known.Viewable, CountPath: startPath + "?" + countUsers + "=count",
		Concerns: slices.Concat(clusterConcerns(p, known), leaseConcerns(known), operationConcerns(known),
			auditConcerns(known.Audit)),
		Steps: stepsOf(known.Steps), Lost: lostOf(p, known)}
	if s.Counted = known.Viewable > 0 && r.URL.Query().Has(countUsers); s.Counted {
		users, err := c.Fleet.UserAttention(r.Context(), p)
		if err != nil {
			return err
		}
		s.Concerns = append(s.Concerns, userConcerns(users)...)
		for _, u := range users.Unreachable {
			s.Missing = append(s.Missing, placeOf(u.Cluster, ""))
		}
	}
	slices.SortStableFunc(s.Concerns, func(a, b concern) int { return cmp.Compare(rank(a.Level), rank(b.Level)) })
	return c.show(w, r, p, page{Template: "start/start.html", Title: "Start", Area: "start", Data: s})
}

// rank puts the worst first.
func rank(level string) int { return slices.Index([]string{"bad", "warn", ""}, level) }

// Nothing reports whether all is known and nothing needs attention.
func (s *start) Nothing() bool { return len(s.Concerns) == 0 && len(s.Missing) == 0 }

// maxPlaces is how many clusters a concern names.
const maxPlaces = 5

func placeOf(c *cluster.Cluster, why string, below ...string) place {
	return place{c.DisplayName, pagePath(append([]string{"clusters", c.ID.String()}, below...)...), why}
}

// placesOf names the first clusters of a list.
func placesOf[T any](list []T, of func(T) place) (p places) {
	p.Others = max(len(list)-maxPlaces, 0)
	for _, one := range list[:len(list)-p.Others] {
		p.Shown = append(p.Shown, of(one))
	}
	return p
}

func clusterConcerns(p *account.Principal, a *fleet.Attention) (list []concern) {
	if n := len(a.Unreachable); n > 0 {
		list = append(list, concern{Level: "bad", Word: "Unreachable", Count: fmt.Sprint(n),
			Title: plural(n, "cluster does not answer", "clusters do not answer"),
			Hint:  "Nobody can change users there. Logins that exist go on working if PostgreSQL itself runs.",
			Path:  pagePath("clusters"), Link: "All clusters",
			In: placesOf(a.Unreachable, func(c *cluster.Cluster) place {
				return placeOf(c, dbuser.WhyUnreachable(p, c.LastHealth()))
			})})
	}
	if n := len(a.Limited); n > 0 {
		list = append(list, concern{Level: "warn", Word: "Limited", Count: fmt.Sprint(n),
			Title: plural(n, "cluster keeps Rolecall from some of its work", "clusters keep Rolecall from some of its work"),
			Hint:  "The probe found privileges or settings that are missing. The settings of the cluster have the SQL that helps.",
			Path:  pagePath("clusters"), Link: "All clusters",
			In: placesOf(a.Limited, func(c *cluster.Cluster) place {
				n := len(c.Capabilities.Problems)
				return placeOf(c, fmt.Sprintf("%d %s", n, plural(n, "problem", "problems")), "settings")
			})})
	}
	return list
}

func leaseConcerns(a *fleet.Attention) (list []concern) {
	if n := sum(a.BlockedLeases); n > 0 {
		list = append(list, concern{Level: "bad", Word: "Blocked", Count: fmt.Sprint(n),
			Title: plural(n, "lease has ended, but its role cannot be dropped",
				"leases have ended, but their roles cannot be dropped"),
			Hint: "Nobody can log in with them any more. Each lease says what blocks it; Rolecall tries again every 30 seconds.",
			Path: pagePath("leases") + "?state=blocked", Link: "Blocked leases",
			In: placesOf(a.BlockedLeases, func(t fleet.Tally) place {
				return placeOf(t.Cluster, fmt.Sprint(t.N), "leases")
			})})
	}
	if n := sum(a.FailingCredentials); n > 0 {
		list = append(list, concern{Level: "bad", Word: "Failing", Count: fmt.Sprint(n),
			Title: plural(n, "stored credential does not rotate", "stored credentials do not rotate"),
			Hint:  "Its current password is valid until it expires. Each credential says why it does not rotate.",
			In: placesOf(a.FailingCredentials, func(t fleet.Tally) place {
				return placeOf(t.Cluster, fmt.Sprint(t.N), "credentials")
			})})
	}
	return list
}

func sum(tallies []fleet.Tally) (n int) {
	for _, t := range tallies {
		n += t.N
	}
	return n
}

func operationConcerns(a *fleet.Attention) (list []concern) {
	if a.Failed > 0 {
		list = append(list, concern{Level: "bad", Word: "Failed", Count: fmt.Sprint(a.Failed),
			Title: plural(a.Failed, "operation of the last 7 days has failures", "operations of the last 7 days have failures"),
			Hint:  "Its results say for each user what was not done, and why.",
			Path:  operationsPath + "?state=" + withFailures, Link: "Operations with failures"})
	}
	if a.Running > 0 {
		list = append(list, concern{Word: "Running", Count: fmt.Sprint(a.Running),
			Title: plural(a.Running, "operation is in progress", "operations are in progress"),
			Path:  operationsPath + "?state=running", Link: "Running operations"})
	}
	return list
}

func auditConcerns(a *fleet.AuditAttention) (list []concern) {
	if a == nil {
		return nil
	}
	log := concern{Path: pagePath("audit"), Link: "Audit log"}
	add := func(level, word, count, title, hint string) {
		log.Level, log.Word, log.Count, log.Title, log.Hint = level, word, count, title, hint
		list = append(list, log)
	}
	if a.Forged > 0 {
		add("bad", "Forged", fmt.Sprint(a.Forged), plural(int(a.Forged), "row of the audit log was not written by Rolecall",
			"rows of the audit log were not written by Rolecall"), "Verify the log: it names the first one.")
	}
	if a.Unsealed > 0 {
		add("bad", "Not sealed", fmt.Sprint(a.Unsealed), plural(int(a.Unsealed), "row of the audit log waits for its seal",
			"rows of the audit log wait for their seals"), fmt.Sprintf("The oldest has waited for %s. The log of the server "+
			"says why.", a.OldestRow.Round(time.Second)))
	}
	if a.Unverified {
		hint := "Nobody has verified it yet. Verify it, and keep the anchor that you get elsewhere."
		if !a.LastVerified.IsZero() {
			hint = "It was last found intact at " + at(a.LastVerified).Text + "."
		}
		add("warn", "Not verified", "", "The audit log was not verified for 7 days", hint)
	}
	return list
}

func userConcerns(a *fleet.UserAttention) (list []concern) {
	add := func(n fleet.Count, level, word, one, many, hint string, filter url.Values) {
		if n.N == 0 {
			return
		}
		count := fmt.Sprint(n.N)
		if n.More {
			count = "over " + count
		}
		list = append(list, concern{Level: level, Word: word, Count: count, Title: plural(n.N, one, many), Hint: hint,
			Path: pagePath("users") + "?" + filter.Encode(), Link: "Show " + plural(n.N, "it", "them")})
	}
	add(a.HalfDeleted, "bad", "Half deleted", "user is deleted in part", "users are deleted in part",
		"Nobody can log in with them. Delete them again to finish that.", url.Values{"state": {pgrole.StateDeleting}})
	add(a.ChangedOutside, "bad", "Changed outside", "password was changed outside of Rolecall",
		"passwords were changed outside of Rolecall", "Somebody has used SQL. Find out who, or set a new password.",
		url.Values{"passwordChangedOutside": {"true"}})
	add(a.Expiring, "warn", "Expiring", "user expires within 14 days", "users expire within 14 days",
		"Extend those that are still needed: after that time they cannot log in.",
		url.Values{"expiresBefore": {a.ExpiresBefore.Format(time.RFC3339)}, "state": {pgrole.StateActive}, "lease": {"false"},
			"sort": {fleet.SortValidUntil}})
	add(a.MD5, "warn", "md5", "user has a password in md5", "users have passwords in md5",
		"Future releases of PostgreSQL refuse md5. Set a new password.", url.Values{"passwordKind": {pgrole.PasswordMD5}})
	add(a.WithoutAny, "warn", "No password", "user has no password", "users have no password",
		"It logs in only where pg_hba.conf asks for none. Set a password, or disable the user.",
		url.Values{"passwordKind": {pgrole.PasswordNone}, "state": {pgrole.StateActive}})
	add(a.Disabled, "", "Disabled", "user is disabled", "users are disabled",
		"Delete those that nobody needs any more.", url.Values{"state": {pgrole.StateDisabled}})
	return list
}

// plural is the form of a word or sentence for a number.
func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// stepsOf are the first steps on a new server; none when they are done.
func stepsOf(s *fleet.FirstSteps) []step {
	if s == nil {
		return nil
	}
	steps := []step{
		{Title: "Register a cluster", Done: s.Registered, Path: pagePath("clusters", "new"), Link: "Register a cluster",
			Why:     "Rolecall needs a role with CREATEROLE in a PostgreSQL server. It verifies what the role may do first.",
			Command: "rolecall clusters register shop --url postgres://rolecall_admin@db1:5432/postgres --manage team=shop"},
		{Title: "Label an account", Done: s.Labeled, Path: pagePath("accounts"), Link: "Choose an account",
			Why: "The labels of an account decide what it may do: if a cluster has the rule team=shop, accounts with that label " +
				"may manage it.",
			Command: "rolecall accounts label ann team=shop"},
		{Title: "Create the first database user", WaitsForOne: !s.Registered,
			Why:     "You get the password once, with the lines that psql and programs need.",
			Command: "rolecall users create app -c shop --access shop=write --generate"},
	}
	if s.First != nil {
		steps[2].Path = pagePath("clusters", s.First.ID.String(), "users", "new")
		steps[2].Link = "Create a user in " + s.First.DisplayName
	}
	return steps
}

// lostOf is for a person who sees no cluster; nil for others, and for those who see all that there are.
func lostOf(p *account.Principal, a *fleet.Attention) *lost {
	if a.Viewable > 0 || access.MayAudit(p) {
		return nil
	}
	l := &lost{Username: p.Username, NoScope: !p.Has(account.ScopeRead, account.ScopeWrite),
		Command: "rolecall accounts label " + p.GUID + " KEY=VALUE"}
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		l.Labels = append(l.Labels, key+"="+p.Labels[key])
	}
	if l.NoScope {
		l.Command = "rolecall accounts grant " + p.GUID + " " + account.ScopeRead
	}
	return l
}
