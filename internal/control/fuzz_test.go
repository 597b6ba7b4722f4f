package control_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"rolecall/internal/control"
)

// FuzzParseKeyring: keys that are taken seal and open, and an error quotes none.
func FuzzParseKeyring(f *testing.F) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	for _, s := range []string{"", "#", "# " + key, key, key + "\n", "\r\n " + key + " \r\n#x\n" + key, key + "=", key[:40],
		key + key, strings.TrimRight(key, "="), "\x00" + key, key + "\n" + "secret"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := control.ParseKeyring(text)
		if err != nil {
			for word := range strings.FieldsSeq(text) {
				if len(word) > 20 && strings.Contains(err.Error(), word) {
					t.Errorf("the error quotes a key: %v", err)
				}
			}
			return
		}
		if got, err := keys.Open("here", keys.Seal("here", []byte("secret"))); err != nil || string(got) != "secret" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// FuzzOpen: only what was sealed opens, and only at its place.
func FuzzOpen(f *testing.F) {
	keys, err := control.ParseKeyring(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		f.Fatal(err)
	}
	sealed := keys.Seal("here", []byte("secret"))
	f.Add("here", sealed)
	f.Add("there", sealed)
	f.Add("her", append([]byte("e"), sealed...))
	f.Add("here", sealed[:33])
	f.Add("here", []byte{1})
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, place string, data []byte) {
		got, err := keys.Open(place, data)
		if err == nil && string(got) != "secret" || (err == nil) && place != "here" {
			t.Errorf("%x opens at %q as %q", data, place, got)
		}
	})
}
