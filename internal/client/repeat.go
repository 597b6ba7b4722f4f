package client

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// ownAPI is where the API is whose POSTs may be repeated with an Idempotency-Key.
const ownAPI = "/rolecall/v1/"

// lost is the error of a request that was sent, and whose answer has not come.
type lost struct{ error }

// Unwrap returns the cause.
func (l lost) Unwrap() error { return l.error }

// repeat sends a request with a key, and again if its answer is missing: the server, or a proxy in front of it, was stopped.
// If a repetition brings no answer either, the first failure is returned.
func (c *Client) repeat(ctx context.Context, w wire) (Answer, error) {
	first, err := c.do(ctx, w)
	if !missing(err) {
		return first, err
	}
	for _, pause := range c.pauses {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return first, err
		}
		a, again := c.do(ctx, w)
		switch {
		case again == nil:
			return a, nil
		case missing(again) || Status(again) == 0 || inProgress(again):
		default:
			if e, ok := errors.AsType[*Error](again); ok {
				e.Repeated = true
			}
			return a, again
		}
	}
	return first, err
}

// soon is how long a failure lasts that is worth a repetition.
const soon = 2 * time.Second

// missing reports that a request may have been carried out, or could not be for a moment.
func missing(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	switch Status(err) {
	case 0:
		_, sent := errors.AsType[lost](err)
		return sent
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e, _ := errors.AsType[*Error](err)
		return e.RetryAfter <= soon
	}
	return false
}

// inProgress reports that the server still carries out the first request.
func inProgress(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusConflict && e.RetryAfter > 0
}
