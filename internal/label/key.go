// Package label is the grammar of labels, annotations and label selectors of the Cloud Foundry v3 API: which keys and
// values are valid, how a selector is read, which labels it matches. The CF dialect checks metadata and filters lists with
// it; the access rules of clusters are selectors of accounts.
//
// Labels are a map from `[prefix/]name` to a value. This package needs no store, request or principal: no SQL, no HTTP, no
// merging of metadata, no limits per resource.
//
// The reference is cloudfoundry/cloud_controller_ng at 3bbba906, named below where a rule comes from its code rather
// than from its documents.
package label

import (
	"regexp"
	"strings"

	"rolecall/internal/fault"
)

const (
	maxPrefix = 253
	maxWord   = 63 // of a key's name and of a label's value

	// Its subdomains are not reserved: mta.cloudfoundry.org is in real use.
	reservedPrefix = "cloudfoundry.org"
)

// The classes are spelled out because (?i)[a-z] takes U+017F and U+212A too. Unlike the reference's \Z, $ does not
// forgive a newline at the end.
var (
	dnsName   = regexp.MustCompile(`^(?:` + dnsLabel + `\.)+` + dnsLabel + `$`)
	wordChars = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
)

const dnsLabel = `[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?`

// CheckKey returns an Invalid fault unless the key, of a label or of an annotation, is `[prefix/]name`. Messages and
// their order are the reference's (metadata_validator_helper.rb), without the words that say whose key it is.
func CheckKey(key string) error {
	// A lone slash has neither part, and the reference calls it empty rather than badly prefixed.
	if isBlank(key) || key == "/" {
		return invalid("key cannot be empty string")
	}
	prefix, name, prefixed := strings.Cut(key, "/")
	if !prefixed {
		return checkWord(key)
	}
	switch {
	case strings.Contains(name, "/"):
		return invalid("key has more than one '/'")
	case !dnsName.MatchString(prefix):
		return invalid("prefix '%s' must be in valid dns format", prefix)
	case len(prefix) > maxPrefix: // bytes are characters, now that it is a DNS name
		return invalid("prefix '%s...' is greater than %d characters", prefix[:8], maxPrefix)
	case strings.EqualFold(prefix, reservedPrefix):
		return invalid("prefix '%s' is reserved", reservedPrefix)
	case isBlank(name):
		return invalid("key cannot be empty string")
	}
	return checkWord(name)
}

// checkWord checks what a key's name and a label's value have in common.
func checkWord(word string) error {
	switch {
	case !wordChars.MatchString(word):
		return invalid("'%s' contains invalid characters", word)
	case !isAlphanumeric(word[0]) || !isAlphanumeric(word[len(word)-1]):
		return invalid("'%s' starts or ends with invalid characters", word)
	case len(word) > maxWord: // bytes are characters, now that all are ASCII
		return invalid("'%s...' is greater than %d characters", word[:8], maxWord)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func isBlank(s string) bool { return strings.TrimSpace(s) == "" }

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, format, args...)
}
