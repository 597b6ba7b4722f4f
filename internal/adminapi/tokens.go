package adminapi

import (
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

type tokenResource struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	ReadOnly   bool       `json:"readOnly"`
	Clusters   *[]string  `json:"clusters"` // null: no limit
	CreatedAt  time.Time  `json:"createdAt"`
	ExpiresAt  *time.Time `json:"expiresAt"`
	LastUsedAt *time.Time `json:"lastUsedAt"`
}

// newToken is the one answer that holds the token itself.
type newToken struct {
	tokenResource
	Secret string `json:"secret"`
}

func presentToken(t *identity.PersonalToken) tokenResource {
	res := tokenResource{
		ID:         t.ID.String(),
		Name:       t.Name,
		ReadOnly:   t.ReadOnly,
		CreatedAt:  t.Created.UTC(),
		ExpiresAt:  known(t.Expires),
		LastUsedAt: known(t.LastUsed),
	}
	if t.Clusters != nil {
		ids := make([]string, len(t.Clusters))
		for i, c := range t.Clusters {
			ids[i] = c.String()
		}
		res.Clusters = &ids
	}
	return res
}

// known is nil for a time that there is not.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func (a *API) listTokens(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	tokens, err := a.Identity.PersonalTokens(r.Context(), p)
	if err != nil {
		return err
	}
	l := list[tokenResource]{Items: []tokenResource{}}
	for _, t := range tokens {
		id := t.ID.String()
		if page.After != "" && id >= page.After { // they come in the falling order of their ids
			continue
		}
		if len(l.Items) == page.Limit {
			l.Next = cursor(l.Items[page.Limit-1].ID)
			break
		}
		l.Items = append(l.Items, presentToken(t))
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) createToken(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	name, readOnly, expires := o.text("name"), o.flag("readOnly"), o.moment("expiresAt")
	var clusters *[]string
	if v, _ := o.get("clusters"); v != nil { // null is no limit, as it is in the answer
		clusters = o.texts("clusters")
	}
	if err := o.done(); err != nil {
		return err
	}
	if name == nil {
		return fault.New(fault.Invalid, "The field name is missing.")
	}
	n := identity.NewPersonalToken{Name: *name, ReadOnly: readOnly != nil && *readOnly}
	if expires != nil && *expires != nil {
		n.Expires = **expires
	}
	if clusters != nil {
		n.Clusters = []uuid.UUID{}
		for _, id := range *clusters {
			c, err := a.Users.Cluster(p, id)
			if fault.Is(err, fault.NotFound) {
				return fault.New(fault.Invalid, "%s", fault.Of(err).Message)
			}
			if err != nil {
				return err
			}
			if !slices.Contains(n.Clusters, c.ID) {
				n.Clusters = append(n.Clusters, c.ID)
			}
		}
	}
	t, secret, err := a.Identity.CreatePersonalToken(r.Context(), p, n)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusCreated, "application/json", newToken{presentToken(t), secret})
	return nil
}

func (a *API) revokeToken(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Identity.RevokePersonalToken(r.Context(), p, r.PathValue("tokenId")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
