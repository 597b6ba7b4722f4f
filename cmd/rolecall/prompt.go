package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// passwordFlags are the ways to give a new password. A password is never the value of a flag.
type passwordFlags struct{ stdin, generate bool }

func (f *passwordFlags) bind(cmd *cobra.Command, generate bool) {
	cmd.Flags().BoolVar(&f.stdin, "password-stdin", false, "read the password from the first line of standard input")
	if generate {
		cmd.Flags().BoolVar(&f.generate, "generate", false, "make up a strong password and print it, once, on standard output")
		before(cmd, func(*cobra.Command) error {
			if f.stdin && f.generate {
				return usage("--password-stdin and --generate exclude each other")
			}
			return nil
		})
	}
}

// read returns the new password, from a prompt that asks twice, standard input, or made up.
func (f *passwordFlags) read(cmd *cobra.Command, of string) (string, error) {
	if f.generate {
		return rand.Text(), nil // 130 bits as letters and digits
	}
	return readPassword(cmd, "New password of "+of+": ", f.stdin)
}

// readPassword asks for a new password twice without showing it, or takes the first line of standard input.
func readPassword(cmd *cobra.Command, prompt string, fromStdin bool) (string, error) {
	first, err := readSecret(cmd, prompt, fromStdin)
	if err != nil || fromStdin {
		return first, err
	}
	second, err := readSecret(cmd, "Again: ", false)
	if err == nil && first != second {
		err = errors.New("the two passwords are not the same")
	}
	return first, err
}

// readSecret asks for a password that exists, without showing it, or takes the next line of standard input.
func readSecret(cmd *cobra.Command, prompt string, fromStdin bool) (string, error) {
	secret, err := askSecret(cmd, prompt, fromStdin)
	if err == nil && secret == "" {
		err = errors.New("the password is empty; nothing was done")
	}
	return secret, err
}

func askSecret(cmd *cobra.Command, prompt string, fromStdin bool) (string, error) {
	if fromStdin {
		return readLine(cmd)
	}
	stdin, ok := terminal(cmd)
	if !ok {
		return "", usage("there is no terminal to ask for a password on; give it on standard input with --password-stdin")
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	defer fmt.Fprintln(cmd.ErrOrStderr())
	// Ctrl-C ends the command's context, and not the reading, which goes on without echo: the terminal is put right here.
	fd := int(stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	return interruptible(cmd, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	}, func() { _ = term.Restore(fd, state) })
}

// ask asks for what may be seen.
func ask(cmd *cobra.Command, prompt string) (string, error) {
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	return interruptible(cmd, func() (string, error) { return readLine(cmd) }, func() { fmt.Fprintln(cmd.ErrOrStderr()) })
}

func interruptible(cmd *cobra.Command, read func() (string, error), restore func()) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-cmd.Context().Done():
		restore()
		return "", errors.New("interrupted; nothing was done")
	}
}

// readLine reads one line of standard input, a byte at a time: what follows is for the next question.
func readLine(cmd *cobra.Command) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < 1<<16; {
		n, err := cmd.InOrStdin().Read(b)
		if n == 1 && b[0] == '\n' || err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
		line = append(line, b[:n]...)
	}
	return strings.TrimRight(string(line), "\r"), nil
}

// terminal is the terminal that people type on, if there is one.
func terminal(cmd *cobra.Command) (*os.File, bool) {
	f, ok := cmd.InOrStdin().(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// consent is the question before what cannot be undone.
type consent struct{ yes bool }

func (c *consent) bind(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
}

func (c *consent) get(cmd *cobra.Command, format string, args ...any) error {
	if c.yes {
		return nil
	}
	if _, ok := terminal(cmd); !ok {
		return usage("there is no terminal to ask on; say --yes if this is meant")
	}
	answer, err := ask(cmd, printable(fmt.Sprintf(format, args...))+" [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// print prints what a new password was set on, and the password when it was made up.
func (f *passwordFlags) print(cmd *cobra.Command, o output, of json.RawMessage, secret string) error {
	switch {
	case o.format == "table" && f.generate:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), secret)
		return err
	case f.generate:
		return printData(cmd, o, withPassword(of, secret))
	}
	return o.printUnlessTable(cmd, of)
}

// withPassword adds a member to an object, after those that the server has sent.
func withPassword(object json.RawMessage, secret string) json.RawMessage {
	text, err := json.Marshal(secret)
	if err != nil || len(object) < 3 {
		return object
	}
	return slices.Concat(object[:len(object)-1], []byte(`,"password":`), text, []byte("}"))
}
