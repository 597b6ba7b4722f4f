package client

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strconv"
)

// The functions below follow the pages of a list to its end; query holds the filters, and may be nil.

// Pages returns a list of the Cloud Foundry API. The links are those of the server's own URL, so only the pages' numbers
// are followed.
func (c *Client) Pages(ctx context.Context, path string, query url.Values) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for number := 1; ; number++ {
		var page struct {
			Pagination struct {
				Next *struct{} `json:"next"`
			} `json:"pagination"`
			Resources []json.RawMessage `json:"resources"`
		}
		if err := c.page(ctx, path, with(query, "per_page", "1000", "page", strconv.Itoa(number)), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Resources...)
		if page.Pagination.Next == nil {
			return all, nil
		}
	}
}

// Page returns one page of a list of Rolecall's own API, and the cursor of the next one, "" at the end.
func (c *Client) Page(ctx context.Context, path string, query url.Values) (items []json.RawMessage, next string, err error) {
	var page struct {
		Items []json.RawMessage `json:"items"`
		Next  *string           `json:"next"`
	}
	if err := c.page(ctx, path, query, &page); err != nil {
		return nil, "", err
	}
	if page.Next != nil {
		next = *page.Next
	}
	return page.Items, next, nil
}

// Items returns a list of Rolecall's own API.
func (c *Client) Items(ctx context.Context, path string, query url.Values) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for cursor := ""; ; {
		q := query
		if cursor != "" {
			q = with(query, "cursor", cursor)
		}
		items, next, err := c.Page(ctx, path, q)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		cursor = next
	}
}

func (c *Client) page(ctx context.Context, path string, query url.Values, page any) error {
	answer, err := c.Get(ctx, path, query)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer.JSON, page); err != nil {
		return fmt.Errorf("%s%s does not answer with a list: %w", c.URL, path, err)
	}
	return nil
}

// with adds parameters, given as names and values.
func with(query url.Values, parameters ...string) url.Values {
	q := url.Values{}
	maps.Copy(q, query)
	for i := 0; i < len(parameters); i += 2 {
		q.Set(parameters[i], parameters[i+1])
	}
	return q
}
