package console

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/event"
	"rolecall/internal/secret"
)

const (
	webhooksPath   = Prefix + "/webhooks"
	newWebhookPath = webhooksPath + "/new"
	webhookPath    = webhooksPath + "/{webhook}"
)

func (c *Console) webhookRoutes() []door.Route {
	return slices.Concat(
		formPage(newWebhookPath, c.newWebhookPage, c.once(c.createWebhook)),
		[]door.Route{
			read(webhooksPath, c.webhooksPage),
			read(webhookPath, unsent(c.webhookPage)),
			action(webhookPath+"/state", c.webhookPage, c.setWebhookState),
			action(webhookPath+"/test", c.webhookPage, c.testWebhook),
			action(webhookPath+"/replay", c.webhookPage, c.replayWebhook),
		},
	)
}

var webhookCrumbs = []crumb{{"System", systemPath}, {"Webhooks", webhooksPath}}

var webhookBadges = map[event.State]badge{
	event.Active: {"active", "good"}, event.Paused: {"paused", "warn"}, event.Failed: {"failed", "bad"},
}

// shownWebhook is a webhook as pages show it.
type shownWebhook struct {
	*event.Webhook
	Path     string
	Badge    badge
	Patterns string
	Admin    bool // the person may change it
}

func presentWebhook(p *account.Principal, w *event.Webhook) shownWebhook {
	shown := shownWebhook{Webhook: w, Path: pagePath("webhooks", w.ID.String()), Badge: webhookBadges[w.State],
		Patterns: strings.Join(w.Events, " "), Admin: p.Has(account.ScopeAdmin)}
	if w.State == event.Active && !w.FailingSince.IsZero() {
		shown.Badge = badge{"failing", "warn"}
	}
	return shown
}

type webhooksShown struct {
	Webhooks []shownWebhook
	Admin    bool
}

func (c *Console) webhooksPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	all, err := c.Events.Webhooks(r.Context(), p)
	if err != nil {
		return err
	}
	shown := webhooksShown{Admin: p.Has(account.ScopeAdmin)}
	for _, hook := range all {
		shown.Webhooks = append(shown.Webhooks, presentWebhook(p, hook))
	}
	return c.show(w, r, p, page{Template: "webhooks/list.html", Title: "Webhooks", Area: "system", Crumbs: webhookCrumbs[:1],
		Data: shown})
}

func (c *Console) webhookPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	found, err := c.Events.Webhook(r.Context(), p, r.PathValue("webhook"))
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "webhooks/webhook.html", Title: found.Name, Area: "system", Crumbs: webhookCrumbs,
		Form: f, Data: presentWebhook(p, found)})
}

func (c *Console) newWebhookPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	return c.show(w, r, p, page{Template: "webhooks/new.html", Title: "New webhook", Area: "system", Crumbs: webhookCrumbs,
		Form: f})
}

// onceWebhook is what the one page shows that has the secret.
type onceWebhook struct {
	shownWebhook
	Secret secret.Text
}

// Plain is the secret. Only the page that shows it once asks for it.
func (o onceWebhook) Plain() string { return string(o.Secret) }

// createWebhook sends the whole log to a place of the person's choice from now on, so the person proves first who they are.
func (c *Console) createWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	if err := c.proven(r.Context(), p); err != nil {
		return err
	}
	made, plain, err := c.Events.CreateWebhook(r.Context(), p, event.NewWebhook{Name: f.Get("name"), URL: f.Get("url"),
		Events: strings.Fields(f.Get("events"))})
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "webhooks/once.html", Title: "New webhook", Area: "system", Crumbs: webhookCrumbs,
		Data: onceWebhook{presentWebhook(p, made), plain}})
}

func (c *Console) setWebhookState(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	changed, err := c.Events.UpdateWebhook(r.Context(), p, r.PathValue("webhook"),
		event.WebhookChange{State: new(event.State(f.Get("state")))})
	if err != nil {
		return err
	}
	notice := "The webhook is paused. It gets nothing until it is resumed."
	if changed.State == event.Active {
		notice = "The webhook is active. It gets what it has not got yet."
	}
	return c.redirect(w, pagePath("webhooks", changed.ID.String()), notice)
}

func (c *Console) testWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	id := r.PathValue("webhook")
	refused, err := c.Events.SendTest(r.Context(), p, id)
	if err != nil {
		return err
	}
	notice := "The test was accepted."
	if refused != nil {
		notice = "The test was not accepted: " + refused.Error() + "."
	}
	return c.redirect(w, pagePath("webhooks", id), notice)
}

func (c *Console) replayWebhook(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	from, err := strconv.ParseInt(f.Get("fromSeq"), 10, 64)
	if err != nil {
		return wrongField("fromSeq", "%.50q is not the number of a row.", f.Get("fromSeq"))
	}
	replayed, err := c.Events.Replay(r.Context(), p, r.PathValue("webhook"), from)
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("webhooks", replayed.ID.String()),
		fmt.Sprintf("The webhook gets the rows from %d on.", from))
}
