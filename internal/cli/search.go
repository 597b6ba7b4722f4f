package cli

import (
	"cmp"
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

// userSearch is the flags of users list by which the server chooses.
type userSearch struct {
	allClusters, system, lease, changedOutside     bool
	name, createdBy, creatorSelector, passwordKind string
	expiresBefore, notSeenFor                      string
	states                                         []string
}

var (
	passwordKinds = []string{"scram-sha-256", "md5", "none", "unknown"}
	searchFlags   = []string{"all-clusters", "name", "created-by", "creator-selector", "state", "password-kind",
		"expires-before", "not-seen-for", "lease", "changed-outside"}
)

// sortsOf are the columns that the server sorts by.
var sortsOf = map[string]string{"cluster": "cluster", "name": "name", "created": "createdAt", "expires": "validUntil"}

func (s *userSearch) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&s.allClusters, "all-clusters", false, "search all clusters that you may view")
	f.StringVar(&s.name, "name", "", "only users of this `name`; * stands for any characters")
	f.StringVar(&s.createdBy, "created-by", "", "only users that this `account` created, given by user name or guid")
	f.StringVar(&s.creatorSelector, "creator-selector", "",
		"only users that an account created whose labels match this `selector`, like team=payments")
	f.StringSliceVar(&s.states, "state", nil, "only users in one of these `states`: "+strings.Join(userStates, ", "))
	f.StringVar(&s.passwordKind, "password-kind", "", "only users with this `kind` of password: "+
		strings.Join(passwordKinds, ", "))
	f.StringVar(&s.expiresBefore, "expires-before", "",
		"only users that expire before this `time`: like 2027-01-31T18:00:00Z or 2027-01-31, or 7d for a week from now")
	f.StringVar(&s.notSeenFor, "not-seen-for", "", "only users without a session for this `duration`, like 90d")
	f.BoolVar(&s.lease, "lease", false, "only users of leases; --lease=false: only others")
	f.BoolVar(&s.changedOutside, "changed-outside", false,
		"only users whose password was changed by SQL; --changed-outside=false: only users for which it was not")
	f.BoolVar(&s.system, "system", false, "list protected users as well")
	_ = cmd.RegisterFlagCompletionFunc("created-by", completeAccounts)
	term.CompleteWords(cmd, "state", userStates...)
	term.CompleteWords(cmd, "password-kind", passwordKinds...)
	term.CompleteWords(cmd, "lease", "true", "false")
	term.CompleteWords(cmd, "changed-outside", "true", "false")
}

// given reports whether the server is to search.
func (s *userSearch) given(c *call) bool { return slices.ContainsFunc(searchFlags, c.given) }

// query is the search that the flags ask for.
func (s *userSearch) query(c *call) (url.Values, error) {
	q := url.Values{}
	if !s.allClusters {
		q.Set("cluster", c.cluster.ID)
	}
	for flag, parameter := range map[string]string{"name": "name", "created-by": "createdBy",
		"creator-selector": "creatorSelector", "password-kind": "passwordKind"} {
		if value, _ := c.cmd.Flags().GetString(flag); c.given(flag) {
			if value == "" {
				return nil, term.Usage("--%s is empty; omit it, or give a value", flag)
			}
			q.Set(parameter, value)
		}
	}
	if s.passwordKind != "" && !slices.Contains(passwordKinds, s.passwordKind) {
		return nil, term.Usage("--password-kind is %q; use %s%s", s.passwordKind, term.Either(passwordKinds),
			term.DidYouMean(s.passwordKind, passwordKinds))
	}
	for _, state := range s.states {
		if !slices.Contains(userStates, state) {
			return nil, term.Usage("--state is %q; use %s%s", state, term.Either(userStates), term.DidYouMean(state, userStates))
		}
		q.Add("state", state)
	}
	if c.given("expires-before") {
		at, err := deadline("expires-before", s.expiresBefore)
		if err != nil {
			return nil, err
		}
		if at == nil {
			return nil, term.Usage("--expires-before is %q; use %s, or %s", s.expiresBefore, moment.TimeForm, moment.DurationForm)
		}
		q.Set("expiresBefore", at.Format(time.RFC3339))
	}
	if c.given("not-seen-for") {
		if d, err := moment.Duration(s.notSeenFor); err != nil || d == 0 {
			return nil, term.Usage("--not-seen-for is %q; use %s", s.notSeenFor, moment.DurationForm)
		}
		q.Set("notSeenFor", s.notSeenFor)
	}
	for flag, parameter := range map[string]string{"lease": "lease", "changed-outside": "passwordChangedOutside",
		"system": "system"} {
		if value, _ := c.cmd.Flags().GetBool(flag); c.given(flag) {
			q.Set(parameter, strconv.FormatBool(value))
		}
	}
	return q, nil
}

// list searches, prints what was found, and names the clusters that did not answer. Then the list is not complete, which the
// exit code shows.
func (s *userSearch) list(c *call) error {
	q, err := s.query(c)
	if err != nil {
		return err
	}
	head := foundHead(s.system, s.allClusters)
	l, err := term.NewList(c.cmd, head)
	if err != nil {
		return err
	}
	if column, descending := l.Sort(); sortsOf[column] != "" {
		by := sortsOf[column]
		if descending {
			by = "-" + by
		}
		q.Set("sort", by)
		l.Sorted()
	}
	away := map[string]client.Unreachable{}
	for {
		q.Set("limit", strconv.Itoa(min(cmp.Or(l.Page(), longestPage), longestPage)))
		items, next, unreachable, err := c.client.SearchPage(c.cmd.Context(), q)
		if err != nil {
			return err
		}
		for _, u := range unreachable {
			away[u.Cluster.ID] = u
		}
		var cells [][]string
		if term.NeedsCells(c.cmd) {
			users, err := term.DecodeAll[client.FoundUser](items)
			if err != nil {
				return err
			}
			cells = foundRows(c, users)
		}
		l.Add(items, cells)
		if next == "" || l.Full() {
			break
		}
		q.Set("cursor", next)
	}
	if err := l.Print(); err != nil {
		return err
	}
	return incomplete(c, away)
}

// incomplete warns of the clusters that did not answer, and is the error of a list that lacks them.
func incomplete(c *call, away map[string]client.Unreachable) error {
	if len(away) == 0 {
		return nil
	}
	var lines []string
	for _, u := range away {
		lines = append(lines, strconv.Quote(u.Cluster.Name)+" is unreachable: "+u.Error)
	}
	slices.Sort(lines)
	for _, line := range lines {
		c.warn("cluster %s", line)
	}
	return term.Exit(term.ExitIncomplete, "the list is not complete: %d clusters did not answer; run the command again",
		len(away))
}

// foundHead is the columns of users list.
func foundHead(system, allClusters bool) term.Head {
	cluster := term.Column{Title: "CLUSTER", Gives: term.Some, Wide: !allClusters}
	return append(term.Head{cluster}, userHead(system)...)
}

func foundRows(c *call, users []*client.FoundUser) [][]string {
	plain := make([]*client.User, len(users))
	for i, u := range users {
		plain[i] = &u.User
	}
	rows := userRows(c, plain)
	for i, u := range users {
		rows[i] = append([]string{u.Cluster.Name}, rows[i]...)
	}
	return rows
}
