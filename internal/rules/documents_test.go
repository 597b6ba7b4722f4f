package rules

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documents are the paths of all pages: in the root folder, in docs and in docs/internals.
func documents(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/internals/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

var (
	link      = regexp.MustCompile(`\]\(([^):]*)\)`) // a link to another file of the repository, or to a heading
	heading   = regexp.MustCompile("(?m)^#+ (.*)$")
	codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// slugs are the anchors of a page's headings, as GitHub makes them.
func slugs(page string) (anchors []string) {
	for _, match := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(page, ""), -1) {
		slug := notInSlug.ReplaceAllString(strings.ToLower(match[1]), "")
		anchors = append(anchors, strings.ReplaceAll(slug, " ", "-"))
	}
	return anchors
}

// TestLinks follows each link from one document to another, or to one of its headings.
func TestLinks(t *testing.T) {
	for _, document := range documents(t) {
		text := codeBlock.ReplaceAllString(read(t, document), "")
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(match[1], "#")
			target := document
			if file != "" {
				target = filepath.Join(filepath.Dir(document), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which does not exist", document, match[1])
			} else if anchor != "" && !slices.Contains(slugs(read(t, target)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", document, match[1])
			}
		}
	}
}

// TestNamedPages checks that each page of docs, and each heading, that a file other than a page names is there.
func TestNamedPages(t *testing.T) {
	page := regexp.MustCompile(`\bdocs/((?:internals/)?[a-z-]+\.md)(?:#([a-z0-9-]+))?`)
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "bin", "node_modules"}, d.Name()) {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil || d.IsDir() || filepath.Ext(path) == ".md" || filepath.Ext(path) == ".png" || info.Size() > 1<<20 {
			return err
		}
		for _, match := range page.FindAllStringSubmatch(read(t, path), -1) {
			found++
			if text, err := os.ReadFile("../../docs/" + match[1]); err != nil {
				t.Errorf("%s names %s, which does not exist", path, match[0])
			} else if match[2] != "" && !slices.Contains(slugs(string(text)), match[2]) {
				t.Errorf("%s names %s, which has no such heading", path, match[0])
			}
		}
		return nil
	})
	if err != nil || found < 10 {
		t.Errorf("the files name %d pages: %v", found, err)
	}
}

// TestContents checks that a page with many sections begins with a list of them, except the README.
func TestContents(t *testing.T) {
	for _, document := range documents(t) {
		page := codeBlock.ReplaceAllString(read(t, document), "")
		beginning, rest, _ := strings.Cut(page, "\n## ")
		sections := regexp.MustCompile("(?m)^## (.*)$").FindAllString("\n## "+rest, -1)
		if len(sections) < 5 || filepath.Base(document) == "README.md" || strings.Contains(document, "CHANGELOG") {
			continue
		}
		for _, anchor := range slugs(strings.Join(sections, "\n")) {
			if !strings.Contains(beginning, "(#"+anchor+")") {
				t.Errorf("%s: the list at the beginning of the page lacks [](#%s)", document, anchor)
			}
		}
	}
}

// TestIndex checks that docs/README.md leads to each page of docs, and that the README stays short.
func TestIndex(t *testing.T) {
	index := read(t, "../../docs/README.md")
	for _, document := range documents(t) {
		page, inDocs := strings.CutPrefix(document, "../../docs/")
		if inDocs && page != "README.md" && !strings.Contains(page, "/") && !strings.Contains(index, "("+page+")") {
			t.Errorf("docs/README.md has no link to %s", page)
		}
	}
	if lines := strings.Count(read(t, "../../README.md"), "\n"); lines > 95 {
		t.Errorf("README.md has %d lines; move what is not needed for the start into docs", lines)
	}
}

// TestGlossaryPage checks that the terms of docs/glossary.md are sorted, and that it explains each term that CONTRIBUTING.md
// explains in parentheses.
func TestGlossaryPage(t *testing.T) {
	var terms []string
	rows := regexp.MustCompile(`(?m)^\| ([^|]+) \| `).FindAllStringSubmatch(read(t, "../../docs/glossary.md"), -1)
	for _, row := range rows[1:] {
		terms = append(terms, row[1])
	}
	if !slices.IsSortedFunc(terms, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) }) {
		t.Errorf("the terms are not sorted: %q", terms)
	}
	explained := regexp.MustCompile(`(?m)^\| ([a-z ]+) \(`).FindAllStringSubmatch(read(t, "../../CONTRIBUTING.md"), -1)
	if len(explained) < 5 {
		t.Errorf("CONTRIBUTING.md explains %d terms", len(explained))
	}
	for _, match := range explained {
		if !slices.ContainsFunc(terms, func(term string) bool { return strings.HasPrefix(term, match[1]) }) {
			t.Errorf("docs/glossary.md lacks %q, which CONTRIBUTING.md explains", match[1])
		}
	}
}

// named matches the name of a test in a document: `package: TestName`.
var named = regexp.MustCompile("`([a-z0-9]+): ((?:Test|Fuzz)[A-Za-z0-9_]+)`")

// TestDocumentsNameTests checks that each test named in a document exists, and that each row of a table whose last column is
// "Tests" names one.
func TestDocumentsNameTests(t *testing.T) {
	rows := 0
	for _, document := range documents(t) {
		proves := false // the table that we are in
		for n, line := range strings.Split(read(t, document), "\n") {
			tests := named.FindAllStringSubmatch(line, -1)
			for _, test := range tests {
				if !hasTest(t, test[1], test[2]) {
					t.Errorf("%s:%d names %s: %s, which does not exist", document, n+1, test[1], test[2])
				}
			}
			head := regexp.MustCompile(`(?i)^\|.*\| *tests? *\|$`).MatchString(line)
			switch {
			case head || !strings.HasPrefix(line, "|"):
				proves = head
			case proves && !strings.HasPrefix(line, "|---"):
				if rows++; len(tests) == 0 {
					t.Errorf("%s:%d names no test", document, n+1)
				}
			}
		}
	}
	if rows < 80 {
		t.Errorf("the documents have %d rows with tests", rows)
	}
}

// TestPitfalls checks that the pitfalls are numbered without gaps, because code refers to the numbers.
func TestPitfalls(t *testing.T) {
	numbers := regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(read(t, "../../docs/internals/pitfalls.md"), -1)
	for i, m := range numbers {
		if m[1] != strconv.Itoa(i+1) {
			t.Fatalf("pitfall %s comes after pitfall %d", m[1], i)
		}
	}
	if len(numbers) == 0 {
		t.Error("there are no pitfalls")
	}
}

// TestPackageTable checks that the table of packages in CONTRIBUTING.md is complete.
func TestPackageTable(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "../../CONTRIBUTING.md"), "| package | contents |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var listed []string
	for _, row := range strings.Split(table, "\n")[1:] {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			listed = append(listed, name[1])
		}
	}
	exist := []string{"e2e", "tools"}
	for _, p := range packages(t) {
		exist = append(exist, strings.TrimPrefix(p.ImportPath, "rolecall/"))
	}
	slices.Sort(listed)
	slices.Sort(exist)
	if !slices.Equal(listed, exist) {
		t.Errorf("CONTRIBUTING.md lists the packages\n%q\nand these exist:\n%q", listed, exist)
	}
}

// TestFailuresAreProven checks that the table of what clients see and the table of tests have the same failures.
func TestFailuresAreProven(t *testing.T) {
	failures := func(path string) (rows []string) {
		_, table, _ := strings.Cut(read(t, path), "\n| failure |")
		table, _, _ = strings.Cut(table, "\n\n")
		for _, row := range strings.Split(table, "\n")[2:] {
			rows = append(rows, strings.Split(row, " | ")[0])
		}
		return rows
	}
	seen, proven := failures("../../docs/reliability.md"), failures("../../docs/internals/reliability.md")
	if len(seen) < 20 || !slices.Equal(seen, proven) {
		t.Errorf("the failures are\n%s\nand those with tests\n%s", strings.Join(seen, "\n"), strings.Join(proven, "\n"))
	}
}

// hasTest looks for a test in the package of that name.
func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	var files []string
	for _, place := range []string{"../", "../cli/", "../../", "../../cmd/", "../../tools/"} {
		found, err := filepath.Glob(place + pkg + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	return slices.ContainsFunc(files, func(path string) bool {
		return strings.Contains(read(t, path), "\nfunc "+name+"(")
	})
}
