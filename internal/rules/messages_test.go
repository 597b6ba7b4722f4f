package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTroubleshootingQuotesMessages checks that each message in docs/troubleshooting.md is one of the code, where … stands
// for any text. Messages of other programs are in double quotes.
func TestTroubleshootingQuotesMessages(t *testing.T) {
	texts := strings.Join(messages(t), "\n")
	found := 0
	quoted := regexp.MustCompile("`([^`]*)`")
	for line := range strings.Lines(read(t, "../../docs/troubleshooting.md")) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, message := range quoted.FindAllStringSubmatch(cells[0], -1) {
			if !strings.Contains(message[1], " ") || strings.HasPrefix(message[1], "terraform ") {
				continue // a name or a command of another program
			}
			found++
			pattern := strings.ReplaceAll(regexp.QuoteMeta(message[1]), "…", ".*")
			if !regexp.MustCompile(pattern).MatchString(texts) {
				t.Errorf("docs/troubleshooting.md: no code has the message %q", message[1])
			}
		}
	}
	if found < 80 {
		t.Errorf("docs/troubleshooting.md has %d messages", found)
	}
}

// messages are the texts of the program: its string literals, those that are added up as one.
func messages(t *testing.T) (texts []string) {
	t.Helper()
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") || !strings.Contains(path, "/internal/") && !strings.Contains(path, "/cmd/") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			expression, _ := n.(ast.Expr)
			parts := literals(expression)
			if parts != nil {
				texts = append(texts, strings.ReplaceAll(strings.Join(parts, ""), "\n", " "))
			}
			return parts == nil
		})
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// literals are the string literals of a sum of nothing else, in their order.
func literals(expression ast.Expr) []string {
	switch e := expression.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return []string{text}
		}
	case *ast.BinaryExpr:
		left, right := literals(e.X), literals(e.Y)
		if left != nil && right != nil {
			return append(left, right...)
		}
	}
	return nil
}
