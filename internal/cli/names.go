package cli

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"rolecall/internal/cli/term"
)

// maxGUIDs is how many guids go into one request, whose URL has to stay short.
const maxGUIDs = 100

// accountNames maps guids to user names, for a table. The guid stands for an account that the caller may not see, or that is
// deleted. Only the Cloud Foundry API takes many guids at once.
func accountNames(c *call, guids ...string) map[string]string {
	names := map[string]string{}
	if !term.NeedsCells(c.cmd) {
		return names
	}
	slices.Sort(guids)
	guids = slices.DeleteFunc(slices.Compact(guids), func(guid string) bool { return guid == "" })
	for _, guid := range guids {
		names[guid] = guid
	}
	for some := range slices.Chunk(guids, maxGUIDs) {
		found, err := c.client.Pages(c.cmd.Context(), "/v3/users", url.Values{"guids": {cfValues(some)}})
		if err != nil {
			return names
		}
		for _, item := range found {
			if u, err := term.Decode[struct{ GUID, Username string }](item); err == nil && u.Username != "" {
				names[u.GUID] = u.Username
			}
		}
	}
	return names
}

// cfValues writes a list for a parameter of the Cloud Foundry API, where a comma within a value is encoded twice.
func cfValues(values []string) string {
	encoded := make([]string, len(values))
	for i, v := range values {
		encoded[i] = strings.ReplaceAll(url.PathEscape(v), ",", "%2C")
	}
	return strings.Join(encoded, ",")
}

// knownClusters are the names of the caller's clusters by their ids, for a table.
func knownClusters(c *call) (map[string]string, error) {
	if !term.NeedsCells(c.cmd) {
		return nil, nil
	}
	me, err := whoami(c.cmd.Context(), c.client)
	if err != nil {
		return nil, err
	}
	return clusterNames(me), nil
}

// nameOf is the name of a cluster, or its id if the caller may no longer view it.
func nameOf(names map[string]string, id string) string { return cmp.Or(names[id], id) }

// withNames writes ids of clusters, or <id>/<stored credential>, with the names of the clusters.
func withNames(names map[string]string, ids []string) []string {
	var named []string
	for _, text := range ids {
		id, _, _ := strings.Cut(text, "/")
		named = append(named, nameOf(names, id)+text[len(id):])
	}
	return named
}
