package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func webhooksCommand() *cobra.Command {
	return term.Group("webhooks", "Webhooks: the audit log for your own services",
		webhooksListCommand(), webhooksCreateCommand(), webhooksShowCommand(), webhooksUpdateCommand(), webhooksDeleteCommand(),
		webhooksTestCommand(), webhooksReplayCommand(), webhooksRotateCommand())
}

var completeWebhooks = complete(fixed(client.WebhooksPath), "name")

var webhookHead = term.Head{
	{Title: "NAME", Name: true}, {Title: "STATE", State: true}, {Title: "EVENTS", Gives: term.Some}, {Title: "BACKLOG"},
	{Title: "DELIVERED"}, {Title: "LAST ERROR", Gives: term.Most}, {Title: "URL", Gives: term.More},
}

func webhooksListCommand() *cobra.Command {
	return onServer(listing(&cobra.Command{
		Use:     "list",
		Short:   "List the webhooks",
		Example: `  rolecall webhooks list`,
		Args:    term.NoArguments,
	}, webhookHead), list(every(client.WebhooksPath), webhookHead, func(w *client.Webhook) []string {
		return []string{w.Name, w.State, strings.Join(w.Events, " "), strconv.FormatInt(w.Backlog, 10),
			term.Time(w.LastDeliveredAt), w.LastError, w.URL}
	}))
}

func webhooksCreateCommand() *cobra.Command {
	var events []string
	cmd := printing(&cobra.Command{
		Use:   "create NAME URL",
		Short: "Create a webhook and print its secret, once",
		Long: `Create creates a webhook. The server sends each row of the audit log that is written from now
on to the URL, in order, as one POST request. The signing secret is printed on standard
output and never shown again.`,
		Example: `  rolecall webhooks create siem https://events.example.org/rolecall
  rolecall webhooks create offboarding https://hr.example.org/hook --event 'account.*' --event user.delete`,
		Args: term.Arguments("NAME", "URL"),
	})
	bindEvents(cmd, &events, "default: all")
	return onServer(cmd, func(c *call) error {
		body := map[string]any{"name": c.args[0], "url": c.args[1]}
		if events != nil {
			body["events"] = events
		}
		answer, err := c.send(http.MethodPost, client.WebhooksPath, body)
		if err != nil {
			return err
		}
		c.report("Webhook %q was created. Its secret is not shown again.", c.args[0])
		return printWebhookSecret(c, answer)
	})
}

func bindEvents(cmd *cobra.Command, events *[]string, meaning string) {
	cmd.Flags().StringArrayVar(events, "event", nil,
		"`action` whose rows are sent, such as user.create, or the beginning of some and *, such as 'user.*'; repeatable; "+
			meaning)
	term.CompleteWords(cmd, "event", AuditActions...)
}

// printWebhookSecret prints the secret alone, which a script stores, or the webhook with it.
func printWebhookSecret(c *call, answer json.RawMessage) error {
	if term.Format(c.cmd) != "table" {
		return term.PrintData(c.cmd, answer)
	}
	w, err := term.Decode[client.Webhook](answer)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.cmd.OutOrStdout(), string(w.Secret))
	return err
}

// onWebhook completes a command on the webhook that its argument names.
func onWebhook(cmd *cobra.Command, run func(c *call, w *client.Webhook) error) *cobra.Command {
	cmd.Args = term.Arguments("WEBHOOK")
	cmd.ValidArgsFunction = firstArgument(completeWebhooks)
	return onServer(cmd, func(c *call) error {
		w, err := findWebhook(c, c.args[0])
		if err != nil {
			return err
		}
		return run(c, w)
	})
}

// findWebhook finds a webhook by its name or id. A name takes precedence.
func findWebhook(c *call, nameOrID string) (*client.Webhook, error) {
	items, err := c.client.Items(c.cmd.Context(), client.WebhooksPath, nil)
	if err != nil {
		return nil, err
	}
	all, err := term.DecodeAll[client.Webhook](items)
	if err != nil {
		return nil, err
	}
	var found *client.Webhook
	var names []string
	for _, w := range all {
		if w.Name == nameOrID || w.ID == nameOrID && found == nil {
			found = w
		}
		names = append(names, w.Name)
	}
	if found == nil {
		return nil, term.NotFound("There is no webhook %q%s. To see all: rolecall webhooks list", nameOrID,
			term.DidYouMean(nameOrID, names))
	}
	return found, nil
}

func webhooksShowCommand() *cobra.Command {
	return onWebhook(printing(&cobra.Command{
		Use:     "show WEBHOOK",
		Short:   "Show a webhook, how far it is, and why it fails",
		Example: `  rolecall webhooks show siem`,
	}), func(c *call, w *client.Webhook) error {
		return show(func(*call) string { return client.WebhookPath(w.ID) }, webhookFields)(c)
	})
}

func webhookFields(_ *call, w *client.Webhook) [][]string {
	gap := ""
	if w.Gap != nil {
		gap = fmt.Sprintf("rows %d to %d", w.Gap.FromSeq, w.Gap.ToSeq)
	}
	return [][]string{
		{"name", w.Name}, {"id", w.ID}, {"url", w.URL}, {"events", strings.Join(w.Events, " ")}, {"state", w.State},
		{"delivered seq", strconv.FormatInt(w.DeliveredSeq, 10)}, {"backlog", strconv.FormatInt(w.Backlog, 10)},
		{"last delivered", term.Time(w.LastDeliveredAt)}, {"failing since", term.Time(w.FailingSince)},
		{"last error", w.LastError}, {"not delivered", gap},
		{"previous secret until", term.Time(w.PreviousSecretUntil)}, {"created", term.Time(&w.CreatedAt)},
		{"created by", w.CreatedBy},
	}
}

func webhooksUpdateCommand() *cobra.Command {
	var name, url string
	var events []string
	var pause, resume bool
	cmd := printing(&cobra.Command{
		Use:   "update WEBHOOK",
		Short: "Change, pause or resume a webhook",
		Long: `Update changes what the flags say. A paused webhook gets nothing; when it is resumed, it gets
the rows of the time between. A webhook that has failed gets nothing until it is resumed.`,
		Example: `  rolecall webhooks update siem --pause
  rolecall webhooks update siem --resume --url https://events2.example.org/rolecall`,
	})
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "new `name`")
	f.StringVar(&url, "url", "", "new `URL`")
	bindEvents(cmd, &events, "in place of those that it has")
	f.BoolVar(&pause, "pause", false, "deliver nothing until it is resumed")
	f.BoolVar(&resume, "resume", false, "deliver from where it ended")
	cmd.MarkFlagsMutuallyExclusive("pause", "resume")
	return onWebhook(cmd, func(c *call, w *client.Webhook) error {
		body := map[string]any{}
		if c.given("name") {
			body["name"] = name
		}
		if c.given("url") {
			body["url"] = url
		}
		if c.given("event") {
			body["events"] = events
		}
		switch {
		case pause:
			body["state"] = "PAUSED"
		case resume:
			body["state"] = "ACTIVE"
		}
		if len(body) == 0 {
			return term.Usage("nothing to change; give --name, --url, --event, --pause or --resume")
		}
		answer, err := c.send(http.MethodPatch, client.WebhookPath(w.ID), body)
		if err != nil {
			return err
		}
		c.report("Webhook %q was changed.", w.Name)
		return term.PrintUnlessTable(c.cmd, answer)
	})
}

func webhooksDeleteCommand() *cobra.Command {
	return onWebhook(&cobra.Command{
		Use:     "delete WEBHOOK",
		Short:   "Delete a webhook",
		Example: `  rolecall webhooks delete siem`,
	}, func(c *call, w *client.Webhook) error {
		if _, err := c.send(http.MethodDelete, client.WebhookPath(w.ID), nil); err != nil {
			return err
		}
		c.report("Webhook %q was deleted.", w.Name)
		return nil
	})
}

func webhooksTestCommand() *cobra.Command {
	return onWebhook(printing(&cobra.Command{
		Use:   "test WEBHOOK",
		Short: "Send a test to a webhook",
		Long: `Test sends a signed event of the type rolecall.test, and shows whether it was accepted. The
exit code is 1 if it was not.`,
		Example: `  rolecall webhooks test siem`,
	}), func(c *call, w *client.Webhook) error {
		answer, err := c.send(http.MethodPost, client.WebhookPath(w.ID, "test"), nil)
		if err != nil {
			return err
		}
		result, err := term.Decode[client.WebhookTest](answer)
		if err != nil {
			return err
		}
		if err := term.PrintUnlessTable(c.cmd, answer); err != nil {
			return err
		}
		if !result.Accepted {
			return term.Exit(1, "the test was not accepted: %s", result.Error)
		}
		c.report("The test was accepted.")
		return nil
	})
}

func webhooksReplayCommand() *cobra.Command {
	var from int64
	cmd := printing(&cobra.Command{
		Use:   "replay WEBHOOK --from SEQ",
		Short: "Deliver rows again, from a number on",
		Long: `Replay delivers all rows from the one with this seq on, also those that were accepted, and
resumes the webhook. A row has the same webhook-id as before.`,
		Example: `  rolecall webhooks replay siem --from 4711`,
	})
	cmd.Flags().Int64Var(&from, "from", 0, "`seq` of the first row (required)")
	return onWebhook(cmd, func(c *call, w *client.Webhook) error {
		if !c.given("from") {
			return term.Usage("give --from SEQ; rolecall audit -o json shows the seq of each row")
		}
		answer, err := c.send(http.MethodPost, client.WebhookPath(w.ID, "replay"), map[string]any{"fromSeq": from})
		if err != nil {
			return err
		}
		c.report("Webhook %q gets the rows from %d on.", w.Name, from)
		return term.PrintUnlessTable(c.cmd, answer)
	})
}

func webhooksRotateCommand() *cobra.Command {
	return onWebhook(printing(&cobra.Command{
		Use:   "rotate-secret WEBHOOK",
		Short: "Replace the secret of a webhook, and print the new one, once",
		Long: `Rotate-secret generates a new signing secret. For 24 hours each delivery is signed with both
the new and the previous one. The new one is printed on standard output and never shown
again.`,
		Example: `  rolecall webhooks rotate-secret siem`,
	}), func(c *call, w *client.Webhook) error {
		answer, err := c.send(http.MethodPost, client.WebhookPath(w.ID, "rotate-secret"), nil)
		if err != nil {
			return err
		}
		c.report("The secret of webhook %q was replaced. The new one is not shown again.", w.Name)
		return printWebhookSecret(c, answer)
	})
}
