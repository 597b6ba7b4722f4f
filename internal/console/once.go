package console

import (
	"net/http"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/idempotency"
)

// onceField is the field with the key of a form that is carried out once.
const onceField = "_once"

// Once is the key of the form, for the template "once".
func (f *form) Once() string {
	if key := f.Values.Get(onceField); key != "" {
		return key
	}
	return uuid.NewString()
}

// once makes act one whose answer shows a secret. A browser sends the form again when its page is loaded again: then nothing
// is done, and nothing is shown. The form has the template "once".
func (c *Console) once(act formHandler) formHandler {
	return func(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) (err error) {
		key := f.Get(onceField)
		if key == "" {
			return act(w, r, p, f)
		}
		claim, answer, err := c.Idempotency.Begin(r.Context(), &idempotency.Request{Principal: p, Key: key, Method: r.Method,
			Path: r.URL.Path})
		if answer != nil || fault.Is(err, fault.Exists) {
			return c.show(w, r, p, page{Template: "once/again.html", Title: "This form was sent before", Data: r.URL.EscapedPath(),
				Status: http.StatusConflict})
		}
		if err != nil {
			return err
		}
		ctx, release := claim.Hold(r.Context())
		finished := false
		defer func() {
			release()
			if finished {
				claim.Done(r.Context(), &idempotency.Answer{Status: http.StatusOK}) // without the page: it has the secret
				return
			}
			claim.Failed(r.Context())
		}()
		if err := act(w, r.WithContext(ctx), p, f); err != nil {
			f.Values.Set(onceField, uuid.NewString()) // of the corrected form
			return err
		}
		finished = true
		return nil
	}
}
