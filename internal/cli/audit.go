package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
)

func auditCommand() *cobra.Command {
	var q auditQuery
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, and the outcome",
		Long: `Audit prints rows of the audit log, oldest first: the last 100 rows, or as many as --last
says (0: all), or all rows of the time that --since and --until give. A change has two
rows, the attempt and its outcome; the table shows them as one when the outcome is known.
On a narrow terminal, columns are cut or left out, DETAIL first; -o json prints
everything. --follow goes on with new rows as they come.

-o jsonl without --follow and --last exports all rows, one per line. Each row contains a
code that chains it to the row before, and the last line is the head of the chain. Keep
that line for: rolecall audit verify --anchor.`,
		Example: `  rolecall audit --since 7d -c payments
  rolecall audit --account alice --outcome denied --last 0
  rolecall audit --follow
  rolecall audit -o jsonl > audit.jsonl`,
		Args: term.OnlyCommands,
	}
	q.bind(cmd)
	term.BindTable(cmd, "jsonl")
	cmd.AddCommand(auditVerifyCommand(), auditFailedCommand())
	return onServer(cmd, func(c *call) error { return q.run(c) })
}

// auditQuery are the flags of audit.
type auditQuery struct {
	account, cluster, user, action, outcome, since, until string
	follow                                                bool
	last                                                  int
}

const defaultLast = 100

// AuditActions are the actions of the audit log, for completion. The server says which it knows.
var AuditActions = []string{
	"account.create", "account.delete", "account.grant", "account.offboard", "account.password", "account.reset",
	"account.revoke",
	"account.tokens", "account.update", "cluster.register", "cluster.remove", "cluster.rotate", "cluster.update",
	"control.restore", "credential.delete", "credential.put", "credential.read", "credential.rotate",
	"database.access", "database.access.remove", "database.create", "database.delete", "key.create", "key.retire",
	"keys.rotate", "lease.create", "lease.end", "lease.renew", "login.approve", "login.create", "login.deny",
	"operation.cancel", "operation.start", "session.end",
	"token.create", "token.revoke", "user.access", "user.create", "user.delete",
	"user.disable", "user.enable", "user.limits",
	"user.password", "user.password_changed_outside", "user.roles", "user.verifiers",
	"webhook.create", "webhook.delete", "webhook.replay", "webhook.rotate_secret", "webhook.update",
}

func (q *auditQuery) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.account, "account", "", "only changes by this `account`, given by user name or guid")
	f.StringVarP(&q.cluster, "cluster", "c", "", "only changes in this cluster, given by `name` or id")
	f.StringVar(&q.user, "user", "", "only changes to this `name`: a database user, database, account or cluster")
	f.StringVar(&q.action, "action", "", "only this `action`, such as user.create")
	f.StringVar(&q.outcome, "outcome", "", "only this `outcome`: done, not_done, unknown or denied")
	f.StringVar(&q.since, "since", "",
		"only rows from this `time` on: like 2027-01-31T18:00:00Z or 2027-01-31, or 7d for a week ago")
	f.StringVar(&q.until, "until", "", "only rows before this `time`, in the same forms")
	f.BoolVarP(&q.follow, "follow", "f", false, "go on with new rows as they come")
	f.IntVarP(&q.last, "last", "n", defaultLast, "show the last `n` rows; 0: all")
	_ = cmd.RegisterFlagCompletionFunc("account", completeAccounts)
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	term.CompleteWords(cmd, "action", AuditActions...)
	term.CompleteWords(cmd, "outcome", "done", "not_done", "unknown", "denied")
}

func (q *auditQuery) run(c *call) error {
	format := term.Format(c.cmd)
	if q.last < 0 {
		return term.Usage("--last is %d; use a number of rows, or 0 for all", q.last)
	}
	if err := term.CheckTable(c.cmd); err != nil {
		return err
	}
	if q.follow && (c.given("until") || format == "json" || format == "yaml") {
		return term.Usage("--follow needs -o table, wide or jsonl and cannot be combined with --until")
	}
	me, err := whoami(c.cmd.Context(), c.client)
	if err != nil {
		return err
	}
	p := &auditPrinter{call: c, clusters: clusterNames(me), attempts: map[string]json.RawMessage{}}
	query, err := q.query(c, p.clusters)
	if err != nil {
		return err
	}
	last := q.last
	if !c.given("last") && (c.given("since") || c.given("until")) {
		last = 0
	}
	switch {
	case format == "jsonl" && !q.follow && !c.given("last"):
		return c.copy(client.AuditPath, query, "application/jsonl")
	case q.follow:
		if err := q.checkAccount(c); err != nil {
			return err
		}
		return p.follow(query, last)
	}
	rows, err := auditRows(c, query, last)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		if err := q.checkAccount(c); err != nil {
			return err
		}
	}
	if err := p.print(rows); err != nil {
		return err
	}
	if len(rows) == 0 {
		c.report("The audit log has no such rows that you may see.")
	}
	if last > 0 && len(rows) == last && !c.given("last") {
		c.report("These are the last %d rows. To see all: --last 0", last)
	}
	return nil
}

// query are the parameters of the request. clusters are those that the caller may view; one that was unregistered is given
// by its id.
func (q *auditQuery) query(c *call, clusters map[string]string) (url.Values, error) {
	query := url.Values{}
	for _, filter := range []struct{ name, value string }{
		{"account", q.account}, {"user", q.user}, {"action", q.action}, {"outcome", q.outcome},
	} {
		if c.given(filter.name) {
			query.Set(filter.name, filter.value)
		}
	}
	for _, limit := range []struct{ name, value string }{{"since", q.since}, {"until", q.until}} {
		if !c.given(limit.name) {
			continue
		}
		t, err := past(limit.name, limit.value)
		if err != nil {
			return nil, err
		}
		query.Set(limit.name, t.Format(time.RFC3339))
	}
	if q.cluster != "" {
		query.Set("cluster", q.cluster)
		for id, name := range clusters {
			if name == q.cluster {
				query.Set("cluster", id)
			}
		}
		if id := query.Get("cluster"); len(id) != 36 && clusters[id] == "" {
			return nil, term.NotFound("There is no cluster %q that you may view. Give an unregistered cluster by its id.", q.cluster)
		}
	}
	return query, nil
}

// past reads a time, or a duration before now.
func past(flag, value string) (time.Time, error) {
	if d, err := moment.Duration(value); err == nil {
		return time.Now().Add(-d).UTC(), nil
	}
	t, err := moment.Time(value)
	if err != nil {
		return t, term.Usage("--%s is %q; use %s, or %s before now", flag, value, moment.TimeForm, moment.DurationForm)
	}
	return t, nil
}

// checkAccount fails if --account names neither an account nor one that the log knows, such as a deleted one.
func (q *auditQuery) checkAccount(c *call) error {
	if !c.given("account") {
		return nil
	}
	rows, err := auditRows(c, url.Values{"account": {q.account}}, 1)
	if err != nil || len(rows) > 0 {
		return err
	}
	_, err = findAccount(c.cmd.Context(), c.client, q.account)
	return err
}

// auditRows returns the last rows, or all of them when last is 0, the oldest first.
func auditRows(c *call, query url.Values, last int) ([]json.RawMessage, error) {
	q := url.Values{"limit": {"1000"}}
	maps.Copy(q, query)
	if last == 0 {
		return c.client.Items(c.cmd.Context(), client.AuditPath, q)
	}
	q.Set("order", "desc")
	var rows []json.RawMessage
	for {
		q.Set("limit", strconv.Itoa(min(last-len(rows), 1000)))
		items, next, err := c.client.Page(c.cmd.Context(), client.AuditPath, q)
		if err != nil {
			return nil, err
		}
		rows = append(rows, items...)
		if next == "" || len(rows) >= last {
			slices.Reverse(rows)
			return rows, nil
		}
		q.Set("cursor", next)
	}
}

// auditPrinter prints rows as they come.
type auditPrinter struct {
	*call
	clusters map[string]string // names by id
	table    *term.Table
	attempts map[string]json.RawMessage // the details of attempts whose outcome has not come yet
}

// auditHead is the columns of audit. Rows come in parts, so the usual values fit the columns from the start.
var auditHead = term.Head{
	{Title: "TIME", Least: 22}, {Title: "ACCOUNT", Least: 10, Gives: term.Some}, {Title: "ACTION", Least: 13},
	{Title: "OUTCOME", Least: 8}, {Title: "CLUSTER", Least: 10, Gives: term.Some}, {Title: "ON", Least: 12, Gives: term.Some},
	{Title: "DETAIL", Gives: term.Most},
}

func (p *auditPrinter) print(rows []json.RawMessage) error {
	switch term.Format(p.cmd) {
	case "jsonl":
		for _, row := range rows {
			if _, err := fmt.Fprintf(p.cmd.OutOrStdout(), "%s\n", row); err != nil {
				return err
			}
		}
		return nil
	case "table", "wide":
		return p.printTable(rows)
	}
	return term.PrintData(p.cmd, append([]json.RawMessage{}, rows...)) // [] and not null
}

func (p *auditPrinter) printTable(rows []json.RawMessage) error {
	all, err := term.DecodeAll[client.AuditRow](rows)
	if err != nil {
		return err
	}
	ended := map[string]bool{}
	for _, r := range all {
		ended[r.Attempt] = ended[r.Attempt] || r.Outcome != nil
	}
	var cells [][]string
	for _, r := range all {
		if r.Outcome == nil {
			p.attempts[r.Attempt] = r.Detail
			if ended[r.Attempt] {
				continue // its detail comes with the outcome
			}
		}
		outcome, cluster := r.Phase, ""
		if r.Outcome != nil {
			outcome = *r.Outcome
		}
		if r.Cluster != nil {
			cluster = nameOf(p.clusters, *r.Cluster)
		}
		on, detail, err := p.detail(r, p.attempts[r.Attempt])
		if err != nil {
			return err
		}
		if r.Outcome != nil {
			delete(p.attempts, r.Attempt)
		}
		account := cmp.Or(r.Account.Username, r.Account.GUID)
		cells = append(cells, []string{term.Time(&r.Time), account, r.Action, outcome, cluster, on, detail})
	}
	if p.table == nil {
		p.table = term.TableOf(p.cmd, auditHead)
	}
	return p.table.Print(cells)
}

// detail is what a row is about and its detail, for people. An account is shown by its name, if the row has it. The row
// before of the same user serves programs only. attempt is the detail of the attempt, if it is known; that of the outcome
// takes precedence.
func (p *auditPrinter) detail(r *client.AuditRow, attempt json.RawMessage) (on, text string, err error) {
	detail := map[string]json.RawMessage{}
	for _, part := range []json.RawMessage{attempt, r.Detail} {
		if part == nil {
			continue
		}
		if err := json.Unmarshal(part, &detail); err != nil {
			return "", "", fmt.Errorf("this version of rolecall cannot read the server's answer: %w", err)
		}
	}
	on = r.User
	delete(detail, "previous")
	delete(detail, "trace")
	if strings.HasPrefix(r.Action, "account.") {
		var name string
		if json.Unmarshal(detail["username"], &name) == nil && name != "" {
			on = name
			delete(detail, "username")
		}
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(detail)) {
		parts = append(parts, key+"="+p.detailValue(key, detail[key]))
	}
	return on, strings.Join(parts, " "), nil
}

// detailValue writes a member of the detail as the other commands do, with the names of clusters in place of their ids.
func (p *auditPrinter) detailValue(key string, value json.RawMessage) string {
	var text string
	var ids []string
	var w *client.Window
	switch {
	case key == "window" && json.Unmarshal(value, &w) == nil && w != nil:
		return windowText(w)
	case (key == "clusters" || key == "credentials") && json.Unmarshal(value, &ids) == nil:
		return strings.Join(withNames(p.clusters, ids), ",")
	case json.Unmarshal(value, &text) != nil:
		return string(value)
	case key == "rotateEvery" || key == "overlap":
		return inDays(text)
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return term.Time(&at)
	}
	return text
}

// The server answers a request for new rows after waitSeconds at the latest. followPause is the pause after a failure.
const (
	waitSeconds = "20"
	followPause = 2 * time.Second
)

// follow prints the last rows and then each new one, until it is interrupted. It survives a restart of the server.
func (p *auditPrinter) follow(query url.Values, last int) error {
	ctx := p.cmd.Context()
	// The newest row of all is where new rows begin, even if no row matches the filter yet.
	newest, err := auditRows(p.call, nil, 1)
	if err != nil {
		return err
	}
	rows, err := auditRows(p.call, query, last)
	if err != nil {
		return err
	}
	after, err := newestSeq(0, newest)
	if err != nil {
		return err
	}
	for failing := false; ; {
		if after, err = newestSeq(after, rows); err != nil {
			return err
		}
		if err := p.print(rows); err != nil {
			return err
		}
		q := url.Values{"after": {strconv.FormatInt(after, 10)}, "wait": {waitSeconds}, "limit": {"1000"}}
		maps.Copy(q, query)
		rows, _, err = p.client.Page(ctx, client.AuditPath, q)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !temporary(err) {
			return err
		}
		if err != nil && !failing {
			p.warn("%s. Waiting.", strings.TrimSuffix(err.Error(), "."))
		}
		if failing = err != nil; failing && !sleep(ctx, followPause) {
			return ctx.Err()
		}
	}
}

// newestSeq is the number of the last row, if it is higher than after.
func newestSeq(after int64, rows []json.RawMessage) (int64, error) {
	if len(rows) == 0 {
		return after, nil
	}
	r, err := term.Decode[client.AuditRow](rows[len(rows)-1])
	if err != nil {
		return after, err
	}
	return max(after, r.Seq), nil
}

// temporary reports whether the same request may succeed later.
func temporary(err error) bool {
	status := client.Status(err)
	rejected := status >= 400 && status < 500 && status != http.StatusTooManyRequests
	return !rejected && term.ExitCode(err) != term.ExitDenied
}

// sleep reports whether it slept for the whole time.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func auditVerifyCommand() *cobra.Command {
	var anchor string
	cmd := printing(&cobra.Command{
		Use:   "verify",
		Short: "Verify that the audit log is unchanged",
		Long: `Verify checks the chain of the audit log, and names the first row that was changed or is
missing. It finds rows that were cut off at the end only with an anchor: an earlier head
of the chain, as an earlier verify, an export or the server's log has printed it.

Its exit code is 0 if the log is intact, and 1 if it is not.`,
		Example: `  rolecall audit verify
  rolecall audit verify --anchor 1234:5f0c…`,
		Args: term.NoArguments,
	})
	cmd.Flags().StringVar(&anchor, "anchor", "", "`head` of the chain at an earlier time, as this command prints it")
	return onServer(cmd, func(c *call) error {
		var query url.Values
		if anchor != "" {
			query = url.Values{"anchor": {anchor}}
		}
		answer, err := c.get(client.AuditPath+"/verify", query)
		if err != nil {
			return err
		}
		v, err := term.Decode[client.Verification](answer)
		if err != nil {
			return err
		}
		if err := printOne(c, answer, verificationFields); err != nil {
			return err
		}
		if v.Problem != nil {
			return fmt.Errorf("the audit log fails verification: %s", v.Problem.Reason)
		}
		return nil
	})
}

func verificationFields(_ *call, v *client.Verification) [][]string {
	fields := [][]string{
		{"intact", term.YesNo(v.OK)},
		{"rows checked", strconv.FormatInt(v.Checked, 10)},
		{"head", fmt.Sprintf("%d:%s", v.Head.Seq, v.Head.MAC)},
		{"not chained yet", strconv.FormatInt(v.Unsealed.Count, 10)},
	}
	if v.Unsealed.Oldest != nil {
		fields = append(fields, []string{"oldest of these", term.Time(v.Unsealed.Oldest)})
	}
	if v.AnchorRemoved {
		fields = append(fields, []string{"anchor", "is older than the retained log and was not checked"})
	}
	if v.Problem != nil {
		if v.Problem.Seq != nil {
			fields = append(fields, []string{"breaks at", strconv.FormatInt(*v.Problem.Seq, 10)})
		}
		fields = append(fields, []string{"problem", v.Problem.Reason})
	}
	return fields
}

var failedHead = term.Head{
	{Title: "MINUTE"}, {Title: "ACCOUNT", Gives: term.Some}, {Title: "ADDRESS", Gives: term.Some}, {Title: "COUNT"},
}

func auditFailedCommand() *cobra.Command {
	var since string
	cmd := listing(&cobra.Command{
		Use:     "failed-sign-ins",
		Short:   "Show how often sign-ins failed",
		Long:    `Failed-sign-ins prints how often sign-ins failed, by account, address and minute.`,
		Example: `  rolecall audit failed-sign-ins --since 24h`,
		Args:    term.NoArguments,
	}, failedHead)
	cmd.Flags().StringVar(&since, "since", "",
		"only from this `time` on: like 2027-01-31T18:00:00Z or 2027-01-31, or 7d for a week ago")
	return onServer(cmd, func(c *call) error {
		query := url.Values{}
		if c.given("since") {
			t, err := past("since", since)
			if err != nil {
				return err
			}
			query.Set("since", t.Format(time.RFC3339))
		}
		return printPages(c, client.AuditPath+"/failed-sign-ins", query, failedHead, func(all []*client.FailedSignIns) [][]string {
			var guids []string
			for _, n := range all {
				guids = append(guids, n.Account)
			}
			names := accountNames(c, guids...)
			var rows [][]string
			for _, n := range all {
				rows = append(rows, []string{term.Time(&n.Minute), names[n.Account], n.Address, strconv.Itoa(n.Count)})
			}
			return rows
		})
	})
}
