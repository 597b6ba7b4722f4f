package dbaas

import (
	"net/http"
	"strings"

	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// answer is how this dialect says a kind of failure.
type answer struct {
	status int
	code   string
}

// answers is the whole table. A duplicate name and a user that is in use are 422, because the contract has no 409.
var answers = map[fault.Kind]answer{
	fault.Internal:        {http.StatusInternalServerError, "paas-internal-1"},
	fault.Malformed:       {http.StatusBadRequest, "paas-parse-1"},
	fault.TooLarge:        {http.StatusRequestEntityTooLarge, "paas-toolarge-1"},
	fault.MediaType:       {http.StatusUnsupportedMediaType, "paas-media-1"},
	fault.UnknownRoute:    {http.StatusNotFound, "paas-notfound-1"},
	fault.UnknownMethod:   {http.StatusMethodNotAllowed, "paas-method-1"},
	fault.Unauthenticated: {http.StatusUnauthorized, "paas-auth-1"},
	fault.Forbidden:       {http.StatusForbidden, "paas-auth-2"},
	fault.NotFound:        {http.StatusNotFound, "paas-notfound-1"},
	fault.Invalid:         {http.StatusUnprocessableEntity, "paas-validation-1"},
	fault.Exists:          {http.StatusUnprocessableEntity, "paas-conflict-1"},
	fault.InUse:           {http.StatusUnprocessableEntity, "paas-inuse-1"},
	fault.Stale:           {http.StatusPreconditionFailed, "paas-stale-1"},
	fault.TooMany:         {http.StatusTooManyRequests, "paas-rate-1"},
	fault.Unavailable:     {http.StatusServiceUnavailable, "paas-unavailable-1"},
}

type errorResponse struct {
	HTTPStatus int            `json:"httpStatus"`
	Messages   []errorMessage `json:"messages"`
}

type errorMessage struct {
	ErrorCode string `json:"errorCode"`
	Message   string `json:"message"`
}

// fail writes a failure in this dialect's envelope.
func fail(w http.ResponseWriter, r *http.Request, f *fault.Error) {
	a := answers[f.Kind]
	emptied := keepsBodies(r, a.status)
	if emptied && f.Outage {
		a.status, emptied = http.StatusInternalServerError, false
	}
	if f.Kind == fault.Unauthenticated {
		w.Header().Add("WWW-Authenticate", `Basic realm="rolecall", charset="UTF-8"`)
		w.Header().Add("WWW-Authenticate", "Bearer")
	}
	web.RetryAfter(w, f)
	if emptied {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(a.status)
		return
	}
	message := f.Message
	if f.Hint == fault.Reassign {
		message += " Delete it with ?reassignTo=<role>, or with rolecall users delete --reassign-to <role>, to give what it " +
			"owns to another role."
	}
	web.JSON(w, a.status, "application/problem+json", errorResponse{a.status, []errorMessage{{a.code, message}}})
}

// keepsBodies reports that the client repeats the request after this status and never closes the body of the answer. The Go
// SDK of this API does so (callAPI in client.go of sdk-go-bundle/products/dbaas/psql/v2.0.5), with at most three
// connections. After three such answers it waits without end for a free connection. An answer without a body frees its
// connection, so the client goes on. During an outage it would go on for an hour and show nothing; so an outage gets a
// status after which it stops.
func keepsBodies(r *http.Request, status int) bool {
	agent := strings.ToLower(r.UserAgent())
	if !strings.Contains(agent, "ionos-cloud-sdk-go") && !strings.Contains(agent, "sdk-go-bundle") {
		return false
	}
	switch status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return r.Method != http.MethodPost
	}
	return false
}
