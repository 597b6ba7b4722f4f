package event_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"rolecall/internal/event"
	"rolecall/internal/secret"
)

func verified(secret string, h http.Header, body []byte, now time.Time) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	sent, parseErr := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil || parseErr != nil || now.Sub(time.Unix(sent, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", h.Get("webhook-id"), sent, body)
	for _, signature := range strings.Fields(h.Get("webhook-signature")) {
		given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		if err == nil && hmac.Equal(given, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

// The checks of docs/events.md, in Go and in a shell, agree with the signatures, and with the example of
// https://github.com/standard-webhooks/standard-webhooks.
func TestSignature(t *testing.T) {
	t.Parallel()
	got, err := event.Signature([]secret.Text{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "msg_p5jXN8AQM9LWM0D4loKWxJek",
		"1614265330", []byte(`{"test": 2432232314}`))
	if err != nil || got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("the example of the standard has the signature %s: %v", got, err)
	}
	text, err := os.ReadFile("../../docs/events.md")
	must(t, err)
	source, err := os.ReadFile("sign_test.go")
	must(t, err)
	_, check, _ := strings.Cut(string(text), "```go\n")
	check, _, _ = strings.Cut(check, "```")
	if check == "" || !strings.Contains(string(source), check) {
		t.Errorf("docs/events.md has another check than this file:\n%s", check)
	}
	_, shell, _ := strings.Cut(string(text), "\n```sh\nkey=")
	shell, _, _ = strings.Cut(shell, "```")
	dir := t.TempDir()
	body := []byte(`{"type":"user.create","data":{"user":"ändern"}}`)
	must(t, os.WriteFile(filepath.Join(dir, "body"), body, 0o600))
	const first, second = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
		"whsec_/////wQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	now := time.Now()
	sent := strconv.FormatInt(now.Unix(), 10)
	signatures, err := event.Signature([]secret.Text{second, first}, "evt_1", sent, body)
	must(t, err)
	header := http.Header{}
	header.Set("webhook-id", "evt_1")
	header.Set("webhook-timestamp", sent)
	header.Set("webhook-signature", signatures)
	for _, key := range []string{first, second} {
		if !verified(key, header, body, now) {
			t.Errorf("the signatures %s are not those of %s", signatures, key)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "key="+shell)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SECRET="+key, "WEBHOOK_ID=evt_1", "WEBHOOK_TIMESTAMP="+sent)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(signatures, string(out)) || len(out) < 40 {
			t.Errorf("the shell prints %q, %v; the signatures are %q", out, err, signatures)
		}
	}
	for name, ok := range map[string]bool{
		"another secret": verified("whsec_AAAA", header, body, now),
		"another body":   verified(first, header, append(body, ' '), now),
		"too late":       verified(first, header, body, now.Add(6*time.Minute)),
	} {
		if ok {
			t.Errorf("%s: it is taken for verified", name)
		}
	}
}
