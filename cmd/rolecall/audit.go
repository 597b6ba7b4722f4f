package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rolecall/internal/client"
)

const auditPath = "/rolecall/v1/audit"

type auditRow struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Phase   string    `json:"phase"`
	Action  string    `json:"action"`
	Outcome *string   `json:"outcome"`
	Account struct {
		GUID     string `json:"guid"`
		Username string `json:"username"`
	} `json:"account"`
	Cluster *string         `json:"cluster"`
	User    string          `json:"user"`
	Address string          `json:"address"`
	Detail  json.RawMessage `json:"detail"`
}

// auditFilter is which rows are asked for.
type auditFilter struct {
	account, cluster, user, action, outcome, since, until string
}

func (f *auditFilter) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.account, "account", "", "only what this `account` did, by its user name or guid")
	flags.StringVarP(&f.cluster, "cluster", "c", "", "only what was done in this cluster, by its `name` or id")
	flags.StringVar(&f.user, "user", "", "only what was done to this `name`: a database user, database, account or cluster")
	flags.StringVar(&f.action, "action", "", "only this `action`, such as user.create")
	flags.StringVar(&f.outcome, "outcome", "", "only this `outcome`: done, not_done, unknown or denied")
	flags.StringVar(&f.since, "since", "", "only rows from this `time` on: like 2027-01-31T18:00:00Z, or 24h for a day ago")
	flags.StringVar(&f.until, "until", "", "only rows before this `time`")
	_ = cmd.RegisterFlagCompletionFunc("account", completeAccounts)
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	_ = cmd.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions([]string{"done", "not_done", "unknown", "denied"}, cobra.ShellCompDirectiveNoFileComp))
}

// query reads the filter. clusters are those that the caller may view; one that is no longer registered is given by its id.
func (f *auditFilter) query(flags *pflag.FlagSet, clusters map[string]string) (url.Values, error) {
	q := url.Values{}
	for _, filter := range []struct{ name, value string }{
		{"account", f.account}, {"user", f.user}, {"action", f.action}, {"outcome", f.outcome}, {"since", f.since}, {"until", f.until},
	} {
		if !flags.Changed(filter.name) {
			continue
		}
		if filter.name == "since" || filter.name == "until" {
			t, err := moment(filter.name, filter.value)
			if err != nil {
				return nil, err
			}
			filter.value = t.Format(time.RFC3339)
		}
		q.Set(filter.name, filter.value)
	}
	if f.cluster != "" {
		q.Set("cluster", f.cluster)
		for id, name := range clusters {
			if name == f.cluster {
				q.Set("cluster", id)
			}
		}
		if id := q.Get("cluster"); len(id) != 36 && clusters[id] == "" {
			return nil, client.NotFound("There is no cluster %q that you may view; one that was removed is given by its id.", f.cluster)
		}
	}
	return q, nil
}

// moment reads a time, or how long ago one was.
func moment(flag, value string) (time.Time, error) {
	if d, err := time.ParseDuration(value); err == nil {
		return time.Now().Add(-d).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return t, usage("--%s is %q; it takes a time like 2027-01-31T18:00:00Z, or a duration like 24h for so long ago", flag, value)
	}
	return t, nil
}

const defaultLast = 100

func auditCommand() *cobra.Command {
	var o output
	var f auditFilter
	var follow bool
	var last int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, and what came of it",
		Long: `Audit prints rows of the audit log, the oldest first: the last 100, or as many as --last
says (0 for all), or all of a time that --since or --until names. A change has two rows,
the attempt and its outcome. --follow goes on with rows as they come.

-o jsonl without --follow and --last exports all rows, one a line, with the code that
chains each to the one before it, and ends with the head of the chain; keep that for:
rolecall audit verify --anchor.`,
		Example: `  rolecall audit --since 24h -c payments
  rolecall audit --account alice --outcome denied --last 0
  rolecall audit --follow
  rolecall audit -o jsonl > audit.jsonl`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; see %s --help", cmd.CommandPath()+" "+args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := cmd.Flags()
			if last < 0 {
				return usage("--last is %d; it takes a number of rows, or 0 for all", last)
			}
			if follow && (flags.Changed("until") || o.format == "json" || o.format == "yaml") {
				return usage("--follow goes with -o table or jsonl, and without --until")
			}
			c, err := connect()
			if err != nil {
				return err
			}
			me, err := whoami(cmd.Context(), c)
			if err != nil {
				return err
			}
			p := &auditPrinter{cmd: cmd, o: o, clusters: map[string]string{}}
			for _, cl := range me.Clusters {
				p.clusters[cl.ID] = cl.Name
			}
			query, err := f.query(flags, p.clusters)
			if err != nil {
				return err
			}
			if o.format == "jsonl" && !follow && !flags.Changed("last") {
				return export(cmd, c, query)
			}
			if !flags.Changed("last") && (flags.Changed("since") || flags.Changed("until")) {
				last = 0
			}
			if follow {
				return p.follow(cmd.Context(), c, query, last)
			}
			rows, err := auditRows(cmd.Context(), c, query, last)
			if err != nil {
				return err
			}
			if err := p.print(rows); err != nil {
				return err
			}
			if len(rows) == last && !flags.Changed("last") {
				did(cmd, "These are the last %d rows; --last 0 shows all.", last)
			}
			return nil
		},
	}
	f.bind(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with rows as they come")
	cmd.Flags().IntVarP(&last, "last", "n", defaultLast, "only the last rows, so `many`; 0 for all")
	o.bind(cmd, "jsonl")
	cmd.AddCommand(auditVerifyCommand(), auditFailedCommand())
	return cmd
}

// auditRows returns the last rows, or all of them when last is 0, the oldest first.
func auditRows(ctx context.Context, c *client.Client, query url.Values, last int) ([]json.RawMessage, error) {
	q := url.Values{"limit": {"1000"}}
	for name, value := range query {
		q[name] = value
	}
	if last == 0 {
		return c.Items(ctx, auditPath, q)
	}
	q.Set("order", "desc")
	var rows []json.RawMessage
	for {
		q.Set("limit", strconv.Itoa(min(last-len(rows), 1000)))
		items, next, err := c.Page(ctx, auditPath, q)
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

// export copies the server's export, whose last line is the head of the chain.
func export(cmd *cobra.Command, c *client.Client, query url.Values) error {
	lines, err := c.Stream(cmd.Context(), auditPath, query, "application/jsonl")
	if err != nil {
		return err
	}
	defer lines.Close()
	if _, err := io.Copy(cmd.OutOrStdout(), lines); err != nil {
		return fmt.Errorf("the export was cut off: %w", err)
	}
	return nil
}

// auditPrinter prints rows as they come.
type auditPrinter struct {
	cmd      *cobra.Command
	o        output
	clusters map[string]string // names by ids
	headed   bool
}

func (p *auditPrinter) print(rows []json.RawMessage) error {
	switch p.o.format {
	case "jsonl":
		for _, row := range rows {
			if _, err := fmt.Fprintf(p.cmd.OutOrStdout(), "%s\n", row); err != nil {
				return err
			}
		}
		return nil
	case "table":
	default:
		return printList[auditRow](p.cmd, p.o, rows, "", nil)
	}
	if len(rows) == 0 && p.headed {
		return nil
	}
	var table [][]string
	if !p.headed {
		table = append(table, p.line("TIME", "ACCOUNT", "ACTION", "OUTCOME", "CLUSTER", "ON", "DETAIL"))
		p.headed = true
	}
	all, err := decodeAll[auditRow](rows)
	if err != nil {
		return err
	}
	for _, r := range all {
		account, outcome, cluster, detail := r.Account.Username, r.Phase, "", string(r.Detail)
		if account == "" {
			account = r.Account.GUID
		}
		if r.Outcome != nil {
			outcome = *r.Outcome
		}
		if r.Cluster != nil {
			if cluster = p.clusters[*r.Cluster]; cluster == "" {
				cluster = *r.Cluster
			}
		}
		if detail == "{}" {
			detail = ""
		}
		table = append(table, p.line(when(&r.Time), account, r.Action, outcome, cluster, r.User, detail))
	}
	return printTable(p.cmd.OutOrStdout(), table)
}

// line pads its cells, so that rows which come later stand in the same columns if they can.
func (p *auditPrinter) line(cells ...string) []string {
	for i, width := range []int{19, 12, 16, 8, 12, 16} {
		cells[i] = fmt.Sprintf("%-*s", width, cells[i])
	}
	return cells
}

// The server holds a request for rows for waitSeconds at most. followPause is how long to leave it alone when it fails.
const (
	waitSeconds = "20"
	followPause = 2 * time.Second
)

// follow prints the last rows and then each one that comes, until it is interrupted. A server that restarts is waited for.
func (p *auditPrinter) follow(ctx context.Context, c *client.Client, query url.Values, last int) error {
	// Where no row of the filter is there yet, it goes on behind the last row of all.
	newest, err := auditRows(ctx, c, nil, 1)
	if err != nil {
		return err
	}
	rows, err := auditRows(ctx, c, query, last)
	if err != nil {
		return err
	}
	after := int64(0)
	for failing := false; ; {
		for _, some := range [][]json.RawMessage{newest, rows} {
			if len(some) > 0 {
				r, err := decode[auditRow](some[len(some)-1])
				if err != nil {
					return err
				}
				after = max(after, r.Seq)
			}
		}
		if err := p.print(rows); err != nil {
			return err
		}
		q := url.Values{"after": {strconv.FormatInt(after, 10)}, "wait": {waitSeconds}, "limit": {"1000"}}
		for name, value := range query {
			q[name] = value
		}
		newest = nil
		rows, _, err = c.Page(ctx, auditPath, q)
		if ctx.Err() != nil {
			return nil
		}
		if status := client.Status(err); err != nil && status >= 400 && status < 500 && status != http.StatusTooManyRequests {
			return err
		}
		if err != nil {
			if _, ok := errors.AsType[*deniedError](err); ok {
				return err
			}
			if !failing {
				did(p.cmd, "%v Waiting.", err)
			}
			select {
			case <-time.After(followPause):
			case <-ctx.Done():
				return nil
			}
		}
		failing = err != nil
	}
}

type verification struct {
	OK      bool  `json:"ok"`
	Checked int64 `json:"checked"`
	Head    struct {
		Seq int64  `json:"seq"`
		MAC string `json:"mac"`
	} `json:"head"`
	Unsealed struct {
		Count  int64      `json:"count"`
		Oldest *time.Time `json:"oldest"`
	} `json:"unsealed"`
	AnchorRemoved bool `json:"anchorRemoved"`
	Problem       *struct {
		Seq    *int64 `json:"seq"`
		ID     *int64 `json:"id"`
		Reason string `json:"reason"`
	} `json:"problem"`
}

func auditVerifyCommand() *cobra.Command {
	var o output
	var anchor string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Verify that the audit log is as it was recorded",
		Long: `Verify goes through the chain of the audit log and names the first row that was altered or
is missing. Rows that were cut off at the end show only against an anchor: the head of the
chain as an earlier verify, an export or the server's log has named it.

It ends with 0 when everything holds, and with 1 when something does not.`,
		Example: `  rolecall audit verify
  rolecall audit verify --anchor 1234:5f0c…`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			var query url.Values
			if anchor != "" {
				query = url.Values{"anchor": {anchor}}
			}
			answer, err := c.Get(cmd.Context(), auditPath+"/verify", query)
			if err != nil {
				return err
			}
			v, err := decode[verification](answer)
			if err != nil {
				return err
			}
			if err := printOne(cmd, o, answer, (*verification).fields); err != nil {
				return err
			}
			if v.Problem != nil {
				return fmt.Errorf("the audit log does not hold: %s", v.Problem.Reason)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&anchor, "anchor", "", "`head` of the chain at an earlier time, as it is printed here")
	o.bind(cmd)
	return cmd
}

func (v *verification) fields() [][]string {
	fields := [][]string{
		{"holds", yesNo(v.OK)},
		{"rows checked", strconv.FormatInt(v.Checked, 10)},
		{"head", fmt.Sprintf("%d:%s", v.Head.Seq, v.Head.MAC)},
		{"not sealed yet", strconv.FormatInt(v.Unsealed.Count, 10)},
	}
	if v.Unsealed.Oldest != nil {
		fields = append(fields, []string{"oldest of these", when(v.Unsealed.Oldest)})
	}
	if v.AnchorRemoved {
		fields = append(fields, []string{"anchor", "lies before the oldest row that is kept, so it says nothing"})
	}
	if v.Problem != nil {
		if v.Problem.Seq != nil {
			fields = append(fields, []string{"breaks at", strconv.FormatInt(*v.Problem.Seq, 10)})
		}
		fields = append(fields, []string{"problem", v.Problem.Reason})
	}
	return fields
}

func auditFailedCommand() *cobra.Command {
	var o output
	var since string
	cmd := &cobra.Command{
		Use:     "failed-sign-ins",
		Short:   "Show how often signing in has failed",
		Long:    `Failed-sign-ins prints how often signing in has failed, by account, address and minute.`,
		Example: `  rolecall audit failed-sign-ins --since 24h`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"limit": {"1000"}}
			if cmd.Flags().Changed("since") {
				t, err := moment("since", since)
				if err != nil {
					return err
				}
				query.Set("since", t.Format(time.RFC3339))
			}
			c, err := connect()
			if err != nil {
				return err
			}
			counts, err := c.Items(cmd.Context(), auditPath+"/failed-sign-ins", query)
			if err != nil {
				return err
			}
			type count struct {
				Minute  time.Time `json:"minute"`
				Account string    `json:"account"`
				Address string    `json:"address"`
				Count   int       `json:"count"`
			}
			var names map[string]string
			if o.format == "table" {
				all, err := decodeAll[count](counts)
				if err != nil {
					return err
				}
				var guids []string
				for _, n := range all {
					guids = append(guids, n.Account)
				}
				names = accountNames(cmd.Context(), c, guids...)
			}
			return printList(cmd, o, counts, "MINUTE,ACCOUNT,ADDRESS,COUNT", func(n *count) []string {
				return []string{when(&n.Minute), names[n.Account], n.Address, strconv.Itoa(n.Count)}
			})
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "only from this `time` on: like 2027-01-31T18:00:00Z, or 24h for a day ago")
	o.bind(cmd)
	return cmd
}
