package adminapi

import (
	"net/http"
	"strconv"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
	"rolecall/internal/web"
)

type credentialResource struct {
	Name        string          `json:"name"`
	Cluster     string          `json:"cluster"`
	For         string          `json:"for"`
	RotateEvery string          `json:"rotateEvery"`
	Overlap     string          `json:"overlap"`
	Window      *windowResource `json:"window"`
	Username    *string         `json:"username"`
	State       string          `json:"state"`
	LastError   *string         `json:"lastError"`
	RotatedAt   *time.Time      `json:"rotatedAt"`
	RotatesAt   *time.Time      `json:"rotatesAt"`
	CreatedAt   time.Time       `json:"createdAt"`
	CreatedBy   string          `json:"createdBy"`
}

type windowResource struct {
	Days     []string `json:"days"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Timezone string   `json:"timezone"`
}

// currentCredential is what a program logs in with.
type currentCredential struct {
	Username   string         `json:"username"`
	Password   string         `json:"password"`
	Connection userConnection `json:"connection"`
	ExpiresAt  time.Time      `json:"expiresAt"`
	RotatesAt  time.Time      `json:"rotatesAt"`
}

func presentCredential(c *cluster.Cluster, cr *lease.Credential) credentialResource {
	res := credentialResource{
		Name:        cr.Name,
		Cluster:     c.ID.String(),
		For:         cr.For,
		RotateEvery: moment.DurationText(cr.RotateEvery),
		Overlap:     moment.DurationText(cr.Overlap),
		Username:    given(cr.Username),
		State:       cr.State(),
		LastError:   given(cr.LastError),
		RotatedAt:   known(cr.RotatedAt),
		RotatesAt:   known(cr.RotatesAt),
		CreatedAt:   cr.CreatedAt.UTC(),
		CreatedBy:   cr.CreatedBy,
	}
	if v := cr.Window; v != nil {
		res.Window = &windowResource{append([]string{}, v.Days...), v.From, v.To, v.Timezone}
	}
	return res
}

func answerCredential(w http.ResponseWriter, status int, c *cluster.Cluster, cr *lease.Credential) {
	w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(cr.Revision, 10)))
	web.JSON(w, status, "application/json", presentCredential(c, cr))
}

func (a *API) putCredential(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	as, every, overlap, window := o.text("for"), o.duration("rotateEvery"), o.duration("overlap"), o.window()
	if err := o.done(); err != nil {
		return err
	}
	switch {
	case as == nil:
		return fault.New(fault.Invalid, "The field for is missing: the role that the credential acts for.")
	case every == nil:
		return fault.New(fault.Invalid, "The field rotateEvery is missing: %s.", moment.DurationForm)
	case overlap == nil:
		return fault.New(fault.Invalid, "The field overlap is missing: %s, or 0s.", moment.DurationForm)
	}
	name := r.PathValue("name")
	c, cr, created, err := a.Users.PutCredential(r.Context(), p, r.PathValue("clusterId"), name,
		dbuser.CredentialSettings{For: *as, RotateEvery: *every, Overlap: *overlap, Window: window}, web.IfMatch(r))
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	answerCredential(w, status, c, cr)
	return nil
}

// window is nil when the field is not there or null.
func (o *object) window() *lease.Window {
	if v, _ := o.get("window"); v == nil {
		return nil
	}
	in := o.object("window")
	v := &lease.Window{From: orEmpty(in.text("from")), To: orEmpty(in.text("to")), Timezone: orEmpty(in.text("timezone"))}
	if days := in.texts("days"); days != nil {
		v.Days = *days
	}
	_ = in.done()
	return v
}

func (a *API) listCredentials(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	c, credentials, more, err := a.Users.Credentials(r.Context(), p, r.PathValue("clusterId"), page.After, page.Limit)
	if err != nil {
		return err
	}
	l := list[credentialResource]{Items: []credentialResource{}}
	for _, cr := range credentials {
		l.Items = append(l.Items, presentCredential(c, cr))
	}
	if more {
		l.Next = cursor(l.Items[len(l.Items)-1].Name)
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) getCredential(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, cr, err := a.Users.Credential(r.Context(), p, r.PathValue("clusterId"), r.PathValue("name"))
	if err != nil {
		return err
	}
	answerCredential(w, http.StatusOK, c, cr)
	return nil
}

func (a *API) currentCredential(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, current, err := a.Users.CurrentCredential(r.Context(), p, r.PathValue("clusterId"), r.PathValue("name"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", currentCredential{
		Username:   current.Username,
		Password:   string(current.Password),
		Connection: presentConnection(c, current.Username, current.For, current.Databases),
		ExpiresAt:  current.ExpiresAt.UTC(),
		RotatesAt:  current.RotatesAt.UTC(),
	})
	return nil
}

func (a *API) rotateStored(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, cr, err := a.Users.RotateStored(r.Context(), p, r.PathValue("clusterId"), r.PathValue("name"))
	if err != nil {
		return err
	}
	answerCredential(w, http.StatusOK, c, cr)
	return nil
}

func (a *API) deleteCredential(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Users.DeleteCredential(r.Context(), p, r.PathValue("clusterId"), r.PathValue("name"),
		web.IfMatch(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
