package adminapi

import (
	"net/http"
	"slices"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
	"rolecall/internal/web"
)

type leaseResource struct {
	ID           string         `json:"id"`
	Cluster      string         `json:"cluster"`
	For          string         `json:"for"`
	Username     string         `json:"username"`
	Connection   userConnection `json:"connection"`
	State        string         `json:"state"`
	CreatedAt    time.Time      `json:"createdAt"`
	ExpiresAt    time.Time      `json:"expiresAt"`
	MaxExpiresAt time.Time      `json:"maxExpiresAt"`
	RenewedAt    *time.Time     `json:"renewedAt"`
	EndedAt      *time.Time     `json:"endedAt"`
	EndReason    *string        `json:"endReason"`
	BlockedBy    []string       `json:"blockedBy"`
	Account      *leaseAccount  `json:"account"`
	Credential   *string        `json:"credential"`
	Note         string         `json:"note"`
}

type leaseAccount struct {
	GUID     string `json:"guid"`
	Username string `json:"username"`
}

// newLease is the one answer that holds the password.
type newLease struct {
	leaseResource
	Password string `json:"password"`
}

func presentLease(c *cluster.Cluster, l *lease.Lease) leaseResource {
	res := leaseResource{
		ID:           l.ID.String(),
		Cluster:      l.Cluster.String(),
		For:          l.For,
		Username:     l.Username,
		Connection:   presentConnection(c, l.Username, l.For, l.Databases),
		State:        string(l.State),
		CreatedAt:    l.CreatedAt.UTC(),
		ExpiresAt:    l.ExpiresAt.UTC(),
		MaxExpiresAt: l.MaxExpiresAt.UTC(),
		RenewedAt:    known(l.RenewedAt),
		EndedAt:      known(l.EndedAt),
		EndReason:    given(string(l.Reason)),
		BlockedBy:    append([]string{}, l.BlockedBy...),
		Credential:   given(l.Credential),
		Note:         l.Note,
	}
	if l.Account != "" {
		res.Account = &leaseAccount{l.Account, l.AccountName}
	}
	return res
}

func (a *API) createLease(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	as, note := o.text("for"), o.text("note")
	n := dbuser.NewLease{TTL: o.ttl("ttl"), MaxTTL: o.ttl("maxTtl"), Note: orEmpty(note)}
	if err := o.done(); err != nil {
		return err
	}
	if as == nil {
		return fault.New(fault.Invalid, "The field for is missing: the role that the lease acts for.")
	}
	n.For = *as
	c, l, password, err := a.Users.CreateLease(r.Context(), p, r.PathValue("clusterId"), n)
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.PublicURL+Prefix+"/leases/"+l.ID.String())
	web.JSON(w, http.StatusCreated, "application/json", newLease{presentLease(c, l), string(password)})
	return nil
}

// ttl reads how long a lease is to last; 0 when the field is not there.
func (o *object) ttl(name string) time.Duration {
	d := o.duration(name)
	if d == nil {
		return 0
	}
	if *d < lease.MinTTL && *o.err == nil {
		*o.err = fault.New(fault.Invalid, "The field %s%s is %s; the shortest is %s.", o.at, name, moment.DurationText(*d),
			moment.DurationText(lease.MinTTL))
	}
	return *d
}

func (a *API) listClusterLeases(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	return a.answerLeases(w, r, p, r.PathValue("clusterId"), q, page)
}

func (a *API) listLeases(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	return a.answerLeases(w, r, p, "", q, page)
}

// answerLeases lists the leases of a cluster, or with "" of all.
func (a *API) answerLeases(w http.ResponseWriter, r *http.Request, p *account.Principal, clusterID string, q query,
	page page) error {
	filter, err := q.leaseFilter(page)
	if err != nil {
		return err
	}
	leases, more, err := a.Users.Leases(r.Context(), p, clusterID, filter)
	if err != nil {
		return err
	}
	l := list[leaseResource]{Items: []leaseResource{}}
	for _, found := range leases {
		c, err := a.Users.Clusters.Get(found.Cluster.String())
		if err != nil {
			continue // its registration has just ended, and the lease with it
		}
		l.Items = append(l.Items, presentLease(c, found))
	}
	if more {
		l.Next = cursor(leases[len(leases)-1].ID.String())
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

var leaseFilters = []string{"account", "for", "state...", "expiresBefore"}

func (q query) leaseFilter(page page) (f lease.Filter, err error) {
	f.Limit = page.Limit
	if f.After, err = page.id(); err != nil {
		return f, err
	}
	if f.Account, err = q.text("account"); err != nil {
		return f, err
	}
	if f.For, err = q.text("for"); err != nil {
		return f, err
	}
	for _, text := range q.Values["state"] {
		if !slices.Contains(lease.States, lease.State(text)) {
			return f, fault.New(fault.Malformed, "The query parameter state must be active, ending, blocked or ended.")
		}
		f.States = append(f.States, lease.State(text))
	}
	f.ExpiresBefore, err = q.time("expiresBefore")
	return f, err
}

func (a *API) getLease(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, l, err := a.Users.Lease(r.Context(), p, r.PathValue("leaseId"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentLease(c, l))
	return nil
}

func (a *API) renewLease(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := optionalBody(w, r)
	if err != nil {
		return err
	}
	ttl := o.ttl("ttl")
	if err := o.done(); err != nil {
		return err
	}
	c, l, _, err := a.Users.RenewLease(r.Context(), p, r.PathValue("leaseId"), ttl)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentLease(c, l))
	return nil
}

func (a *API) endLease(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, l, err := a.Users.EndLease(r.Context(), p, r.PathValue("leaseId"))
	if err != nil {
		return err
	}
	if l == nil || l.State != lease.Blocked {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	web.JSON(w, http.StatusOK, "application/json", presentLease(c, l))
	return nil
}
