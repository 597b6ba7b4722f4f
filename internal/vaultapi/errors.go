package vaultapi

import (
	"net/http"

	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// statuses is the whole table. There is no 401: clients of Vault sign in again after a 403.
var statuses = map[fault.Kind]int{
	fault.Internal:        http.StatusInternalServerError,
	fault.Malformed:       http.StatusBadRequest,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.MediaType:       http.StatusBadRequest,
	fault.UnknownRoute:    http.StatusNotFound,
	fault.UnknownMethod:   http.StatusNotFound,
	fault.Unauthenticated: http.StatusForbidden,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Invalid:         http.StatusBadRequest,
	fault.Exists:          http.StatusBadRequest,
	fault.InUse:           http.StatusBadRequest,
	fault.Stale:           http.StatusBadRequest,
	fault.TooMany:         http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
}

// errorResponse has no other field: the clients take a 404 with more for an answer.
type errorResponse struct {
	Errors []string `json:"errors"`
}

// denied is what clients look for in a 403.
const denied = "permission denied"

// fail writes a failure in this dialect's envelope.
func fail(w http.ResponseWriter, _ *http.Request, f *fault.Error) {
	errors := []string{f.Message}
	switch f.Kind {
	case fault.Unauthenticated:
		errors = []string{denied}
	case fault.Forbidden:
		errors = []string{denied, f.Message}
	}
	web.RetryAfter(w, f)
	web.JSON(w, statuses[f.Kind], "application/json", errorResponse{errors})
}
