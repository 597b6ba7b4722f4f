package cli

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/manifest"
	"rolecall/internal/secret"
)

// applier carries out a plan, step by step.
type applier struct {
	c         *call
	passwords *passwords
	clusters  map[string]*client.ClusterRef // by name
	failed    map[string]bool               // the keys of things whose step was not completed
	trouble   map[string]bool               // the clusters with a failed step; "": that of an account
	gone      map[string]bool               // the clusters that became unreachable
	counts    outcome
	stale     int
	lines     []stepLine // for -o json and yaml, which print them at the end
}

// outcome counts the steps of a run.
type outcome struct {
	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

// stepLine is a step in the output for programs.
type stepLine struct {
	manifest.Thing
	Action  string `json:"action"`
	Outcome string `json:"outcome"` // done, failed or skipped
	Detail  string `json:"detail,omitempty"`
}

func newApplier(c *call, o *manifest.Observed, p *passwords) *applier {
	a := &applier{c: c, passwords: p, clusters: map[string]*client.ClusterRef{}, failed: map[string]bool{},
		trouble: map[string]bool{}, gone: map[string]bool{}}
	for _, cl := range o.Clusters {
		a.clusters[cl.Name] = &cl.ClusterRef
	}
	return a
}

// run carries out the steps. A step that fails stops only those that depend on it: the rest is done.
func (a *applier) run(plan *manifest.Plan) error {
	// What cannot be brought about is missing for what depends on it.
	for _, c := range plan.Conflicts {
		a.failed[c.Key()], a.trouble[c.Cluster] = true, true
	}
	for i := range plan.Steps {
		s := &plan.Steps[i]
		if a.c.cmd.Context().Err() != nil {
			a.counts.Skipped++
			continue
		}
		if reason := a.skips(s); reason != "" {
			a.failed[s.Key()] = true
			a.counts.Skipped++
			if err := a.tell(s, "skipped", reason); err != nil {
				return err
			}
			continue
		}
		err := a.step(s)
		if err == nil {
			a.counts.Done++
			if err := a.tell(s, "done", ""); err != nil {
				return err
			}
			continue
		}
		a.failed[s.Key()], a.trouble[s.Cluster] = true, true
		a.counts.Failed++
		switch client.Status(err) {
		case http.StatusPreconditionFailed:
			a.stale++
		case http.StatusServiceUnavailable:
			a.gone[s.Cluster] = s.Cluster != ""
		}
		if err := a.tell(s, "failed", err.Error()); err != nil {
			return err
		}
	}
	return a.result(plan)
}

// skips says why a step is not tried, "" if it is.
func (a *applier) skips(s *manifest.Step) string {
	if a.gone[s.Cluster] {
		return "the cluster did not answer an earlier step"
	}
	for _, key := range s.Needs {
		if a.failed[key] {
			return "it needs the " + key + ", which was not completed"
		}
	}
	if s.Action == manifest.Delete && a.trouble[s.Cluster] {
		return "nothing is deleted after an earlier step has failed"
	}
	return ""
}

// pastTense are the actions for reports.
var pastTense = map[string]string{manifest.Register: "registered", manifest.Create: "created", manifest.Change: "changed",
	manifest.Delete: "deleted"}

func (a *applier) tell(s *manifest.Step, outcome, detail string) error {
	switch outcome {
	case "done":
		a.c.report("%s: %s.", s, pastTense[s.Action])
	default:
		a.c.warn("%s: not %s: %s", s, pastTense[s.Action], detail)
	}
	l := stepLine{s.Thing, s.Action, outcome, detail}
	a.lines = append(a.lines, l)
	if term.Format(a.c.cmd) != "jsonl" {
		return nil
	}
	return printLine(a.c, map[string]any{"step": l})
}

// result is the error of a run that is not complete.
func (a *applier) result(plan *manifest.Plan) error {
	if err := a.print(plan); err != nil {
		return err
	}
	text := fmt.Sprintf("steps done: %d, failed: %d, skipped: %d; conflicts: %d", a.counts.Done, a.counts.Failed,
		a.counts.Skipped, len(plan.Conflicts))
	if err := a.c.cmd.Context().Err(); err != nil {
		a.c.warn("Interrupted. %s. Run the same command again to complete it.", text)
		return err
	}
	switch {
	case a.stale > 0:
		return term.Exit(term.ExitMoved, "something has changed in the meantime; %s; run the same command again", text)
	case a.counts.Failed+a.counts.Skipped+len(plan.Conflicts) > 0:
		return fmt.Errorf("not everything is as the file says; %s; correct the causes and run the same command again", text)
	}
	a.c.report("Done. Steps: %d.", a.counts.Done)
	return nil
}

// print prints the result for programs.
func (a *applier) print(plan *manifest.Plan) error {
	switch term.Format(a.c.cmd) {
	case "table":
		return nil
	case "jsonl":
		return printLine(a.c, map[string]any{"result": a.counts})
	}
	return term.PrintData(a.c.cmd, struct {
		Steps     []stepLine          `json:"steps"`
		Conflicts []manifest.Conflict `json:"conflicts"`
		Unlisted  []manifest.Thing    `json:"unlisted"`
		Result    outcome             `json:"result"`
	}{append([]stepLine{}, a.lines...), plan.Conflicts, plan.Unlisted, a.counts})
}

// step makes the calls of one step.
func (a *applier) step(s *manifest.Step) error {
	tag := s.ETag
	if s.Account != "" {
		var err error
		if tag, err = a.accountTag(s); err != nil {
			return err
		}
	}
	generated, err := a.fillIn(s)
	if err != nil {
		return err
	}
	guid := s.Account
	for i, call := range s.Calls {
		r := client.Request{Method: call.Method, Path: a.path(s, &call, guid), Query: call.Query}
		if call.Body != nil {
			r.Body = call.Body
		}
		if call.Match {
			r.IfMatch = tag
		}
		answer, err := a.c.client.Do(a.c.cmd.Context(), r)
		if i == 0 && generated && refused(err) {
			err = errors.Join(err, a.passwords.refused(s.Thing, client.Status(err) == http.StatusConflict))
		}
		if err != nil {
			return err
		}
		a.c.passOn(answer)
		if answer.ETag != "" {
			tag = answer.ETag
		}
		switch {
		case s.Action == manifest.Register:
			if a.clusters[s.Cluster], err = term.Decode[client.ClusterRef](answer.JSON); err != nil {
				return err
			}
		case s.Kind == manifest.KindAccount && s.Action == manifest.Create && i == 0:
			made, err := term.Decode[client.Account](answer.JSON)
			if err != nil {
				return err
			}
			guid = made.GUID
		}
	}
	return nil
}

// refused reports whether the server has certainly not done what it was asked for.
func refused(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusRequestTimeout && !e.Repeated
}

// path is the path of a request.
func (a *applier) path(s *manifest.Step, call *manifest.Call, guid string) string {
	switch {
	case s.Kind == manifest.KindAccount && guid != "":
		return client.Path(client.AccountsPath, guid)
	case s.Kind == manifest.KindAccount:
		return client.AccountsPath
	case s.Action == manifest.Register:
		return client.ClustersPath
	}
	return a.clusters[s.Cluster].Path(call.Segments...)
}

// accountTag is the entity tag of an account that is still as the plan knows it. A list of accounts has no entity tags.
func (a *applier) accountTag(s *manifest.Step) (string, error) {
	answer, err := a.c.client.Get(a.c.cmd.Context(), client.Path(client.AccountsPath, s.Account), nil)
	if err != nil {
		return "", err
	}
	now, err := term.Decode[client.Account](answer.JSON)
	if err != nil {
		return "", err
	}
	if manifest.AccountState(now) != s.State {
		return "", &client.Error{Status: http.StatusPreconditionFailed, Message: "It has changed since it was read."}
	}
	return answer.ETag, nil
}

// fillIn puts secrets into the first call of a step, and reports whether a password was generated for it.
func (a *applier) fillIn(s *manifest.Step) (generated bool, err error) {
	for _, f := range s.Calls[0].Secrets {
		text, err := readSecret(f.Secret)
		if err != nil {
			return false, err
		}
		in, _ := s.Calls[0].Body["connection"].(map[string]any)
		for _, name := range f.Path[:len(f.Path)-1] {
			in, _ = in[name].(map[string]any)
		}
		in[f.Path[len(f.Path)-1]] = string(text)
	}
	if s.Password == nil {
		return false, nil
	}
	generated = !s.Password.Given()
	password, err := a.passwordOf(s)
	if err != nil {
		return false, err
	}
	body := maps.Clone(s.Calls[0].Body) // a plan keeps no password
	body["password"] = string(password)
	s.Calls[0].Body = body
	return generated, nil
}

// passwordOf is the password of something new.
func (a *applier) passwordOf(s *manifest.Step) (secret.Text, error) {
	if s.Password.Given() {
		return readSecret(*s.Password)
	}
	return a.passwords.generate(s.Thing)
}

// moved names the things that are not as a plan knows them.
func moved(old, now map[string]string) string {
	var names []string
	for key := range maps.Keys(old) {
		if now[key] != old[key] {
			names = append(names, key)
		}
	}
	for key := range maps.Keys(now) {
		if _, has := old[key]; !has {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	if len(names) > mostNamed {
		names = append(names[:mostNamed], fmt.Sprintf("and %d more", len(names)-mostNamed))
	}
	return strings.Join(names, ", ")
}
