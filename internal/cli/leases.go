package cli

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
)

func leasesCommand() *cobra.Command {
	return term.Group("leases", "Leases: database users that end by themselves",
		leasesCreateCommand(), leasesListCommand(), leasesShowCommand(), leasesRenewCommand(), leasesEndCommand())
}

// newLease is the flags of the commands that take a lease.
type newLease struct {
	role, ttl, maxTTL, note string
	database                string // of exec and psql
}

func (n *newLease) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	bindFor(cmd, &n.role)
	f.StringVar(&n.ttl, "ttl", "", "`duration` of the lease, and of each renewal, like 15m; default: set by the cluster")
	f.StringVar(&n.note, "note", "", "`text` that is shown with the lease")
}

// bindFor gives a command the flag --for.
func bindFor(cmd *cobra.Command, role *string) {
	cmd.Flags().StringVar(role, "for", "", "`role` to act for: a database user, or one of the cluster's roles for users")
	_ = cmd.RegisterFlagCompletionFunc("for", completeHeirs)
}

// check finds mistakes before anything is asked for.
func (n *newLease) check() error {
	if n.role == "" {
		return term.Usage("--for is missing: the role that the lease acts for")
	}
	return checkDurations(map[string]string{"ttl": n.ttl, "max-ttl": n.maxTTL})
}

// checkDurations reads the values of flags that are durations; "" is none.
func checkDurations(flags map[string]string) error {
	for flag, value := range flags {
		if _, err := moment.Duration(value); err != nil && value != "" {
			return term.Usage("--%s is %q: %w", flag, value, err)
		}
	}
	return nil
}

// request is the body of the request. note is used if none is given.
func (n *newLease) request(note string) client.NewLease {
	if n.note != "" {
		note = n.note
	}
	return client.NewLease{For: n.role, TTL: n.ttl, MaxTTL: n.maxTTL, Note: note}
}

func leasesCreateCommand() *cobra.Command {
	var n newLease
	var h handover
	cmd := &cobra.Command{
		Use:   "create --for ROLE [DIR]",
		Short: "Take a lease, and print its password once",
		Long: `Create creates a database user that ends by itself. The user is a member of ROLE, and its
sessions act as ROLE, so what it creates belongs to ROLE. When the lease ends, Rolecall ends
its sessions and drops the user.

The password is printed once, and never shown again. For programs, choose one of these
formats with -o:

    env              shell commands that set PGHOST, PGUSER, PGPASSWORD, DATABASE_URL, …
    pgpass           a line for the file .pgpass
    uri, jdbc        a URL that contains the password
    secret           a Kubernetes Secret, with the keys of CloudNativePG and of
                     servicebinding.io
    binding-dir DIR  the files of servicebinding.io, in the new folder DIR`,
		Example: `  rolecall leases create -c payments --for shop_write
  eval "$(rolecall leases create -c payments --for shop_read --ttl 8h -o env)"
  rolecall leases create -c payments --for shop_write -o secret --secret-name shop | kubectl apply -f -
  rolecall leases create -c payments --for shop_write -o binding-dir shop-binding`,
	}
	n.bind(cmd)
	cmd.Flags().StringVar(&n.maxTTL, "max-ttl", "",
		"longest `duration` of the lease, renewals included; default: set by the cluster")
	h.bind(cmd)
	return onCluster(cmd, func(c *call) error {
		if err := n.check(); err != nil {
			return err
		}
		if err := h.check(c, 0); err != nil {
			return err
		}
		answer, err := c.send(http.MethodPost, c.cluster.Path("leases"), n.request(""))
		if err != nil {
			return err
		}
		l, err := term.Decode[client.Lease](answer)
		if err != nil {
			return err
		}
		fields := append(leaseFields(l, c.cluster.Name), []string{"password", string(l.Password)})
		if err := h.print(c, answer, l.Connection.URL, l.Password, fields); err != nil {
			endLease(c, l.ID) // nobody has its password
			return err
		}
		c.report("Lease %s of cluster %q ends at %s. Its password is not shown again.", l.ID, c.cluster.Name,
			term.Time(&l.ExpiresAt))
		return nil
	})
}

// leaseFilter is the flags of leases list.
type leaseFilter struct {
	cluster, account, role, expiresBefore string
	states                                []string
}

var leaseHead = term.Head{
	{Title: "ID", Name: true}, {Title: "NAME", Gives: term.Some}, {Title: "STATE", State: true}, {Title: "ENDS"},
	{Title: "FOR", Gives: term.Some},
	{Title: "CLUSTER", Gives: term.Some}, {Title: "ACCOUNT", Gives: term.More}, {Title: "NOTE", Gives: term.Most},
}

func leasesListCommand() *cobra.Command {
	var f leaseFilter
	cmd := listing(&cobra.Command{
		Use:   "list",
		Short: "List leases, the newest first",
		Long: `List prints your leases, and all leases of the clusters that you may view. A lease that has
ended is listed for seven days.`,
		Example: `  rolecall leases list -c payments --state active,blocked
  rolecall leases list --account alice --expires-before 1h
  rolecall leases list --for shop_write -o json`,
		Args: term.NoArguments,
	}, leaseHead)
	flags := cmd.Flags()
	flags.StringVarP(&f.cluster, "cluster", "c", "", "only leases in this cluster, given by `name` or id")
	flags.StringVar(&f.account, "account", "", "only leases of this `account`, given by user name or guid")
	flags.StringVar(&f.role, "for", "", "only leases that act for this `role`")
	flags.StringSliceVar(&f.states, "state", nil, "only leases in one of these `states`: "+strings.Join(leaseStates, ", "))
	flags.StringVar(&f.expiresBefore, "expires-before", "",
		"only leases that expire before this `time`: like 2027-01-31T18:00:00Z or 2027-01-31, or 1h for an hour from now")
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	_ = cmd.RegisterFlagCompletionFunc("account", completeAccounts)
	_ = cmd.RegisterFlagCompletionFunc("for", completeHeirs)
	term.CompleteWords(cmd, "state", leaseStates...)
	return onServer(cmd, f.list)
}

var leaseStates = []string{"active", "ending", "blocked", "ended"}

func (f *leaseFilter) list(c *call) error {
	path, query := client.LeasesPath, url.Values{}
	if f.cluster != "" {
		cl, err := findCluster(c.cmd.Context(), c.client, f.cluster)
		if err != nil {
			return err
		}
		path = cl.Path("leases")
	}
	for name, value := range map[string]string{"account": f.account, "for": f.role} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for _, state := range f.states {
		if !slices.Contains(leaseStates, state) {
			return term.Usage("--state is %q; use %s%s", state, term.Either(leaseStates),
				term.DidYouMean(state, leaseStates))
		}
		query.Add("state", state)
	}
	if c.given("expires-before") {
		at, err := deadline("expires-before", f.expiresBefore)
		if err != nil {
			return err
		}
		if at == nil {
			return term.Usage("--expires-before is %q; use %s, or %s", f.expiresBefore, moment.TimeForm, moment.DurationForm)
		}
		query.Set("expiresBefore", at.Format(time.RFC3339))
	}
	names, err := knownClusters(c)
	if err != nil {
		return err
	}
	return list(func(*call) (string, url.Values) { return path, query }, leaseHead, func(l *client.Lease) []string {
		return []string{l.ID, l.Username, l.State, term.Time(endOf(l)), l.For, nameOf(names, l.Cluster), ownerOf(l), l.Note}
	})(c)
}

// endOf is when a lease has ended, or when it expires.
func endOf(l *client.Lease) *time.Time {
	if l.EndedAt != nil {
		return l.EndedAt
	}
	return &l.ExpiresAt
}

// ownerOf is the account or the stored credential that a lease belongs to.
func ownerOf(l *client.Lease) string {
	if l.Account == nil {
		return "credential " + l.Credential
	}
	return l.Account.Username
}

var completeLeases = completeFrom(fixed(client.LeasesPath), "id", offer{
	query: url.Values{"state": {"active", "ending", "blocked"}},
})

// ofLease completes a command on one lease.
func ofLease(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	cmd.Args = term.Arguments("ID")
	cmd.ValidArgsFunction = firstArgument(completeLeases)
	return onServer(cmd, run)
}

func leasesShowCommand() *cobra.Command {
	return ofLease(printing(&cobra.Command{
		Use:     "show ID",
		Short:   "Show a lease, without its password",
		Example: `  rolecall leases show 0199c2a4-7d3e-7c51-a0de-5f4b8e21c963`,
	}), func(c *call) error {
		names, err := knownClusters(c)
		if err != nil {
			return err
		}
		return show(leasePath, func(_ *call, l *client.Lease) [][]string {
			return leaseFields(l, nameOf(names, l.Cluster))
		})(c)
	})
}

// leasePath is the path of the lease that the first argument names.
func leasePath(c *call) string { return client.LeasePath(c.args[0]) }

func leaseFields(l *client.Lease, cluster string) [][]string {
	fields := [][]string{
		{"id", l.ID}, {"cluster", cluster}, {"for", l.For}, {"user name", l.Username}, {"state", l.State},
	}
	for _, reason := range l.BlockedBy {
		fields = append(fields, []string{"blocked by", reason})
	}
	fields = append(fields, [][]string{
		{"account", ownerOf(l)}, {"created", term.Time(&l.CreatedAt)}, {"renewed", term.Time(l.RenewedAt)},
		{"expires", term.Time(&l.ExpiresAt)}, {"latest end", term.Time(&l.MaxExpiresAt)},
	}...)
	if l.EndedAt != nil {
		fields = append(fields, []string{"ended", term.Time(l.EndedAt)})
	}
	if l.EndReason != "" {
		fields = append(fields, []string{"end reason", l.EndReason})
	}
	return append(fields, []string{"note", l.Note}, []string{"databases", strings.Join(l.Connection.Databases, ", ")},
		[]string{"connect with", l.Connection.URL})
}

func leasesRenewCommand() *cobra.Command {
	var ttl string
	cmd := printing(&cobra.Command{
		Use:   "renew ID",
		Short: "Move the end of a lease",
		Long: `Renew moves the end of a lease to --ttl from now. The end is never after the latest end, which
"rolecall leases show" prints, and it never moves to an earlier time.`,
		Example: `  rolecall leases renew 0199c2a4-7d3e-7c51-a0de-5f4b8e21c963
  rolecall leases renew 0199c2a4-7d3e-7c51-a0de-5f4b8e21c963 --ttl 8h`,
	})
	cmd.Flags().StringVar(&ttl, "ttl", "", "`duration` from now, like 15m; default: the ttl of its creation")
	return ofLease(cmd, func(c *call) error {
		if err := checkDurations(map[string]string{"ttl": ttl}); err != nil {
			return err
		}
		body := map[string]string{}
		if ttl != "" {
			body["ttl"] = ttl
		}
		answer, err := c.send(http.MethodPost, client.LeasePath(c.args[0], "renew"), body)
		if err != nil {
			return err
		}
		l, err := term.Decode[client.Lease](answer)
		if err != nil {
			return err
		}
		latest := ""
		if !l.ExpiresAt.Before(l.MaxExpiresAt) {
			latest = ", which is its latest end"
		}
		c.report("Lease %s ends at %s%s.", l.ID, term.Time(&l.ExpiresAt), latest)
		return term.PrintUnlessTable(c.cmd, answer)
	})
}

func leasesEndCommand() *cobra.Command {
	return ofLease(printing(&cobra.Command{
		Use:   "end ID",
		Short: "End a lease now",
		Long: `End ends the sessions of a lease and drops its user. If something prevents the drop, the user
can no longer log in, and Rolecall tries again every 30 seconds. "rolecall leases show" prints
what prevents it.`,
		Example: `  rolecall leases end 0199c2a4-7d3e-7c51-a0de-5f4b8e21c963`,
	}), func(c *call) error {
		answer, err := c.send(http.MethodDelete, leasePath(c), nil)
		if err != nil {
			return err
		}
		if answer == nil {
			c.report("Lease %s has ended.", c.args[0])
			return nil
		}
		l, err := term.Decode[client.Lease](answer)
		if err != nil {
			return err
		}
		reportBlocked(c, l)
		return term.PrintUnlessTable(c.cmd, answer)
	})
}

// reportBlocked says what keeps the user of a lease from being dropped.
func reportBlocked(c *call, l *client.Lease) {
	c.warn("Warning: the lease %s has ended. %q can no longer log in, but cannot be dropped yet: %s "+
		"Rolecall tries again every 30 seconds.", l.ID, l.Username, strings.Join(l.BlockedBy, " "))
}
