package console

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
)

func (c *Console) credentialRoutes() []door.Route {
	all := Prefix + "/clusters/{id}/credentials"
	one := all + "/{name}"
	return slices.Concat(
		formPage(all, c.credentialsPage, c.storeCredential),
		formPage(one, c.credentialPage, c.changeCredential),
		formPage(one+"/current", c.currentCredentialPage, c.once(c.readCredential)),
		formPage(one+"/delete", c.deleteCredentialPage, c.deleteCredential),
		[]door.Route{action(one+"/rotate", c.credentialPage, c.rotateCredential)},
	)
}

// shownCredential is a stored credential as the pages show it.
type shownCredential struct {
	*lease.Credential
	Path           string
	Badge          badge
	Every, Overlap string
	Window         string // in which it rotates; "": any time
	Tag            string
}

func presentCredential(in *cluster.Cluster, cr *lease.Credential) shownCredential {
	s := shownCredential{Credential: cr, Path: credentialPath(in, cr.Name), Badge: badge{"Active", "good"},
		Every: daysText(cr.RotateEvery), Overlap: daysText(cr.Overlap), Tag: strconv.FormatInt(cr.Revision, 10)}
	if cr.State() != "active" {
		s.Badge = badge{"Failing", "bad"}
	}
	if v := cr.Window; v != nil {
		s.Window = strings.Join(v.Days, ", ") + " from " + v.From + " to " + v.To + " " + v.Timezone
	}
	return s
}

func credentialPath(in *cluster.Cluster, name string, below ...string) string {
	return pagePath(append([]string{"clusters", in.ID.String(), "credentials", name}, below...)...)
}

// daysText writes a duration in days if it has nothing else.
func daysText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	return moment.DurationText(d)
}

// credentialFields are the fields of settings, for the template "credentialSettings".
type credentialFields struct {
	For, Every, Overlap string
	Window              lease.Window
	Days                []option
}

// On reports whether a day is one of the window.
func (f credentialFields) On(day string) bool { return slices.Contains(f.Window.Days, day) }

type credentialList struct {
	Head        *clusterHead
	Credentials []shownCredential
	Pager       pager
	Self        string
	Fields      credentialFields
}

// weekdays are the choices of a window, in the order of a week.
var weekdays = []option{{"mon", "Monday"}, {"tue", "Tuesday"}, {"wed", "Wednesday"}, {"thu", "Thursday"}, {"fri", "Friday"},
	{"sat", "Saturday"}, {"sun", "Sunday"}}

// credentialsPage lists the stored credentials of a cluster, with the form to store another one.
func (c *Console) credentialsPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	head, err := c.clusterHead(r, p, "credentials")
	if err != nil {
		return err
	}
	l := credentialList{Head: head, Self: pagePath("clusters", head.ID, "credentials"),
		Fields: credentialFields{For: r.URL.Query().Get("for"), Every: "30d", Overlap: "1h", Days: weekdays}}
	after := r.URL.Query().Get(afterField)
	if !isText(after) {
		return errWrongPage
	}
	in, found, more, err := c.Users.Credentials(r.Context(), p, head.ID, after, pageSize)
	if err != nil {
		return err
	}
	for _, cr := range found {
		l.Credentials = append(l.Credentials, presentCredential(in, cr))
	}
	l.Pager = pagerAfter(r, found, more, func(cr *lease.Credential) string { return cr.Name })
	return c.show(w, r, p, page{Template: "credentials/list.html", Title: "Stored credentials of " + head.Name,
		Area: "clusters", Crumbs: clusterCrumbs(head), Form: f, Data: l})
}

// settings reads the settings of a stored credential.
func (f *form) settings() (set dbuser.CredentialSettings, err error) {
	set.For = f.Get("for")
	for _, field := range []struct {
		name, missing string
		to            *time.Duration
	}{
		{"rotateEvery", "Say how often the password is replaced: ", &set.RotateEvery},
		{"overlap", "Say how long a replaced password is still accepted, or 0s: ", &set.Overlap},
	} {
		if f.Get(field.name) == "" {
			return set, wrongField(field.name, "%s%s.", field.missing, moment.DurationForm)
		}
		if *field.to, err = f.duration(field.name); err != nil {
			return set, err
		}
	}
	v := lease.Window{Days: f.Values["window.days"], From: f.Get("window.from"), To: f.Get("window.to"),
		Timezone: f.Get("window.timezone")}
	if len(v.Days) > 0 || v.From+v.To+v.Timezone != "" {
		set.Window = &v
	}
	return set, nil
}

func (c *Console) storeCredential(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	set, err := f.settings()
	if err != nil {
		return err
	}
	in, cr, err := c.Users.NewCredential(r.Context(), p, r.PathValue("id"), f.Get("name"), set)
	if err != nil {
		return err
	}
	return c.redirect(w, credentialPath(in, cr.Name), "The credential is stored. Rolecall replaces its password in time.")
}

type credentialDetail struct {
	shownCredential
	Head      *clusterHead
	MayChange bool
	Fields    credentialFields
	Leases    []shownLease // that have not ended
	Command   string       // that fetches the password
	Changed   bool         // since the form was made
}

// credentialDetail reads a stored credential for one of its pages.
func (c *Console) credentialDetail(r *http.Request, p *account.Principal, f *form) (*credentialDetail, error) {
	head, err := c.clusterHead(r, p, "credentials")
	if err != nil {
		return nil, err
	}
	in, cr, err := c.Users.Credential(r.Context(), p, head.ID, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	shown := presentCredential(in, cr)
	d := &credentialDetail{shownCredential: shown, Head: head, MayChange: dbuser.CredentialRefusal(p, in, cr.Name) == nil,
		Fields:  credentialFields{For: cr.For, Every: shown.Every, Overlap: shown.Overlap, Days: weekdays},
		Changed: f.Status == http.StatusPreconditionFailed,
		Command: "rolecall credentials current " + shellWord(cr.Name) + " -c " + shellWord(head.Name) + " -o env"}
	if cr.Window != nil {
		d.Fields.Window = *cr.Window
	}
	live, _, err := c.Users.Leases(r.Context(), p, head.ID, lease.Filter{Credential: cr.Name, Live: true})
	if err != nil {
		return nil, err
	}
	for _, l := range live {
		d.Leases = append(d.Leases, c.presentLease(p, in, l))
	}
	return d, nil
}

// showCredential shows one of the pages of a stored credential.
func (c *Console) showCredential(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form,
	template, title string) error {
	d, err := c.credentialDetail(r, p, f)
	if err != nil {
		return err
	}
	name := d.Name
	above := []crumb{{"Stored credentials", pagePath("clusters", d.Head.ID, "credentials")}}
	if title != "" {
		above = append(above, crumb{name, d.Path})
		title += " "
	}
	return c.show(w, r, p, page{Template: template, Title: title + name, Area: "clusters", Crumbs: clusterCrumbs(d.Head,
		above...), Form: f, Data: d})
}

func (c *Console) credentialPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.showCredential(w, r, p, f, "credentials/credential.html", "")
}

func (c *Console) currentCredentialPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.showCredential(w, r, p, f, "credentials/current.html", "Current password of")
}

func (c *Console) deleteCredentialPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.showCredential(w, r, p, f, "credentials/delete.html", "Delete")
}

func (c *Console) changeCredential(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	set, err := f.settings()
	if err != nil {
		return err
	}
	in, cr, _, err := c.Users.PutCredential(r.Context(), p, r.PathValue("id"), r.PathValue("name"), set,
		f.Match())
	if err != nil {
		return err
	}
	return c.redirect(w, credentialPath(in, cr.Name), "The settings are saved.")
}

func (c *Console) rotateCredential(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	in, cr, err := c.Users.RotateStored(r.Context(), p, r.PathValue("id"), r.PathValue("name"))
	if err != nil {
		return err
	}
	return c.redirect(w, credentialPath(in, cr.Name), "The password is replaced. The one before is accepted for "+
		daysText(cr.Overlap)+".")
}

// onceCredential is the one page that shows the password of a stored credential.
type onceCredential struct {
	shownCredential
	Login     *onceLogin
	ExpiresAt time.Time
}

// readCredential answers with the current password. The audit log has each reading, so the person proves first who they are.
func (c *Console) readCredential(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	in, current, err := c.Users.CurrentCredential(r.Context(), p, r.PathValue("id"), r.PathValue("name"))
	if err != nil {
		return err
	}
	login, err := handOut(in.LoginAs(current.Username, current.For, current.Databases), current.Username, current.Password)
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "credentials/once.html", Title: "Current password of " + current.Name,
		Area:   "clusters",
		Crumbs: belowCluster(in, crumb{"Stored credentials", pagePath("clusters", in.ID.String(), "credentials")}),
		Data:   onceCredential{presentCredential(in, current.Credential), login, current.ExpiresAt}})
}

func (c *Console) deleteCredential(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	name := r.PathValue("name")
	if !f.repeats("confirm", name) {
		return wrongField("confirm", "Type the name of the credential, %s, to delete it.", name)
	}
	if err := c.Users.DeleteCredential(r.Context(), p, r.PathValue("id"), name, f.Match()); err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", r.PathValue("id"), "credentials"), "The credential "+name+" is deleted.")
}
