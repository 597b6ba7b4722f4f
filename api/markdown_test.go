package api

import "testing"

func TestMarkdown(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"One\nline.\n\nAnother.":       "<p>One\nline.</p>\n<p>Another.</p>\n",
		"### A `b` c":                  "<h3>A <code>b</code> c</h3>\n",
		"Text\n- one\n- two\n  more\n": "<p>Text</p>\n<ul>\n<li>one</li>\n<li>two\nmore</li>\n</ul>\n",
		"* one\n* two":                 "<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n",
		"1. one\n2. two":               "<ol>\n<li>one</li>\n<li>two</li>\n</ol>\n",
		"| a | b |\n|---|---|\n| `1` | x |": `<div class="scroll" tabindex="0" role="group" ` +
			`aria-label="Table"><table>` + "\n" +
			`<tr><th scope="col">a</th><th scope="col">b</th></tr>` +
			"\n<tr><td><code>1</code></td><td>x</td></tr>\n</table></div>\n",
		"*one* **two** 2 * 3 * 4":             "<p><em>one</em> <strong>two</strong> 2 * 3 * 4</p>\n",
		"`*a* <b>`":                           "<p><code>*a* &lt;b&gt;</code></p>\n",
		"<script>&":                           "<p>&lt;script&gt;&amp;</p>\n",
		"[text](https://example.com/a?b=c&d)": `<p><a href="https://example.com/a?b=c&amp;d">text</a></p>` + "\n",
		"[x](javascript:alert(1))":            "<p>[x](javascript:alert(1))</p>\n",
		`[x](https://a"onclick="alert(1)) "quote"`: `<p><a href="https://a` +
			`&#34;onclick=&#34;alert(1">x</a>) &#34;quote&#34;</p>` + "\n",
	} {
		if got := string(markdown(text)); got != want {
			t.Errorf("%q becomes\n%s\nwant\n%s", text, got, want)
		}
	}
}
