package api

import (
	"html/template"
	"regexp"
	"strings"
)

// markdown renders what the descriptions use of Markdown: paragraphs, headings, lists, tables, code, emphasis, links. All
// else is text.
func markdown(text string) template.HTML {
	var out strings.Builder
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for len(lines) > 0 {
		n := blockLength(lines)
		writeBlock(&out, lines[:n])
		lines = lines[n:]
	}
	return template.HTML(out.String()) // every text in it is escaped
}

// blockLength is how many of the lines are one block: a heading or an empty line, or a text, list or table up to the next
// block.
func blockLength(lines []string) int {
	first := kindOf(lines[0])
	if first == "" || first == "heading" {
		return 1
	}
	for i, line := range lines[1:] {
		kind := kindOf(line)
		continues := first == "bullets" || first == "numbers"
		if kind == first || continues && kind == "text" {
			continue
		}
		return i + 1
	}
	return len(lines)
}

var (
	heading = regexp.MustCompile(`^(#{1,4}) +(.*)$`)
	bullet  = regexp.MustCompile(`^ {0,3}[-*] +`)
	number  = regexp.MustCompile(`^ {0,3}\d+\. +`)
)

// kindOf is the kind of block that a line belongs to; "" for an empty line.
func kindOf(line string) string {
	switch {
	case strings.TrimSpace(line) == "":
		return ""
	case heading.MatchString(line):
		return "heading"
	case bullet.MatchString(line):
		return "bullets"
	case number.MatchString(line):
		return "numbers"
	case strings.HasPrefix(line, "|"):
		return "table"
	}
	return "text"
}

func writeBlock(out *strings.Builder, lines []string) {
	switch kindOf(lines[0]) {
	case "heading":
		m := heading.FindStringSubmatch(lines[0])
		out.WriteString("<h3>" + inline(m[2]) + "</h3>\n")
	case "bullets":
		writeList(out, "ul", bullet, lines)
	case "numbers":
		writeList(out, "ol", number, lines)
	case "table":
		writeTable(out, lines)
	case "text":
		out.WriteString("<p>" + inline(strings.Join(lines, "\n")) + "</p>\n")
	}
}

func writeList(out *strings.Builder, element string, mark *regexp.Regexp, lines []string) {
	var items []string
	for _, line := range lines {
		if at := mark.FindString(line); at != "" {
			items = append(items, line[len(at):])
		} else {
			items[len(items)-1] += "\n" + strings.TrimSpace(line)
		}
	}
	out.WriteString("<" + element + ">\n")
	for _, item := range items {
		out.WriteString("<li>" + inline(item) + "</li>\n")
	}
	out.WriteString("</" + element + ">\n")
}

var tableRule = regexp.MustCompile(`^\|[ :|-]+\|$`)

func writeTable(out *strings.Builder, lines []string) {
	out.WriteString(`<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>` + "\n")
	for i, line := range lines {
		if tableRule.MatchString(line) {
			continue
		}
		cell := "td"
		if i == 0 {
			cell = `th scope="col"`
		}
		out.WriteString("<tr>")
		for text := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			out.WriteString("<" + cell + ">" + inline(strings.TrimSpace(text)) + "</" + cell[:2] + ">")
		}
		out.WriteString("</tr>\n")
	}
	out.WriteString("</table></div>\n")
}

var (
	strong   = regexp.MustCompile(`\*\*([^*\s][^*]*)\*\*`)
	emphasis = regexp.MustCompile(`\*([^*\s][^*]*)\*`)
	link     = regexp.MustCompile(`\[([^\]]+)\]\(((?:https?://|/|#)[^)\s]*)\)`)
)

// inline renders code, emphasis and links within a text. Within code nothing else is.
func inline(text string) string {
	var out strings.Builder
	for i, part := range strings.Split(text, "`") {
		part = template.HTMLEscapeString(part)
		if i%2 == 1 {
			out.WriteString("<code>" + part + "</code>")
			continue
		}
		part = link.ReplaceAllString(part, `<a href="$2">$1</a>`)
		part = strong.ReplaceAllString(part, "<strong>$1</strong>")
		out.WriteString(emphasis.ReplaceAllString(part, "<em>$1</em>"))
	}
	return out.String()
}
