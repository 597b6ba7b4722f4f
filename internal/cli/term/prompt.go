package term

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

// BindPassword gives a command the ways to set a password: a prompt, --password-stdin and, with generate, --generate. A
// password is never the value of a flag, which every process of the machine can read.
func BindPassword(cmd *cobra.Command, generate bool) {
	cmd.Flags().Bool("password-stdin", false, "read the password from the first line of standard input")
	if generate {
		cmd.Flags().Bool("generate", false, "generate a strong password and print it once, on standard output")
	}
}

// FromStdin reports whether the password is on standard input.
func FromStdin(cmd *cobra.Command) bool { return isSet(cmd, "password-stdin") }

// NewPassword returns a new password for somebody. It is generated, read from standard input, or asked for twice.
func NewPassword(cmd *cobra.Command, of string) (string, error) {
	password, err := GivenPassword(cmd, of)
	if err == nil && password == "" {
		password = rand.Text() // 130 bits as letters and digits
	}
	return password, err
}

// GivenPassword returns a new password for somebody, read from standard input or asked for twice; "" if one is to be
// generated.
func GivenPassword(cmd *cobra.Command, of string) (string, error) {
	generate := isSet(cmd, "generate")
	if generate && FromStdin(cmd) {
		return "", Usage("--password-stdin and --generate cannot be combined")
	}
	if generate {
		return "", nil
	}
	first, err := Password(cmd, "New password of "+of+": ")
	if err == nil && FromStdin(cmd) {
		err = nothingFollows(cmd)
	}
	if err != nil || FromStdin(cmd) {
		return first, err
	}
	second, err := Password(cmd, "Repeat the password: ")
	if err == nil && first != second {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

// Password asks for an existing password without showing it, or reads the next line of standard input.
func Password(cmd *cobra.Command, prompt string) (string, error) {
	secret, err := askSecret(cmd, prompt)
	if err == nil && secret == "" {
		err = errors.New("the password is empty; nothing was changed")
	}
	return secret, err
}

func askSecret(cmd *cobra.Command, prompt string) (string, error) {
	if FromStdin(cmd) {
		return readLine(cmd)
	}
	stdin, ok := terminal(cmd)
	if !ok {
		return "", Usage("there is no terminal to ask for the password; write it to standard input and add --password-stdin")
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	defer fmt.Fprintln(cmd.ErrOrStderr())
	// Ctrl-C ends the command's context but not the read, which keeps the echo off. So the terminal is restored here.
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

// Ask asks for something that may be shown.
func Ask(cmd *cobra.Command, prompt string) (string, error) {
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
		return "", &exitError{errors.New("interrupted; nothing was changed"), ExitInterrupted}
	}
}

// readLine reads one line of standard input, a byte at a time: what follows is for the next question.
func readLine(cmd *cobra.Command) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < 1<<16; {
		n, err := cmd.InOrStdin().Read(b)
		if n == 1 && b[0] == '\n' {
			break
		}
		if err == io.EOF {
			if Interactive(cmd) { // Ctrl-D leaves the cursor behind the prompt
				fmt.Fprintln(cmd.ErrOrStderr())
			}
			break
		}
		if err != nil {
			return "", err
		}
		line = append(line, b[:n]...)
	}
	return strings.TrimRight(string(line), "\r"), nil
}

// nothingFollows refuses standard input that goes on after the last line asked for: a password that has a line break would
// lose what follows it, in silence. A terminal has no end.
func nothingFollows(cmd *cobra.Command) error {
	if Interactive(cmd) {
		return nil
	}
	switch rest, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64)); {
	case err != nil:
		return err
	case strings.Trim(string(rest), "\r\n") != "":
		return errors.New("standard input goes on after the line with the password; nothing was changed")
	}
	return nil
}

// terminal is the terminal on which people type, if there is one.
func terminal(cmd *cobra.Command) (*os.File, bool) {
	f, ok := cmd.InOrStdin().(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// Interactive reports whether somebody can be asked.
func Interactive(cmd *cobra.Command) bool {
	_, ok := terminal(cmd)
	return ok
}

// BindYes gives a command the flag --yes, which answers Confirm.
func BindYes(cmd *cobra.Command) {
	cmd.Flags().BoolP("yes", "y", false, "skip the confirmation prompt")
}

// Asks reports whether Confirm asks.
func Asks(cmd *cobra.Command) bool { return !isSet(cmd, "yes") && Interactive(cmd) }

// Confirm asks before something that cannot be undone.
func Confirm(cmd *cobra.Command, format string, args ...any) error {
	if isSet(cmd, "yes") {
		return nil
	}
	if !Interactive(cmd) {
		return Usage("there is no terminal to ask for confirmation; add --yes to go ahead")
	}
	answer, err := Ask(cmd, printable(fmt.Sprintf(format, args...))+" [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}

// PrintWithPassword prints what got a new password. A generated password is printed as well: alone, or as the member
// "password" of the JSON.
func PrintWithPassword(cmd *cobra.Command, object json.RawMessage, secret string) error {
	switch generated := isSet(cmd, "generate"); {
	case generated && Format(cmd) == "table":
		_, err := fmt.Fprintln(cmd.OutOrStdout(), secret)
		return err
	case generated:
		return PrintData(cmd, withPassword(object, secret))
	}
	return PrintUnlessTable(cmd, object)
}

// withPassword adds a member to an object, after those that the server has sent.
func withPassword(object json.RawMessage, secret string) json.RawMessage {
	text, err := json.Marshal(secret)
	if err != nil || len(object) < 3 {
		return object
	}
	return slices.Concat(object[:len(object)-1], []byte(`,"password":`), text, []byte("}"))
}
