package adminapi

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/web"
)

type keyRotation struct {
	MasterKey  string `json:"masterKey"`
	Resealed   int    `json:"resealed"`
	SigningKey string `json:"signingKey,omitempty"`
}

func (a *API) rotateKeys(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := optionalBody(w, r)
	if err != nil {
		return err
	}
	signingKey := o.flag("signingKey")
	if err := o.done(); err != nil {
		return err
	}
	done, err := a.Identity.RotateKeys(r.Context(), p, signingKey != nil && *signingKey)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", keyRotation{done.MasterKey, done.Resealed, done.SigningKey})
	return nil
}
