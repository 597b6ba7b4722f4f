// Package etag is entity tags and the If-Match header that names them (RFC 9110, 8.8.3 and 13.1.1).
package etag

import (
	"slices"
	"strings"
)

// Match is the entity tags of an If-Match header, without their quotes, or "*". Without any, every state matches.
type Match []string

// none is a tag that no resource has.
const none = "\x00"

// Parse reads the fields of an If-Match header. A tag that is not quoted, or weak, becomes one that no resource has, because
// the comparison is a strong one. It returns nil when there are no fields.
func Parse(fields []string) (m Match) {
	for _, field := range fields {
		for tag := range strings.SplitSeq(field, ",") {
			tag = strings.TrimSpace(tag)
			opaque, opened := strings.CutPrefix(tag, `"`)
			opaque, closed := strings.CutSuffix(opaque, `"`)
			switch {
			case opened && closed && opaque != "*":
				tag = opaque
			case tag != "*":
				tag = none
			}
			m = append(m, tag)
		}
	}
	return m
}

// Allows reports whether a resource with this tag may be changed.
func (m Match) Allows(tag string) bool {
	return len(m) == 0 || slices.Contains(m, "*") || slices.Contains(m, tag)
}
