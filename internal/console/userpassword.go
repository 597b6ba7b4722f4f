package console

import (
	"net/http"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

// onceUser is what the one page shows that has the password of a database user.
type onceUser struct {
	Path    string
	Login   *onceLogin
	Problem string // why the user cannot log in whatever its password is; ""
}

// showOnce answers with the page that shows a generated password. It is the answer to the form itself, so no other request
// shows it again.
func (c *Console) showOnce(w http.ResponseWriter, r *http.Request, p *account.Principal, title string, in *cluster.Cluster,
	d *pgrole.Details, password secret.Text) error {
	login, err := handOut(in.LoginAs(d.Name, d.Name, d.Databases), d.Name, password)
	if err != nil {
		return err
	}
	shown := onceUser{Path: userPath(in.ID.String(), d.Name), Login: login, Problem: d.LoginProblem()}
	return c.show(w, r, p, page{Template: "users/once.html", Title: title, Area: "clusters", Data: shown,
		Crumbs: belowCluster(in, crumb{d.Name, shown.Path})})
}

// chosenPassword is the password that a form gives; nil: one is to be generated.
func chosenPassword(f *form) (*secret.Text, error) {
	switch f.Values.Get("how") {
	case "generate":
		return nil, nil
	case "type":
		return new(secret.Text(f.Values.Get("new-password"))), nil
	}
	return nil, wrongField("how", "Choose whether the password is generated or typed.")
}

// atPassword says that a refusal concerns the password, if the password is refused by itself.
func atPassword(err error, password *secret.Text) error {
	if fault.Is(err, fault.Invalid) && password != nil && pgrole.CheckPassword(string(*password)) != nil {
		return wrongField("new-password", "%s", fault.Of(err).Message)
	}
	return err
}

// portability is what may become a problem with a password that was typed; "": nothing.
func portability(password *secret.Text) string {
	if password == nil {
		return ""
	}
	return pgrole.PortabilityProblem(string(*password))
}

// sentences joins those that are there.
func sentences(all ...string) string {
	var there []string
	for _, s := range all {
		if s != "" {
			there = append(there, s)
		}
	}
	return strings.Join(there, " ")
}
