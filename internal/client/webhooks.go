package client

import (
	"time"

	"rolecall/internal/secret"
)

// WebhooksPath is where webhooks are.
const WebhooksPath = "/rolecall/v1/webhooks"

// WebhookPath is the path of a webhook, or of something below it.
func WebhookPath(id string, segments ...string) string {
	return Path(Path(WebhooksPath, id), segments...)
}

// Webhook is a receiver of the rows of the audit log.
type Webhook struct {
	ID              string      `json:"id"`
	Name            string      `json:"name"`
	URL             string      `json:"url"`
	Events          []string    `json:"events"`
	State           string      `json:"state"`
	DeliveredSeq    int64       `json:"deliveredSeq"`
	Backlog         int64       `json:"backlog"`
	LastDeliveredAt *time.Time  `json:"lastDeliveredAt"`
	FailingSince    *time.Time  `json:"failingSince"`
	LastError       string      `json:"lastError"`
	Gap             *WebhookGap `json:"gap"`
	// PreviousSecretUntil is when the secret before the last rotation no longer signs.
	PreviousSecretUntil *time.Time  `json:"previousSecretUntil"`
	CreatedAt           time.Time   `json:"createdAt"`
	CreatedBy           string      `json:"createdBy"`
	Secret              secret.Text `json:"secret"` // only when it was generated
}

// WebhookGap is rows that a webhook did not get.
type WebhookGap struct {
	FromSeq int64 `json:"fromSeq"`
	ToSeq   int64 `json:"toSeq"`
}

// WebhookTest is what became of a test.
type WebhookTest struct {
	Accepted bool   `json:"accepted"`
	Error    string `json:"error"`
}
