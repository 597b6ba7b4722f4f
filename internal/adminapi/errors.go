package adminapi

import (
	"net/http"

	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// answer is how this dialect says a kind of failure.
type answer struct {
	status int
	title  string
}

// answers is the whole table. The titles are stable; what went wrong in particular is the detail.
var answers = map[fault.Kind]answer{
	fault.Internal:        {http.StatusInternalServerError, "Internal error"},
	fault.Malformed:       {http.StatusBadRequest, "Malformed request"},
	fault.TooLarge:        {http.StatusRequestEntityTooLarge, "Body too large"},
	fault.MediaType:       {http.StatusUnsupportedMediaType, "Unsupported media type"},
	fault.UnknownRoute:    {http.StatusNotFound, "Unknown path"},
	fault.UnknownMethod:   {http.StatusMethodNotAllowed, "Method not allowed"},
	fault.Unauthenticated: {http.StatusUnauthorized, "Not signed in"},
	fault.Forbidden:       {http.StatusForbidden, "Not allowed"},
	fault.NotFound:        {http.StatusNotFound, "Not found"},
	fault.Invalid:         {http.StatusUnprocessableEntity, "Not acceptable"},
	fault.Exists:          {http.StatusConflict, "Conflict"},
	fault.InUse:           {http.StatusConflict, "In use"},
	fault.Stale:           {http.StatusPreconditionFailed, "Precondition failed"},
	fault.TooMany:         {http.StatusTooManyRequests, "Too many requests"},
	fault.Unavailable:     {http.StatusServiceUnavailable, "Unavailable"},
}

// problem is the body of RFC 9457. Its type is always about:blank, and so is left out.
type problem struct {
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Hint      string `json:"hint,omitempty"`
	RequestID string `json:"requestId"`
}

// fail writes a failure in this dialect's envelope.
func fail(w http.ResponseWriter, r *http.Request, f *fault.Error) {
	a := answers[f.Kind]
	if f.Kind == fault.Unauthenticated {
		w.Header().Add("WWW-Authenticate", `Basic realm="rolecall", charset="UTF-8"`)
		w.Header().Add("WWW-Authenticate", "Bearer")
	}
	web.RetryAfter(w, f)
	web.JSON(w, a.status, "application/problem+json", problem{a.title, a.status, f.Message, string(f.Hint),
		web.InfoOf(r.Context()).ID})
}
