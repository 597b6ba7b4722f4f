package door_test

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/adminapi"
	"rolecall/internal/cfapi"
	"rolecall/internal/dbaas"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/uaa"
	"rolecall/internal/vaultapi"
	"rolecall/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// surface is one of all that the server has, and paths of it.
type surface struct {
	name    string
	handler func(*servicetest.Service, *door.Door) http.Handler
	private string // "": it has none
	public  string // "": it has none
	unknown string
	// open says that anybody may learn that the unknown path is unknown.
	open bool
	// wrongMethod is the status of a method that the path does not have.
	wrongMethod int
	refused     int  // the status without a valid credential; 0: 401
	basic       bool // it takes passwords
	errors      string
}

var surfaces = []surface{
	{
		name: "dbaas", private: dbaas.Prefix + "/clusters", unknown: dbaas.Prefix + "/nothing", wrongMethod: 405, basic: true,
		errors: "application/problem+json",
		handler: func(s *servicetest.Service, d *door.Door) http.Handler {
			return (&dbaas.API{Users: s.Users, Door: d}).Handler()
		},
	},
	{
		name: "rolecall", private: adminapi.Prefix + "/whoami", unknown: adminapi.Prefix + "/nothing", wrongMethod: 405,
		basic: true, errors: "application/problem+json",
		handler: func(s *servicetest.Service, d *door.Door) http.Handler {
			return (&adminapi.API{Accounts: s.Accounts, Users: s.Users, Fleet: s.Fleet, Identity: s.Identity, Door: d,
				Idempotency: s.Idempotency}).Handler()
		},
	},
	{
		name: "uaa", private: uaa.Prefix + "/Users", public: uaa.Prefix + "/info", unknown: uaa.Prefix + "/nothing", open: true,
		wrongMethod: 405, errors: "application/json",
		handler: func(s *servicetest.Service, d *door.Door) http.Handler {
			return (&uaa.API{Accounts: s.Accounts, Identity: s.Identity, Door: d}).Handler()
		},
	},
	{
		name: "cf", private: cfapi.Prefix + "/users", public: cfapi.Prefix + "/info", unknown: cfapi.Prefix + "/nothing",
		wrongMethod: 404, errors: "application/json; charset=utf-8",
		handler: func(s *servicetest.Service, d *door.Door) http.Handler {
			return (&cfapi.API{Accounts: s.Accounts, Door: d}).Handler()
		},
	},
	{
		name: "vault", private: vaultapi.Prefix + "/auth/token/lookup-self", public: vaultapi.Prefix + "/sys/health",
		unknown: vaultapi.Prefix + "/nothing", wrongMethod: 404, refused: 403, errors: "application/json",
		handler: func(s *servicetest.Service, d *door.Door) http.Handler {
			return (&vaultapi.API{Users: s.Users, Identity: s.Identity, Door: d}).Handler()
		},
	},
	{
		name: "cf outside of its prefix", public: "/", unknown: "/favicon.ico", open: true, wrongMethod: 404,
		errors: "application/json; charset=utf-8",
		handler: func(s *servicetest.Service, d *door.Door) http.Handler {
			return (&cfapi.API{Accounts: s.Accounts, Door: d}).Handler()
		},
	},
	{
		name: "documents", public: "/docs", unknown: "/docs/no/such/page/at/all", open: true, wrongMethod: 405,
		errors:  "application/problem+json",
		handler: func(_ *servicetest.Service, d *door.Door) http.Handler { return adminapi.Documents(d) },
	},
	{
		name: "a document", public: "/openapi/dbaas.yaml", unknown: "/openapi/nothing.yaml", open: true, wrongMethod: 405,
		errors:  "application/problem+json",
		handler: func(_ *servicetest.Service, d *door.Door) http.Handler { return adminapi.Documents(d) },
	},
}

func (x surface) unauthenticated() int { return cmp.Or(x.refused, 401) }

// server is a surface that answers, within limits.
type server struct {
	*servicetest.Service
	surface
	edge *web.Edge
}

const never = 1e-6 // a second request in eleven days

// serve serves the surface with so many requests a second of an address and of an account.
func (x surface) serve(t *testing.T, perAddress, perAccount float64) *server {
	t.Helper()
	s := servicetest.Shared(t)
	d := &door.Door{Identity: s.Identity, PerAddress: &web.Limiter{PerSecond: perAddress},
		PerAccount: &web.Limiter{PerSecond: perAccount}}
	return &server{s, x, &web.Edge{Handler: x.handler(s, d), Log: slog.New(slog.DiscardHandler)}}
}

func (s *server) send(method, path, authorization string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.edge.ServeHTTP(w, r)
	return w
}

// want sends a request and fails the test unless its answer has the status and, for a failure, the form of the dialect.
func (s *server) want(t *testing.T, status int, method, path, authorization string, headers ...string) {
	t.Helper()
	w := s.send(method, path, authorization, headers...)
	if w.Code != status {
		t.Errorf("%s %s with %.20q %v: got %d %s, want %d", method, path, authorization, headers, w.Code, w.Body, status)
	}
	if w.Code >= 400 && w.Header().Get("Content-Type") != s.errors {
		t.Errorf("%s %s: a failure is %s", method, path, w.Header().Get("Content-Type"))
	}
	if w.Code == 429 && w.Header().Get("Retry-After") == "" {
		t.Errorf("%s %s: a 429 without Retry-After", method, path)
	}
	if w.Header().Get("X-Content-Type-Options") != "nosniff" ||
		!strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s %s: the security headers are missing: %v", method, path, w.Header())
	}
}

func (s *server) token(t *testing.T, username string) string {
	t.Helper()
	token, err := s.Identity.MintFor(t.Context(), username, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + token
}

func unique(prefix string) string { return prefix + "-" + uuid.NewString()[:8] }

func basic(username, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}

// Of an address one request is answered, and the next is one too many, whatever is wrong with their credential.
func TestStrangersAreLimited(t *testing.T) {
	for _, x := range surfaces {
		t.Run(x.name, func(t *testing.T) {
			twice := func(status int, method, path, authorization string) {
				t.Helper()
				s := x.serve(t, never, 0)
				s.want(t, status, method, path, authorization)
				s.want(t, 429, method, path, authorization)
				if x.private != "" { // whoever has a valid token is not held up by others at the address
					s.want(t, 200, "GET", x.private, s.token(t, "root"))
				}
			}
			unknown := x.unauthenticated()
			if x.open {
				unknown = 404
			}
			twice(unknown, "GET", x.unknown, "")
			if x.public != "" {
				twice(200, "GET", x.public, "")
				twice(200, "HEAD", "/"+x.public, "")
				twice(200, "GET", x.public, x.serve(t, 0, 0).token(t, "root"))
				if x.open { // else what is below the prefix has no public path
					twice(x.wrongMethod, "PUT", x.public, "")
				}
			}
			if x.private == "" {
				return
			}
			s := servicetest.Shared(t)
			username := unique("dead")
			s.Account(t, username, []string{account.ScopeRead}, nil)
			live, err := s.Identity.MintFor(t.Context(), username, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(live, ".")
			for name, authorization := range map[string]string{
				"none":           "",
				"another scheme": "Digest username=root",
				"no value":       "Bearer ",
				"garbage":        "Bearer garbage",
				"forged":         "Bearer " + parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
				"no such token":  "Bearer rolecall_pat_" + strings.Repeat("0", 32) + "_" + strings.Repeat("0", 40),
				"wrong password": basic("root", unique("wrong")),
			} {
				t.Run(name, func(t *testing.T) {
					twice(x.unauthenticated(), "GET", x.private, authorization)
				})
			}
			if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE accounts SET epoch = gen_random_uuid() WHERE username = $1`,
				username); err != nil {
				t.Fatal(err)
			}
			twice(x.unauthenticated(), "GET", x.private, "Bearer "+live) // its signature is good
		})
	}
}

// TestSlowStrangers: a body that no credential stands before gets little time. One of an account gets what others get.
func TestSlowStrangers(t *testing.T) {
	s := servicetest.Shared(t)
	d := s.Door(0)
	d.StrangerBody = 50 * time.Millisecond
	uaaAPI := &uaa.API{Accounts: s.Accounts, Identity: s.Identity, Door: d, PublicURL: servicetest.PublicURL}
	server := httptest.NewServer(&web.Edge{Handler: uaaAPI.Handler(), Log: slog.New(slog.DiscardHandler)})
	defer server.Close()
	begin := func(path string, headers ...string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		request := "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 41\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	status := func(conn net.Conn) string {
		t.Helper()
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	for _, path := range []string{"/uaa/oauth/token", "/uaa/oauth/revoke"} {
		conn := begin(path, "Content-Type: application/x-www-form-urlencoded")
		if got := status(conn); got != "HTTP/1.1 400 Bad Request" {
			t.Errorf("%s: %s", path, got)
		}
	}
	token, err := s.Identity.MintFor(t.Context(), "root", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	slow := begin("/uaa/Users", "Authorization: Bearer "+token)
	stranger := begin("/uaa/oauth/token", "Content-Type: application/x-www-form-urlencoded")
	status(stranger) // which has had its time, and began later
	if _, err := io.WriteString(slow, `{"userName":"slow","password":"password"}`); err != nil {
		t.Fatal(err)
	}
	if got := status(slow); got != "HTTP/1.1 400 Bad Request" { // read, and the password is too short
		t.Error(got)
	}
}

// The order is the same on every surface: who asks, the slots and the rate of its account, whether a browser asks for
// another site, and only then what is asked for.
func TestOrder(t *testing.T) {
	for _, x := range surfaces {
		if x.private == "" {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			s := x.serve(t, 0, 0)
			token := s.token(t, "root")
			unknown, method := x.unauthenticated(), x.unauthenticated()
			if x.open {
				unknown = 404
			}
			s.want(t, unknown, "GET", x.unknown, "")
			s.want(t, unknown, "GET", x.unknown, "Bearer garbage")
			s.want(t, 404, "GET", x.unknown, token)
			if x.open {
				method = x.wrongMethod
			}
			s.want(t, method, "DELETE", x.private, "")
			s.want(t, x.wrongMethod, "DELETE", x.private, token)
			const cross = "Sec-Fetch-Site: cross-site"
			change, changed := existing(x)
			s.want(t, x.unauthenticated(), change, changed, "", cross)
			s.want(t, 403, change, changed, token, cross)
			s.want(t, 200, "GET", x.private, token, cross)
			if got := s.send("GET", x.private, basic("root", "root-password")).Code == 200; got != x.basic {
				t.Errorf("a password is taken: %t, want %t", got, x.basic)
			}

			s = x.serve(t, 0, never)
			s.want(t, 200, "GET", x.private, token)
			s.want(t, 429, "GET", x.private, token)
			s.want(t, x.unauthenticated(), "GET", x.private, "Bearer garbage")
			s.want(t, 429, change, changed, token, cross)
			if !x.open {
				s.want(t, 429, "GET", x.unknown, token)
				s.want(t, 429, "DELETE", x.private, token)
			}
		})
	}
}

// A token that is limited to stored credentials gets nowhere but to the routes that are there for it.
func TestCredentialTokens(t *testing.T) {
	s := servicetest.Shared(t)
	username := unique("limited")
	s.Account(t, username, account.AdminScopes, nil)
	maker, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential(basic(username, username+"-password")), "")
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err := s.Identity.CreatePersonalToken(t.Context(), maker,
		identity.NewPersonalToken{Name: "limited", Credentials: []string{s.ClusterID + "/shop"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range surfaces {
		if x.private == "" {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			s := x.serve(t, 0, 0)
			token := "Bearer " + secret
			if x.name != "vault" { // where this is one of the routes that are there for it
				s.want(t, 403, "GET", x.private, token)
				s.want(t, 403, "HEAD", x.private, token)
			}
			change, changed := existing(x)
			s.want(t, 403, change, changed, token)
			if !x.open {
				s.want(t, 403, "DELETE", x.private, token)
				s.want(t, 403, "GET", x.unknown, token)
			}
			if x.public != "" {
				s.want(t, 200, "GET", x.public, token)
			}
		})
	}
	var reached bool
	open := func(w http.ResponseWriter, _ *http.Request, p *account.Principal) error {
		reached = p.Credentials != nil
		return nil
	}
	handler := s.Door(0).Handler(door.Surface{Schemes: []identity.Scheme{identity.Bearer}, TokenHeader: "X-Token",
		Private: "/x", Fail: func(w http.ResponseWriter, _ *http.Request, _ *fault.Error) { w.WriteHeader(403) },
		Routes: []door.Route{{Method: "GET", Pattern: "/x", Handle: open, ForCredentials: true}}})
	served := &server{s, surface{}, &web.Edge{Handler: handler, Log: slog.New(slog.DiscardHandler)}}
	if w := served.send("GET", "/x", "", "X-Token: "+secret); w.Code != 200 || !reached {
		t.Errorf("the route that is there for it: %d", w.Code)
	}
	if w := served.send("GET", "/x", "Bearer "+secret, "X-Token: wrong"); w.Code != 403 {
		t.Errorf("the header of its own does not take precedence: %d", w.Code)
	}
}

// existing is a path with a route for a method that changes something.
func existing(x surface) (method, path string) {
	path = map[string]string{
		"dbaas":    dbaas.Prefix + "/clusters/x/users/x",
		"rolecall": adminapi.Prefix + "/clusters/x",
		"uaa":      uaa.Prefix + "/Users/x",
		"cf":       cfapi.Prefix + "/users/x",
	}[x.name]
	if x.name == "vault" {
		return "PUT", vaultapi.Prefix + "/sys/leases/revoke"
	}
	return "DELETE", path
}

// No surface answers beyond the bounds of what is in flight, and each refuses in its own words.
func TestInFlight(t *testing.T) {
	for _, x := range surfaces {
		t.Run(x.name, func(t *testing.T) {
			s := x.serve(t, 0, 0)
			path, credential := x.public, ""
			if path == "" {
				path = x.private
			}
			token, guid := s.token(t, "root"), ""
			if x.private != "" {
				var err error
				if guid, err = s.Identity.GUID(t.Context(), "root"); err != nil {
					t.Fatal(err)
				}
			}
			for _, bound := range []struct {
				*web.InFlight
				status        int
				path, account string
			}{
				{&web.InFlight{PerAddress: 1}, 429, path, ""},
				{&web.InFlight{PerAddress: 1}, 429, x.private, guid},
				{&web.InFlight{Total: 1}, 503, path, ""},
				{&web.InFlight{PerAccount: 1}, 429, x.private, guid},
			} {
				if bound.path == "" {
					continue
				}
				s.edge.InFlight = bound.InFlight
				free := 200
				if credential = token; bound.account == "" { // of a stranger
					credential = ""
					if bound.path == x.private {
						free = x.unauthenticated()
					}
				}
				s.want(t, free, "GET", bound.path, credential)
				hold, holding := make(chan struct{}), make(chan error)
				other := &web.Edge{Log: s.edge.Log, InFlight: bound.InFlight,
					Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						var err error
						if bound.account != "" {
							err = web.InfoOf(r.Context()).TakeAccountSlot(bound.account)
						}
						holding <- err
						<-hold
					})}
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					other.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
				}()
				if err := <-holding; err != nil {
					t.Error(err)
				}
				s.want(t, bound.status, "GET", bound.path, credential)
				// Neither strangers nor those who are signed in keep the others of their address out.
				if x.private != "" && bound.PerAddress > 0 {
					if bound.account == "" {
						s.want(t, 200, "GET", x.private, token)
					} else {
						s.want(t, x.unauthenticated(), "GET", x.private, "")
					}
				}
				close(hold)
				<-ended
				s.want(t, free, "GET", bound.path, credential)
			}
		})
	}
}

// TestBodiesOfTheUnauthorized: where a body may be large, a principal that may not make the change is refused before it
// sends the body.
func TestBodiesOfTheUnauthorized(t *testing.T) {
	s := servicetest.Shared(t)
	s.Access(t, s.ClusterID, nil, []string{"team=bodies"})
	username := unique("bodies")
	guid := s.Account(t, username, account.DefaultScopes, map[string]string{"team": "bodies"})
	token, err := s.Identity.MintFor(t.Context(), username, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range surfaces {
		for _, request := range map[string][]string{
			"cf":       {"POST /v3/users", "PATCH /v3/users/" + guid},
			"rolecall": {"POST /clusters", "PATCH /clusters/" + s.ClusterID, "POST /accounts", "PATCH /accounts/" + guid},
		}[x.name] {
			t.Run(request, func(t *testing.T) {
				method, path, _ := strings.Cut(request, " ")
				if x.name == "rolecall" {
					path = adminapi.Prefix + path
				}
				server := httptest.NewServer(&web.Edge{Handler: x.handler(s, s.Door(0)), Log: slog.New(slog.DiscardHandler)})
				defer server.Close()
				body, never := io.Pipe()
				defer never.Close()
				r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, body)
				if err != nil {
					t.Fatal(err)
				}
				r.ContentLength = 200_000
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer "+token)
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if res.StatusCode != http.StatusForbidden {
					t.Errorf("got %d", res.StatusCode)
				}
			})
		}
	}
}
