package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ionos-cloud/sdk-go-bundle/products/dbaas/psql/v2"
	sdk "github.com/ionos-cloud/sdk-go-bundle/shared"

	"rolecall/internal/pgtest"
)

// tallying counts the answers of each status.
type tallying struct {
	http.RoundTripper
	statuses [600]atomic.Int32
}

func (c *tallying) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		c.statuses[resp.StatusCode].Add(1)
	}
	return resp, err
}

// bundle is the SDK's client with the SDK's own transport, which has three connections, and with the retries that the
// Terraform provider sets.
func bundle(url, token string) (*psql.APIClient, *tallying) {
	answers := &tallying{RoundTripper: sdk.CreateTransport(false, "")}
	config := sdk.NewConfiguration("", "", token, url)
	config.HTTPClient = &http.Client{Transport: answers}
	config.MaxRetries = 999
	return psql.NewAPIClient(config), answers
}

// beyond is more answers than the SDK has connections.
const beyond = 4

// waitFor waits for a state.
func waitFor(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !reached(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// soon is what comes out of a channel.
func soon[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

func bundleUser(name, password string) psql.User {
	return *psql.NewUser(psql.UserProperties{Username: name, Password: &password})
}

// TestBundleWaits: a change of a locked role goes on when the lock is gone, however many answers said to wait.
func TestBundleWaits(t *testing.T) {
	t.Parallel()
	api, answers := bundle(shared.env["IONOS_API_URL"], shared.env["IONOS_TOKEN"])
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	_, _, err := api.UsersApi.UsersPost(ctx, shared.cluster()).User(bundleUser("locky", "first password")).Execute()
	if err != nil {
		t.Fatal(err)
	}
	conn := shared.connect(t, "postgres")
	defer conn.Close(context.Background())
	rows(t, conn, `BEGIN; ALTER ROLE locky CONNECTION LIMIT 5`)
	second := "second password"
	changed := make(chan error, 1)
	go func() {
		_, _, err := api.UsersApi.UsersPatch(ctx, shared.cluster(), "locky").UsersPatchRequest(
			*psql.NewUsersPatchRequest(psql.PatchUserProperties{Password: &second})).Execute()
		changed <- err
	}()
	waitFor(t, "more than three times 503", func() bool { return answers.statuses[503].Load() >= beyond })
	rows(t, conn, `COMMIT`)
	if err := soon(t, changed); err != nil {
		t.Fatal(err)
	}
	shared.login(t, "locky", second)
	if _, err := api.UsersApi.UsersDelete(ctx, shared.cluster(), "locky").Execute(); err != nil {
		t.Error(err)
	}
}

// TestBundleIsRateLimited: the SDK waits as long as each 429 says, and goes on.
func TestBundleIsRateLimited(t *testing.T) {
	t.Parallel()
	s := newServer(t, "--rate-limit=1")
	api, answers := bundle(s.env["IONOS_API_URL"], s.env["IONOS_TOKEN"])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for answers.statuses[429].Load() < beyond {
		if _, _, err := api.UsersApi.UsersList(ctx, s.cluster()).Execute(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBundleStops: a cluster that does not answer ends each call at once, with the reason.
func TestBundleStops(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	pg := pgtest.New(t, nil)
	pg.Exec(t, `CREATE ROLE rolecall_admin LOGIN CREATEROLE CREATEDB PASSWORD 'administrator';
		GRANT pg_signal_backend TO rolecall_admin; CREATE ROLE everybody; CREATE ROLE readers;
		GRANT everybody, readers TO rolecall_admin WITH ADMIN OPTION`)
	a := send(t, http.MethodPost, s.env["ROLECALL_URL"]+"/rolecall/v1/clusters",
		map[string]string{"Authorization": "Bearer " + s.env["ROLECALL_TOKEN"]}, registration("down", pg))
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(a.body), &made); err != nil || a.status != http.StatusCreated {
		t.Fatalf("register: %d %s", a.status, a.body)
	}
	id := made.ID
	api, answers := bundle(s.env["IONOS_API_URL"], s.env["IONOS_TOKEN"])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := api.UsersApi.UsersPost(ctx, id).User(bundleUser("down", "first password")).Execute(); err != nil {
		t.Fatal(err)
	}
	pg.Stop(t)
	second := "second password"
	for what, call := range map[string]func() error{
		"get": func() error {
			_, _, err := api.UsersApi.UsersGet(ctx, id, "down").Execute()
			return err
		},
		"list": func() error {
			_, _, err := api.UsersApi.UsersList(ctx, id).Execute()
			return err
		},
		"create": func() error {
			_, _, err := api.UsersApi.UsersPost(ctx, id).User(bundleUser("more", "first password")).Execute()
			return err
		},
		"change": func() error {
			_, _, err := api.UsersApi.UsersPatch(ctx, id, "down").UsersPatchRequest(
				*psql.NewUsersPatchRequest(psql.PatchUserProperties{Password: &second})).Execute()
			return err
		},
		"delete": func() error {
			_, err := api.UsersApi.UsersDelete(ctx, id, "down").Execute()
			return err
		},
		"databases": func() error {
			_, _, err := api.DatabasesApi.DatabasesList(ctx, id).Execute()
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "The cluster does not answer.") {
			t.Errorf("%s: %v, want the reason", what, err)
		}
	}
	// A POST is not repeated after 503, so it gets one.
	if got := answers.statuses[503].Load(); got != 1 {
		t.Errorf("%d answers were 503, want that to the POST", got)
	}
}

// TestBundleLeaks shows why the answers to this SDK are special: a 503 with a body keeps one of its three connections.
func TestBundleLeaks(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Retry-After", "1")
		http.Error(w, `{"httpStatus":503,"messages":[]}`, http.StatusServiceUnavailable)
	}))
	defer busy.Close()
	api, _ := bundle(busy.URL, "token")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := api.UsersApi.UsersList(ctx, "00000000-0000-4000-8000-000000000000").Execute()
		ended <- err
	}()
	waitFor(t, "three requests", func() bool { return asked.Load() >= 3 })
	time.Sleep(time.Second) // ten times as long as the SDK waits before it repeats a request
	cancel()
	_ = soon(t, ended)
	if n := asked.Load(); n != 3 {
		t.Errorf("the SDK sent %d requests: it closes the bodies now, and dbaas no longer needs answers without one", n)
	}
}

// TestBundleOverview reads the lists that ionosctl shows beside users and databases.
func TestBundleOverview(t *testing.T) {
	t.Parallel()
	api, _ := bundle(shared.env["IONOS_API_URL"], shared.env["IONOS_TOKEN"])
	l, _, err := api.BackupsApi.ClustersBackupsGet(t.Context()).Execute()
	if err != nil || l.Links == nil || len(l.Items) != 0 {
		t.Errorf("backups: %+v, %v", l, err)
	}
	if l, _, err := api.BackupsApi.ClusterBackupsGet(t.Context(), shared.cluster()).Execute(); err != nil || len(l.Items) != 0 {
		t.Errorf("backups of the cluster: %+v, %v", l, err)
	}
	if l, _, err := api.LogsApi.ClusterLogsGet(t.Context(), shared.cluster()).Execute(); err != nil || len(l.Instances) != 0 {
		t.Errorf("logs: %+v, %v", l, err)
	}
}
