package client

import (
	"context"
	"time"
)

// Hasten makes the pauses before repetitions short.
func (c *Client) Hasten() {
	for i := range c.pauses {
		c.pauses[i] = time.Millisecond
	}
}

// Pauses makes the client call pause in place of waiting.
func (c *Client) Pauses(pause func(time.Duration)) {
	c.pause = func(ctx context.Context, d time.Duration) error {
		pause(d)
		return ctx.Err()
	}
}
