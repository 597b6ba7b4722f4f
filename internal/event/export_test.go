package event

import (
	"net/http"
	"net/netip"
	"time"

	"rolecall/internal/audit"
	"rolecall/internal/secret"
)

// For the tests of the package.
var (
	Internal  = func(a netip.Addr) bool { return internal(a) }
	CheckURL  = checkURL
	Signature = func(secrets []secret.Text, id, timestamp string, body []byte) (string, error) {
		return signature(secrets, id, timestamp, body)
	}
	NewClient = func(timeout time.Duration, allowPrivate bool) *http.Client { return newClient(timeout, allowPrivate) }
)

// Activity returns the class and the activity of an action in OCSF.
func Activity(action string) (class string, classID int, activity string, activityID int, known bool) {
	a, known := ocsfActivities[action]
	return a.class.name, a.class.uid, a.name, a.id, known
}

// Encoded is a row as an export writes it.
func Encoded(f Format, r *audit.Row) ([]byte, error) { return f.encode([]Event{rowEvent(r)}, "1.2.3") }
