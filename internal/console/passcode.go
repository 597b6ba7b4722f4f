package console

import (
	"net/http"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/secret"
)

func (c *Console) passcodeRoutes() []door.Route {
	return formPage(PasscodePath, c.passcodePage, c.once(c.newPasscode))
}

// passcode is a code for the command line of Cloud Foundry, which is shown once.
type passcode struct {
	Code    secret.Text
	Expires time.Time
}

// Plain is the code itself, for the page that shows it.
func (p passcode) Plain() string { return string(p.Code) }

// passcodePage is where cf login --sso sends people.
func (c *Console) passcodePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.show(w, r, p, page{Template: "passcode/passcode.html", Title: "Sign in cf", Area: "me", Form: f})
}

func (c *Console) newPasscode(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	code, expires, err := c.Identity.NewPasscode(r.Context(), p)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "passcode/code.html", Title: "Sign in cf", Area: "me", Data: passcode{code, expires}})
}
