package console

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// newUserData is what the form for a new database user is made from.
type newUserData struct {
	Head      *clusterHead
	Databases []levelChoice
	Roles     []string // that can be granted
	Always    []string // that every new user becomes a member of
	Reserved  []string // patterns of names that are protected in this cluster
	// Existing is the page of the user that has the name already.
	Existing string
}

// Levels are those to choose from.
func (*newUserData) Levels() []string { return levelNames() }

// levelChoice is a database with access roles, and the level that was chosen; "": none.
type levelChoice struct{ Database, Level string }

// maxDatabases is how many databases a form offers.
const maxDatabases = 200

// leveledDatabases are the databases of a cluster that have access roles.
func (c *Console) leveledDatabases(r *http.Request, p *account.Principal, clusterID string) (names []string, err error) {
	found, _, err := c.Users.DatabasesAfter(r.Context(), p, clusterID, "", 1000)
	if err != nil {
		return nil, err
	}
	for _, d := range found {
		if d.AccessRoles && utf8.ValidString(d.Name) && len(names) < maxDatabases {
			names = append(names, d.Name)
		}
	}
	return names, nil
}

func (c *Console) newUserPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	head, err := c.clusterHead(r, p, "users")
	if err != nil {
		return err
	}
	if err := access.Refusal(p, head.Cluster); err != nil {
		return err
	}
	shown := &newUserData{Head: head, Roles: head.Cluster.Grantable, Always: head.Cluster.MemberOf,
		Reserved: head.Cluster.SystemRoles}
	if f.Status == http.StatusConflict {
		shown.Existing = userPath(head.ID, f.Get("username"))
	}
	if head.Why == "" {
		names, err := c.leveledDatabases(r, p, head.ID)
		if fault.Is(err, fault.Unavailable) {
			head.Why = fault.Of(err).Message
		} else if err != nil {
			return err
		}
		typed := levelsOf(f)
		for _, name := range names {
			shown.Databases = append(shown.Databases, levelChoice{name, typed[name]})
		}
	}
	return c.show(w, r, p, page{Template: "users/new.html", Title: "New user in " + head.Name, Area: "clusters",
		Crumbs: belowCluster(head.Cluster), Form: f, Data: shown})
}

// levelsOf are the levels that were chosen, by database. A form has a field level for each field database.
func levelsOf(f *form) map[string]string {
	levels := map[string]string{}
	chosen := f.Values["level"]
	for i, database := range f.Values["database"] {
		if i < len(chosen) && chosen[i] != "" {
			levels[database] = chosen[i]
		}
	}
	return levels
}

// limitsOf reads when a user expires and how many connections it may have. An empty field is no limit.
func limitsOf(f *form) (limits pgrole.Limits, err error) {
	at, err := expiry(f.Get("expires"))
	if err != nil {
		return limits, err
	}
	var until *time.Time
	if !at.IsZero() {
		until = &at
	}
	connections := -1
	if text := f.Get("connections"); text != "" {
		if connections, err = strconv.Atoi(text); err != nil || connections < 0 {
			return limits, wrongField("connections", "The number of connections is %.50q. Use a number that is not negative, or "+
				"leave the field empty.", text)
		}
	}
	return pgrole.Limits{ValidUntil: &until, ConnectionLimit: &connections}, nil
}

func (c *Console) createUser(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	limits, err := limitsOf(f)
	if err != nil {
		return err
	}
	password, err := chosenPassword(f)
	if err != nil {
		return err
	}
	n := dbuser.NewUser{Name: f.Get("username"), Password: password, Roles: f.Values["role"], Limits: limits}
	for _, database := range f.Values["database"] {
		if level := levelsOf(f)[database]; level != "" {
			n.Access = append(n.Access, pgrole.Access{Database: database, Level: pgrole.Level(level)})
		}
	}
	in, d, generated, err := c.Users.CreateUserWith(r.Context(), p, r.PathValue("id"), n)
	if err != nil {
		return c.atUserField(p, r.PathValue("id"), n, err)
	}
	if generated != "" {
		return c.showOnce(w, r, p, "The new user", in, d, generated)
	}
	return c.redirect(w, userPath(in.ID.String(), d.Name), sentences(
		fmt.Sprintf("The user %q was made, with the password that you typed.", d.Name), d.LoginProblem(), portability(password)))
}

// atUserField says which field of a new user a refusal concerns.
func (c *Console) atUserField(p *account.Principal, clusterID string, n dbuser.NewUser, err error) error {
	var reserved []string
	if found, err := c.Users.Cluster(p, clusterID); err == nil {
		reserved = found.SystemRoles
	}
	refused := fault.Of(err)
	switch {
	case refused.Kind == fault.Exists:
		return refused.Add("If you sent the form twice: the answer to the first one had the password. It is not shown again, " +
			"but you can give the user a new one.").Because(fieldError{"username"})
	case refused.Kind == fault.Invalid && pgrole.CheckName(n.Name, reserved) != nil:
		return wrongField("username", "%s", refused.Message)
	}
	return atPassword(err, n.Password)
}
