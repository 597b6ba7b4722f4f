package e2e

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
)

// withIssuer is a server whose people sign in at a provider, which is called corp there. Groups give labels.
func withIssuer(t *testing.T, p *provider) *server {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	s := newServer(t, "--oidc-file="+write("issuers.yaml", `issuers:
- name: corp
  url: `+p.issuer+`
  audience: other
  clientId: console
  clientSecretFile: `+write("secret", providerSecret)+`
  username: email
  link: username
  labels:
  - {key: team, claim: groups, prefix: rc-}
  - {key: group.*, claim: groups}
`))
	p.clients["console"] = storage.WebClient("console", providerSecret, s.env["ROLECALL_URL"]+"/uaa/login/callback/corp")
	return s
}

// signInAtProvider fills in the page of the provider, to which a button has led.
func (b *tab) signInAtProvider(username string) {
	b.t.Helper()
	b.arrives("/login/username")
	b.fill("Username:", username)
	b.fill("Password:", "verysecure")
	b.press("Login")
}

// TestConsoleIssuer signs people in at another issuer with a browser, and gives them the labels of their groups.
func TestConsoleIssuer(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	p.join("id2", "rc-payments", "staff")
	s := withIssuer(t, p)
	admin := map[string]string{"Authorization": "Bearer " + s.env["IONOS_TOKEN"], "Content-Type": "application/json"}
	base := s.env["ROLECALL_URL"]
	origin := strings.TrimPrefix(p.issuer, "http://")
	// Its account is prepared.
	made := send(t, "POST", base+"/rolecall/v1/accounts", admin,
		`{"username":"test-user2@zitadel.ch","origin":"`+origin+`","labels":{"room":"12"}}`)
	if made.status != 201 {
		t.Fatalf("prepare: %d %s", made.status, made.body)
	}
	for _, h := range someHands(t) {
		t.Run(h.name, func(t *testing.T) {
			b := openTab(t, base, h)
			b.open("/console/prove?next=/console/")
			b.arrives("/console/sign-in")
			if h.script {
				b.accessible("light", "dark")
			}
			b.press("Sign in with corp")
			b.signInAtProvider("test-user2")
			b.arrives("/console/prove")
			b.press("Prove it with corp")
			b.signInAtProvider("test-user2")
			b.arrives("/console/")
			b.sees("test-user2@zitadel.ch")
			for _, kept := range b.visited() {
				if strings.Contains(kept, "verysecure") {
					t.Errorf("the browser keeps %s", kept)
				}
			}
		})
	}
	type account struct {
		GUID         string
		Labels       map[string]string
		LabelSources map[string]string
	}
	is := func(want string) account {
		t.Helper()
		var list struct{ Items []account }
		r := send(t, "GET", base+"/rolecall/v1/accounts?origin="+url.QueryEscape(origin), admin, "")
		if err := json.Unmarshal([]byte(r.body), &list); err != nil || len(list.Items) != 1 {
			t.Fatalf("the accounts are %s: %v", r.body, err)
		}
		got, err := json.Marshal([]any{list.Items[0].Labels, list.Items[0].LabelSources})
		if err != nil || string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
		return list.Items[0]
	}
	a := is(`[{"group.rc-payments":"true","group.staff":"true","room":"12","team":"payments"},` +
		`{"group.rc-payments":"corp","group.staff":"corp","team":"corp"}]`)
	if !strings.Contains(made.body, a.GUID) {
		t.Errorf("the account is %s, and %s was prepared", a.GUID, made.body)
	}
	if out := s.cli(t, "", "accounts", "show", a.GUID); !strings.Contains(out, "group.rc-payments=corp") {
		t.Errorf("accounts show: %s", out)
	}
	// Nobody else sets the labels of the issuer.
	for _, refused := range [][3]string{
		{"PATCH", "/v3/users/" + a.GUID, `{"metadata":{"labels":{"team":"dba"}}}`},
		{"PATCH", "/rolecall/v1/accounts/" + a.GUID, `{"labels":{"group.dba":"true"}}`},
		{"POST", "/v3/users", `{"username":"x","origin":"` + origin + `","metadata":{"labels":{"team":"dba"}}}`},
	} {
		if r := send(t, refused[0], base+refused[1], admin, refused[2]); r.status != 422 || !strings.Contains(r.body, "corp") {
			t.Errorf("%s %s: %d %s", refused[0], refused[2], r.status, r.body)
		}
	}
	// At the next use of a bearer token the labels follow the groups, and whoami says whose they are.
	p.join("id2", "rc-dba", "rc-sre")
	token, _ := p.signIn(t, "other", "test-user2")
	r := send(t, "GET", base+"/rolecall/v1/whoami", map[string]string{"Authorization": "Bearer " + token}, "")
	if !strings.Contains(r.body, `"labels":{"group.rc-dba":"true","group.rc-sre":"true","room":"12"}`) ||
		!strings.Contains(r.body, `"labelSources":{"group.rc-dba":"corp","group.rc-sre":"corp"}`) {
		t.Errorf("whoami: %d %s", r.status, r.body)
	}
	is(`[{"group.rc-dba":"true","group.rc-sre":"true","room":"12"},{"group.rc-dba":"corp","group.rc-sre":"corp"}]`)
	if log := s.log(); !strings.Contains(log, "it has 2 values") || strings.Contains(log, providerSecret) ||
		strings.Contains(log, "verysecure") || strings.Contains(log, "code=") {
		t.Errorf("the log has %s", log)
	}
	// The row is in the list once it is sealed.
	recorded := func(detail string) bool {
		return strings.Contains(detail, `"reason":"claims of a token"`) && strings.Contains(detail, `"issuer":"`+p.issuer+`"`) &&
			strings.Contains(detail, `"team":{"to":null,"from":"payments"}`)
	}
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		r := send(t, "GET", base+"/rolecall/v1/audit?limit=100", admin, "")
		if recorded(r.body) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the audit log has %s", r.body)
		}
	}

	// A person who gives the wrong password at the issuer, and comes back without a code.
	b := openTab(t, base, anyHands[0])
	b.open("/uaa/login/callback/corp?error=access_denied&state=x", 401)
	b.sees("The sign-in did not succeed.")
	b.accessible("light", "dark")
	b.follow("Sign in")
	b.arrives("/console/sign-in")
}
