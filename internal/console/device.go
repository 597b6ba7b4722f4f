package console

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

const devicePath = Prefix + "/device"

func (c *Console) deviceRoutes() []door.Route {
	return formPage(devicePath, c.devicePage, c.answerDevice)
}

// userCodeField is also the parameter of the address that a device shows (RFC 8628, 3.3.1).
const userCodeField = "user_code"

// deviceRequest is what the page about a device that waits for a sign-in shows.
type deviceRequest struct {
	*identity.DeviceRequest
	Here string // the address of the person's browser
}

// devicePage asks for the code that a device shows, and then whether the device gets a sign-in of the person.
func (c *Console) devicePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if r.Method == http.MethodGet {
		f = filterForm(r)
	}
	if f.Get(userCodeField) == "" || f.Problem != "" {
		return c.askUserCode(w, r, p, f)
	}
	d, err := c.Identity.DeviceRequest(r.Context(), p, f.Get(userCodeField))
	if fault.Is(err, fault.NotFound) || mendable(err) {
		f.refuse(atUserCode(err))
		web.RetryAfter(w, fault.Of(err))
		return c.askUserCode(w, r, p, f)
	}
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "device/request.html", Title: "Sign in a device", Area: "me", Form: f,
		Data: deviceRequest{d, addressOf(r)}})
}

func (c *Console) askUserCode(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.show(w, r, p, page{Template: "device/code.html", Title: "Sign in a device", Area: "me", Form: f})
}

// atUserCode is a refusal of the code that the person typed.
func atUserCode(err error) error {
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Exists) {
		return fault.Of(err).Because(fieldError{userCodeField})
	}
	return err
}

func (c *Console) answerDevice(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	code, notice := f.Get(userCodeField), "The device was denied. It gets no sign-in."
	var err error
	switch f.Get(decisionField) {
	case approve:
		err = c.Identity.ApproveDevice(r.Context(), p, code)
		notice = "The device is signed in as " + p.Username + ". You can close this page."
	case deny:
		err = c.Identity.DenyDevice(r.Context(), p, code)
	default:
		err = errNoDecision
	}
	if fault.Is(err, fault.NotFound) {
		return wrongField(userCodeField, "%s", fault.Of(err).Message)
	}
	if err != nil {
		return atUserCode(err)
	}
	return c.redirect(w, devicePath, notice)
}
