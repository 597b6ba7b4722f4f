package vaultapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
	"rolecall/internal/web"
)

// seconds are whole ones, to the nearest: clients count in these.
func seconds(d time.Duration) int64 { return int64(d.Round(time.Second) / time.Second) }

// clock is a time as Vault writes it.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

type credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// newCredentials makes a lease.
func (a *API) newCredentials(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if r.Method == http.MethodHead { // the response would not have the password
		return fault.New(fault.UnknownRoute, "There is nothing at %.200s.", r.URL.Path)
	}
	mount, role := r.PathValue("mount"), r.PathValue("role")
	c, err := a.mount(p, mount)
	if err != nil {
		return err
	}
	_, l, password, err := a.Users.CreateLease(r.Context(), p, c.ID.String(), dbuser.NewLease{For: role})
	if errors.Is(err, dbuser.ErrNoRole) {
		return fault.New(fault.Invalid, "unknown role: %s", role).Because(err)
	}
	if err != nil {
		return err
	}
	return answer(w, r, response[credentials, null]{
		LeaseID:       mount + creds + role + "/" + l.ID.String(),
		Renewable:     true,
		LeaseDuration: seconds(l.ExpiresAt.Sub(l.CreatedAt)),
		Data:          credentials{l.Username, string(password)},
	})
}

// creds stands between mount and role in the id of a lease.
const creds = "/creds/"

type staticCredentials struct {
	credentials
	TTL            int64  `json:"ttl"` // in seconds, until another password is the current one
	RotationPeriod int64  `json:"rotation_period"`
	LastRotation   string `json:"last_vault_rotation"`
}

// staticCredentials reads a stored credential.
func (a *API) staticCredentials(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, err := a.mount(p, r.PathValue("mount"))
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	_, current, err := a.Users.CurrentCredential(r.Context(), p, c.ID.String(), name)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Invalid, "unknown role: %s", name).Because(err)
	}
	if err != nil {
		return err
	}
	return answer(w, r, response[staticCredentials, null]{Data: staticCredentials{
		credentials: credentials{current.Username, string(current.Password)},
		// A rotation may be late. A client that reads again after that time must not do so all the time.
		TTL:            max(seconds(current.Clock.Until(current.RotatesAt)), 1),
		RotationPeriod: seconds(current.RotateEvery),
		LastRotation:   clock(current.RotatedAt),
	}})
}

// leaseRequest is the id of a lease and the rest of the body.
type leaseRequest struct {
	Path string    // the whole id, as it is returned to the client
	ID   uuid.UUID // zero: the id is not of a form that leases have
	body *web.Object
}

// readLease reads which lease is meant: the body says so, or else the rest of the path.
func readLease(w http.ResponseWriter, r *http.Request) (*leaseRequest, error) {
	o, err := body(w, r)
	if err != nil {
		return nil, err
	}
	path, err := text(o, "lease_id")
	if err != nil {
		return nil, err
	}
	if path == "" {
		path = r.PathValue("leaseId")
	}
	if path == "" {
		return nil, fault.New(fault.Malformed, "missing lease_id")
	}
	req := &leaseRequest{Path: path, body: o}
	if i := strings.LastIndexByte(path, '/'); strings.Contains(path[:i+1], creds) && len(path)-i-1 == 36 {
		req.ID, _ = uuid.Parse(path[i+1:])
	}
	return req, nil
}

// find returns the lease that is meant, if the id names its role, too. The mount may have had another name at that time.
func (a *API) find(r *http.Request, p *account.Principal, req *leaseRequest) (*lease.Lease, error) {
	_, l, err := a.Users.Lease(r.Context(), p, req.ID.String())
	if err == nil && !strings.HasSuffix(req.Path, creds+l.For+"/"+l.ID.String()) {
		err = lease.NotFound(req.Path)
	}
	return l, err
}

// leaseResponse is a lease after its renewal.
func leaseResponse(req *leaseRequest, left time.Duration, warnings *[]string) renewal {
	return renewal{LeaseID: req.Path, Renewable: true, LeaseDuration: max(seconds(left), 0), Warnings: warnings}
}

type renewal = response[null, null]

// errNoLease is Vault's answer for a lease that has ended, or never was.
var errNoLease = fault.New(fault.Invalid, "lease not found")

// renewLease renews a lease, but not beyond its latest end. If that limit applies, the response has a warning.
func (a *API) renewLease(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	req, err := readLease(w, r)
	if err != nil {
		return err
	}
	increment, err := increment(req.body)
	if err != nil {
		return err
	}
	l, err := a.find(r, p, req)
	if fault.Is(err, fault.NotFound) {
		return errNoLease.Because(err)
	}
	if err != nil {
		return err
	}
	_, renewed, cut, err := a.Users.RenewLease(r.Context(), p, l.ID.String(), increment)
	switch {
	case fault.Is(err, fault.Invalid) && l.State == lease.Active && !l.ExpiresAt.Before(l.MaxExpiresAt) &&
		time.Now().Before(l.ExpiresAt):
		return answer(w, r, leaseResponse(req, time.Until(l.ExpiresAt), lastEnd(l)))
	case fault.Is(err, fault.Invalid), fault.Is(err, fault.NotFound):
		return errNoLease.Because(err)
	case err != nil:
		return err
	}
	left := renewed.ExpiresAt.Sub(renewed.RenewedAt)
	if cut {
		return answer(w, r, leaseResponse(req, left, lastEnd(renewed)))
	}
	return answer(w, r, leaseResponse(req, left, nil))
}

func lastEnd(l *lease.Lease) *[]string {
	return &[]string{"The lease ends at " + clock(l.MaxExpiresAt) + ", and is not renewed beyond that. Take another one."}
}

// longest bounds an increment, far beyond the end of any lease.
const longest = 10 * 365 * 24 * time.Hour

// increment reads for how long a lease is to be renewed: seconds, as a number or text, or a duration, but not less than
// lease.MinTTL. 0: for as long as it was made.
func increment(o *web.Object) (time.Duration, error) {
	v, _ := o.Get("increment")
	var written string
	switch v := v.(type) {
	case nil:
		return 0, nil
	case json.Number:
		written = v.String()
	case string:
		written = v
	default:
		return 0, fault.New(fault.Malformed, "The field increment must be seconds or %s, not %s.", moment.DurationForm,
			web.TypeName(v))
	}
	if written == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(written, 10, 64); err == nil && n >= 0 {
		return time.Duration(min(n, int64(longest/time.Second))) * time.Second, nil
	}
	d, err := moment.Duration(written)
	if err != nil {
		return 0, fault.New(fault.Malformed, "The field increment is %.40q; it must be seconds or %s.", written,
			moment.DurationForm)
	}
	if d > 0 {
		d = max(d, lease.MinTTL)
	}
	return min(d, longest), nil
}

// revokeLease ends a lease. If it has ended, or does not exist, that is no failure, as in Vault.
func (a *API) revokeLease(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	req, err := readLease(w, r)
	if err != nil {
		return err
	}
	l, err := a.find(r, p, req)
	if err == nil {
		_, _, err = a.Users.EndLease(r.Context(), p, l.ID.String())
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

type leaseData struct {
	ID          string  `json:"id"`
	IssueTime   string  `json:"issue_time"`
	ExpireTime  string  `json:"expire_time"`
	LastRenewal *string `json:"last_renewal"` // null: never
	Renewable   bool    `json:"renewable"`
	TTL         int64   `json:"ttl"` // in seconds
}

func (a *API) lookUpLease(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	req, err := readLease(w, r)
	if err != nil {
		return err
	}
	l, err := a.find(r, p, req)
	if fault.Is(err, fault.NotFound) || err == nil && l.State != lease.Active {
		return fault.New(fault.Invalid, "invalid lease").Because(err)
	}
	if err != nil {
		return err
	}
	data := leaseData{
		ID:         req.Path,
		IssueTime:  clock(l.CreatedAt),
		ExpireTime: clock(l.ExpiresAt),
		Renewable:  l.ExpiresAt.Before(l.MaxExpiresAt),
		TTL:        max(seconds(time.Until(l.ExpiresAt)), 0),
	}
	if !l.RenewedAt.IsZero() {
		at := clock(l.RenewedAt)
		data.LastRenewal = &at
	}
	return answer(w, r, response[leaseData, null]{Data: data})
}
