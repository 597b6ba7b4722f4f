package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	vault "github.com/hashicorp/vault/api"
)

// vaultServer is a server whose cluster the team vault manages, with the role app in it, and an issuer whose tokens it
// accepts as it would those of a Kubernetes cluster.
type vaultServer struct {
	*server
	issuer *provider
	mount  string // the display name of the cluster
}

func startVaultServer(t *testing.T, limits string) *vaultServer {
	t.Helper()
	p := startProvider(t)
	s := &vaultServer{newServer(t, "--oidc-issuer="+p.issuer+",audience=rolecall,username=sub"), p, ""}
	if _, err := s.psql(s.env["PGUSER"], s.env["PGPASSWORD"], "postgres", `CREATE ROLE app LOGIN`); err != nil {
		t.Fatal(err)
	}
	changed := s.call(t, 200, "PATCH", "/rolecall/v1/clusters/"+s.cluster(),
		`{"access":{"manage":["team=vault"]},"grantable":["app"],"leases":`+limits+`}`).object(t)
	s.mount, _ = changed["displayName"].(string)
	return s
}

// call makes a request of an admin.
func (s *vaultServer) call(t *testing.T, want int, method, path, body string) response {
	t.Helper()
	r := send(t, method, s.env["ROLECALL_URL"]+path, map[string]string{"Authorization": "Bearer " + s.env["IONOS_TOKEN"],
		"Content-Type": "application/json", "If-Match": "*"}, body)
	if r.status != want {
		t.Fatalf("%s %s: %d %s, want %d", method, path, r.status, r.body, want)
	}
	return r
}

const vaultPassword = "password of the program"

// person makes a local account that manages the cluster.
func (s *vaultServer) person(t *testing.T, name string) {
	t.Helper()
	s.call(t, 201, "POST", "/rolecall/v1/accounts",
		fmt.Sprintf(`{"username":%q,"password":%q,"labels":{"team":"vault"}}`, name, vaultPassword))
}

// serviceAccount is a token as Kubernetes projects it into a pod of the namespace shop.
func (s *vaultServer) serviceAccount(t *testing.T, name string) string {
	t.Helper()
	key := s.issuer.keys[len(s.issuer.keys)-1]
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key.key},
		(&jose.SignerOptions{}).WithHeader("kid", key.id))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": s.issuer.issuer, "sub": "system:serviceaccount:shop:" + name, "aud": []string{"rolecall"},
		"iat": now, "nbf": now, "exp": now + 600,
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": name}},
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// label lets an account manage the cluster, as an admin does after its first sign-in.
func (s *vaultServer) label(t *testing.T, in *vault.Secret) {
	t.Helper()
	s.call(t, 200, "PATCH", "/rolecall/v1/accounts/"+in.Auth.Metadata["account"], `{"labels":{"team":"vault"}}`)
}

// client is Vault's own, without a token.
func (s *vaultServer) client(t *testing.T) *vault.Client {
	t.Helper()
	config := vault.DefaultConfig()
	config.Address, config.MaxRetries = s.env["ROLECALL_URL"], 0
	c, err := vault.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	c.ClearToken() // of the environment
	return c
}

// signIn signs a client in, and has it use the token.
func signIn(t *testing.T, c *vault.Client, path string, data map[string]any) *vault.Secret {
	t.Helper()
	in, err := c.Logical().Write("auth/"+path, data)
	if err != nil {
		t.Fatal(err)
	}
	token, err := in.TokenID()
	ttl, _ := in.TokenTTL()
	renewable, _ := in.TokenIsRenewable()
	if err != nil || token == "" || ttl != time.Hour || !renewable {
		t.Fatalf("signed in: %+v, %v", in, err)
	}
	c.SetToken(token)
	return in
}

// credentials are the user name and password of an answer.
func credentials(secret *vault.Secret) (username, password string) {
	return fmt.Sprint(secret.Data["username"]), fmt.Sprint(secret.Data["password"])
}

// acts fails t unless the credentials are accepted, and their sessions act as the role app.
func (s *vaultServer) acts(t *testing.T, secret *vault.Secret) {
	t.Helper()
	username, password := credentials(secret)
	if as, err := s.psql(username, password, "postgres", "SELECT current_user"); err != nil || as != "app" {
		t.Errorf("%s acts as %q, %v", username, as, err)
	}
}

// ends waits until the user of the credentials is gone.
func (s *vaultServer) ends(t *testing.T, secret *vault.Secret) {
	t.Helper()
	username, _ := credentials(secret)
	for end := time.Now().Add(patience); s.query(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = '"+username+
		"'") != "0"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is still there", username)
		}
	}
}

// has fails t unless err is an answer of the server's with this status and text.
func has(t *testing.T, err error, status int, text string) {
	t.Helper()
	failed, ok := err.(*vault.ResponseError)
	if !ok || failed.StatusCode != status || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %d %s", err, status, text)
	}
}

// TestVaultClient drives Vault's own client.
func TestVaultClient(t *testing.T) {
	t.Parallel()
	s := startVaultServer(t, `{"defaultTtl":"1h","maxTtl":"24h"}`)
	s.person(t, "program")
	c := s.client(t)
	health, err := c.Sys().Health()
	if err != nil || !health.Initialized || health.Sealed || health.Standby {
		t.Fatalf("health: %+v, %v", health, err)
	}
	seal, err := c.Sys().SealStatus()
	if err != nil || seal.Sealed || seal.Version != health.Version || seal.ClusterID != health.ClusterID {
		t.Errorf("seal status: %+v, %v", seal, err)
	}
	_, err = c.Logical().Read(s.mount + "/creds/app")
	has(t, err, 403, "permission denied")
	_, err = c.Logical().Write("auth/userpass/login/program", map[string]any{"password": "wrong"})
	has(t, err, 400, "invalid username or password")

	in := signIn(t, c, "userpass/login/program", map[string]any{"password": vaultPassword})
	self, err := c.Auth().Token().LookupSelf()
	if err != nil {
		t.Fatal(err)
	}
	if ttl, err := self.TokenTTL(); err != nil || ttl > time.Hour || ttl < 59*time.Minute {
		t.Errorf("the token is valid for %s, %v", ttl, err)
	}
	renewed, err := c.Auth().Token().RenewSelf(3600)
	if err != nil || renewed.Auth.ClientToken != in.Auth.ClientToken || renewed.Auth.LeaseDuration != 3600 {
		t.Errorf("renewed: %+v, %v", renewed, err)
	}
	// Any other API accepts the token.
	if r := send(t, "GET", s.env["ROLECALL_URL"]+prefix+"/clusters/"+s.cluster()+"/users", map[string]string{
		"Authorization": "Bearer " + in.Auth.ClientToken}, ""); r.status != 200 {
		t.Errorf("the DBaaS API: %d %s", r.status, r.body)
	}

	first, err := c.Logical().Read(s.mount + "/creds/app")
	if err != nil || first == nil || first.LeaseDuration != 3600 || !first.Renewable ||
		!strings.HasPrefix(first.LeaseID, s.mount+"/creds/app/") {
		t.Fatalf("credentials: %+v, %v", first, err)
	}
	s.acts(t, first)
	found, err := c.Sys().Lookup(first.LeaseID)
	if err != nil || found.Data["id"] != first.LeaseID {
		t.Errorf("lookup: %+v, %v", found, err)
	}
	longer, err := c.Sys().Renew(first.LeaseID, 7200)
	if err != nil || longer.LeaseDuration != 7200 || longer.LeaseID != first.LeaseID {
		t.Errorf("renewed: %+v, %v", longer, err)
	}
	most, err := c.Sys().Renew(first.LeaseID, 1000*3600)
	if err != nil || most.LeaseDuration > 86400 || len(most.Warnings) != 1 {
		t.Errorf("renewed: %+v, %v", most, err)
	}
	if err := c.Sys().Revoke(first.LeaseID); err != nil {
		t.Error(err)
	}
	s.ends(t, first)
	_, err = c.Sys().Renew(first.LeaseID, 60)
	has(t, err, 400, "lease not found")
	second, err := c.Logical().Read(s.mount + "/creds/app")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sys().RevokeWithOptions(&vault.RevokeOptions{LeaseID: second.LeaseID, Sync: true}); err != nil {
		t.Error(err)
	}
	s.ends(t, second)

	_, err = c.Logical().Read(s.mount + "/creds/no-such")
	has(t, err, 400, "unknown role: no-such")
	// What this server does not have, the client takes for nothing there.
	for _, path := range []string{"secret/data/app", "no-such/creds/app", "sys/mounts"} {
		if none, err := c.Logical().Read(path); none != nil || err != nil {
			t.Errorf("%s: %+v, %v", path, none, err)
		}
	}
	if list, err := c.Logical().List(s.mount + "/creds"); list != nil || err != nil {
		t.Errorf("the list: %+v, %v", list, err)
	}
	wrapping, err := c.Clone()
	if err != nil {
		t.Fatal(err)
	}
	wrapping.SetToken(c.Token())
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	_, err = wrapping.Logical().Read(s.mount + "/creds/app")
	has(t, err, 400, "not wrapped")

	// The end of the token is that of its leases.
	third, err := c.Logical().Read(s.mount + "/creds/app")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Auth().Token().RevokeSelf(""); err != nil {
		t.Error(err)
	}
	_, err = c.Auth().Token().LookupSelf()
	has(t, err, 403, "permission denied")
	s.ends(t, third)
}

// TestVaultLifetimeWatcher renews credentials as long as they can be renewed, and reads others after that; and the token of
// a sign-in.
func TestVaultLifetimeWatcher(t *testing.T) {
	t.Parallel()
	s := startVaultServer(t, `{"defaultTtl":"4s","maxTtl":"10s"}`)
	s.person(t, "watcher")
	c := s.client(t)
	in := signIn(t, c, "userpass/login/watcher", map[string]any{"password": vaultPassword})
	watch := func(secret *vault.Secret) *vault.LifetimeWatcher {
		t.Helper()
		w, err := c.NewLifetimeWatcher(&vault.LifetimeWatcherInput{Secret: secret,
			RenewBehavior: vault.RenewBehaviorErrorOnErrors})
		if err != nil {
			t.Fatal(err)
		}
		go w.Start()
		t.Cleanup(w.Stop)
		return w
	}
	select {
	case r := <-watch(in).RenewCh():
		if r.Secret.Auth == nil || r.Secret.Auth.ClientToken != in.Auth.ClientToken {
			t.Errorf("the token is renewed to %+v", r.Secret)
		}
	case <-time.After(patience):
		t.Error("the token is not renewed")
	}
	secret, err := c.Logical().Read(s.mount + "/creds/app")
	if err != nil {
		t.Fatal(err)
	}
	s.acts(t, secret)
	w, renewals := watch(secret), 0
	for done := false; !done; {
		select {
		case r := <-w.RenewCh():
			renewals++
			if r.Secret.LeaseID != secret.LeaseID {
				t.Errorf("renewed to %+v", r.Secret)
			}
		case err := <-w.DoneCh():
			if done = true; err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("the watcher does not end")
		}
	}
	if renewals < 3 {
		t.Errorf("it was renewed %d times", renewals)
	}
	s.ends(t, secret)
	again, err := c.Logical().Read(s.mount + "/creds/app")
	if err != nil {
		t.Fatal(err)
	}
	s.acts(t, again)
}

// TestExternalSecrets makes the requests of the generator VaultDynamicSecret of External Secrets (generators/v1/vault and
// providers/v1/vault, August 2026), which uses Vault's client: it signs in with the token of a service account and reads the
// path of its spec. With a token of its own the store validates by lookup-self.
func TestExternalSecrets(t *testing.T) {
	t.Parallel()
	s := startVaultServer(t, `{}`)
	pod := s.serviceAccount(t, "external-secrets")
	for i, auth := range []string{"kubernetes", "jwt"} {
		c := s.client(t)
		in := signIn(t, c, auth+"/login", map[string]any{"jwt": pod, "role": "shop"})
		if i == 0 {
			if none, err := c.Logical().ReadWithData(s.mount+"/creds/app", nil); none != nil || err != nil {
				t.Errorf("before an admin allows it: %+v, %v", none, err)
			}
			s.label(t, in)
			c = s.client(t)
			signIn(t, c, auth+"/login", map[string]any{"jwt": pod, "role": "shop"})
		}
		var secret *vault.Secret
		for end := time.Now().Add(stale); ; time.Sleep(100 * time.Millisecond) { // until every replica knows the label
			var err error
			if secret, err = c.Logical().ReadWithData(s.mount+"/creds/app", nil); err != nil {
				t.Fatal(err)
			}
			if secret != nil || time.Now().After(end) {
				break
			}
		}
		if secret == nil {
			t.Fatal("it reads nothing")
		}
		s.acts(t, secret)

		// checkToken, as Validate and the closing of a store do it.
		self, err := c.Auth().Token().LookupSelf()
		if err != nil {
			t.Fatal(err)
		}
		ttl, isNumber := self.Data["ttl"].(json.Number)
		expires, err := time.Parse(time.RFC3339, fmt.Sprint(self.Data["expire_time"]))
		if self.Data["type"] != "service" || !isNumber || ttl == "" || err != nil || time.Until(expires) < 59*time.Minute {
			t.Errorf("the token is %v, %v", self.Data, err)
		}
		if err := c.Auth().Token().RevokeSelf(c.Token()); err != nil {
			t.Error(err)
		}
		s.ends(t, secret)
	}
}

// TestSpringCloudVault makes the requests of Spring Vault (core/lease/SecretLeaseContainer, LeaseEndpoints and
// authentication/LifecycleAwareSessionManager, August 2026).
func TestSpringCloudVault(t *testing.T) {
	t.Parallel()
	s := startVaultServer(t, `{}`)
	s.person(t, "spring")
	var token string
	call := func(want int, method, path, body string) map[string]any {
		t.Helper()
		header := map[string]string{"Authorization": "", "Accept": "application/json", "User-Agent": "Spring-Vault"}
		if token != "" {
			header["X-Vault-Token"] = token
		}
		if body != "" {
			header["Content-Type"] = "application/json"
		}
		r := send(t, method, s.env["ROLECALL_URL"]+"/v1/"+path, header, body)
		if r.status != want {
			t.Fatalf("%s %s: %d %s, want %d", method, path, r.status, r.body, want)
		}
		if want != http.StatusOK {
			return nil
		}
		return r.object(t)
	}
	login := call(200, "POST", "auth/userpass/login/spring", fmt.Sprintf(`{"password":%q}`, vaultPassword))
	token = fmt.Sprint(member(login, "auth", "client_token"))
	if member(login, "auth", "renewable") != true || member(login, "auth", "lease_duration") != 3600.0 {
		t.Fatalf("signed in: %v", login)
	}
	// With a static token it looks at that instead.
	if self := call(200, "GET", "auth/token/lookup-self", ""); member(self, "data", "renewable") != true ||
		member(self, "data", "type") != "service" {
		t.Errorf("the token is %v", self)
	}
	for _, legacy := range []bool{false, true} {
		got := call(200, "GET", url.PathEscape(s.mount)+"/creds/app", "")
		id := fmt.Sprint(got["lease_id"])
		secret := &vault.Secret{Data: got["data"].(map[string]any)}
		s.acts(t, secret)
		renew, revoke := "sys/leases/renew", "sys/leases/revoke"
		if legacy {
			renew, revoke = "sys/renew", "sys/revoke"
		}
		renewed := call(200, "PUT", renew, fmt.Sprintf(`{"lease_id":%q,"increment":"3600"}`, id))
		if renewed["lease_id"] != id || renewed["renewable"] != true || renewed["lease_duration"] != 3600.0 {
			t.Errorf("renewed: %v", renewed)
		}
		call(204, "PUT", revoke, fmt.Sprintf(`{"lease_id":%q}`, id))
		s.ends(t, secret)
		call(400, "PUT", renew, fmt.Sprintf(`{"lease_id":%q,"increment":"3600"}`, id)) // after which it reads others
	}
	if renewed := call(200, "POST", "auth/token/renew-self", ""); member(renewed, "auth", "client_token") != token {
		t.Errorf("renewed: %v", renewed)
	}
	call(204, "POST", "auth/token/revoke-self", "")
	call(403, "GET", "auth/token/lookup-self", "")
}
