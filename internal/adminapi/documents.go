package adminapi

import (
	"net/http"

	"rolecall/api"
	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/web"
)

// Documents returns the handler of the OpenAPI documents and of the pages to read them. They take no credentials: the
// documents are public, and the pages send nothing.
func Documents(d *door.Door) *door.Handler {
	headers := func(h http.Header, _ *web.Info) {
		web.AsData(h)
		api.SetHeaders(h)
	}
	s := door.Surface{Fail: fail, Headers: headers}
	for _, f := range api.Files() {
		s.Routes = append(s.Routes, door.Route{Method: http.MethodGet, Pattern: f.Path, Public: true,
			Handle: func(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
				f.Handler.ServeHTTP(w, r)
				return nil
			}})
	}
	return d.Handler(s)
}
