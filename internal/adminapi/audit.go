package adminapi

import (
	"context"
	"encoding/hex"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/moment"
	"rolecall/internal/web"
)

var auditFilters = []string{"account", "cluster", "user", "action", "outcome", "since", "until", "after"}

// maxWait is how many seconds a request may wait for rows: fewer than a stopping server waits for its requests.
const maxWait = 20

func (a *API) listAudit(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, cut page) error {
	if wantsLines(r) {
		return a.exportAudit(w, r, p, q)
	}
	filter, after, err := a.auditFilter(q, p)
	if err != nil {
		return err
	}
	wait, err := q.integer("wait", 0, 0, maxWait)
	if err != nil {
		return err
	}
	order := q.Get("order")
	switch {
	case q.Has("order") && order != "asc" && order != "desc":
		return fault.New(fault.Invalid, "The query parameter order must be asc or desc.")
	case order == "desc" && (q.Has("after") || wait > 0):
		return fault.New(fault.Invalid, "The query parameters after and wait go with order=asc only.")
	case q.Has("after") && q.Has("cursor"):
		return fault.New(fault.Invalid, "The query parameters after and cursor exclude each other.")
	}
	page := audit.Page{After: after, Backward: order == "desc", Limit: cut.Limit}
	if cut.After != "" {
		if page.After, err = strconv.ParseInt(cut.After, 10, 64); err != nil || page.After < 1 {
			return errCursor
		}
	}
	rows, more, err := a.waitForRows(r.Context(), p, filter, page, time.Duration(wait)*time.Second)
	if err != nil {
		return err
	}
	l := list[audit.Line]{Items: []audit.Line{}}
	for _, row := range rows {
		l.Items = append(l.Items, row.Line())
	}
	if more {
		l.Next = cursor(strconv.FormatInt(rows[len(rows)-1].Seq, 10))
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

// waitForRows returns a page, and waits for its first row.
func (a *API) waitForRows(ctx context.Context, p *account.Principal, f audit.Filter, page audit.Page,
	wait time.Duration) ([]*audit.Row, bool, error) {
	log := a.Users.Audit
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		f.Visible = a.Users.VisibleAudit(p) // the access rules may have changed during the wait
		seen := log.Head().Seq              // before the look: a row that is sealed after it ends the wait
		rows, more, err := log.Rows(ctx, f, page)
		if err != nil || len(rows) > 0 || waiting.Err() != nil {
			return rows, more, err
		}
		log.Wait(waiting, max(seen, page.After))
	}
}

func (a *API) auditFilter(q query, p *account.Principal) (f audit.Filter, after int64, err error) {
	for _, name := range []string{"account", "user", "action"} {
		if s := q.Get(name); q.Has(name) && (s == "" || !utf8.ValidString(s) || strings.Contains(s, "\x00")) {
			return f, 0, fault.New(fault.Invalid, "The query parameter %s must be text, and not empty.", name)
		}
	}
	f = audit.Filter{
		Account: q.Get("account"),
		Target:  q.Get("user"),
		Action:  q.Get("action"),
		Outcome: audit.Outcome(q.Get("outcome")),
		Visible: a.Users.VisibleAudit(p),
	}
	if q.Has("action") && !slices.Contains(audit.Actions, f.Action) {
		return f, 0, fault.New(fault.Invalid, "The query parameter action must be one of: %s.", strings.Join(audit.Actions, ", "))
	}
	if q.Has("outcome") && !slices.Contains(audit.Outcomes, f.Outcome) {
		return f, 0, fault.New(fault.Invalid, "The query parameter outcome must be done, not_done, unknown or denied.")
	}
	if q.Has("cluster") {
		if f.Cluster, err = uuid.Parse(q.Get("cluster")); err != nil {
			return f, 0, fault.New(fault.Invalid, "The query parameter cluster must be the id of a cluster.")
		}
	}
	if f.Since, err = q.time("since"); err != nil {
		return f, 0, err
	}
	if f.Until, err = q.time("until"); err != nil {
		return f, 0, err
	}
	if q.Has("after") {
		if after, err = strconv.ParseInt(q.Get("after"), 10, 64); err != nil || after < 0 {
			return f, 0, fault.New(fault.Invalid, "The query parameter after must be the seq of a row, or 0.")
		}
	}
	return f, after, nil
}

// time reads an optional time.
func (q query) time(name string) (t time.Time, err error) {
	if !q.Has(name) {
		return t, nil
	}
	if t, err = moment.Time(q.Get(name)); err != nil || t.IsZero() {
		return t, fault.New(fault.Malformed, "The query parameter %s must be %s.", name, moment.TimeForm)
	}
	return t, nil
}

const jsonLines = "application/jsonl"

// wantsLines reports whether the client asks for an export.
func wantsLines(r *http.Request) bool {
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if kind, _, err := mime.ParseMediaType(accepted); err == nil && kind == jsonLines {
			return true
		}
	}
	return false
}

// exportAudit sends all rows up to the present head of the chain, one a line, and then that head: an export without it
// was cut off on its way.
func (a *API) exportAudit(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	if err := q.check(auditFilters); err != nil {
		return err
	}
	filter, after, err := a.auditFilter(q, p)
	if err != nil {
		return err
	}
	export, err := a.Users.Audit.Export(r.Context(), filter, after)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", jsonLines)
	w.WriteHeader(http.StatusOK)
	web.Stream(w, r, audit.ErrHungUp, func(next func()) error {
		return export.Write(r.Context(), w, func() *audit.Visible {
			next()
			return a.Users.VisibleAudit(p)
		})
	})
	return nil
}

type verification struct {
	OK            bool             `json:"ok"`
	Checked       int64            `json:"checked"`
	Head          audit.PointLine  `json:"head"`
	Checkpoint    *chainCheckpoint `json:"checkpoint"`
	Unsealed      unsealed         `json:"unsealed"`
	AnchorRemoved bool             `json:"anchorRemoved"`
	Problem       *auditProblem    `json:"problem"`
}

type chainCheckpoint struct {
	Seq  int64     `json:"seq"`
	MAC  string    `json:"mac"`
	Time time.Time `json:"time"`
}

type unsealed struct {
	Count  int64      `json:"count"`
	Oldest *time.Time `json:"oldest"`
}

type auditProblem struct {
	Seq    *int64 `json:"seq"`
	ID     *int64 `json:"id"`
	Reason string `json:"reason"`
}

func (a *API) verifyAudit(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	if !access.MayAudit(p) {
		return access.ErrMayNotAudit
	}
	var anchor audit.Point
	var err error
	if q.Has("anchor") {
		if anchor, err = audit.ParsePoint(q.Get("anchor")); err != nil {
			return err
		}
	}
	found, err := a.Users.Audit.Verify(r.Context(), anchor)
	if err != nil {
		return err
	}
	v := verification{
		OK:            found.Problem == nil,
		Checked:       found.Checked,
		Head:          found.Head.Line(),
		Unsealed:      unsealed{Count: found.Unsealed},
		AnchorRemoved: found.AnchorRemoved,
	}
	if c := found.Checkpoint; c.Seq > 0 {
		v.Checkpoint = &chainCheckpoint{c.Seq, hex.EncodeToString(c.MAC), c.Time.UTC()}
	}
	if found.Unsealed > 0 {
		oldest := found.Oldest.UTC()
		v.Unsealed.Oldest = &oldest
	}
	if f := found.Problem; f != nil {
		v.Problem = &auditProblem{Reason: f.Reason}
		if f.Seq != 0 {
			v.Problem.Seq = &f.Seq
		}
		if f.ID != 0 {
			v.Problem.ID = &f.ID
		}
	}
	web.JSON(w, http.StatusOK, "application/json", v)
	return nil
}

type failedSignIns struct {
	Minute  time.Time `json:"minute"`
	Account string    `json:"account"`
	Address string    `json:"address"`
	Count   int       `json:"count"`
}

func (a *API) listFailedSignIns(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, cut page) error {
	if !access.MayAudit(p) {
		return access.ErrMayNotAudit
	}
	since, err := q.time("since")
	if err != nil {
		return err
	}
	var after audit.FailedSignIns
	if cut.After != "" {
		key := strings.SplitN(cut.After, "\n", 3)
		minute, err := time.Parse(time.RFC3339, key[0])
		if err != nil || len(key) < 3 || !utf8.ValidString(cut.After) || strings.Contains(cut.After, "\x00") {
			return errCursor
		}
		after = audit.FailedSignIns{Minute: minute, Address: key[1], Account: key[2]}
	}
	counts, more, err := a.Users.Audit.FailedSignIns(r.Context(), since, after, cut.Limit)
	if err != nil {
		return err
	}
	l := list[failedSignIns]{Items: []failedSignIns{}}
	for _, c := range counts {
		l.Items = append(l.Items, failedSignIns{c.Minute.UTC(), c.Account, c.Address, c.Count})
	}
	if more {
		last := l.Items[len(l.Items)-1]
		l.Next = cursor(last.Minute.Format(time.RFC3339Nano) + "\n" + last.Address + "\n" + last.Account)
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}
