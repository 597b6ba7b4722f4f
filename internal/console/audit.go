package console

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/moment"
	"rolecall/internal/web"
)

const (
	auditPath    = Prefix + "/audit"
	failedPath   = auditPath + "/failed-sign-ins"
	verifyPath   = auditPath + "/verify"
	newRowsPath  = auditPath + "/new"
	exportPath   = auditPath + "/export"
	auditRowPath = auditPath + "/{seq}"
)

var auditCrumb = crumb{"Audit log", auditPath}

func (c *Console) auditRoutes() []door.Route {
	return slices.Concat(
		[]door.Route{
			read(auditPath, c.auditPage),
			read(newRowsPath, c.newRowsPage),
			read(exportPath, c.exportAudit),
			read(failedPath, c.failedSignInsPage),
		},
		formPage(verifyPath, c.verifyPage, c.verifyAudit),
		[]door.Route{read(auditRowPath, c.auditRowPage)},
	)
}

// auditRow is a row of the audit log as pages show it.
type auditRow struct {
	*audit.Row
	Path    string
	Removed bool // somebody removed the row; its place in the chain is left
	Result  badge
	Who     link
	Target  link
	In      link // the cluster
}

// results are what came of an attempt.
var results = map[audit.Outcome]badge{
	"":            {"attempt", ""},
	audit.Done:    {"done", "good"},
	audit.NotDone: {"not done", "warn"},
	audit.Unknown: {"unknown", "warn"},
	audit.Denied:  {"denied", "bad"},
}

// auditRows returns a page of the rows that the principal may see, and whether more follow.
func (c *Console) auditRows(ctx context.Context, p *account.Principal, f audit.Filter, at audit.Page) (shown []auditRow,
	more bool, err error) {
	f.Visible = c.Users.VisibleAudit(p)
	rows, more, err := c.Users.Audit.Rows(ctx, f, at)
	if err != nil {
		return nil, false, err
	}
	var guids []string
	for _, r := range rows {
		guids = append(guids, r.AccountGUID)
		if aboutAccount(r) {
			guids = append(guids, r.Target)
		}
	}
	names, err := c.Accounts.Names(ctx, p, guids)
	if err != nil {
		return nil, false, err
	}
	clusters := map[uuid.UUID]string{}
	for _, viewable := range c.Users.ViewableClusters(p) {
		clusters[viewable.ID] = viewable.DisplayName
	}
	for _, r := range rows {
		shown = append(shown, presentAuditRow(r, names, clusters))
	}
	return shown, more, nil
}

// aboutAccount reports whether the target of a row is the guid of an account.
func aboutAccount(r *audit.Row) bool { return strings.HasPrefix(r.Action, "account.") }

// presentAuditRow presents a row with the names of accounts and clusters that the principal may see.
func presentAuditRow(r *audit.Row, names map[string]string, clusters map[uuid.UUID]string) auditRow {
	row := auditRow{Row: r, Path: pagePath("audit", strconv.FormatInt(r.Seq, 10)), Removed: r.ID != 0 && r.Phase == "",
		Result: results[r.Outcome], Who: link{Name: r.AccountName}, Target: link{Name: r.Target}}
	if row.Who.Name == "" {
		row.Who.Name = r.AccountGUID
	}
	row.Who.Path = linkAccount(names, r.AccountGUID).Path
	cluster := r.Cluster.String()
	if r.Cluster != uuid.Nil {
		row.In = link{Name: cluster}
		if name, viewable := clusters[r.Cluster]; viewable {
			row.In = link{Name: name, Path: pagePath("clusters", cluster)}
		}
	}
	switch {
	case r.Target == "":
	case aboutAccount(r):
		row.Target = linkAccount(names, r.Target)
	case strings.HasPrefix(r.Action, "user.") && row.In.Path != "":
		row.Target.Path = userPath(cluster, r.Target)
	}
	return row
}

// auditList is the page of the log.
type auditList struct {
	Rows     []auditRow
	Pager    pager
	Filtered bool
	All      bool // the principal sees the whole log
	Live     bool
	Tab      string // the view that the filter is
	// LivePath is this page as a live view, and StillPath as one that is not.
	LivePath, StillPath string
	ExportPath          string
	Poll                poll
	Actions, Outcomes   []option
	Clusters            []option
}

// poll is where a live view asks for newer rows.
type poll struct {
	Path string // "": it has been open for so long that it asks no more
	Self string // the live view, to open it again
}

var auditFilters = []string{"account", "cluster", "user", "action", "outcome", "since", "until"}

// auditFilter reads the filter of the log.
func (c *Console) auditFilter(f *form) (filter audit.Filter, err error) {
	for _, name := range []string{"account", "user", "action", "outcome"} {
		if !isText(f.Get(name)) {
			return filter, wrongFilter(name, "The field is not text.")
		}
	}
	filter = audit.Filter{Account: f.Get("account"), Target: f.Get("user"), Action: f.Get("action"),
		Outcome: audit.Outcome(f.Get("outcome"))}
	if filter.Action != "" && !slices.Contains(audit.Actions, filter.Action) {
		return filter, wrongFilter("action", "There is no action %.100q. Choose one of the list.", filter.Action)
	}
	if filter.Outcome != "" && !slices.Contains(audit.Outcomes, filter.Outcome) {
		return filter, wrongFilter("outcome", "There is no outcome %.100q. Choose one of the list.", string(filter.Outcome))
	}
	if text := f.Get("cluster"); text != "" {
		if filter.Cluster, err = uuid.Parse(text); err != nil {
			return filter, wrongFilter("cluster", "The cluster must be the id of a cluster, not %.100q.", text)
		}
	}
	if filter.Since, err = filterTime(f, "since"); err != nil {
		return filter, err
	}
	filter.Until, err = filterTime(f, "until")
	return filter, err
}

// filterTime reads a time, or how long ago it was.
func filterTime(f *form, name string) (time.Time, error) {
	text := f.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := moment.Duration(text); err == nil {
		return time.Now().Add(-ago), nil
	}
	at, err := moment.Time(text)
	if err != nil || at.IsZero() {
		return time.Time{}, wrongFilter(name, "The time %.100q is not valid. Write how long ago, like 7d or 36h, or %s.", text,
			moment.TimeForm)
	}
	return at, nil
}

// afterSeq is the seq of the row behind which a page of the log begins; 0: its beginning.
func afterSeq(f *form) (int64, error) {
	text := f.Get(afterField)
	if text == "" {
		return 0, nil
	}
	seq, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seq < 0 {
		return 0, errWrongPage
	}
	return seq, nil
}

// seqKey is how the query of a page of the log names a row.
func seqKey(row auditRow) string { return strconv.FormatInt(row.Seq, 10) }

// auditLink is the page of the log with a filter of these names and values.
func auditLink(filter ...string) string {
	query := url.Values{}
	for i := 0; i < len(filter); i += 2 {
		query.Set(filter[i], filter[i+1])
	}
	return withQuery(auditPath, query)
}

func withQuery(path string, query url.Values) string {
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// filterOf is the filter in a form, without what is empty.
func filterOf(f *form) url.Values {
	query := url.Values{}
	for _, name := range auditFilters {
		if text := f.Get(name); text != "" {
			query.Set(name, text)
		}
	}
	return query
}

const liveField = "live"

func (c *Console) auditPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	f := filterForm(r)
	query := filterOf(f)
	shown := auditList{All: access.MayAudit(p), Live: f.Get(liveField) != "", Filtered: len(query) > 0,
		StillPath: withQuery(auditPath, query), Actions: []option{{"", "Any"}}, Outcomes: []option{{"", "Any"}},
		Clusters: []option{{"", "Any"}}}
	query.Set(liveField, "1")
	switch {
	case f.Get("outcome") == string(audit.Denied):
		shown.Tab = "denied"
	case !shown.Filtered:
		shown.Tab = "all"
	}
	shown.LivePath = withQuery(auditPath, query)
	query.Del(liveField)
	shown.ExportPath = withQuery(exportPath, query)
	for _, action := range audit.Actions {
		shown.Actions = append(shown.Actions, option{action, action})
	}
	for _, outcome := range audit.Outcomes {
		shown.Outcomes = append(shown.Outcomes, option{string(outcome), results[outcome].Word})
	}
	for _, viewable := range c.Users.ViewableClusters(p) {
		shown.Clusters = append(shown.Clusters, option{viewable.ID.String(), viewable.DisplayName})
	}
	filter, err := c.auditFilter(f)
	var after int64
	if err == nil {
		after, err = afterSeq(f)
	}
	if err != nil {
		f.refuse(err)
		return c.showAudit(w, r, p, f, shown)
	}
	if named := f.Get("cluster"); named != "" && !slices.ContainsFunc(shown.Clusters,
		func(o option) bool { return o.Value == named }) {
		shown.Clusters = append(shown.Clusters, option{named, named}) // it was removed, or is not for this person
	}
	rows, more, err := c.auditRows(r.Context(), p, filter, audit.Page{After: after, Backward: true, Limit: pageSize})
	if err != nil {
		return err
	}
	shown.Rows = rows
	if shown.Live {
		var newest int64
		if len(rows) > 0 {
			newest = rows[0].Seq
		}
		shown.Poll = pollBehind(f, newest, time.Now())
	} else {
		shown.Pager = pagerAfter(r, rows, more, seqKey)
	}
	return c.showAudit(w, r, p, f, shown)
}

func (c *Console) showAudit(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form, shown auditList) error {
	return c.show(w, r, p, page{Template: "audit/list.html", Title: "Audit log", Area: "audit", Form: f, Data: shown})
}

// longestLive is how long a live view asks for new rows: its requests keep a session in use that nobody may sit at.
const longestLive = 15 * time.Minute

// pollBehind is how a live view that was opened at a time goes on behind a row.
func pollBehind(f *form, seq int64, opened time.Time) poll {
	query := filterOf(f)
	query.Set(liveField, "1")
	self := withQuery(auditPath, query)
	if time.Since(opened) > longestLive {
		return poll{Self: self}
	}
	query.Set(liveField, strconv.FormatInt(opened.Unix(), 10))
	query.Set(afterField, strconv.FormatInt(seq, 10))
	return poll{withQuery(newRowsPath, query), self}
}

// newRows is what a live view gets: where to ask next, and the rows.
type newRows struct {
	Poll poll
	Rows []auditRow
}

// newRowsPage answers a live view with the rows behind the last one that it has, the newest first.
func (c *Console) newRowsPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	f := filterForm(r)
	filter, err := c.auditFilter(f)
	if err != nil {
		return err
	}
	after, err := afterSeq(f)
	if err != nil {
		return err
	}
	opened, err := strconv.ParseInt(f.Get(liveField), 10, 64)
	if err != nil {
		return errWrongPage
	}
	rows, _, err := c.auditRows(r.Context(), p, filter, audit.Page{After: after, Limit: pageSize})
	if err != nil {
		return err
	}
	slices.Reverse(rows)
	if len(rows) > 0 {
		after = rows[0].Seq
	}
	return c.showPart(w, "audit/list.html", "newRows", newRows{pollBehind(f, after, time.Unix(opened, 0)), rows})
}

// exportAudit sends the rows of a filter as a file, one a line, as the API exports them.
func (c *Console) exportAudit(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	filter, err := c.auditFilter(filterForm(r))
	if err != nil {
		return err
	}
	filter.Visible = c.Users.VisibleAudit(p)
	export, err := c.Users.Audit.Export(r.Context(), filter, 0)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="audit.jsonl"`)
	web.Stream(w, r, audit.ErrHungUp, func(next func()) error {
		return export.Write(r.Context(), w, func() *audit.Visible {
			next()
			return c.Users.VisibleAudit(p)
		})
	})
	return nil
}

// auditDetail is the page of one row.
type auditDetail struct {
	auditRow
	Detail         string // the rest of the row, as JSON
	Previous, Next string // the pages of the rows about the same user before and after it; "": there is none
	SameUser       string // all of them
	Credential     string // what it was done with
}

func (c *Console) auditRowPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	missing := fault.New(fault.NotFound, "There is no row %.40q of the audit log, or you may not see it.", r.PathValue("seq"))
	seq, err := strconv.ParseInt(r.PathValue("seq"), 10, 64)
	if err != nil || seq < 1 {
		return missing
	}
	rows, _, err := c.auditRows(r.Context(), p, audit.Filter{}, audit.Page{After: seq - 1, Limit: 1})
	if err != nil {
		return err
	}
	if len(rows) == 0 || rows[0].Seq != seq {
		return missing
	}
	row := rows[0]
	shown := auditDetail{auditRow: row, Detail: indented(row.Row.Detail), Credential: credentialOf(row.Row.Detail)}
	if row.Row.Target != "" {
		same := audit.Filter{Cluster: row.Cluster, Target: row.Row.Target}
		if shown.Previous, err = c.neighbor(r.Context(), p, same, audit.Page{After: seq, Backward: true, Limit: 1}); err != nil {
			return err
		}
		if shown.Next, err = c.neighbor(r.Context(), p, same, audit.Page{After: seq, Limit: 1}); err != nil {
			return err
		}
		shown.SameUser = auditLink("user", row.Row.Target)
		if row.Cluster != uuid.Nil {
			shown.SameUser = auditLink("user", row.Row.Target, "cluster", row.Cluster.String())
		}
	}
	return c.show(w, r, p, page{Template: "audit/row.html", Title: "Row " + r.PathValue("seq"), Area: "audit",
		Crumbs: []crumb{auditCrumb}, Data: shown})
}

// neighbor is the page of the first row of a page of the log; "": there is none.
func (c *Console) neighbor(ctx context.Context, p *account.Principal, f audit.Filter, at audit.Page) (string, error) {
	rows, _, err := c.auditRows(ctx, p, f, at)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[0].Path, nil
}

// indented is JSON for people.
func indented(detail json.RawMessage) string {
	var text bytes.Buffer
	if d := string(detail); d == "{}" || d == "null" || json.Indent(&text, detail, "", "  ") != nil {
		return ""
	}
	return text.String()
}

// credentialOf says what something was done with, as the detail of a row has it.
func credentialOf(detail json.RawMessage) string {
	var with struct{ Token, Session, Operation string }
	_ = json.Unmarshal(detail, &with) // a row that has another form says nothing of it
	switch {
	case with.Operation != "":
		return "by operation " + with.Operation
	case with.Session != "":
		return "in the console"
	case with.Token != "":
		return "with personal access token " + with.Token
	}
	return ""
}

// verifyShown is the page to verify the log.
type verifyShown struct {
	Result *audit.Verification // nil: it was not verified yet
	Anchor string              // that was compared
}

func (c *Console) verifyPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if !access.MayAudit(p) {
		return access.ErrMayNotAudit
	}
	return c.showVerify(w, r, p, f, verifyShown{})
}

func (c *Console) showVerify(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form,
	shown verifyShown) error {
	return c.show(w, r, p, page{Template: "audit/verify.html", Title: "Verify the audit log", Area: "audit", Form: f,
		Crumbs: []crumb{auditCrumb}, Data: shown})
}

func (c *Console) verifyAudit(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if !access.MayAudit(p) {
		return access.ErrMayNotAudit
	}
	shown := verifyShown{Anchor: f.Get("anchor")}
	var anchor audit.Point
	var err error
	if shown.Anchor != "" {
		if anchor, err = audit.ParsePoint(shown.Anchor); err != nil {
			return wrongField("anchor", "%s", fault.Of(err).Message)
		}
	}
	if shown.Result, err = c.Users.Audit.Verify(r.Context(), anchor); err != nil {
		return err
	}
	return c.showVerify(w, r, p, f, shown)
}

// failedShown is the page of failed sign-ins.
type failedShown struct {
	Counts []failedCount
	Pager  pager
}

type failedCount struct {
	audit.FailedSignIns
	Who link
}

// failedSince is how far back the page of failed sign-ins goes without a filter.
const failedSince = "24h"

func (c *Console) failedSignInsPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if !access.MayAudit(p) {
		return access.ErrMayNotAudit
	}
	f := filterForm(r)
	if !f.Values.Has("since") {
		f.Values.Set("since", failedSince)
	}
	var shown failedShown
	since, err := filterTime(f, "since")
	var before audit.FailedSignIns
	if err == nil {
		before, err = beforeCount(f.Get(afterField))
	}
	if err != nil {
		f.refuse(err)
	} else {
		counts, more, err := c.Users.Audit.NewestFailedSignIns(r.Context(), since, before, pageSize)
		if err != nil {
			return err
		}
		next := ""
		if more {
			last := counts[len(counts)-1]
			next = last.Minute.UTC().Format(time.RFC3339Nano) + "\n" + last.Address + "\n" + last.Account
		}
		if shown.Counts, err = c.presentFailed(r.Context(), p, counts); err != nil {
			return err
		}
		shown.Pager = pagerOf(r, next)
	}
	return c.show(w, r, p, page{Template: "audit/failed.html", Title: "Failed sign-ins", Area: "audit", Form: f,
		Crumbs: []crumb{auditCrumb}, Data: shown})
}

// beforeCount reads the count behind which a page begins, the zero one for the first page.
func beforeCount(key string) (before audit.FailedSignIns, err error) {
	if key == "" {
		return before, nil
	}
	parts := strings.SplitN(key, "\n", 3)
	minute, err := time.Parse(time.RFC3339, parts[0])
	if err != nil || len(parts) < 3 || !isText(key) {
		return before, errWrongPage
	}
	return audit.FailedSignIns{Minute: minute, Address: parts[1], Account: parts[2]}, nil
}

func (c *Console) presentFailed(ctx context.Context, p *account.Principal, counts []audit.FailedSignIns) (
	shown []failedCount, err error) {
	var guids []string
	for _, n := range counts {
		guids = append(guids, n.Account)
	}
	names, err := c.Accounts.Names(ctx, p, guids)
	if err != nil {
		return nil, err
	}
	for _, n := range counts {
		who := linkAccount(names, n.Account)
		if n.Account == audit.ActorUnknown {
			who.Name = "a name that no account has"
		}
		shown = append(shown, failedCount{n, who})
	}
	return shown, nil
}
