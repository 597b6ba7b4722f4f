package term

import (
	"slices"
	"strings"
)

// DidYouMean is a hint at the words that were probably meant, "" if none is close.
func DidYouMean(given string, known []string) string {
	if near := Near(given, known); len(near) > 0 {
		return " (did you mean " + Either(near) + "?)"
	}
	return ""
}

// Either lists words, such as "a, b or c". There is at least one.
func Either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// mostNear is how many words a hint has at most.
const mostNear = 3

// Near are the known words that are close to the given one, the closest first: a few characters differ, or the given word
// is their beginning.
func Near(given string, known []string) []string {
	given = strings.ToLower(given)
	type word struct {
		text     string
		distance int
	}
	var near []word
	for _, text := range known {
		lower := strings.ToLower(text)
		d, shorter := distance(given, lower), min(len(given), len(lower))
		if d > max(1, shorter/3) || d >= shorter {
			if len(given) < 2 || !strings.HasPrefix(lower, given) {
				continue
			}
		}
		near = append(near, word{text, d})
	}
	slices.SortStableFunc(near, func(a, b word) int { return a.distance - b.distance })
	var words []string
	for _, w := range near {
		if !slices.Contains(words, w.text) && len(words) < mostNear {
			words = append(words, w.text)
		}
	}
	return words
}

// distance is how many characters have to be inserted, removed, replaced, or exchanged with their neighbor to turn one text
// into another. It compares bytes, and no more than 128 of them.
func distance(a, b string) int {
	a, b = a[:min(len(a), 128)], b[:min(len(b), 128)]
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
