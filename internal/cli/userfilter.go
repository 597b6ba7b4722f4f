package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/moment"
)

// userFilter is the flags by which the server chooses database users of one cluster or of all.
type userFilter struct {
	allClusters, lease, changedOutside             bool
	name, createdBy, creatorSelector, passwordKind string
	expiresBefore, notSeenFor                      string
	states                                         []string
}

var (
	userStates    = []string{"active", "expired", "disabled", "deleting"}
	passwordKinds = []string{"scram-sha-256", "md5", "none", "unknown"}
	// conditionFlags are the flags of conditions.
	conditionFlags = []string{"name", "created-by", "creator-selector", "state", "password-kind", "expires-before",
		"not-seen-for", "lease", "changed-outside"}
)

func (u *userFilter) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&u.allClusters, "all-clusters", false, "users of all clusters")
	f.StringVar(&u.name, "name", "", "only users of this `name`; * stands for any characters")
	f.StringVar(&u.createdBy, "created-by", "", "only users that this `account` created, given by user name or guid")
	f.StringVar(&u.creatorSelector, "creator-selector", "",
		"only users that an account created whose labels match this `selector`, like team=payments")
	f.StringSliceVar(&u.states, "state", nil, "only users in one of these `states`: "+strings.Join(userStates, ", "))
	f.StringVar(&u.passwordKind, "password-kind", "", "only users with this `kind` of password: "+
		strings.Join(passwordKinds, ", "))
	f.StringVar(&u.expiresBefore, "expires-before", "",
		"only users that expire before this `time`: like 2027-01-31T18:00:00Z or 2027-01-31, or 7d for a week from now")
	f.StringVar(&u.notSeenFor, "not-seen-for", "", "only users without a session for this `duration`, like 90d")
	f.BoolVar(&u.lease, "lease", false, "only users of leases; --lease=false: only others")
	f.BoolVar(&u.changedOutside, "changed-outside", false,
		"only users whose password was changed by SQL; --changed-outside=false: only users for which it was not")
	_ = cmd.RegisterFlagCompletionFunc("created-by", completeAccounts)
	term.CompleteWords(cmd, "state", userStates...)
	term.CompleteWords(cmd, "password-kind", passwordKinds...)
	term.CompleteWords(cmd, "lease", "true", "false")
	term.CompleteWords(cmd, "changed-outside", "true", "false")
}

// given reports whether the server is to choose.
func (u *userFilter) given(cmd *cobra.Command) bool {
	return u.allClusters || slices.ContainsFunc(conditionFlags, cmd.Flags().Changed)
}

// conditions are those that are given, by their names in the API: texts, booleans, and the list of states.
func (u *userFilter) conditions(c *call) (map[string]any, error) {
	conditions := map[string]any{}
	for _, text := range []struct{ flag, condition, value string }{
		{"name", "name", u.name}, {"created-by", "createdBy", u.createdBy},
		{"creator-selector", "creatorSelector", u.creatorSelector}, {"password-kind", "passwordKind", u.passwordKind},
	} {
		if c.given(text.flag) {
			if text.value == "" {
				return nil, term.Usage("--%s is empty; omit it, or give a value", text.flag)
			}
			conditions[text.condition] = text.value
		}
	}
	if u.passwordKind != "" && !slices.Contains(passwordKinds, u.passwordKind) {
		return nil, term.Usage("--password-kind is %q; use %s%s", u.passwordKind, term.Either(passwordKinds),
			term.DidYouMean(u.passwordKind, passwordKinds))
	}
	for _, state := range u.states {
		if !slices.Contains(userStates, state) {
			return nil, term.Usage("--state is %q; use %s%s", state, term.Either(userStates), term.DidYouMean(state, userStates))
		}
		conditions["state"] = u.states
	}
	if c.given("expires-before") {
		at, err := deadline("expires-before", u.expiresBefore)
		if err != nil {
			return nil, err
		}
		if at == nil {
			return nil, term.Usage("--expires-before is %q; use %s, or %s", u.expiresBefore, moment.TimeForm, moment.DurationForm)
		}
		conditions["expiresBefore"] = at.Format(time.RFC3339)
	}
	if c.given("not-seen-for") {
		if d, err := moment.Duration(u.notSeenFor); err != nil || d == 0 {
			return nil, term.Usage("--not-seen-for is %q; use %s", u.notSeenFor, moment.DurationForm)
		}
		conditions["notSeenFor"] = u.notSeenFor
	}
	if c.given("lease") {
		conditions["lease"] = u.lease
	}
	if c.given("changed-outside") {
		conditions["passwordChangedOutside"] = u.changedOutside
	}
	return conditions, nil
}
