package adminapi

import (
	"bytes"
	"maps"
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/idempotency"
	"rolecall/internal/web"
)

// replayed is the header of a repeated answer.
const replayed = "Idempotency-Replayed"

// repeatable makes each POST one that a client may repeat with the same Idempotency-Key. Requests without one are as before.
func (a *API) repeatable(routes []door.Route) []door.Route {
	for i, route := range routes {
		if route.Method != http.MethodPost {
			continue
		}
		routes[i].Handle = func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
			if r.Header[idempotency.Header] == nil {
				return route.Handle(w, r, p)
			}
			return a.once(w, r, p, route.Handle)
		}
	}
	return routes
}

// once carries a request out, or repeats its answer. An answer is written after it was stored.
func (a *API) once(w http.ResponseWriter, r *http.Request, p *account.Principal, handle door.HandlerFunc) error {
	key, err := idempotency.ParseKey(r.Header[idempotency.Header])
	if err != nil {
		return err
	}
	limit := int64(maxBody)
	if p.Has(account.ScopeAdmin, account.ScopeSCIMWrite) {
		limit = maxLargeBody // as largeBody
	}
	body, err := web.ReadAhead(w, r, limit)
	if err != nil {
		return err
	}
	claim, answer, err := a.Idempotency.Begin(r.Context(), &idempotency.Request{Principal: p, Key: key, Method: r.Method,
		Path: door.Path(r.URL), Query: r.URL.RawQuery, Body: body})
	if err != nil {
		return err
	}
	if answer == nil {
		if answer, err = carryOut(claim, r, p, handle); err != nil {
			return err
		}
	} else {
		w.Header().Set(replayed, "true")
	}
	maps.Copy(w.Header(), answer.Header)
	if len(answer.Body) == 0 {
		w.WriteHeader(answer.Status)
		return nil
	}
	web.Write(w, answer.Status, answer.Header.Get("Content-Type"), answer.Body)
	return nil
}

// carryOut returns the answer of a claimed request. A panic ends the claim as an error does.
func carryOut(claim *idempotency.Claim, r *http.Request, p *account.Principal, handle door.HandlerFunc) (
	answer *idempotency.Answer, err error) {
	ctx, release := claim.Hold(r.Context())
	defer func() {
		release()
		if answer == nil {
			claim.Failed(r.Context())
		} else {
			claim.Done(r.Context(), answer)
		}
	}()
	kept := &keeper{header: http.Header{}}
	if err := handle(kept, r.WithContext(ctx), p); err != nil {
		return nil, err
	}
	return &idempotency.Answer{Status: kept.status, Header: kept.header, Body: kept.body.Bytes()}, nil
}

// keeper is an answer in memory.
type keeper struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *keeper) Header() http.Header { return k.header }

func (k *keeper) WriteHeader(status int) {
	if k.status == 0 {
		k.status = status
	}
}

func (k *keeper) Write(b []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	return k.body.Write(b)
}
