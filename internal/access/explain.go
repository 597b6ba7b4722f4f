package access

import (
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
)

// Explanation is what an account may do in a cluster, and why.
type Explanation struct {
	Account      *account.Account
	View, Manage Right
}

// Right is whether an account has a right, and what decides.
type Right struct {
	Allowed bool
	// Scope gives the right in every cluster; "" if none does.
	Scope string
	// Rules are the selectors that give it in this cluster.
	Rules []RuleMatch
	// Why says it in a sentence.
	Why string
}

// RuleMatch is a selector and the labels of the account that it names.
type RuleMatch struct {
	Rule    string
	Matches bool
	Labels  map[string]string
}

// Explain says what an account may do in a cluster, and which scope or rule decides.
func Explain(a *account.Account, c *cluster.Cluster) *Explanation {
	view, manage := Rights(&account.Principal{GUID: a.GUID, Scopes: a.Scopes, Labels: a.Labels}, c)
	return &Explanation{a, view, manage}
}

// Rights says what a principal may do in a cluster, and which scope or rule decides.
func Rights(p *account.Principal, c *cluster.Cluster) (view, manage Right) {
	view, manage = right(p, c, "view", viewAll...), right(p, c, "manage", account.ScopeAdmin)
	view.Allowed, manage.Allowed = MayView(p, c), MayManage(p, c)
	v, m := &view, &manage
	if byManage := right(p, c, "manage").Why; v.Why == "" && byManage != "" {
		v.Why = "An account that may manage may also view: " + strings.ToLower(byManage[:1]) + byManage[1:]
	}
	switch {
	case v.Allowed:
	case v.Why != "":
		v.Why += " But the account lacks the scope " + account.ScopeRead + "."
	default:
		v.Why = "No scope gives this right, and no rule of view or manage matches the account's labels."
	}
	switch {
	case m.Allowed:
	case m.Why != "":
		m.Why += " But the account lacks the scope " + account.ScopeWrite + "."
	default:
		m.Why = "No scope gives this right, and no rule of manage matches the account's labels."
	}
	return view, manage
}

// right lists the scopes and rules that decide; Why stays empty when none of them gives the right.
func right(p *account.Principal, c *cluster.Cluster, name string, scopes ...string) (r Right) {
	for _, scope := range scopes {
		if p.Has(scope) && r.Scope == "" {
			r.Scope, r.Why = scope, "The scope "+scope+" gives it in every cluster."
		}
	}
	rules := c.View
	if name == "manage" {
		rules = c.Manage
	}
	for _, rule := range rules {
		match := RuleMatch{Rule: rule.String(), Matches: rule.Matches(p.Labels), Labels: map[string]string{}}
		var named []string
		for _, requirement := range rule {
			if value, has := p.Labels[requirement.Key]; has {
				match.Labels[requirement.Key] = value
				named = append(named, requirement.Key+"="+value)
			}
		}
		if match.Matches && r.Why == "" {
			r.Why = "The rule " + match.Rule + " of " + name + " matches the account's labels " + strings.Join(named, ", ") + "."
		}
		r.Rules = append(r.Rules, match)
	}
	return r
}
