package uaa

import (
	"errors"
	"maps"
	"net/http"
	"strings"

	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// answer is how this dialect says a kind of failure.
type answer struct {
	status int
	word   string
}

// errorTable is the answers of one part of the dialect.
type errorTable struct {
	kinds map[fault.Kind]answer
	// challenge is what a 401 asks for.
	challenge string
	// message repeats the description under that name, as SCIM answers do.
	message bool
}

// tokenErrors are the words of RFC 6749, 5.2. A user's wrong password is 401 unauthorized as in the UAA, because clients
// check for that.
var tokenErrors = errorTable{challenge: `Basic realm="rolecall", charset="UTF-8"`, kinds: map[fault.Kind]answer{
	fault.Internal:        {http.StatusInternalServerError, "server_error"},
	fault.Malformed:       {http.StatusBadRequest, "invalid_request"},
	fault.TooLarge:        {http.StatusRequestEntityTooLarge, "invalid_request"},
	fault.MediaType:       {http.StatusUnsupportedMediaType, "invalid_request"},
	fault.UnknownRoute:    {http.StatusNotFound, "not_found"},
	fault.UnknownMethod:   {http.StatusMethodNotAllowed, "method_not_allowed"},
	fault.Unauthenticated: {http.StatusUnauthorized, "unauthorized"},
	fault.Forbidden:       {http.StatusBadRequest, "invalid_request"},
	fault.NotFound:        {http.StatusBadRequest, "invalid_request"},
	fault.Invalid:         {http.StatusBadRequest, "invalid_request"},
	fault.Exists:          {http.StatusBadRequest, "invalid_request"},
	fault.InUse:           {http.StatusBadRequest, "invalid_request"},
	fault.Stale:           {http.StatusBadRequest, "invalid_request"},
	fault.TooMany:         {http.StatusTooManyRequests, "too_many_requests"},
	fault.Unavailable:     {http.StatusServiceUnavailable, "temporarily_unavailable"},
}}

const bearer = `Bearer realm="rolecall"`

// scimErrors are the UAA's words for users and groups, and for every path that is in neither of the other tables.
var scimErrors = errorTable{challenge: bearer, message: true, kinds: map[fault.Kind]answer{
	fault.Internal:        {http.StatusInternalServerError, "server_error"},
	fault.Malformed:       {http.StatusBadRequest, "scim"},
	fault.TooLarge:        {http.StatusRequestEntityTooLarge, "scim"},
	fault.MediaType:       {http.StatusUnsupportedMediaType, "scim"},
	fault.UnknownRoute:    {http.StatusNotFound, "not_found"},
	fault.UnknownMethod:   {http.StatusMethodNotAllowed, "method_not_allowed"},
	fault.Unauthenticated: {http.StatusUnauthorized, "unauthorized"},
	fault.Forbidden:       {http.StatusForbidden, "insufficient_scope"},
	fault.NotFound:        {http.StatusNotFound, "scim_resource_not_found"},
	fault.Invalid:         {http.StatusBadRequest, "invalid_scim_resource"},
	fault.Exists:          {http.StatusConflict, "scim_resource_already_exists"},
	fault.InUse:           {http.StatusConflict, "scim_resource_conflict"},
	fault.Stale:           {http.StatusPreconditionFailed, "scim_resource_conflict"},
	fault.TooMany:         {http.StatusTooManyRequests, "too_many_requests"},
	fault.Unavailable:     {http.StatusServiceUnavailable, "temporarily_unavailable"},
}}

// clientErrors are the UAA's words for OAuth clients, where they differ.
var clientErrors = errorTable{challenge: bearer, kinds: with(scimErrors.kinds, map[fault.Kind]answer{
	fault.Malformed: {http.StatusBadRequest, "invalid_client"},
	fault.TooLarge:  {http.StatusRequestEntityTooLarge, "invalid_client"},
	fault.MediaType: {http.StatusUnsupportedMediaType, "invalid_client"},
	fault.NotFound:  {http.StatusNotFound, "not_found"},
	fault.Invalid:   {http.StatusBadRequest, "invalid_client"},
	fault.Exists:    {http.StatusConflict, "invalid_client"},
	fault.InUse:     {http.StatusConflict, "invalid_client"},
	fault.Stale:     {http.StatusPreconditionFailed, "invalid_client"},
})}

func with(table, changes map[fault.Kind]answer) map[fault.Kind]answer {
	table = maps.Clone(table)
	maps.Copy(table, changes)
	return table
}

// The causes of failures that have another word than their kind.
var (
	errGrantType = errors.New("unsupported grant type")
	errMember    = errors.New("already a member")
	errPassword  = errors.New("the password is missing or not acceptable")
)

// causeWords are the words of these and other causes.
var causeWords = []struct {
	cause error
	word  string
}{
	{identity.ErrClient, "invalid_client"},
	{identity.ErrClientGrant, "unauthorized_client"},
	{identity.ErrGrant, "invalid_grant"},
	{identity.ErrScope, "invalid_scope"},
	{identity.ErrPending, "authorization_pending"}, // RFC 8628, 3.5
	{identity.ErrSlowDown, "slow_down"},
	{identity.ErrDenied, "access_denied"},
	{identity.ErrExpired, "expired_token"},
	{errGrantType, "unsupported_grant_type"},
	{errMember, "member_already_exists"},
	{errPassword, "invalid_password"},
	{door.ErrWrongCredential, "invalid_token"}, // RFC 6750, 3.1
}

type errorResponse struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Message     string `json:"message,omitempty"`
}

// fail writes a failure in this dialect's envelope.
func fail(w http.ResponseWriter, r *http.Request, f *fault.Error) {
	table := &scimErrors
	switch path := door.Path(r.URL); {
	case strings.HasPrefix(path, Prefix+clients):
		table = &clientErrors
	case path == Prefix+"/oauth/token", path == Prefix+"/oauth/revoke", path == Prefix+"/oauth/device_authorization":
		table = &tokenErrors
	}
	a := table.kinds[f.Kind]
	for _, c := range causeWords {
		if errors.Is(f, c.cause) {
			a.word = c.word
		}
	}
	// RFC 6750, 3: the words of Bearer stand in the challenge, too, unless no token was sent.
	switch challenge := table.challenge; {
	case a.status == http.StatusUnauthorized && a.word != "invalid_token":
		w.Header().Set("WWW-Authenticate", challenge)
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		w.Header().Set("WWW-Authenticate", challenge+`, error="`+a.word+`"`)
	}
	web.RetryAfter(w, f)
	e := errorResponse{Error: a.word, Description: f.Message}
	if table.message {
		e.Message = f.Message
	}
	web.JSON(w, a.status, "application/json", e)
}
