package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"rolecall/internal/cli/term"
)

// maxConfigFile is more bytes than a configuration file has.
const maxConfigFile = 1 << 20

// notInFile are the flags that say what a command does, and are no settings.
var notInFile = map[string]bool{"config": true, "check-config": true, "help": true, "output": true}

// secretVariables are the variables that give what a flag gives as well, and beyond the flag's own variable.
var secretVariables = map[string]string{
	"database-url": databaseURLVariable, "database-url-file": databaseURLVariable, "master-key-file": masterKeyVariable,
}

// alternatives are the flags that give the same in another way.
var alternatives = map[string]string{"database-url": "database-url-file", "database-url-file": "database-url"}

// readConfigFile sets the flags that neither the command line nor a variable sets. The keys of the YAML file are the names
// of the flags.
func readConfigFile(path string, flags *pflag.FlagSet) error {
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return term.Usage("--config: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxConfigFile+1))
	switch {
	case err != nil:
		return term.Usage("--config: %w", err)
	case len(text) > maxConfigFile:
		return term.Usage("--config %s: the file has more than %d bytes; it is a YAML file with a setting in each line", path,
			maxConfigFile)
	}
	if err := applyConfig(text, flags); err != nil {
		return term.Usage("--config %s: %w", path, err)
	}
	return nil
}

func applyConfig(text []byte, flags *pflag.FlagSet) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := d.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil // it is empty, or has comments only
	}
	if err != nil {
		return err
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return errors.New("the file has a second document; use one")
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: the file is no mapping; write a setting in each line, such as listen: 0.0.0.0:8443", root.Line)
	}
	names, given := settable(flags), givenElsewhere(flags)
	lines := map[string]int{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		flag := flags.Lookup(key.Value)
		if flag == nil || notInFile[key.Value] {
			return fmt.Errorf("line %d: there is no setting %q%s; the keys are the names of the flags, without the dashes",
				key.Line, key.Value, term.DidYouMean(key.Value, names))
		}
		if before := lines[key.Value]; before != 0 {
			return fmt.Errorf("line %d: the setting %s is in line %d already", key.Line, key.Value, before)
		}
		lines[key.Value] = key.Line
		if err := setFlag(flag, value, given[key.Value]); err != nil {
			return fmt.Errorf("line %d: the setting %s %w", value.Line, key.Value, err)
		}
	}
	return nil
}

func settable(flags *pflag.FlagSet) (names []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !notInFile[f.Name] {
			names = append(names, f.Name)
		}
	})
	return names
}

// givenElsewhere are the flags that take precedence over the file, because the command line or a variable sets them.
func givenElsewhere(flags *pflag.FlagSet) map[string]bool {
	given := map[string]bool{}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed && !term.FromVariable(f) && os.Getenv(secretVariables[f.Name]) == "" {
			return
		}
		given[f.Name] = true
		if other := alternatives[f.Name]; other != "" {
			given[other] = true
		}
	})
	return given
}

// setFlag sets a flag to a value of the file. One that is given elsewhere is only checked as far as its form goes.
func setFlag(f *pflag.Flag, value *yaml.Node, given bool) error {
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		if kind := f.Value.Type(); kind != "stringArray" && kind != "stringSlice" {
			return errors.New("has a list; give one value")
		}
		values = value.Content
	}
	for _, v := range values {
		if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
			return errors.New("needs a value, or a list of values if the flag may be repeated")
		}
		if given {
			continue
		}
		if err := f.Value.Set(v.Value); err != nil {
			if _, ok := errors.AsType[*strconv.NumError](err); ok && f.Value.Type() == "bool" {
				err = errors.New("use true or false")
			} else if ok {
				err = errors.New("use a number")
			}
			return fmt.Errorf("is %q: %w", v.Value, err)
		}
	}
	return nil
}
