package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/manifest"
)

const diffName = "diff"

// errDiffers is the result of diff if there are differences. It is no failure, so it has no message.
var errDiffers = term.Ended(term.ExitUsage)

// fleetFile are the flags that name a file.
type fleetFile struct{ path, mode string }

func (f *fleetFile) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.path, "file", "f", "", "`file` that declares the fleet; - is standard input")
	cmd.Flags().StringVar(&f.mode, "mode", "", "`mode` instead of that of the file: additive, adopt or authoritative")
	term.CompleteWords(cmd, "mode", manifest.Modes...)
}

// read reads and checks the file.
func (f *fleetFile) read(cmd *cobra.Command) (*manifest.Manifest, []byte, error) {
	if f.path == "" {
		return nil, nil, term.Usage("--file is missing; see %s --help", cmd.CommandPath())
	}
	if f.mode != "" && !slices.Contains(manifest.Modes, f.mode) {
		return nil, nil, term.Usage("--mode is %q; use %s", f.mode, term.Either(manifest.Modes))
	}
	name, in := f.path, cmd.InOrStdin()
	if f.path == "-" {
		name = "standard input"
	} else {
		opened, err := os.Open(f.path)
		if err != nil {
			return nil, nil, term.Usage("--file: %w", err)
		}
		defer opened.Close()
		in = opened
	}
	text, err := io.ReadAll(io.LimitReader(in, manifest.MaxSize+1))
	if err != nil {
		return nil, nil, err
	}
	m, err := parse(name, text, f.mode)
	return m, text, err
}

// parse reads the text of a file. A mode that is not "" takes the place of its own.
func parse(name string, text []byte, mode string) (*manifest.Manifest, error) {
	m, err := manifest.Parse(name, text, mode)
	if e, ok := errors.AsType[*manifest.Errors](err); ok {
		return nil, term.Exit(term.ExitFailed, "the file has mistakes, and nothing was changed\n%w", e)
	}
	return m, err
}

// savedPlan is a plan with the file that it was made from.
type savedPlan struct {
	Format int    `json:"format"` // 1
	File   string `json:"file"`   // its name
	Text   string `json:"text"`
	*manifest.Plan
}

// mostOfPlan is how large a file with a plan may be.
const mostOfPlan = 256 << 20

// fleet is what diff and apply work on.
type fleet struct {
	c        *call
	m        *manifest.Manifest
	observed *manifest.Observed
	saved    savedPlan
}

// plan reads the file and the fleet, and compares them.
func (f *fleetFile) plan(c *call) (*fleet, error) {
	m, text, err := f.read(c.cmd)
	if err != nil {
		return nil, err
	}
	return planOf(c, m, f.path, text)
}

func planOf(c *call, m *manifest.Manifest, path string, text []byte) (*fleet, error) {
	c.client.Patient = true
	observed, err := observe(c.cmd.Context(), c.client, m)
	if err != nil {
		return nil, err
	}
	return &fleet{c, m, observed, savedPlan{1, path, string(text), manifest.MakePlan(m, text, observed)}}, nil
}

func diffCommand() *cobra.Command {
	var f fleetFile
	var out string
	var schema bool
	cmd := printing(&cobra.Command{
		Use:   diffName + " -f FILE",
		Short: "Show what differs from a file that declares the fleet",
		Long: `Diff compares a file with the fleet, and prints what apply would change. It changes nothing.

The exit code is 0 if nothing differs, and 2 if something does. It is never 2 after an error,
also not after one in the command line: then it is 1, 3 or 4. It is 1 as well if a cluster
cannot be read, or if the file contradicts the fleet.

--out, or -o json, saves the plan for apply --plan. The plan has the text of the file, and
no passwords. --schema prints the JSON Schema of the file, without a server.`,
		Example: `  rolecall diff -f fleet.yaml
  rolecall diff -f fleet.yaml --out plan.json; rolecall apply --plan plan.json
  rolecall diff -f fleet.yaml -o json | jq '.steps[] | {action, kind, name}'
  rolecall diff --schema > fleet.schema.json`,
		Args: term.NoArguments,
	})
	f.bind(cmd)
	cmd.Flags().StringVar(&out, "out", "", "`file` to save the plan in")
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON Schema of the file")
	onServer(cmd, func(c *call) error {
		fl, err := f.plan(c)
		if err != nil {
			return err
		}
		return fl.diff(out)
	})
	withServer := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if schema {
			return term.PrintData(cmd, manifest.Schema())
		}
		return withServer(cmd, args)
	}
	return cmd
}

func (fl *fleet) diff(out string) error {
	plan := fl.saved.Plan
	if out != "" {
		text, err := json.MarshalIndent(&fl.saved, "", "  ")
		if err == nil {
			err = replaceFile(out, append(text, '\n'))
		}
		if err != nil {
			return fmt.Errorf("the plan was not saved: %w", err)
		}
	}
	var err error
	if term.IsTable(fl.c.cmd) {
		err = term.PrintScript(fl.c.cmd, describePlan(plan))
	} else {
		err = term.PrintData(fl.c.cmd, &fl.saved)
	}
	switch {
	case err != nil:
		return err
	case len(plan.Conflicts) > 0:
		return fmt.Errorf("conflicts between the file and the fleet, or with what cannot be read: %d; the plan names them",
			len(plan.Conflicts))
	case !plan.Empty():
		return errDiffers
	}
	return nil
}

// signs begin the lines of a plan.
var signs = map[string]string{manifest.Register: "+", manifest.Create: "+", manifest.Change: "~", manifest.Delete: "-"}

// describePlan is a plan for people.
func describePlan(p *manifest.Plan) string {
	var b strings.Builder
	counts := map[string]int{}
	for i := range p.Steps {
		s := &p.Steps[i]
		counts[signs[s.Action]]++
		line(&b, "%s %s", signs[s.Action], s)
		for _, d := range s.Changes {
			switch {
			case d.From == "":
				line(&b, "    %s: %s", d.Field, d.To)
			case d.To == "":
				line(&b, "    %s: %s is removed", d.Field, d.From)
			default:
				line(&b, "    %s: %s -> %s", d.Field, d.From, d.To)
			}
		}
		for _, note := range s.Notes {
			line(&b, "    note: %s", note)
		}
		for _, blocker := range s.Blockers {
			line(&b, "    blocked: %s", blocker)
		}
	}
	for _, c := range p.Conflicts {
		line(&b, "! %s (line %d): %s", c.Thing, c.Line, c.Problem)
	}
	for _, t := range p.Unlisted {
		line(&b, "? %s is not in the file, and stays", t)
	}
	if p.Empty() {
		line(&b, "Nothing differs.")
	} else {
		line(&b, "To create: %d, to change: %d, to delete: %d. Conflicts: %d. Not in the file: %d.", counts["+"], counts["~"],
			counts["-"], len(p.Conflicts), len(p.Unlisted))
	}
	return b.String()
}

// line writes a line without characters that control a terminal, or would begin another line.
func line(b *strings.Builder, format string, args ...any) {
	b.WriteString(term.Printable(fmt.Sprintf(format, args...)) + "\n")
}

// application are the flags of apply.
type application struct {
	file              fleetFile
	plan, passwordsTo string
}

func applyCommand() *cobra.Command {
	var a application
	cmd := &cobra.Command{
		Use:   "apply -f FILE | --plan FILE",
		Short: "Bring the fleet to what a file declares",
		Long: `Apply compares a file with the fleet, shows what differs, asks, and changes it. It registers
and changes clusters, and creates and changes accounts, databases, users and stored
credentials. In the mode authoritative it then deletes what the list "retired" names.

A step that fails stops only those that depend on it. After an error, a kill or a lost
connection, run the same command again: it does what is left.

With --plan it carries out a plan that diff has saved. If anything that the plan depends on
has changed since, nothing is done, the message names it, and the exit code is 5. Each change
also has an If-Match: of two applies at a time, one fails, and a second run completes it.

A generated password is printed on standard output before it is set, as a line of JSON with
cluster and username, or account and origin, and password. If the server refuses it, a line
with the password null follows. Use the last line of a user. --passwords-to writes one file
of mode 0600 for each user instead: DIR/clusters/CLUSTER/USER or DIR/accounts/ORIGIN/USER,
with names escaped as in URLs. A later run uses the file of a user that does not exist yet.
-o json and yaml need --passwords-to if there are passwords; -o jsonl adds a line for each
step.`,
		Example: `  rolecall apply -f fleet.yaml
  rolecall apply -f fleet.yaml --yes --passwords-to secrets
  rolecall apply --plan plan.json --yes
  rolecall apply -f fleet.yaml --yes -o jsonl | jq -c 'select(.step.outcome == "failed")'`,
		Args: term.NoArguments,
	}
	term.BindOutput(cmd, "jsonl")
	a.file.bind(cmd)
	cmd.Flags().StringVar(&a.plan, "plan", "", "`file` with the plan to carry out, of diff --out")
	cmd.Flags().StringVar(&a.passwordsTo, "passwords-to", "", "`folder` for generated passwords")
	term.BindYes(cmd)
	return onServer(cmd, a.run)
}

func (a *application) run(c *call) error {
	fl, err := a.compare(c)
	if err != nil {
		return err
	}
	plan := fl.saved.Plan
	if err := a.checkPasswords(c, plan); err != nil {
		return err
	}
	applier := newApplier(c, fl.observed, &passwords{c, a.passwordsTo})
	for text := range strings.Lines(describePlan(plan)) {
		c.report("%s", strings.TrimSuffix(text, "\n"))
	}
	if len(plan.Steps) > 0 {
		if err := term.Confirm(c.cmd, "Carry out %d steps?", len(plan.Steps)); err != nil {
			return err
		}
	}
	return applier.run(plan)
}

// compare makes the plan, or verifies the one that was saved.
func (a *application) compare(c *call) (*fleet, error) {
	if a.plan == "" {
		return a.file.plan(c)
	}
	if c.given("file") || c.given("mode") {
		return nil, term.Usage("--plan has its file and mode, so it cannot be combined with --file and --mode; see %s --help",
			c.cmd.CommandPath())
	}
	saved, err := readPlan(a.plan)
	if err != nil {
		return nil, err
	}
	m, err := parse(saved.File, []byte(saved.Text), saved.Mode)
	if err != nil {
		return nil, err
	}
	fl, err := planOf(c, m, saved.File, []byte(saved.Text))
	if err != nil || fl.saved.Digest == saved.Digest {
		return fl, err
	}
	what := moved(saved.Things, fl.saved.Things)
	if what == "" {
		return nil, term.Exit(term.ExitMoved, "the plan was made by another account or altered; nothing was changed; "+
			"make a new one with rolecall diff")
	}
	return nil, term.Exit(term.ExitMoved, "these have changed since the plan was made: %s; nothing was changed; "+
		"make a new plan with rolecall diff", what)
}

func readPlan(path string) (*savedPlan, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, term.Usage("--plan: %w", err)
	}
	defer f.Close()
	var saved savedPlan
	err = json.NewDecoder(io.LimitReader(f, mostOfPlan)).Decode(&saved)
	if err != nil || saved.Format != 1 || saved.Plan == nil || saved.Digest == "" {
		return nil, term.Usage("--plan: %s is not a plan of rolecall diff --out", path)
	}
	return &saved, nil
}

// checkPasswords refuses output formats that would print passwords only when all is done, and could lose them.
func (a *application) checkPasswords(c *call, plan *manifest.Plan) error {
	generates := slices.ContainsFunc(plan.Steps, func(s manifest.Step) bool { return s.Password != nil && !s.Password.Given() })
	if format := term.Format(c.cmd); generates && a.passwordsTo == "" && (format == "json" || format == "yaml") {
		return term.Usage("-o %s has no place for generated passwords; add --passwords-to DIR, or use -o jsonl", format)
	}
	return nil
}

func exportCommand() *cobra.Command {
	var path string
	var clusters []string
	cmd := &cobra.Command{
		Use:   "export [-f FILE]",
		Short: "Write the fleet as a file that declares it",
		Long: `Export writes the clusters that you may view, with their databases, users and stored
credentials, and for an admin also the accounts, as a file for diff and apply. Applied to the
same fleet it changes nothing. It has no passwords, leases, system users and OAuth clients.`,
		Example: `  rolecall export > fleet.yaml
  rolecall export --only payments -f payments.yaml`,
		Args: term.NoArguments,
	}
	cmd.Flags().StringVarP(&path, "file", "f", "", "`file` to write; default: standard output, like -")
	cmd.Flags().StringArrayVar(&clusters, "only", nil,
		"`name` of a cluster to export, without accounts; repeatable; default: all and the accounts")
	_ = cmd.RegisterFlagCompletionFunc("only", completeClusters)
	term.BindYes(cmd)
	return onServer(cmd, func(c *call) error { return export(c, path, clusters) })
}

func export(c *call, path string, only []string) error {
	if path == "-" {
		path = ""
	}
	if path != "" {
		if _, err := os.Stat(path); err == nil {
			if err := term.Confirm(c.cmd, "Replace %s?", path); err != nil {
				return err
			}
		}
	}
	c.client.Patient = true
	me, err := whoami(c.cmd.Context(), c.client)
	if err != nil {
		return err
	}
	m := &manifest.Manifest{}
	for _, name := range only {
		cl, err := findCluster(c.cmd.Context(), c.client, name)
		if err != nil {
			return err
		}
		m.Clusters = append(m.Clusters, manifest.Cluster{Name: cl.Name})
	}
	for _, cl := range me.Clusters {
		if only == nil {
			m.Clusters = append(m.Clusters, manifest.Cluster{Name: cl.Name})
		}
	}
	observed, err := observe(c.cmd.Context(), c.client, m)
	if err != nil {
		return err
	}
	admin := slices.Contains(me.Scopes, "cloud_controller.admin") ||
		slices.Contains(me.Scopes, "cloud_controller.admin_read_only")
	text, err := manifest.Export(observed, c.client.URL, admin && only == nil)
	if err != nil {
		return err
	}
	if path == "" {
		err = term.PrintScript(c.cmd, string(text))
	} else {
		err = replaceFile(path, text)
	}
	if err != nil {
		return err
	}
	if len(text) > manifest.MaxSize {
		c.warn("The file has more than %d bytes, which diff and apply do not read. Export the clusters one by one with --only.",
			manifest.MaxSize)
	}
	return unread(c, observed.Clusters)
}

// unread reports the clusters that could not be read.
func unread(c *call, clusters []*manifest.ObservedCluster) error {
	count := 0
	for _, cl := range clusters {
		if cl.Problem != "" {
			count++
			c.warn("Cluster %q could not be read: %s", cl.Name, cl.Problem)
		}
	}
	if count > 0 {
		return fmt.Errorf("clusters that could not be read: %d; the file has only their settings", count)
	}
	c.report("Exported. Clusters: %d.", len(clusters))
	return nil
}
