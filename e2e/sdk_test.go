package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	ionoscloud "github.com/ionos-cloud/sdk-go-dbaas-postgres"
)

func newUser(name, password string) ionoscloud.User {
	return ionoscloud.User{Properties: &ionoscloud.UserProperties{Username: &name, Password: &password}}
}

func newPassword(password string) ionoscloud.UsersPatchRequest {
	return ionoscloud.UsersPatchRequest{Properties: &ionoscloud.PatchUserProperties{Password: &password}}
}

// failsWith fails t unless err is the SDK's, with the status and an error code and message of the API.
func failsWith(t *testing.T, what string, err error, status int, code string) {
	t.Helper()
	var apiErr ionoscloud.GenericOpenAPIError
	if !errors.As(err, &apiErr) {
		t.Errorf("%s: %v, want an error of the API with %d", what, err, status)
		return
	}
	body, ok := apiErr.Model().(ionoscloud.ErrorResponse)
	if !ok || apiErr.StatusCode() != status || body.HttpStatus == nil || int(*body.HttpStatus) != status ||
		body.Messages == nil || len(*body.Messages) != 1 || *(*body.Messages)[0].ErrorCode != code ||
		*(*body.Messages)[0].Message == "" {
		t.Errorf("%s: %d %s, want %d %s", what, apiErr.StatusCode(), apiErr.Body(), status, code)
	}
}

// TestSDK takes one user through its life, with each way in that rolecall env offers.
func TestSDK(t *testing.T) {
	t.Parallel()
	url := shared.env["IONOS_API_URL"]
	for _, way := range []struct {
		name, url   string
		credentials []string
	}{
		{"token", url, []string{"IONOS_TOKEN"}},
		{"password", url, []string{"IONOS_USERNAME", "IONOS_PASSWORD"}},
		{"slash", url + "/", []string{"IONOS_TOKEN"}},
		{"prefix", url + "/databases/postgresql", []string{"IONOS_TOKEN"}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			api := shared.sdk(t, way.url, way.credentials...)
			name, first, second := "sdk "+way.name, "first password", "second pässword <&>"

			before := time.Now().Add(-time.Minute)
			created, resp, err := api.UsersApi.UsersPost(ctx, shared.cluster()).User(newUser(name, first)).Execute()
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("create: %v", err)
			}
			if *created.Type != "user" || *created.Id == "" || *created.Properties.Username != name || *created.Properties.System ||
				created.Properties.Password != nil || !strings.HasPrefix(*created.Href, url+"/databases/postgresql/clusters/") {
				t.Errorf("created: %s", resp.Payload)
			}
			if m := created.Metadata; m == nil || m.CreatedDate.Before(before) || m.CreatedDate.After(time.Now().Add(time.Minute)) ||
				*m.CreatedByUserId == "" || !strings.HasSuffix(*m.CreatedBy, *m.CreatedByUserId) || *m.ResourceURN == "" {
				t.Errorf("created by whom, when: %s", resp.Payload)
			}
			shared.login(t, name, first)

			got, _, err := api.UsersApi.UsersGet(ctx, shared.cluster(), name).Execute()
			if err != nil || *got.Id != *created.Id {
				t.Errorf("get: %v", err)
			}
			patched, _, err := api.UsersApi.UsersPatch(ctx, shared.cluster(), name).UsersPatchRequest(newPassword(second)).Execute()
			if err != nil || *patched.Id != *created.Id ||
				!patched.Metadata.LastModifiedDate.After(created.Metadata.LastModifiedDate.Time) {
				t.Errorf("patch: %v", err)
			}
			shared.login(t, name, second)
			shared.refused(t, name, first)

			_, _, err = api.UsersApi.UsersPost(ctx, shared.cluster()).User(newUser(name, first)).Execute()
			failsWith(t, "create again", err, http.StatusUnprocessableEntity, "paas-conflict-1")

			owned := "db of " + name
			database := ionoscloud.Database{Properties: &ionoscloud.DatabaseProperties{Name: &owned, Owner: &name}}
			if made, resp, err := api.DatabasesApi.DatabasesPost(ctx, shared.cluster()).Database(database).Execute(); err != nil ||
				*made.Properties.Owner != name {
				t.Fatalf("create a database: %v %s", err, resp.Payload)
			}
			if _, err := shared.psql(name, second, owned, "CREATE TABLE t (i int)"); err != nil {
				t.Errorf("the owner uses its database: %v", err)
			}
			if _, _, err := api.DatabasesApi.DatabasesGet(ctx, shared.cluster(), owned).Execute(); err != nil {
				t.Errorf("get the database: %v", err)
			}
			databases, _, err := api.DatabasesApi.DatabasesList(ctx, shared.cluster()).Limit(1000).Execute()
			if err != nil || !slices.ContainsFunc(*databases.Items,
				func(d ionoscloud.DatabaseResource) bool { return *d.Properties.Name == owned }) {
				t.Errorf("list databases: %v", err)
			}
			for _, d := range *databases.Items {
				if *d.Properties.Name == "rolecall" {
					t.Error("the control database is listed")
				}
			}
			_, err = api.UsersApi.UsersDelete(ctx, shared.cluster(), name).Execute()
			failsWith(t, "delete an owner", err, http.StatusUnprocessableEntity, "paas-inuse-1")
			if _, err := api.DatabasesApi.DatabasesDelete(ctx, shared.cluster(), owned).Execute(); err != nil {
				t.Errorf("delete the database: %v", err)
			}
			_, _, err = api.DatabasesApi.DatabasesGet(ctx, shared.cluster(), owned).Execute()
			failsWith(t, "get a deleted database", err, http.StatusNotFound, "paas-notfound-1")

			if resp, err := api.UsersApi.UsersDelete(ctx, shared.cluster(), name).Execute(); err != nil ||
				resp.StatusCode != http.StatusNoContent {
				t.Errorf("delete: %v", err)
			}
			shared.refused(t, name, second)
			_, resp, err = api.UsersApi.UsersGet(ctx, shared.cluster(), name).Execute()
			failsWith(t, "get a deleted user", err, http.StatusNotFound, "paas-notfound-1")
			if !resp.HttpNotFound() {
				t.Error("the SDK does not know that the user is gone")
			}
			_, err = api.UsersApi.UsersDelete(ctx, shared.cluster(), name).Execute()
			failsWith(t, "delete again", err, http.StatusNotFound, "paas-notfound-1")
		})
	}
}

func TestSDKClusters(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	api := shared.sdk(t, shared.env["IONOS_API_URL"], "IONOS_TOKEN")
	list, _, err := api.ClustersApi.ClustersGet(ctx).Execute()
	if err != nil || len(*list.Items) != 1 || *(*list.Items)[0].Id != shared.cluster() {
		t.Fatalf("list: %v", err)
	}
	if list, _, err = api.ClustersApi.ClustersGet(ctx).FilterName("LOC").Execute(); err != nil || len(*list.Items) != 1 {
		t.Errorf("list by name: %v", err)
	}
	if list, _, err = api.ClustersApi.ClustersGet(ctx).FilterName("nonsense").Execute(); err != nil || len(*list.Items) != 0 {
		t.Errorf("list by another name: %v", err)
	}
	c, _, err := api.ClustersApi.ClustersFindById(ctx, shared.cluster()).Execute()
	if err != nil || *c.Metadata.State != ionoscloud.AVAILABLE || *c.Properties.DisplayName != "local" ||
		*c.Properties.PostgresVersion == "" {
		t.Errorf("get: %v", err)
	}
	_, _, err = api.ClustersApi.ClustersFindById(ctx, "00000000-0000-4000-8000-000000000000").Execute()
	failsWith(t, "get an unknown cluster", err, http.StatusNotFound, "paas-notfound-1")
	_, _, err = api.ClustersApi.ClustersDelete(ctx, shared.cluster()).Execute()
	failsWith(t, "delete a cluster", err, http.StatusMethodNotAllowed, "paas-method-1")
	for _, versions := range []func() (ionoscloud.PostgresVersionList, *ionoscloud.APIResponse, error){
		api.ClustersApi.PostgresVersionsGet(ctx).Execute,
		api.ClustersApi.ClusterPostgresVersionsGet(ctx, shared.cluster()).Execute,
	} {
		if v, _, err := versions(); err != nil || len(*v.Data) == 0 || *(*v.Data)[0].Name == "" {
			t.Errorf("versions: %v", err)
		}
	}
	if v, _, err := api.MetadataApi.InfosVersionGet(ctx).Execute(); err != nil || *v.Name == "" {
		t.Errorf("version of the API: %v", err)
	}
	if v, _, err := api.MetadataApi.InfosVersionsGet(ctx).Execute(); err != nil || len(v) == 0 {
		t.Errorf("versions of the API: %v", err)
	}
}

func TestSDKErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := shared.env["IONOS_API_URL"]
	_, _, err := shared.sdk(t, url).UsersApi.UsersList(ctx, shared.cluster()).Execute()
	failsWith(t, "without credentials", err, http.StatusUnauthorized, "paas-auth-1")
	configured := shared.sdk(t, url, "IONOS_USERNAME", "IONOS_PASSWORD")
	configured.GetConfig().Password = "wrong"
	_, _, err = configured.UsersApi.UsersList(ctx, "nonsense").Execute()
	failsWith(t, "with a wrong password", err, http.StatusUnauthorized, "paas-auth-1")
	token := shared.sdk(t, url, "IONOS_TOKEN")
	token.GetConfig().Token += "x"
	_, _, err = token.UsersApi.UsersList(ctx, shared.cluster()).Execute()
	failsWith(t, "with a wrong token", err, http.StatusUnauthorized, "paas-auth-1")

	api := shared.sdk(t, url, "IONOS_TOKEN")
	for _, test := range []struct {
		name, password string
	}{
		{"", "long enough"},
		{".", "long enough"},
		{"..", "long enough"},
		{"postgres", "long enough"},
		{"pg_reader", "long enough"},
		{"public", "long enough"},
		{"rolecall", "long enough"},
		{"line\nbreak", "long enough"},
		{"nul\x00byte", "long enough"},
		{strings.Repeat("x", 64), "long enough"},
		{strings.Repeat("é", 40), "long enough"},
		{"fine", ""},
		{"fine", "too short"},
		{"fine", strings.Repeat("x", 64)},
		{"fine", "with\x00 a null byte"},
	} {
		_, resp, err := api.UsersApi.UsersPost(ctx, shared.cluster()).User(newUser(test.name, test.password)).Execute()
		if err == nil || resp.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("create %q with %q: %v, want 422", test.name, test.password, err)
		}
		if test.password != "" && test.password != "long enough" && strings.Contains(fmt.Sprint(err), test.password) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	_, _, err = api.UsersApi.UsersGet(ctx, shared.cluster(), "fine").Execute()
	failsWith(t, "get a user that was refused", err, http.StatusNotFound, "paas-notfound-1")
	_, _, err = api.UsersApi.UsersPatch(ctx, shared.cluster(),
		"postgres").UsersPatchRequest(newPassword("long enough")).Execute()
	failsWith(t, "patch the superuser", err, http.StatusForbidden, "paas-auth-2")
	for _, protected := range []string{"postgres", "rolecall", "rolecall_admin"} {
		_, err = api.UsersApi.UsersDelete(ctx, shared.cluster(), protected).Execute()
		failsWith(t, "delete "+protected, err, http.StatusForbidden, "paas-auth-2")
	}
	_, _, err = api.UsersApi.UsersList(ctx, shared.cluster()).Limit(1001).Execute()
	failsWith(t, "a limit too high", err, http.StatusUnprocessableEntity, "paas-validation-1")
	// The SDK does not escape dots. A server that cleaned paths would delete the cluster, or list its users.
	for _, dots := range []string{".", ".."} {
		_, err = api.UsersApi.UsersDelete(ctx, shared.cluster(), dots).Execute()
		failsWith(t, "delete "+dots, err, http.StatusNotFound, "paas-notfound-1")
	}
}

func TestSDKOddNames(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	api := shared.sdk(t, shared.env["IONOS_API_URL"], "IONOS_TOKEN")
	for i, name := range []string{
		"we/ird né", "/", "a/../b", "/leading", "trailing/", "...", ".hidden",
		`a"b'c`, `back\slash`, "percent%41", "%2F", "q?x=1&y", "#fragment", "semi;colon", "--dash", "<&>", "plus+plus",
		" spaces ", "UPPER", "upper", "名前", "\U0001f600", "$1", "{clusterId}", "e\u0301", "\u00e9", strings.Repeat("x", 63),
		"'; DROP ROLE postgres; --", `x" SUPERUSER --`, "rolecall:v1 {}",
	} {
		password := fmt.Sprintf("password %d of 'many' \\", i)
		created, _, err := api.UsersApi.UsersPost(ctx, shared.cluster()).User(newUser(name, password)).Execute()
		if err != nil || *created.Properties.Username != name {
			t.Errorf("create %q: %v", name, err)
			continue
		}
		shared.login(t, name, password)
		got, _, err := api.UsersApi.UsersGet(ctx, shared.cluster(), name).Execute()
		if err != nil || *got.Properties.Username != name || *got.Id != *created.Id || *got.Properties.System {
			t.Errorf("get %q: %v", name, err)
		}
		// The address of the resource leads to it.
		if r := send(t, http.MethodGet, *got.Href, nil, ""); r.status != http.StatusOK || !strings.Contains(r.body, *got.Id) {
			t.Errorf("GET %s: %d %s", *got.Href, r.status, r.body)
		}
		if _, _, err := api.UsersApi.UsersPatch(ctx, shared.cluster(),
			name).UsersPatchRequest(newPassword("new " + password)).Execute(); err != nil {
			t.Errorf("patch %q: %v", name, err)
		}
		shared.login(t, name, "new "+password)
		if _, err := api.UsersApi.UsersDelete(ctx, shared.cluster(), name).Execute(); err != nil {
			t.Errorf("delete %q: %v", name, err)
		}
		if _, resp, err := api.UsersApi.UsersGet(ctx, shared.cluster(), name).Execute(); err == nil || !resp.HttpNotFound() {
			t.Errorf("get %q after its deletion: %v", name, err)
		}
	}
}

func TestSDKPages(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	api := shared.sdk(t, shared.env["IONOS_API_URL"], "IONOS_TOKEN")
	const users = 7
	for i := range users {
		if _, _, err := api.UsersApi.UsersPost(ctx, shared.cluster()).User(newUser(fmt.Sprintf("page %d", i),
			"long enough")).Execute(); err != nil {
			t.Fatal(err)
		}
	}
	// Other tests make and delete users at the same time, so pages are only looked through for those of this one.
	var found []string
	for offset := int32(0); ; offset += 3 {
		list, _, err := api.UsersApi.UsersList(ctx, shared.cluster()).Limit(3).Offset(offset).Execute()
		if err != nil {
			t.Fatal(err)
		}
		if *list.Offset != offset || *list.Limit != 3 || len(*list.Items) > 3 || (list.Links.Prev != nil) != (offset > 0) ||
			*list.Links.Self == "" {
			t.Errorf("page at %d: offset %d, limit %d, %d items", offset, *list.Offset, *list.Limit, len(*list.Items))
		}
		for _, u := range *list.Items {
			if strings.HasPrefix(*u.Properties.Username, "page ") && !slices.Contains(found, *u.Properties.Username) {
				found = append(found, *u.Properties.Username)
			}
			if *u.Properties.System {
				t.Errorf("%s is a system user and listed without being asked for", *u.Properties.Username)
			}
		}
		if list.Links.Next == nil {
			break
		}
	}
	if len(found) != users || !slices.IsSorted(found) {
		t.Errorf("the pages hold %q, want %d users in order", found, users)
	}
	all, _, err := api.UsersApi.UsersList(ctx, shared.cluster()).System(true).Limit(1000).Execute()
	if err != nil || !slices.ContainsFunc(*all.Items, func(u ionoscloud.UserResource) bool {
		return *u.Properties.Username == "postgres" && *u.Properties.System &&
			strings.HasSuffix(*u.Metadata.CreatedBy, "_system_") && u.Metadata.CreatedDate == nil
	}) {
		t.Errorf("the list with system users lacks postgres: %v", err)
	}
}
