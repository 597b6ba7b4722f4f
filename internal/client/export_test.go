package client

import "time"

// Hasten makes the pauses before repetitions short.
func (c *Client) Hasten() {
	for i := range c.pauses {
		c.pauses[i] = time.Millisecond
	}
}
