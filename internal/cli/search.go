package cli

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// userSearch is the flags of users list by which the server chooses.
type userSearch struct {
	userFilter
	system bool
}

// sortsOf are the columns that the server sorts by.
var sortsOf = map[string]string{"cluster": "cluster", "name": "name", "created": "createdAt", "expires": "validUntil",
	"last-seen": "lastSeen"}

func (s *userSearch) bind(cmd *cobra.Command) {
	s.userFilter.bind(cmd)
	cmd.Flags().BoolVar(&s.system, "system", false, "list protected users as well")
}

// query is the search that the flags ask for.
func (s *userSearch) query(c *call) (url.Values, error) {
	conditions, err := s.conditions(c)
	if err != nil {
		return nil, err
	}
	q := url.Values{"system": {strconv.FormatBool(s.system)}}
	if !s.allClusters {
		q.Set("cluster", c.cluster.ID)
	}
	for name, value := range conditions {
		if list, ok := value.([]string); ok {
			q[name] = list
		} else {
			q.Set(name, fmt.Sprint(value))
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
	missing := map[string]client.Unreachable{}
	for {
		q.Set("limit", strconv.Itoa(min(cmp.Or(l.Page(), longestPage), longestPage)))
		items, next, unreachable, err := c.client.SearchPage(c.cmd.Context(), q)
		if err != nil {
			return err
		}
		for _, u := range unreachable {
			missing[u.Cluster.ID] = u
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
	return incomplete(c, slices.Collect(maps.Values(missing)), "the list")
}

// incomplete warns of the clusters that did not answer, and is the error of a result that lacks them; nil if there are none.
func incomplete(c *call, unreachable []client.Unreachable, result string) error {
	if len(unreachable) == 0 {
		return nil
	}
	var lines []string
	for _, u := range unreachable {
		lines = append(lines, strconv.Quote(u.Cluster.Name)+" is unreachable: "+u.Error)
	}
	slices.Sort(lines)
	for _, line := range lines {
		c.warn("cluster %s", line)
	}
	return term.Exit(term.ExitIncomplete, "%s is not complete; run the command again when all clusters answer", result)
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
