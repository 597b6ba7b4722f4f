package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/doctor"
)

func doctorCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the configuration of a server, and everything that it depends on",
		Long: `Doctor takes the flags, variables and the file of "rolecall serve", and checks on the
machine of the server: the settings, who can read the files with secrets, the certificate,
the control database and its schema, the clock, the master key, and the connection to each
cluster. It changes nothing.

Each line is ok, warning or error, with the remedy. The exit code is 1 if there is an error.`,
		Example: `  rolecall doctor --config /etc/rolecall/rolecall.yaml
  rolecall doctor --config /etc/rolecall/rolecall.yaml -o json`,
		Args: term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.examine(cmd) },
	}
	s.bindServe(cmd.Flags())
	bindVariables(cmd.Flags())
	term.BindOutput(cmd)
	return cmd
}

// examine prints a line for each check.
func (s *settings) examine(cmd *cobra.Command) error {
	var warnings bytes.Buffer // of forServe, which the checks report as well
	c, err := s.forServe(cmd, &warnings)
	if err == nil {
		err = s.checkAddresses()
	}
	var findings []doctor.Finding
	if err != nil {
		findings = []doctor.Finding{{Level: doctor.Error, Check: "configuration", Text: err.Error()}}
	} else {
		findings = append(findings, doctor.Finding{Level: doctor.OK, Check: "configuration", Text: "All settings are valid."})
		files := s.readableByAll(c.OIDC)
		for _, warning := range files {
			findings = append(findings, doctor.Finding{Level: doctor.Warning, Check: "files", Text: warning})
		}
		if len(files) == 0 {
			findings = append(findings, doctor.Finding{Level: doctor.OK, Check: "files",
				Text: "Other users of this machine cannot read the files with secrets."})
		}
		findings = append(findings, doctor.Examine(cmd.Context(), c)...)
	}
	if err := printFindings(cmd, findings); err != nil {
		return err
	}
	if slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Level == doctor.Error }) {
		return errors.New("the checks have found an error; see above")
	}
	return nil
}

func printFindings(cmd *cobra.Command, findings []doctor.Finding) error {
	if term.Format(cmd) != "table" {
		return term.PrintData(cmd, findings)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Level, term.PrintableLines(f.Check), term.PrintableLines(f.Text))
	}
	return w.Flush()
}
