package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/secret"
)

// message is the body of a delivery to a webhook.
type message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      any       `json:"data"`
}

// webhookSender delivers to a webhook, one event in a request.
type webhookSender struct {
	client    *http.Client
	agent     string
	id        uuid.UUID
	url       string
	plainHTTP bool // is allowed
	events    []string
	Secrets   []secret.Text // each signs
}

// errPlainHTTP is about a webhook from a time when the operator allowed it.
var errPlainHTTP = errors.New("the url begins with http://; set one with https://, or ask the operator to start the " +
	"server with --webhook-allow-private")

func (w *webhookSender) batch() int            { return 1 }
func (w *webhookSender) wants(e *Event) bool   { return e.matches(w.events) }
func (w *webhookSender) gaveUp(err error) bool { return isGone(err) }

func (w *webhookSender) send(ctx context.Context, events []Event) error {
	for i := range events {
		e := &events[i]
		if err := w.post(ctx, e.idFor(w.id), message{e.Type, e.Time, e.data()}); err != nil {
			return err
		}
	}
	return nil
}

// post delivers one message. An error never has the URL, which may hold a secret.
func (w *webhookSender) post(ctx context.Context, id string, m message) error {
	if !w.plainHTTP && !strings.HasPrefix(hostOf(w.url), "https:") {
		return errPlainHTTP
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(m); err != nil {
		return err
	}
	body.Truncate(body.Len() - 1) // the encoder ends with a new line
	now := strconv.FormatInt(time.Now().Unix(), 10)
	signed, err := signature(w.Secrets, id, now, body.Bytes())
	if err != nil {
		return err
	}
	return post(ctx, w.client, w.url, body.Bytes(), http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {w.agent},
		"Webhook-Id": {id}, "Webhook-Timestamp": {now}, "Webhook-Signature": {signed},
	})
}

// post sends a body, and returns nil if it was accepted.
func post(ctx context.Context, client *http.Client, url string, body []byte, header http.Header) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return plain(err)
	}
	r.Header = header
	response, err := client.Do(r)
	if err != nil {
		return plain(err)
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 4<<10) // so that the connection can be used again
	if response.StatusCode/100 == 2 {
		return nil
	}
	refused := &refusal{status: response.StatusCode}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		refused.after = min(time.Duration(seconds)*time.Second, lastRetry)
	}
	return refused
}

// refusal is a response that does not accept.
type refusal struct {
	status int
	after  time.Duration // how long the receiver wants to be left alone; 0: it does not say
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("the receiver answered %d %s", r.status, http.StatusText(r.status))
	switch {
	case r.status/100 == 3:
		text += "; redirects are not followed: set the url to where it leads"
	case r.status == http.StatusGone:
		text += ", so it wants no more events"
	}
	return text
}
