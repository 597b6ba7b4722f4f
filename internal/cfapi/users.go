package cfapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// user has its members in the order of the reference.
type user struct {
	GUID             string    `json:"guid"`
	CreatedAt        string    `json:"created_at"`
	UpdatedAt        string    `json:"updated_at"`
	Username         *string   `json:"username"`
	PresentationName string    `json:"presentation_name"`
	Origin           *string   `json:"origin"`
	Metadata         metadata  `json:"metadata"`
	Links            selfLinks `json:"links"`
}

type metadata struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type selfLinks struct {
	Self link `json:"self"`
}

func (a *API) present(u *account.Profile) user {
	return user{
		GUID:             u.GUID,
		CreatedAt:        stamp(u.PlatformCreated),
		UpdatedAt:        stamp(u.PlatformUpdated),
		Username:         orNull(u.Username),
		PresentationName: u.Presentation(),
		Origin:           orNull(u.Origin),
		Metadata:         metadata{u.Labels, u.Annotations},
		Links:            selfLinks{link{a.href("/users", u.GUID)}},
	}
}

// stamp is a time as the reference writes it: in UTC, to the second.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (a *API) writeUser(w http.ResponseWriter, status int, u *account.Profile) {
	w.Header().Set("ETag", strconv.Quote(u.PlatformTag()))
	web.JSON(w, status, jsonType, a.present(u))
}

func (a *API) createUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	n, err := decodeNew(body)
	if err != nil {
		return err
	}
	u, err := a.Accounts.CreatePlatform(r.Context(), p, n)
	if fault.Is(err, fault.Exists) {
		// A duplicate is an invalid request in the reference. A conflict is our own status, for a change that clashes.
		f := *fault.Of(worded(err))
		f.Kind = fault.Invalid
		return &f
	}
	if err != nil {
		return worded(err)
	}
	a.writeUser(w, http.StatusCreated, u)
	return nil
}

func (a *API) getUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	u, err := a.Accounts.Platform(r.Context(), p, r.PathValue("guid"))
	if err != nil {
		return err
	}
	a.writeUser(w, http.StatusOK, u)
	return nil
}

func (a *API) patchUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	guid := r.PathValue("guid")
	c, err := decodeChange(body)
	if err != nil {
		// A missing user is reported before mistakes in the change.
		if _, missing := a.Accounts.Platform(r.Context(), p, guid); missing != nil {
			return missing
		}
		return err
	}
	u, err := a.Accounts.UpdatePlatform(r.Context(), p, guid, web.IfMatch(r), c)
	if d, ok := errors.AsType[account.Differences](err); ok {
		return differing(d)
	}
	if err != nil {
		return worded(err)
	}
	a.writeUser(w, http.StatusOK, u)
	return nil
}

func (a *API) deleteUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	job, err := a.Accounts.DeletePlatform(r.Context(), p, r.PathValue("guid"), web.IfMatch(r))
	if fault.Is(err, fault.NotFound) {
		// `cf delete-user` gives up when the detail is exactly "User not found", and leaves the identity behind
		// (cloudfoundry/cli#2086). With other words it goes on and deletes that.
		return fault.New(fault.NotFound, "User not found. Ensure it exists and you have access to it.")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.href("/jobs", job.GUID.String()))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

type job struct {
	GUID      string     `json:"guid"`
	CreatedAt string     `json:"created_at"`
	UpdatedAt string     `json:"updated_at"`
	Operation string     `json:"operation"`
	State     string     `json:"state"`
	Errors    []struct{} `json:"errors"`
	Warnings  []struct{} `json:"warnings"`
	Links     selfLinks  `json:"links"`
}

// getJob answers anybody who may read: only the creator of a job knows its guid. A job is done once it can be seen.
func (a *API) getJob(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	j, err := a.Accounts.Job(r.Context(), r.PathValue("guid"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, jsonType, job{
		GUID:      j.GUID.String(),
		CreatedAt: stamp(j.CreatedAt),
		UpdatedAt: stamp(j.CreatedAt),
		Operation: j.Operation,
		State:     "COMPLETE",
		Errors:    []struct{}{},
		Warnings:  []struct{}{},
		Links:     selfLinks{link{a.href("/jobs", j.GUID.String())}},
	})
	return nil
}
