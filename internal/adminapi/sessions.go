package adminapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

type sessionResource struct {
	ID         string    `json:"id"`
	Kind       string    `json:"kind"`
	CreatedAt  time.Time `json:"createdAt"`
	LastUsedAt time.Time `json:"lastUsedAt"`
	Address    string    `json:"address"`
	Client     string    `json:"client"`
	Current    bool      `json:"current"`
}

func (a *API) listSessions(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error {
	who, err := q.text("account")
	if err != nil {
		return err
	}
	after, err := page.session()
	if err != nil {
		return err
	}
	found, more, err := a.Identity.Sessions(r.Context(), p, who, after, page.Limit)
	if err != nil {
		return err
	}
	l := list[sessionResource]{Items: []sessionResource{}}
	for _, s := range found {
		l.Items = append(l.Items, sessionResource{s.ID.String(), string(s.Kind), s.Created.UTC(), s.LastUsed.UTC(), s.Address,
			s.Client, s.Current})
	}
	if more {
		last := found[len(found)-1]
		l.Next = cursor(last.Created.Format(time.RFC3339Nano) + " " + last.ID.String())
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

// session is the one that the cursor stands for, nil if there is no cursor.
func (p page) session() (*identity.SignedIn, error) {
	if p.After == "" {
		return nil, nil
	}
	created, id, _ := strings.Cut(p.After, " ")
	at, err := time.Parse(time.RFC3339Nano, created)
	if err != nil {
		return nil, errCursor
	}
	last, err := uuid.Parse(id)
	if err != nil {
		return nil, errCursor
	}
	return &identity.SignedIn{Created: at, ID: last}, nil
}

func (a *API) endSession(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	who, err := q.text("account")
	if err != nil {
		return err
	}
	if err := a.Identity.EndSession(r.Context(), p, who, r.PathValue("sessionId")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
