package pgtest_test

import (
	"encoding/base64"
	"fmt"
	"testing"

	"rolecall/internal/pgtest"
)

func TestLeak(t *testing.T) {
	const secret = "Secret of 21 letters?"
	for _, text := range []string{
		"password=" + secret + "&x", fmt.Sprintf("%x", "a"+secret), fmt.Sprintf("%X", secret+"b"),
		fmt.Sprint([]byte("p" + secret + "q")),
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte("u:" + secret)),
		base64.URLEncoding.EncodeToString([]byte("app:" + secret + "~~?")),
		base64.RawURLEncoding.EncodeToString([]byte("user:" + secret + "\xff")),
	} {
		if pgtest.Leak("before "+text+" after", secret) == "" {
			t.Errorf("nothing is found in %s", text)
		}
		if found := pgtest.Leak("before "+text+" after", "another secret, also long"); found != "" {
			t.Errorf("found %s", found)
		}
	}
}
