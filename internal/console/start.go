package console

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/door"
)

func (c *Console) startRoutes() []door.Route {
	return []door.Route{read(startPath, c.startPage), read(Prefix, c.startPage)}
}

func (c *Console) startPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return c.show(w, r, p, page{Template: "start/start.html", Title: "Start", Area: "start"})
}
