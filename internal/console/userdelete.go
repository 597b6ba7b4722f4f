package console

import (
	"fmt"
	"net/http"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// deleteData is what the deletion of a database user would do.
type deleteData struct {
	Head        *clusterHead
	Name, Path  string
	name        string               // its bytes
	User        *pgrole.Details      // nil: the cluster does not answer
	Plan        *pgrole.DeletionPlan // nil: Problem says why
	Problem     string
	How         dbuser.Deletion
	OrDisable   bool
	ETag        string
	MayDisable  bool
	Unfinished  bool // the deletion has begun
	Reassigning bool // a role gets what the user owns
}

// To is the path below the page of the user.
func (d *deleteData) To(below string) string { return userPath(d.Head.ID, d.name, below) }

// deletionOf reads how a user is to be deleted.
func deletionOf(f *form) dbuser.Deletion {
	return dbuser.Deletion{ReassignTo: f.Get("reassign-to"), WithMembers: f.Values.Get("with-members") == "yes"}
}

func (c *Console) deletePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if r.Method != http.MethodPost {
		f.Values = r.URL.Query()
	}
	head, err := c.clusterHead(r, p, "users")
	if err != nil {
		return err
	}
	if err := access.Refusal(p, head.Cluster); err != nil {
		return err
	}
	name := r.PathValue("username")
	shown := &deleteData{Head: head, Name: shownText(name), name: name, Path: userPath(head.ID, name), How: deletionOf(f),
		OrDisable: f.Checked("on-blocked", "disable", false)}
	shown.Reassigning = shown.How.ReassignTo != ""
	if head.Why == "" {
		err := c.planDeletion(r, p, name, f, shown)
		if fault.Is(err, fault.Unavailable) {
			head.Why = fault.Of(err).Message
		} else if err != nil {
			return err
		}
	}
	return c.show(w, r, p, page{Template: "users/delete.html", Title: "Delete " + shown.Name, Area: "clusters",
		Crumbs: belowCluster(head.Cluster, crumb{shown.Name, shown.Path}), Form: f, Data: shown})
}

// planDeletion fills in the user and the plan of its deletion.
func (c *Console) planDeletion(r *http.Request, p *account.Principal, name string, f *form, shown *deleteData) error {
	_, d, err := c.Users.UserDetails(r.Context(), p, shown.Head.ID, name)
	if err != nil {
		return err
	}
	if protected := d.Protection(); protected != nil {
		return protected
	}
	shown.User, shown.ETag = d, f.Tag(d.Revision())
	shown.Unfinished = d.State == pgrole.StateDeleting
	shown.MayDisable = d.Unchangeable() == nil && d.State != pgrole.StateDisabled && !shown.Unfinished
	shown.Plan, err = c.Users.DeletionPlan(r.Context(), p, shown.Head.ID, name, shown.How)
	if err != nil && fault.Of(err).Kind == fault.Internal {
		return err
	}
	if err != nil {
		shown.Problem = fault.Of(err).Message
	}
	return nil
}

func (c *Console) deleteUser(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	id, name, how := r.PathValue("id"), r.PathValue("username"), deletionOf(f)
	if !f.repeats("confirm", name) {
		return wrongField("confirm", "The name that you typed is not %q. Type the name of the user to delete it.", shownText(name))
	}
	var disabled *pgrole.User
	var err error
	if f.Checked("on-blocked", "disable", false) {
		_, disabled, err = c.Users.DeleteOrDisableUser(r.Context(), p, id, name, how, f.Match())
	} else {
		err = c.Users.DeleteUser(r.Context(), p, id, name, how, f.Match())
	}
	list := pagePath("clusters", id)
	switch {
	case fault.Is(err, fault.NotFound):
		if _, hidden := c.Users.Cluster(p, id); hidden != nil {
			return err
		}
		return c.redirect(w, list, fmt.Sprintf("There is no user %q any more.", shownText(name)))
	case err != nil:
		return err
	case disabled != nil:
		return c.redirect(w, userPath(id, name), "Something blocked the deletion, so the user was disabled: it cannot log in. "+
			"The history has the reason.")
	}
	return c.redirect(w, list, fmt.Sprintf("The user %q was deleted.", shownText(name)))
}
