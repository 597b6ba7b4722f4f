package cli

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// databaseUser is a user as the DBaaS API shows it.
type databaseUser struct {
	Metadata struct {
		CreatedBy        string     `json:"createdBy"`
		CreatedDate      *time.Time `json:"createdDate"`
		LastModifiedBy   string     `json:"lastModifiedBy"`
		LastModifiedDate *time.Time `json:"lastModifiedDate"`
	} `json:"metadata"`
	Properties struct {
		Username string `json:"username"`
		System   bool   `json:"system"`
	} `json:"properties"`
}

func listUsers(c *call, system bool) error {
	var query url.Values
	if system {
		query = url.Values{"system": {"true"}}
	}
	users, err := c.client.Offsets(c.cmd.Context(), dialectPath(c), query)
	if err != nil {
		return err
	}
	var accounts map[string]string
	if term.Format(c.cmd) == "table" {
		all, err := term.DecodeAll[databaseUser](users)
		if err != nil {
			return err
		}
		var guids []string
		for _, u := range all {
			guids = append(guids, guidOf(u.Metadata.CreatedBy), guidOf(u.Metadata.LastModifiedBy))
		}
		accounts = accountNames(c, guids...)
	}
	return term.PrintList(c.cmd, users, "NAME,SYSTEM,CREATED,BY,CHANGED,BY", func(u *databaseUser) []string {
		m := u.Metadata
		return []string{
			u.Properties.Username, term.YesNo(u.Properties.System),
			term.Time(m.CreatedDate), accounts[guidOf(m.CreatedBy)], term.Time(m.LastModifiedDate), accounts[guidOf(m.LastModifiedBy)],
		}
	})
}

// guidOf is the guid of the account in a URN, "" where no account is meant.
func guidOf(urn string) string {
	guid, err := url.PathUnescape(urn[strings.LastIndex(urn, "/")+1:])
	if err != nil || guid == "_unmanaged_" || guid == "_system_" {
		return ""
	}
	return guid
}

// maxGUIDs is how many guids go into one request, whose URL has to stay short.
const maxGUIDs = 100

// accountNames maps guids to user names. The guid stands for an account that the caller may not see, or that is deleted.
func accountNames(c *call, guids ...string) map[string]string {
	names := map[string]string{}
	slices.Sort(guids)
	guids = slices.DeleteFunc(slices.Compact(guids), func(guid string) bool { return guid == "" })
	for _, guid := range guids {
		names[guid] = guid
	}
	for some := range slices.Chunk(guids, maxGUIDs) {
		found, err := c.client.Pages(c.cmd.Context(), "/v3/users", url.Values{"guids": {cfValues(some...)}})
		if err != nil {
			return names
		}
		for _, item := range found {
			if u, err := term.Decode[platformUser](item); err == nil && u.Username != "" {
				names[u.GUID] = u.Username
			}
		}
	}
	return names
}

func completeUsers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, err := userNames(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func userNames(cmd *cobra.Command) ([]string, error) {
	server, err := connect()
	if err != nil {
		return nil, err
	}
	cl, err := clusterOfFlag(cmd, server)
	if err != nil {
		return nil, err
	}
	users, err := server.Offsets(cmd.Context(), dialectPath(&call{cluster: cl}), nil)
	if err != nil {
		return nil, err
	}
	all, err := term.DecodeAll[databaseUser](users)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, u := range all {
		names = append(names, u.Properties.Username)
	}
	return names, nil
}

// cfValues writes values for a parameter of the Cloud Foundry API that takes several, where a comma within one is
// encoded once more than the rest.
func cfValues(values ...string) string {
	encoded := make([]string, len(values))
	for i, v := range values {
		encoded[i] = strings.ReplaceAll(url.PathEscape(v), ",", "%2C")
	}
	return strings.Join(encoded, ",")
}

var completeClusters = complete(fixed(client.ClustersPath), "displayName")
