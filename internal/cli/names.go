package cli

import (
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
	if term.Format(c.cmd) != "table" {
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
