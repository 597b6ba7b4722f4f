package adminapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

type tokenResource struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	ReadOnly    bool       `json:"readOnly"`
	Clusters    *[]string  `json:"clusters"`    // null: no limit
	Credentials *[]string  `json:"credentials"` // null: no limit
	CreatedAt   time.Time  `json:"createdAt"`
	ExpiresAt   *time.Time `json:"expiresAt"`
	LastUsedAt  *time.Time `json:"lastUsedAt"`
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
	if t.Credentials != nil {
		res.Credentials = &t.Credentials
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
	var clusters, credentials *[]string
	if v, _ := o.get("clusters"); v != nil { // null is no limit, as it is in the answer
		clusters = o.texts("clusters")
	}
	if v, _ := o.get("credentials"); v != nil {
		credentials = o.texts("credentials")
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
	if credentials != nil {
		if n.Credentials, err = a.tokenCredentials(r.Context(), p, *credentials); err != nil {
			return err
		}
	}
	t, secret, err := a.Identity.CreatePersonalToken(r.Context(), p, n)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusCreated, "application/json", newToken{presentToken(t), secret})
	return nil
}

// tokenCredentials reads the credentials of a token: <id of the cluster>/<name>. The principal may read them all, and has to
// whenever the token is used.
func (a *API) tokenCredentials(ctx context.Context, p *account.Principal, list []string) ([]string, error) {
	credentials := []string{}
	for i, text := range list {
		if slices.Contains(list[:i], text) { // thousands fit into a body
			continue
		}
		id, name, found := strings.Cut(text, "/")
		if !found {
			return nil, fault.New(fault.Invalid, "The field credentials[%d] must be the id of a cluster, / and the name of a "+
				"credential.", i)
		}
		c, cr, err := a.Users.Credential(ctx, p, id, name)
		if fault.Is(err, fault.NotFound) {
			return nil, fault.New(fault.Invalid, "%s", fault.Of(err).Message)
		}
		if err != nil {
			return nil, err
		}
		if err := access.Refusal(p, c); err != nil {
			return nil, err
		}
		if reference := c.ID.String() + "/" + cr.Name; !slices.Contains(credentials, reference) {
			credentials = append(credentials, reference)
		}
	}
	return credentials, nil
}

func (a *API) revokeToken(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Identity.RevokePersonalToken(r.Context(), p, r.PathValue("tokenId")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
