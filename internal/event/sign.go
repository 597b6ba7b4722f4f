package event

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"rolecall/internal/secret"
)

// secretPrefix begins each signing secret: https://www.standardwebhooks.com
const secretPrefix = "whsec_"

func newSecret() secret.Text {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	return secret.Text(secretPrefix + base64.StdEncoding.EncodeToString(key))
}

// signature signs a message with each of the secrets, as the header webhook-signature has it.
func signature(secrets []secret.Text, id, timestamp string, body []byte) (string, error) {
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(s), secretPrefix))
		if err != nil {
			return "", fmt.Errorf("the signing secret is not in base64")
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signatures, " "), nil
}
