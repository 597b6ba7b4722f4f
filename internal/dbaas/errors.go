package dbaas

import (
	"net/http"

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
func fail(w http.ResponseWriter, _ *http.Request, f *fault.Error) {
	a := answers[f.Kind]
	if f.Kind == fault.Unauthenticated {
		w.Header().Add("WWW-Authenticate", `Basic realm="rolecall"`)
		w.Header().Add("WWW-Authenticate", "Bearer")
	}
	web.RetryAfter(w, f)
	message := f.Message
	if f.Hint == fault.Reassign {
		message += " Delete it with ?reassignTo=<role> to give what it owns to another role."
	}
	web.JSON(w, a.status, "application/problem+json", errorResponse{a.status, []errorMessage{{a.code, message}}})
}
