package adminapi

import (
	"net/http"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/event"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

type webhookResource struct {
	ID              string      `json:"id"`
	Name            string      `json:"name"`
	URL             string      `json:"url"`
	Events          []string    `json:"events"`
	State           string      `json:"state"`
	DeliveredSeq    int64       `json:"deliveredSeq"`
	Backlog         int64       `json:"backlog"`
	LastDeliveredAt *time.Time  `json:"lastDeliveredAt"`
	FailingSince    *time.Time  `json:"failingSince"`
	LastError       *string     `json:"lastError"`
	Gap             *webhookGap `json:"gap"`
	// PreviousSecretUntil is null unless the secret was rotated lately.
	PreviousSecretUntil *time.Time `json:"previousSecretUntil"`
	CreatedAt           time.Time  `json:"createdAt"`
	CreatedBy           string     `json:"createdBy"`
}

type webhookGap struct {
	FromSeq int64 `json:"fromSeq"`
	ToSeq   int64 `json:"toSeq"`
}

type webhookWithSecret struct {
	webhookResource
	Secret string `json:"secret"`
}

type webhookTest struct {
	Accepted bool    `json:"accepted"`
	Error    *string `json:"error"`
}

func presentWebhook(w *event.Webhook) webhookResource {
	res := webhookResource{
		ID:                  w.ID.String(),
		Name:                w.Name,
		URL:                 w.URL,
		Events:              w.Events,
		State:               string(w.State),
		DeliveredSeq:        w.DeliveredSeq,
		Backlog:             w.Backlog,
		LastDeliveredAt:     known(w.DeliveredAt),
		FailingSince:        known(w.FailingSince),
		LastError:           given(w.LastError),
		PreviousSecretUntil: known(w.PreviousUntil),
		CreatedAt:           w.CreatedAt.UTC(),
		CreatedBy:           w.CreatedBy,
	}
	if w.GapTo > 0 {
		res.Gap = &webhookGap{w.GapFrom, w.GapTo}
	}
	return res
}

func (a *API) listWebhooks(w http.ResponseWriter, r *http.Request, p *account.Principal, _ query, page page) error {
	webhooks, err := a.Events.Webhooks(r.Context(), p)
	if err != nil {
		return err
	}
	l := list[webhookResource]{Items: []webhookResource{}}
	for _, hook := range webhooks {
		if hook.Name <= page.After { // they come in the order of their names
			continue
		}
		if len(l.Items) == page.Limit {
			l.Next = cursor(l.Items[page.Limit-1].Name)
			break
		}
		l.Items = append(l.Items, presentWebhook(hook))
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) createWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	name, url, events := o.text("name"), o.text("url"), o.texts("events")
	if err := o.done(); err != nil {
		return err
	}
	switch {
	case name == nil:
		return fault.New(fault.Invalid, "The field name is missing.")
	case url == nil:
		return fault.New(fault.Invalid, "The field url is missing.")
	}
	n := event.NewWebhook{Name: *name, URL: *url}
	if events != nil {
		n.Events = *events
	}
	hook, secret, err := a.Events.CreateWebhook(r.Context(), p, n)
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.PublicURL+Prefix+"/webhooks/"+hook.ID.String())
	web.JSON(w, http.StatusCreated, "application/json", webhookWithSecret{presentWebhook(hook), string(secret)})
	return nil
}

func (a *API) getWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	hook, err := a.Events.Webhook(r.Context(), p, r.PathValue("webhookId"))
	return answerWebhook(w, hook, err)
}

func answerWebhook(w http.ResponseWriter, hook *event.Webhook, err error) error {
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentWebhook(hook))
	return nil
}

func (a *API) updateWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	c := event.WebhookChange{Name: o.text("name"), URL: o.text("url"), Events: o.texts("events"),
		State: (*event.State)(o.text("state"))}
	if err := o.done(); err != nil {
		return err
	}
	hook, err := a.Events.UpdateWebhook(r.Context(), p, r.PathValue("webhookId"), c)
	return answerWebhook(w, hook, err)
}

func (a *API) deleteWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if err := a.Events.DeleteWebhook(r.Context(), p, r.PathValue("webhookId")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) testWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	refused, err := a.Events.SendTest(r.Context(), p, r.PathValue("webhookId"))
	if err != nil {
		return err
	}
	res := webhookTest{Accepted: refused == nil}
	if refused != nil {
		res.Error = given(refused.Error())
	}
	web.JSON(w, http.StatusOK, "application/json", res)
	return nil
}

func (a *API) replayWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	from := o.integer("fromSeq")
	if err := o.done(); err != nil {
		return err
	}
	if from == nil {
		return fault.New(fault.Invalid, "The field fromSeq is missing.")
	}
	hook, err := a.Events.Replay(r.Context(), p, r.PathValue("webhookId"), int64(*from))
	return answerWebhook(w, hook, err)
}

func (a *API) rotateWebhookSecret(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	hook, secret, err := a.Events.RotateSecret(r.Context(), p, r.PathValue("webhookId"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", webhookWithSecret{presentWebhook(hook), string(secret)})
	return nil
}
