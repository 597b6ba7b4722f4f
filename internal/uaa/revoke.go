package uaa

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/web"
)

// revoke is the revocation endpoint (RFC 7009). token_type_hint is ignored: tokens tell their kind.
func (a *API) revoke(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	form, err := tokenForm(w, r)
	if err != nil {
		return err
	}
	client, err := a.client(r, form)
	if err != nil {
		return err
	}
	token, err := needed(form, "token")
	if err != nil {
		return err
	}
	if err := a.Identity.Revoke(r.Context(), client, token, web.InfoOf(r.Context()).Address); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
