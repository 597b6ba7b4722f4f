package uaa

import (
	"net/http"
	"net/url"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/web"
)

type deviceResponse struct {
	DeviceCode  string `json:"device_code"`
	UserCode    string `json:"user_code"`
	URI         string `json:"verification_uri"`
	CompleteURI string `json:"verification_uri_complete"`
	ExpiresIn   int    `json:"expires_in"`
	Interval    int    `json:"interval"`
}

// devicePage is the page of the console where a person types the user code.
const devicePage = "/console/device"

// authorizeDevice is the device authorization endpoint (RFC 8628, 3.1).
func (a *API) authorizeDevice(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	form, err := tokenForm(w, r)
	if err != nil {
		return err
	}
	client, err := a.client(r, form)
	if err != nil {
		return err
	}
	scopes, address := strings.Fields(form.Get("scope")), web.InfoOf(r.Context()).Address
	d, err := a.Identity.StartDeviceLogin(r.Context(), client, scopes, address)
	if err != nil {
		return err
	}
	page := a.PublicURL + devicePage
	web.JSON(w, http.StatusOK, "application/json", deviceResponse{
		DeviceCode:  string(d.DeviceCode),
		UserCode:    d.UserCode,
		URI:         page,
		CompleteURI: page + "?" + url.Values{"user_code": {d.UserCode}}.Encode(),
		ExpiresIn:   int(d.Lifetime.Seconds()),
		Interval:    int(d.Interval.Seconds()),
	})
	return nil
}
