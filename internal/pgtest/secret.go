package pgtest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Leak returns where text holds a secret, with what stands around it; "" where it does not. The secret is looked for as
// it is, in hexadecimal, as the numbers of its bytes, and within base64. It must be long enough not to be there by chance.
func Leak(text, secret string) string {
	spellings := []string{secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
		strings.Trim(fmt.Sprint([]byte(secret)), "[]")}
	for offset := range 3 {
		// What stands before and after it changes the first and the last letters.
		middle := base64.RawStdEncoding.EncodeToString([]byte("xxx"[:offset] + secret))[2*offset:]
		middle = middle[:len(middle)-1]
		spellings = append(spellings, middle, strings.NewReplacer("+", "-", "/", "_").Replace(middle))
	}
	for _, spelling := range spellings {
		if at := strings.Index(text, spelling); at >= 0 {
			return "…" + text[max(0, at-200):min(len(text), at+len(spelling)+20)] + "…"
		}
	}
	return ""
}
