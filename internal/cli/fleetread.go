package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/manifest"
)

// atOnce is how many clusters are read at the same time.
const atOnce = 8

// observe reads the fleet as far as a file covers it. A cluster that cannot be read has a problem instead.
func observe(ctx context.Context, c *client.Client, m *manifest.Manifest) (*manifest.Observed, error) {
	me, err := whoami(ctx, c)
	if err != nil {
		return nil, err
	}
	o := &manifest.Observed{Me: me.Account.GUID}
	// The names of accounts say who made a user, also if the file has no accounts.
	if o.Accounts, err = everything[client.Account](ctx, c, client.AccountsPath, nil); err != nil && m.CoversAccounts() {
		return nil, err
	}
	registered, err := everything[client.ClusterRef](ctx, c, client.ClustersPath, nil)
	if err != nil {
		return nil, err
	}
	var covered []client.ClusterRef
	for _, ref := range registered {
		if m.Covers(ref.Name) {
			covered = append(covered, ref)
		}
	}
	type result struct {
		at      int
		cluster *manifest.ObservedCluster
		err     error
	}
	results, slots := make(chan result, len(covered)), make(chan struct{}, atOnce)
	for i := range covered {
		go func() {
			slots <- struct{}{}
			found, err := observeCluster(ctx, c, &covered[i], m)
			results <- result{i, found, err}
			<-slots
		}()
	}
	o.Clusters = make([]*manifest.ObservedCluster, len(covered))
	for range covered {
		r := <-results
		err = cmp.Or(err, r.err)
		o.Clusters[r.at] = r.cluster
	}
	return o, err
}

// everything reads a list to its end.
func everything[T any](ctx context.Context, c *client.Client, path string, query url.Values) ([]T, error) {
	q := url.Values{"limit": {"1000"}}
	for name, values := range query {
		q[name] = values
	}
	items, err := c.Items(ctx, path, q)
	if err != nil {
		return nil, err
	}
	all := make([]T, len(items))
	for i, item := range items {
		v, err := term.Decode[T](item)
		if err != nil {
			return nil, err
		}
		all[i] = *v
	}
	return all, nil
}

// observeCluster reads a cluster with what is in it. Only the end of the context is an error.
func observeCluster(ctx context.Context, c *client.Client, ref *client.ClusterRef, m *manifest.Manifest) (
	*manifest.ObservedCluster, error,
) {
	o := &manifest.ObservedCluster{}
	answer, err := c.Get(ctx, ref.Path(), nil)
	if err == nil {
		o.ETag = answer.ETag
		err = json.Unmarshal(answer.JSON, &o.Cluster)
	}
	if err == nil && !o.Reachable {
		o.Problem = cmp.Or(orNothing(o.LastError), "it is unreachable")
		return o, nil
	}
	if err == nil {
		err = readInside(ctx, c, ref, m, o)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		o.ClusterRef = *ref
		o.Problem = err.Error()
	}
	return o, nil
}

func readInside(ctx context.Context, c *client.Client, ref *client.ClusterRef, m *manifest.Manifest,
	o *manifest.ObservedCluster) (err error) {
	if o.Databases, err = everything[client.Database](ctx, c, ref.Path("databases"), nil); err != nil {
		return err
	}
	o.AccessRoles = map[string]*client.AccessRoles{}
	for _, d := range o.Databases {
		if !d.AccessRoles {
			continue
		}
		roles, err := one[client.AccessRoles](ctx, c, ref.Path("databases", d.Name, "access-roles"), nil)
		if err != nil && client.Status(err) != http.StatusNotFound { // removed a moment ago
			return err
		}
		if err == nil {
			o.AccessRoles[d.Name] = roles
		}
	}
	o.Users, err = everything[client.User](ctx, c, ref.Path("users"), url.Values{"system": {"true"}})
	if err != nil {
		return err
	}
	if o.Credentials, err = everything[client.Credential](ctx, c, ref.CredentialPath(), nil); err != nil {
		return err
	}
	o.CredentialTags = map[string]string{}
	for _, name := range m.Credentials(ref.Name) {
		answer, err := c.Get(ctx, ref.CredentialPath(name), nil)
		if err == nil {
			o.CredentialTags[name] = answer.ETag
		} else if client.Status(err) != http.StatusNotFound {
			return err
		}
	}
	o.Deletions = map[string][]string{}
	retired := m.RetiredUsers(ref.Name)
	for _, u := range o.Users {
		reassignTo, is := retired[u.Username]
		if !is || u.System {
			continue
		}
		query := url.Values{}
		if reassignTo != "" {
			query.Set("reassignTo", reassignTo)
		}
		plan, err := one[client.DeletionPlan](ctx, c, ref.Path("users", u.Username, "deletion-plan"), query)
		switch client.Status(err) {
		case 0:
			if err != nil {
				return err
			}
			o.Deletions[u.Username] = plan.Blockers
		case http.StatusNotFound: // deleted a moment ago
		default: // such as a reassignTo that an earlier step creates
			o.Deletions[u.Username] = []string{err.Error()}
		}
	}
	return nil
}

// one reads a resource.
func one[T any](ctx context.Context, c *client.Client, path string, query url.Values) (*T, error) {
	answer, err := c.Get(ctx, path, query)
	if err != nil {
		return nil, err
	}
	return term.Decode[T](answer.JSON)
}
