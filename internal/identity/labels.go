package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/label"
)

// labels are those that an account has by the claims of a token. What a claim has, and what gives no label, is logged.
func (e *externalIssuer) labels(claims map[string]any) map[string]string {
	labels := map[string]string{}
	for _, l := range e.Labels {
		var given map[string]string
		values, problem := l.values(claims)
		if base, many := strings.CutSuffix(l.Key, account.AnyLabel); many {
			given, problem = manyLabels(base, values, problem)
		} else {
			given, problem = oneLabel(l.Key, values, problem)
		}
		if len(given) > 0 && len(labels)+len(given) > account.MaxLabels {
			problem = fmt.Errorf("it gives %d labels, and an account has at most %d, so none of them is set; set a prefix",
				len(given), account.MaxLabels)
			given = nil
		}
		for key, value := range given {
			labels[key] = value
		}
		if problem != nil {
			e.log.Info("a claim gave no label", "issuer", e.Name, "label", l.Key, "claim", l.Claim, "reason", problem.Error())
		}
	}
	return labels
}

// values are those of the claim that begin with the prefix, without it and each once. problem says what is skipped.
func (l LabelClaim) values(claims map[string]any) (values []string, problem error) {
	var all []any
	switch claim := claims[l.Claim].(type) {
	case nil:
		return nil, l.leftOut(claims)
	case []any:
		all = claim
	default:
		all = []any{claim}
	}
	for _, v := range all {
		text, isText := v.(string)
		if !isText {
			problem = fmt.Errorf("a value is not text, but of the type %T", v)
			continue
		}
		if value, found := strings.CutPrefix(text, l.Prefix); found && !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	return values, problem
}

// leftOut says that the issuer has left a claim out because it is long. Entra ID does that with more than 200 groups, and
// names another place to read them at (OpenID Connect Core 1.0, 5.6.2).
func (l LabelClaim) leftOut(claims map[string]any) error {
	elsewhere, _ := claims["_claim_names"].(map[string]any)
	if elsewhere[l.Claim] == nil {
		return nil
	}
	return errors.New("the issuer has left the claim out because it is too long; have it send only the groups of this " +
		"application")
}

// oneLabel is the label of the one valid value. Of several none is set: which one applies must not depend on their order.
func oneLabel(key string, values []string, problem error) (map[string]string, error) {
	var valid []string
	for _, v := range values {
		if err := label.CheckValue(v); err != nil {
			problem = fmt.Errorf("a value is not valid as that of a label: %s", fault.Of(err).Message)
			continue
		}
		valid = append(valid, v)
	}
	switch len(valid) {
	case 0:
		return nil, problem
	case 1:
		return map[string]string{key: valid[0]}, problem
	}
	return nil, fmt.Errorf("it has %d values, such as %q and %q, so none is set; set a prefix, or a key like %s%s", len(valid),
		valid[0], valid[1], key, account.AnyLabel)
}

// manyLabels is a label for each value.
func manyLabels(base string, values []string, problem error) (map[string]string, error) {
	labels := map[string]string{}
	for _, v := range values {
		key := base + "." + v
		if err := label.CheckKey(key); err != nil {
			problem = fmt.Errorf("a value is not valid in the key of a label: %s", fault.Of(err).Message)
			continue
		}
		labels[key] = "true"
	}
	return labels, problem
}
