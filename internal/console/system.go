package console

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/identity"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
)

const (
	systemPath     = Prefix + "/system"
	rotateKeysPath = systemPath + "/rotate-keys"
)

func (c *Console) systemRoutes() []door.Route {
	return append(formPage(rotateKeysPath, c.rotateKeysPage, c.rotateKeys), read(systemPath, c.systemPage))
}

type system struct {
	*identity.Installation
	Version, PublicURL, Metrics string
	Size                        string // of the control database
	Admin                       bool
	Newer                       int    // of them that this release does not know
	Anchor                      string // the sealed head of the audit log; "": nothing is sealed yet
	Waits                       string // how long the oldest row waits to be sealed
	Overdue                     string
	Retention                   string // of the audit log
	Limits                      []limit
}

// limit is a limit of this server, for people.
type limit struct{ Of, Is string }

func (c *Console) systemPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if !access.MayAudit(p) {
		return access.ErrMayNotAudit
	}
	found, err := c.Identity.Installation(r.Context())
	if err != nil {
		return err
	}
	shown := system{Installation: found, Version: c.Version, PublicURL: c.PublicURL, Metrics: c.Metrics,
		Size: sizeText(found.Control.Bytes), Admin: p.Has(account.ScopeAdmin),
		Newer: max(0, len(found.Control.Migrations)-found.Control.Known), Retention: "for ever",
		Waits:   moment.DurationText(found.Log.OldestRow.Round(1e9)),
		Overdue: moment.DurationText(found.Log.OldestTry.Round(1e9)), Limits: c.limits()}
	slices.Reverse(found.Control.Migrations) // the newest first
	if found.Head.Seq > 0 {
		shown.Anchor = found.Head.String()
	}
	if c.AuditRetention > 0 {
		shown.Retention = moment.DurationText(c.AuditRetention)
	}
	return c.show(w, r, p, page{Template: "system/system.html", Title: "System", Area: "system", Data: shown})
}

// limits are those that a person may meet.
func (c *Console) limits() []limit {
	rate := func(perSecond float64) string {
		if perSecond <= 0 {
			return "not limited"
		}
		return strconv.FormatFloat(perSecond, 'g', -1, 64) + " a second, twice as many at once"
	}
	return []limit{
		{"Requests of one account", rate(c.Door.PerAccount.PerSecond)},
		{"Requests of one address without a valid credential", rate(c.Door.PerAddress.PerSecond)},
		{"A session of this console", moment.DurationText(identity.SessionIdle) + " without a request, " +
			moment.DurationText(identity.SessionLongest) + " at most"},
		{"A proof of who you are, for dangerous changes", moment.DurationText(identity.ProvenFor)},
		{"A lease in a new cluster", moment.DurationText(lease.DefaultLimits.DefaultTTL) + " without a duration, " +
			moment.DurationText(lease.DefaultLimits.MaxTTL) + " at most, " +
			strconv.Itoa(lease.DefaultLimits.MaxPerAccount) + " of one account at a time"},
		{"A form of this console", sizeText(maxForm)},
	}
}

func (c *Console) rotateKeysPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if !p.Has(account.ScopeAdmin) {
		return access.ErrAdminOnly
	}
	found, err := c.Identity.Installation(r.Context())
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "system/rotate.html", Title: "Rotate the keys", Area: "system",
		Crumbs: []crumb{{"System", systemPath}}, Form: f, Data: found.Control})
}

func (c *Console) rotateKeys(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	done, err := c.Identity.RotateKeys(r.Context(), p, f.Get("signingKey") != "")
	if err != nil {
		return err
	}
	notice := fmt.Sprintf("All secrets are encrypted with the master key %s. %d %s re-encrypted.", done.MasterKey,
		done.Resealed, plural(done.Resealed, "secret was", "secrets were"))
	if done.SigningKey != "" {
		notice += fmt.Sprintf(" The new signing key is %s. It signs in an hour, when every replica has it.", done.SigningKey)
	}
	return c.redirect(w, systemPath, notice)
}
