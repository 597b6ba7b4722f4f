package cfapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// answer is how this dialect says a kind of failure. Where detail is empty, it is the failure's own message.
type answer struct {
	status int
	code   int
	title  string
	detail string
}

// answers is the whole table. The reference has no 409, 412, 413 and 415: they have the code of a request that cannot be
// processed, with titles of our own.
var answers = map[fault.Kind]answer{
	fault.Internal: {http.StatusInternalServerError, 10001, "UnknownError", "An unknown error occurred."},
	fault.Malformed: {http.StatusBadRequest, 1001, "CF-MessageParseError",
		"Request invalid due to parse error: invalid request body"},
	fault.TooLarge:        {http.StatusRequestEntityTooLarge, 10008, "CF-RequestEntityTooLarge", ""},
	fault.MediaType:       {http.StatusUnsupportedMediaType, 10008, "CF-UnsupportedMediaType", ""},
	fault.UnknownRoute:    {http.StatusNotFound, 10000, "CF-NotFound", "Unknown request"},
	fault.UnknownMethod:   {http.StatusNotFound, 10000, "CF-NotFound", "Unknown request"},
	fault.Unauthenticated: {http.StatusUnauthorized, 1000, "CF-InvalidAuthToken", "Invalid Auth Token"},
	fault.Forbidden: {http.StatusForbidden, 10003, "CF-NotAuthorized",
		"You are not authorized to perform the requested action"},
	fault.NotFound:    {http.StatusNotFound, 10010, "CF-ResourceNotFound", ""},
	fault.Invalid:     {http.StatusUnprocessableEntity, 10008, "CF-UnprocessableEntity", ""},
	fault.Exists:      {http.StatusConflict, 10008, "CF-Conflict", ""},
	fault.InUse:       {http.StatusUnprocessableEntity, 10008, "CF-UnprocessableEntity", ""},
	fault.Stale:       {http.StatusPreconditionFailed, 10008, "CF-PreconditionFailed", ""},
	fault.TooMany:     {http.StatusTooManyRequests, 10013, "CF-RateLimitExceeded", "Rate Limit Exceeded"},
	fault.Unavailable: {http.StatusServiceUnavailable, 10015, "CF-ServiceUnavailable", "Database connection failure"},
}

// The causes that the table of kinds cannot tell from others.
var (
	errQuery              = errors.New("the query string cannot be decoded")
	errTooManyLabels      = errors.New("too many labels")
	errTooManyAnnotations = errors.New("too many annotations")
)

// exceptions go by the cause of a failure, and before its kind.
var exceptions = []struct {
	cause error
	answer
}{
	{door.ErrNoCredential, answer{http.StatusUnauthorized, 10002, "CF-NotAuthenticated", "Authentication error"}},
	{door.ErrAddressLimit, answer{http.StatusTooManyRequests, 10014, "CF-IPBasedRateLimitExceeded",
		"Rate Limit Exceeded: Unauthenticated requests from this IP address have exceeded the limit. Please log in."}},
	{errQuery, answer{http.StatusBadRequest, 10004, "CF-InvalidRequest", "The request is invalid"}},
	{errTooManyLabels, answer{http.StatusUnprocessableEntity, 390020, "CF-LabelLimitExceeded", ""}},
	{errTooManyAnnotations, answer{http.StatusUnprocessableEntity, 390023, "CF-AnnotationLimitExceeded", ""}},
	{account.ErrNoPlatformUser, answer{http.StatusNotFound, 10010, "CF-ResourceNotFound", "User not found"}},
	{account.ErrNoJob, answer{http.StatusNotFound, 10010, "CF-ResourceNotFound", "Job not found"}},
	{account.ErrExternalName, answer{http.StatusUnprocessableEntity, 10008, "CF-UnprocessableEntity",
		"Username and origin of this user are its identity provider's and cannot be changed"}},
	{account.ErrClientName, answer{http.StatusUnprocessableEntity, 10008, "CF-UnprocessableEntity",
		"This user is a client: it has no username and origin"}},
	{account.ErrNoUsername, answer{http.StatusUnprocessableEntity, 10008, "CF-UnprocessableEntity", originAlone}},
	{account.ErrNoOrigin, answer{http.StatusUnprocessableEntity, 10008, "CF-UnprocessableEntity", usernameAlone}},
}

const (
	originAlone   = "Origin can only be provided together with 'username'"
	usernameAlone = "Username can only be provided together with 'origin'"
)

// worded puts failures that name values into the words of the reference.
func worded(err error) error {
	f := *fault.Of(err)
	if t, ok := errors.AsType[account.TooMany](err); ok {
		f.Message = fmt.Sprintf("Failed to add %d %s because it would exceed maximum of %d", t.Given, t.Kind, t.Most)
		f.Cause = map[string]error{"labels": errTooManyLabels, "annotations": errTooManyAnnotations}[t.Kind]
	}
	if t, ok := errors.AsType[account.Taken](err); ok {
		f.Message = fmt.Sprintf("User with username '%s' and origin '%s' already exists.", t.Username, t.Origin)
		if t.GUID != "" {
			f.Message = fmt.Sprintf("User with guid '%s' already exists.", t.GUID)
		}
	}
	return &f
}

func answerOf(f *fault.Error) answer {
	a := answers[f.Kind]
	for _, e := range exceptions {
		if errors.Is(f, e.cause) {
			a = e.answer
			break
		}
	}
	if a.detail == "" {
		a.detail = f.Message
	}
	return a
}

type errorResponse struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code   int    `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// fail writes a failure in this dialect's envelope, with one error only: clients misread several.
func fail(w http.ResponseWriter, _ *http.Request, f *fault.Error) {
	a := answerOf(f)
	switch f.Kind {
	case fault.Unauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case fault.Malformed:
		// Clients compare the detail, so it is fixed. They show the warning, which says what is wrong with the body.
		warn(w, f.Message)
	}
	web.RetryAfter(w, f)
	web.JSON(w, a.status, jsonType, errorResponse{[]errorEntry{{a.code, a.title, a.detail}}})
}

// warn adds a warning, which the command line of the ecosystem prints. It is form-encoded, as there.
func warn(w http.ResponseWriter, text string) {
	w.Header().Add("X-Cf-Warnings", url.QueryEscape(text))
}
