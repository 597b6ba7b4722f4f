package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
)

func operationsCommand() *cobra.Command {
	return term.Group("operations", "Operations: one action on many users, in the background",
		operationsListCommand(), operationsShowCommand(), operationsWatchCommand(), operationsCancelCommand())
}

var operationHead = term.Head{
	{Title: "ID", Name: true}, {Title: "ACTION"}, {Title: "STATE", State: true}, {Title: "USERS"}, {Title: "DONE"},
	{Title: "FAILED"}, {Title: "SKIPPED", Gives: term.Some}, {Title: "ACCOUNT", Gives: term.Some},
	{Title: "STARTED", Gives: term.More},
}

func operationsListCommand() *cobra.Command {
	return onServer(listing(&cobra.Command{
		Use:   "list",
		Short: "List operations, the newest first",
		Long: `List prints your operations; admins and auditors see all. An operation is listed for 90 days
after its end.`,
		Example: `  rolecall operations list --limit 10`,
		Args:    term.NoArguments,
	}, operationHead), list(func(*call) (string, url.Values) { return client.OperationsPath, nil }, operationHead,
		func(o *client.Operation) []string {
			return []string{o.ID, o.Action, o.State, strconv.Itoa(o.Counts.Total), strconv.Itoa(o.Counts.Done),
				strconv.Itoa(o.Counts.Failed), strconv.Itoa(o.Counts.Skipped), o.Account.Username, term.Time(&o.CreatedAt)}
		}))
}

// ofOperation completes a command on one operation.
func ofOperation(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	cmd.Args = term.Arguments("ID")
	cmd.ValidArgsFunction = firstArgument(complete(func(*cobra.Command, *client.Client) (string, error) {
		return client.OperationsPath, nil
	}, "id"))
	return onServer(cmd, run)
}

var resultHead = term.Head{
	{Title: "CLUSTER", Gives: term.Some}, {Title: "NAME", Name: true}, {Title: "STATE", State: true},
	{Title: "DETAIL", Gives: term.Most},
}

func resultRow(r *client.OperationResult) []string {
	return []string{r.Cluster.Name, r.Username, r.State, r.Detail}
}

func operationsShowCommand() *cobra.Command {
	var results bool
	cmd := listing(&cobra.Command{
		Use:   "show ID",
		Short: "Show an operation, or its results",
		Example: `  rolecall operations show 0199c2a4-7d40-7a12-9c5b-2f8e6d1a7b34
  rolecall operations show 0199c2a4-7d40-7a12-9c5b-2f8e6d1a7b34 --results --filter state=failed`,
	}, resultHead)
	cmd.Flags().BoolVar(&results, "results", false, "list the result of each user")
	return ofOperation(cmd, func(c *call) error {
		if results {
			return list(func(c *call) (string, url.Values) { return client.OperationPath(c.args[0], "results"), nil }, resultHead,
				resultRow)(c)
		}
		return show(func(c *call) string { return client.OperationPath(c.args[0]) }, operationFields)(c)
	})
}

func operationFields(_ *call, o *client.Operation) [][]string {
	fields := [][]string{
		{"id", o.ID}, {"action", o.Action}, {"state", o.State}, {"reason", o.Reason},
		{"users", strconv.Itoa(o.Counts.Total)}, {"done", strconv.Itoa(o.Counts.Done)},
		{"failed", strconv.Itoa(o.Counts.Failed)}, {"skipped", strconv.Itoa(o.Counts.Skipped)},
		{"account", o.Account.Username}, {"started", term.Time(&o.CreatedAt)}, {"ended", term.Time(o.EndedAt)},
	}
	for _, u := range o.Unreachable {
		fields = append(fields, []string{"unreachable", u.Cluster.Name + ": " + u.Error})
	}
	return fields
}

func operationsWatchCommand() *cobra.Command {
	return ofOperation(printing(&cobra.Command{
		Use:   "watch ID",
		Short: "Wait for the end of an operation, and show how far it is",
		Long: `Watch shows how far an operation is until it ends, and then the users that failed. With -o
json it prints the result of each user, one on a line. The exit code is 1 if a user failed, or
if the operation did not end by itself. Interrupting it leaves the operation alone.`,
		Example: `  rolecall operations watch 0199c2a4-7d40-7a12-9c5b-2f8e6d1a7b34`,
	}), func(c *call) error { return watchOperation(c, c.args[0]) })
}

func operationsCancelCommand() *cobra.Command {
	return ofOperation(printing(&cobra.Command{
		Use:   "cancel ID",
		Short: "Skip the rest of an operation",
		Long: `Cancel skips the users with which the operation has not begun. Those in progress go on to
their end. What is done stays done.`,
		Example: `  rolecall operations cancel 0199c2a4-7d40-7a12-9c5b-2f8e6d1a7b34`,
	}), func(c *call) error {
		answer, err := c.send(http.MethodPost, client.OperationPath(c.args[0], "cancel"), nil)
		if err != nil {
			return err
		}
		o, err := term.Decode[client.Operation](answer)
		if err != nil {
			return err
		}
		c.report("The operation %s is %s: %s.", o.ID, o.State, countsOf(o))
		return term.PrintUnlessTable(c.cmd, answer)
	})
}

func countsOf(o *client.Operation) string {
	return fmt.Sprintf("%d done, %d failed, %d skipped", o.Counts.Done, o.Counts.Failed, o.Counts.Skipped)
}

// many is the flags by which a command on one user is a command on many.
type many struct {
	filter userFilter
	plan   bool // of a command that has no --plan of its own
	// credentials says that they are stored credentials, which are chosen by name only.
	credentials bool
	name        string
}

// bind gives a command the flags. If it has a flag --plan of its own, for one user, that applies to many as well.
func (m *many) bind(cmd *cobra.Command) {
	if m.credentials {
		cmd.Flags().BoolVar(&m.filter.allClusters, "all-clusters", false, "credentials of all clusters, chosen by --name")
		cmd.Flags().StringVar(&m.name, "name", "", "only credentials of this `name`; * stands for any characters")
	} else {
		m.filter.bind(cmd)
	}
	if cmd.Flags().Lookup("plan") == nil {
		cmd.Flags().BoolVar(&m.plan, "plan", false, "show what would be done, and change nothing")
	}
	if cmd.Flags().Lookup("yes") == nil {
		term.BindYes(cmd)
	}
}

// oneOrMany completes a command on the user or credential that its argument names, or on those that flags choose. names
// completes the argument; one is the command on one, and request returns the action on many.
func oneOrMany(cmd *cobra.Command, m *many, names cobra.CompletionFunc, one func(*call) error,
	request func(*call) (action string, options map[string]any, err error)) *cobra.Command {
	m.bind(cmd)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if m.chosen(cmd) {
			return term.NoArguments(cmd, args)
		}
		return term.Arguments("NAME")(cmd, args)
	}
	cmd.ValidArgsFunction = firstArgument(names)
	cmd.Flags().StringP("cluster", "c", "", "`name` or id of the cluster [$"+ClusterVariable+"]")
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	return onServer(cmd, func(c *call) (err error) {
		if m.filter.allClusters && c.given("cluster") {
			return term.Usage("--all-clusters and --cluster exclude each other; omit one of them")
		}
		if !m.filter.allClusters {
			if c.cluster, err = clusterOfFlag(c.cmd, c.client); err != nil {
				return err
			}
		}
		plan, _ := c.cmd.Flags().GetBool("plan")
		if !m.chosen(c.cmd) && !m.plan {
			return one(c)
		}
		action, options, err := request(c)
		if err != nil {
			return err
		}
		body := map[string]any{"action": action}
		if len(options) > 0 {
			body["options"] = options
		}
		if err := m.choose(c, body); err != nil {
			return err
		}
		return runMany(c, body, plan)
	})
}

// chosen reports whether flags choose the users.
func (m *many) chosen(cmd *cobra.Command) bool {
	if m.credentials {
		return m.filter.allClusters || cmd.Flags().Changed("name")
	}
	return m.filter.given(cmd)
}

// choose adds the filter or the list of users to the body of a request.
func (m *many) choose(c *call, body map[string]any) error {
	if !m.chosen(c.cmd) {
		list, name := "users", "username"
		if m.credentials {
			list, name = "credentials", "name"
		}
		body[list] = []map[string]string{{"cluster": c.cluster.ID, name: c.args[0]}}
		return nil
	}
	filter := map[string]any{}
	var err error
	if !m.credentials {
		if filter, err = m.filter.conditions(c); err != nil {
			return err
		}
	} else if m.name != "" {
		filter["name"] = m.name
	}
	if len(filter) == 0 {
		return term.Usage("--all-clusters needs at least one condition, such as --name")
	}
	if c.cluster != nil {
		filter["cluster"] = c.cluster.ID
	}
	body["filter"] = filter
	return nil
}

var planHead = term.Head{
	{Title: "CLUSTER", Gives: term.Some}, {Title: "NAME", Name: true}, {Title: "ACTION"}, {Title: "NOTE", Gives: term.Most},
}

func planRow(u *client.PlannedUser) []string {
	note := strings.Join(u.Blockers, " ")
	action := u.Action
	switch {
	case u.Skipped != "":
		action, note = "skip", u.Skipped
	case u.NewValidUntil != nil:
		note = strings.TrimSpace(fmt.Sprintf("expires: %s; now: %s. %s", term.Time(u.NewValidUntil),
			term.TimeOrNever(u.ValidUntil), note))
	}
	return []string{u.Cluster.Name, u.Username, action, note}
}

// exactly is how many users of a plan are named in the request that follows, so that no other user is changed.
const exactly = 400

// runMany shows a plan and, unless that is all, asks, starts the operation, and watches it.
func runMany(c *call, body map[string]any, only bool) error {
	answer, err := c.client.Do(c.cmd.Context(), client.Request{Method: http.MethodPost, Path: client.OperationsPath,
		Query: url.Values{"plan": {"true"}}, Body: body})
	if err != nil {
		return err
	}
	plan, err := term.Decode[client.OperationPlan](answer.JSON)
	if err != nil {
		return err
	}
	missed := incomplete(c, plan.Unreachable, "the plan")
	if only {
		if !term.IsTable(c.cmd) {
			err = term.PrintData(c.cmd, answer.JSON)
		} else {
			err = printPlan(c, plan, term.TableOf(c.cmd, planHead))
		}
		return cmp.Or(err, missed)
	}
	work := plan.Total - plan.Skipped
	if work == 0 {
		c.report("There is nothing to do: nobody matches, or all are skipped (%d).", plan.Skipped)
		return missed
	}
	if term.Asks(c.cmd) {
		if err := printPlan(c, plan, term.NewTable(c.cmd.ErrOrStderr(), planHead)); err != nil {
			return err
		}
	}
	if err := term.Confirm(c.cmd, "%s: %d, skip: %d. Go ahead?", body["action"], work, plan.Skipped); err != nil {
		return err
	}
	nameUsers(plan, body)
	started, err := c.send(http.MethodPost, client.OperationsPath, body)
	if err != nil {
		return err
	}
	if plan, err = term.Decode[client.OperationPlan](started); err != nil {
		return err
	}
	c.report("The operation %s was started.", plan.ID)
	return cmp.Or(watchOperation(c, plan.ID), missed)
}

// nameUsers puts the users of a plan into the request in place of the filter, if they are few enough. Otherwise users that
// begin to match in the meantime are changed, too.
func nameUsers(plan *client.OperationPlan, body map[string]any) {
	if plan.Total > exactly || body["filter"] == nil {
		return
	}
	list, field := "users", "username"
	if body["action"] == "rotateCredential" {
		list, field = "credentials", "name"
	}
	var users []map[string]string
	for _, u := range plan.Plan {
		users = append(users, map[string]string{"cluster": u.Cluster.ID, field: u.Username})
	}
	delete(body, "filter")
	body[list] = users
}

func printPlan(c *call, plan *client.OperationPlan, table *term.Table) error {
	rows := make([][]string, len(plan.Plan))
	for i := range plan.Plan {
		rows[i] = planRow(&plan.Plan[i])
	}
	if err := table.Print(rows); err != nil {
		return err
	}
	if more := plan.Total - len(plan.Plan); more > 0 {
		c.report("And %d more.", more)
	}
	if plan.Unchecked > 0 {
		c.report("Not checked for what blocks the deletion: %d users.", plan.Unchecked)
	}
	return nil
}

// watchEvery is the pause between two requests for the state of an operation.
const watchEvery = 500 * time.Millisecond

// watchOperation shows how far an operation is until it ends, and then its results.
func watchOperation(c *call, id string) error {
	progress := term.NewProgress(c.cmd)
	for {
		answer, err := c.get(client.OperationPath(id), nil)
		var o *client.Operation
		if err == nil {
			o, err = term.Decode[client.Operation](answer)
		}
		if c.cmd.Context().Err() != nil {
			progress.End()
			term.Warn(c.cmd, "The operation goes on. To watch it: rolecall operations watch %s. To cancel it: rolecall operations "+
				"cancel %[1]s.", id)
			return c.cmd.Context().Err()
		}
		if err != nil {
			progress.End()
			return err
		}
		remark := ""
		if o.Counts.Failed > 0 {
			remark = fmt.Sprintf(", %d failed", o.Counts.Failed)
		}
		for _, u := range o.Unreachable {
			remark += ", unreachable: " + u.Cluster.Name
		}
		progress.Show(o.Counts.Done+o.Counts.Failed+o.Counts.Skipped, o.Counts.Total, remark)
		if o.EndedAt != nil {
			progress.End()
			return endOperation(c, o)
		}
		select {
		case <-c.cmd.Context().Done():
		case <-time.After(watchEvery):
		}
	}
}

// endOperation prints the results of an operation that has ended: for people those that are not done.
func endOperation(c *call, o *client.Operation) error {
	query := url.Values{"limit": {strconv.Itoa(longestPage)}}
	if term.IsTable(c.cmd) {
		query["state"] = []string{"failed", "skipped"}
	}
	items, err := c.client.Items(c.cmd.Context(), client.OperationPath(o.ID, "results"), query)
	if err != nil {
		return err
	}
	if !term.IsTable(c.cmd) {
		if err := printLines(c, items); err != nil {
			return err
		}
	} else if len(items) > 0 {
		results, err := term.DecodeAll[client.OperationResult](items)
		if err != nil {
			return err
		}
		rows := make([][]string, len(results))
		for i, r := range results {
			rows[i] = resultRow(r)
		}
		if err := term.TableOf(c.cmd, resultHead).Print(rows); err != nil {
			return err
		}
	}
	c.report("The operation is %s: %s.", o.State, countsOf(o))
	switch {
	case o.State == "failed":
		return term.Exit(1, "the operation failed: %s", o.Reason)
	case o.State != "done":
		return term.Exit(1, "the operation was canceled")
	case o.Counts.Failed > 0:
		return term.Exit(1, "%d of %d failed", o.Counts.Failed, o.Counts.Total)
	}
	return nil
}

// printLines prints JSON, one value on a line; in YAML a list.
func printLines(c *call, items []json.RawMessage) error {
	if term.Format(c.cmd) != "json" {
		return term.PrintData(c.cmd, items)
	}
	for _, item := range items {
		if _, err := fmt.Fprintln(c.cmd.OutOrStdout(), string(item)); err != nil {
			return err
		}
	}
	return nil
}

// plainly is an action without options.
func plainly(action string) func(*call) (string, map[string]any, error) {
	return func(*call) (string, map[string]any, error) { return action, nil, nil }
}

func usersEndSessionsCommand() *cobra.Command {
	var m many
	return oneOrMany(printing(&cobra.Command{
		Use:   "end-sessions [NAME]",
		Short: "End the sessions of a database user, or of many",
		Long: `End-sessions ends the sessions that a database user has. It may log in again.

` + manyHelp,
		Example: `  rolecall users end-sessions app -c payments
  rolecall users end-sessions --created-by eve --all-clusters`,
	}), &m, completeUsers, (&limits{endSessions: true}).set, plainly("endSessions"))
}

// manyHelp is the part of the help of each command on many users.
const manyHelp = `Without NAME, it concerns all users that match the flags, in one cluster or with --all-clusters
in all that you may manage. It shows the plan, asks, and shows how far it is. --plan shows the
plan only. Rolecall goes on if you interrupt the command. The exit code is 1 if a user failed.`

// expiry is the flags of users expire.
type expiry struct{ in, at string }

func usersExpireCommand() *cobra.Command {
	var m many
	var e expiry
	cmd := printing(&cobra.Command{
		Use:   "expire [NAME]",
		Short: "Set when the password of a database user, or of many, expires",
		Long: `Expire sets the time after which the password of a database user is no longer accepted. A
later time than before extends it.

` + manyHelp,
		Example: `  rolecall users expire app -c payments --in 7d
  rolecall users expire --created-by eve --all-clusters --at 2027-01-31`,
	})
	cmd.Flags().StringVar(&e.in, "in", "", "`duration` from now after which it expires, like 7d")
	cmd.Flags().StringVar(&e.at, "at", "", "`time` at which it expires, like 2027-01-31T18:00:00Z or 2027-01-31")
	return oneOrMany(cmd, &m, completeLasting, func(c *call) error {
		_, options, err := e.request(c)
		if err != nil {
			return err
		}
		until, isTime := options["validUntil"].(time.Time)
		if !isTime {
			d, _ := moment.Duration(e.in) // request has read it
			until = time.Now().Add(d).UTC().Truncate(time.Second)
		}
		answer, err := c.send(http.MethodPatch, userPath(c), map[string]any{"validUntil": until})
		if err != nil {
			return err
		}
		u, err := term.Decode[client.User](answer)
		if err != nil {
			return err
		}
		c.report("Database user %q of cluster %q expires: %s.", u.Username, c.cluster.Name, term.TimeOrNever(u.ValidUntil))
		return term.PrintUnlessTable(c.cmd, answer)
	}, e.request)
}

// request is the options of the operation.
func (e *expiry) request(c *call) (action string, options map[string]any, err error) {
	switch {
	case c.given("in") == c.given("at"):
		return "", nil, term.Usage("give --in DURATION or --at TIME")
	case c.given("in"):
		if d, err := moment.Duration(e.in); err != nil || d <= 0 {
			return "", nil, term.Usage("--in is %q; use a duration like 7d", e.in)
		}
		return "expire", map[string]any{"after": e.in}, nil
	}
	at, err := moment.Time(e.at)
	if err != nil {
		return "", nil, term.Usage("--at is %q; use %s", e.at, moment.TimeForm)
	}
	return "expire", map[string]any{"validUntil": at}, nil
}
