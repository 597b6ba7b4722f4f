package client

import (
	"context"
	"encoding/json"
	"net/url"
)

// UsersPath is where the users of all clusters are.
const UsersPath = "/rolecall/v1/users"

// FoundUser is a database user of any cluster.
type FoundUser struct {
	User
	Cluster ClusterRef `json:"cluster"`
}

// SearchPage returns one page of the users of all clusters, the cursor of the next one, "" at the end, and the clusters that
// the page lacks.
func (c *Client) SearchPage(ctx context.Context, query url.Values) (items []json.RawMessage, next string,
	unreachable []Unreachable, err error) {
	var page struct {
		Items       []json.RawMessage `json:"items"`
		Next        *string           `json:"next"`
		Unreachable []Unreachable     `json:"unreachable"`
	}
	if err := c.page(ctx, UsersPath, query, &page); err != nil {
		return nil, "", nil, err
	}
	if page.Next != nil {
		next = *page.Next
	}
	return page.Items, next, page.Unreachable, nil
}
