package cli

import (
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/moment"
)

// userFilter is the flags that choose database users of many clusters.
type userFilter struct {
	allClusters bool
	texts       map[string]*string // by flag
	states      []string
}

// userFilterFlags are the flags with one value, and the names of the conditions in the API.
var userFilterFlags = []struct{ flag, condition, help string }{
	{"name", "name", "only users of this `name`; * stands for any characters"},
	{"created-by", "createdBy", "only users that this `account` created, given by user name or guid"},
	{"creator-selector", "creatorSelector", "only users that an account with these labels created, like `team=payments`"},
	{"password-kind", "passwordKind", "only users with this `kind` of password: scram-sha-256, md5, none or unknown"},
	{"expires-before", "expiresBefore",
		"only users that expire before this `time`: like 2027-01-31T18:00:00Z or 2027-01-31, or 1h for an hour from now"},
	{"not-seen-for", "notSeenFor", "only users of which no session was seen for this `duration`, like 90d"},
	{"lease", "lease", "`true`: only leases; false: only others"},
	{"password-changed-outside", "passwordChangedOutside",
		"`true`: only users whose password was changed by SQL; false: only others"},
}

// userStates are the states of database users.
var userStates = []string{"active", "expired", "disabled", "deleting"}

func (u *userFilter) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&u.allClusters, "all-clusters", false, "users of all clusters, chosen by the flags below")
	u.texts = map[string]*string{}
	for _, known := range userFilterFlags {
		u.texts[known.flag] = f.String(known.flag, "", known.help)
	}
	f.StringSliceVar(&u.states, "state", nil, "only users in one of these `states`: "+term.Either(userStates))
	_ = cmd.RegisterFlagCompletionFunc("created-by", completeAccounts)
	term.CompleteWords(cmd, "state", userStates...)
	term.CompleteWords(cmd, "password-kind", "scram-sha-256", "md5", "none", "unknown")
	term.CompleteWords(cmd, "lease", "true", "false")
	term.CompleteWords(cmd, "password-changed-outside", "true", "false")
}

// given reports whether one of the conditions is given.
func (u *userFilter) given(cmd *cobra.Command) bool {
	return cmd.Flags().Changed("state") || slices.ContainsFunc(userFilterFlags,
		func(known struct{ flag, condition, help string }) bool { return cmd.Flags().Changed(known.flag) })
}

// query is the conditions as query parameters.
func (u *userFilter) query(c *call) (url.Values, error) {
	query := url.Values{}
	for _, known := range userFilterFlags {
		value := *u.texts[known.flag]
		switch {
		case !c.given(known.flag):
			continue
		case value == "":
			return nil, term.Usage("--%s is empty", known.flag)
		case (known.flag == "lease" || known.flag == "password-changed-outside") && value != "true" && value != "false":
			return nil, term.Usage("--%s is %q; it must be true or false", known.flag, value)
		case known.flag == "not-seen-for":
			if _, err := moment.Duration(value); err != nil {
				return nil, term.Usage("--%s is %q; use a duration like 90d", known.flag, value)
			}
		case known.flag == "expires-before":
			at, err := deadline(known.flag, value)
			if err != nil || at == nil {
				return nil, term.Usage("--%s is %q; use a time like 2027-01-31, or a duration from now like 7d", known.flag, value)
			}
			value = at.Format("2006-01-02T15:04:05Z07:00")
		}
		query.Set(known.condition, value)
	}
	for _, state := range u.states {
		if !slices.Contains(userStates, state) {
			return nil, term.Usage("--state is %q; it must be %s", state, term.Either(userStates))
		}
		query.Add("state", state)
	}
	return query, nil
}

// body is the conditions as the filter of an operation.
func (u *userFilter) body(c *call) (map[string]any, error) {
	query, err := u.query(c)
	if err != nil {
		return nil, err
	}
	body := map[string]any{}
	for name, values := range query {
		switch name {
		case "state":
			body[name] = values
		case "lease", "passwordChangedOutside":
			body[name] = values[0] == "true"
		default:
			body[name] = values[0]
		}
	}
	return body, nil
}
