package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// avoided is a phrase that the glossary replaces, split into words.
type avoided struct {
	words   []string
	instead string
}

// wordsOf splits a text at white space and removes the punctuation around each word.
func wordsOf(text string) []string {
	words := strings.Fields(strings.ToLower(text))
	for i, word := range words {
		words[i] = strings.TrimFunc(word, unicode.IsPunct)
	}
	return words
}

// glossary splits CONTRIBUTING.md into the phrases of its glossary and the text around it.
func glossary(t *testing.T) (phrases []avoided, rest string) {
	t.Helper()
	before, after, found := strings.Cut(read(t, "../../CONTRIBUTING.md"), "\n## Glossary\n")
	if !found {
		t.Fatal("CONTRIBUTING.md has no glossary")
	}
	table, after, _ := strings.Cut(after, "\n## ")
	_, table, _ = strings.Cut(table, "|---|---|\n")
	for _, row := range regexp.MustCompile(`(?m)^\| (.*) \| (.*) \|$`).FindAllStringSubmatch(table, -1) {
		for phrase := range strings.SplitSeq(row[2], ", ") {
			phrases = append(phrases, avoided{wordsOf(phrase), row[1]})
		}
	}
	if len(phrases) < 80 {
		t.Fatalf("the glossary has %d phrases", len(phrases))
	}
	return phrases, before + "\n## " + after
}

// TestGlossary finds phrases that the glossary replaces: in the documents, in the OpenAPI documents, and in the messages and
// comments of the code, except tests.
func TestGlossary(t *testing.T) {
	phrases, rest := glossary(t)
	byFirstWord := map[string][]avoided{}
	for _, a := range phrases {
		byFirstWord[a.words[0]] = append(byFirstWord[a.words[0]], a)
	}
	check := func(where, text string) {
		words := wordsOf(text)
		for i, word := range words {
			for _, a := range byFirstWord[word] {
				if end := i + len(a.words); end <= len(words) && slices.Equal(words[i:end], a.words) {
					around := strings.Join(words[max(0, i-5):min(len(words), end+5)], " ")
					t.Errorf("%s: write %q instead of %q in: %s", where, a.instead, strings.Join(a.words, " "), around)
				}
			}
		}
	}
	check("CONTRIBUTING.md", rest)
	specifications, err := filepath.Glob("../../api/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(documents(t), specifications...) {
		if filepath.Base(path) != "CONTRIBUTING.md" {
			check(path, read(t, path))
		}
	}
	files := token.NewFileSet()
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, comment := range parsed.Comments {
			check(fmt.Sprint(files.Position(comment.Pos())), comment.Text())
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(text, " ") { // else it is a name, and not a message
					check(fmt.Sprint(files.Position(literal.Pos())), text)
				}
			}
			return true
		})
	}
}

// TestLineLength checks that no line of Go has more than 125 characters.
func TestLineLength(t *testing.T) {
	for _, path := range goFiles(t) {
		for i, line := range strings.Split(read(t, path), "\n") {
			if n := utf8.RuneCountInString(line); n > 125 {
				t.Errorf("%s:%d has %d characters; the limit is 125", path, i+1, n)
			}
		}
	}
}

// goFiles are the paths of all files of Go in the repository.
func goFiles(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
