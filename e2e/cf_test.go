package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cfclient "github.com/cloudfoundry/go-cfclient/v3/client"
	cfconfig "github.com/cloudfoundry/go-cfclient/v3/config"
	cfresource "github.com/cloudfoundry/go-cfclient/v3/resource"
)

// admin sends a request with admin's token and decodes what it answers into v, unless that is nil.
func admin(t *testing.T, want int, method, path, body string, v any) {
	t.Helper()
	header := map[string]string{"Content-Type": "application/json", "If-Match": "*"}
	r := send(t, method, path, header, body)
	if r.status != want {
		t.Fatalf("%s %s: %d %s, want %d", method, path, r.status, r.body, want)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(r.body), v); err != nil {
			t.Fatalf("%s %s: %s: %v", method, path, r.body, err)
		}
	}
}

// discard deletes what a test has made, once it is over.
func discard(t *testing.T, paths ...string) {
	t.Cleanup(func() {
		for _, path := range paths {
			req, err := http.NewRequest(http.MethodDelete, shared.env["ROLECALL_URL"]+path, nil)
			if err != nil {
				t.Error(err)
				continue
			}
			req.Header.Set("Authorization", "Bearer "+shared.env["IONOS_TOKEN"])
			if resp, err := http.DefaultClient.Do(req); err != nil {
				t.Error(err)
			} else {
				resp.Body.Close() // the test may have deleted it itself
			}
		}
	})
}

// person makes somebody who can sign in, and nothing else, and returns the guid.
func person(t *testing.T, name, password string) string {
	t.Helper()
	var made struct{ ID string }
	admin(t, 201, "POST", "/uaa/Users", fmt.Sprintf(`{"userName":%q,"password":%q}`, name, password), &made)
	discard(t, "/v3/users/"+made.ID, "/uaa/Users/"+made.ID)
	return made.ID
}

const (
	everything = "cloud_controller.admin cloud_controller.read cloud_controller.write scim.read scim.write"
	secret     = "s3cret of %41 a+program:"
)

// program makes an OAuth client with these scopes, and that secret.
func program(t *testing.T, id, scopes string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"client_id": id, "client_secret": secret,
		"authorized_grant_types": []string{"client_credentials"}, "authorities": strings.Fields(scopes)})
	if err != nil {
		t.Fatal(err)
	}
	admin(t, 201, "POST", "/uaa/oauth/clients", string(body), nil)
	discard(t, "/v3/users/"+url.PathEscape(id), "/uaa/oauth/clients/"+url.PathEscape(id))
}

// token signs in as the cf command line does, by the public client.
func token(t *testing.T, username, password string) (access, refresh string) {
	t.Helper()
	form := url.Values{"grant_type": {"password"}, "username": {username}, "password": {password}}
	r := send(t, "POST", "/uaa/oauth/token", map[string]string{"Authorization": "Basic Y2Y6",
		"Content-Type": "application/x-www-form-urlencoded"}, form.Encode())
	var got struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != 200 || got.Access == "" || got.Refresh == "" {
		t.Fatalf("a token for %s: %d %s", username, r.status, r.body)
	}
	return got.Access, got.Refresh
}

// cf connects go-cfclient by discovery.
func cf(t *testing.T, options ...cfconfig.Option) *cfclient.Client {
	t.Helper()
	config, err := cfconfig.New(shared.env["CF_API_URL"], options...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cfclient.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func asAdmin() cfconfig.Option {
	return cfconfig.UserPassword(shared.env["CF_USERNAME"], shared.env["CF_PASSWORD"])
}

func pointers(m map[string]string) map[string]*string {
	pointers := map[string]*string{}
	for key, value := range m {
		pointers[key] = &value
	}
	return pointers
}

// hasMetadata fails t unless the user has these labels and annotations, and no others.
func hasMetadata(t *testing.T, what string, u *cfresource.User, labels, annotations map[string]string) {
	t.Helper()
	same := func(a, b *string) bool { return a != nil && b != nil && *a == *b }
	if !maps.EqualFunc(u.Metadata.Labels, pointers(labels), same) ||
		!maps.EqualFunc(u.Metadata.Annotations, pointers(annotations), same) {
		got, _ := json.Marshal(u.Metadata)
		t.Errorf("%s: %s, want labels %v and annotations %v", what, got, labels, annotations)
	}
}

// TestCFClient takes users through their lives with go-cfclient, signed in by each grant that it has.
func TestCFClient(t *testing.T) {
	t.Parallel()
	program(t, "cfclient", everything)
	access, refresh := token(t, shared.env["CF_USERNAME"], shared.env["CF_PASSWORD"])
	for _, way := range []struct {
		name    string
		options []cfconfig.Option
	}{
		{"password", []cfconfig.Option{asAdmin()}},
		{"password with an origin", []cfconfig.Option{asAdmin(), cfconfig.Origin("uaa")}},
		{"client credentials", []cfconfig.Option{cfconfig.ClientCredentials("cfclient", secret)}},
		{"token", []cfconfig.Option{cfconfig.Token("bearer "+access, refresh)}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			c := cf(t, way.options...)
			before := time.Now().Add(-time.Minute)
			guid := "cfclient " + way.name

			create := cfresource.NewUserCreateWithGUID(strings.ReplaceAll(guid, " ", "-"))
			guid = create.GUID
			create.Metadata = cfresource.NewMetadata().WithLabel("", "team", "payments").WithLabel("example.org", "tier",
				"").WithAnnotation("", "note", "<ä & b>")
			u, err := c.Users.Create(ctx, create)
			if err != nil {
				t.Fatal(err)
			}
			if u.GUID != guid || u.Username != nil || u.Origin != nil || u.PresentationName != guid || u.CreatedAt.Before(before) ||
				u.UpdatedAt.Before(before) ||
				u.Links.Self().Href != shared.env["CF_API_URL"]+"/v3/users/"+guid {
				t.Errorf("created %+v", u)
			}
			hasMetadata(t, "created", u, map[string]string{"team": "payments", "example.org/tier": ""},
				map[string]string{"note": "<ä & b>"})
			_, err = c.Users.Create(ctx, create)
			if !cfresource.IsUnprocessableEntityError(err) || !strings.Contains(err.Error(),
				"User with guid '"+guid+"' already exists.") {
				t.Errorf("create again: %v", err)
			}

			// Each update leaves alone what it does not name. The map that is not set goes out as null.
			for _, step := range []struct {
				update              *cfresource.UserUpdate
				labels, annotations map[string]string
			}{
				{&cfresource.UserUpdate{}, map[string]string{"team": "payments", "example.org/tier": ""},
					map[string]string{"note": "<ä & b>"}},
				{&cfresource.UserUpdate{Metadata: cfresource.NewMetadata()},
					map[string]string{"team": "payments", "example.org/tier": ""}, map[string]string{"note": "<ä & b>"}},
				{&cfresource.UserUpdate{Metadata: cfresource.NewMetadata().WithLabel("", "team", "dba")},
					map[string]string{"team": "dba", "example.org/tier": ""}, map[string]string{"note": "<ä & b>"}},
				{&cfresource.UserUpdate{Metadata: cfresource.NewMetadata().WithAnnotation("", "more", strings.Repeat("é", 5000))},
					map[string]string{"team": "dba", "example.org/tier": ""},
					map[string]string{"note": "<ä & b>", "more": strings.Repeat("é", 5000)}},
			} {
				if u, err = c.Users.Update(ctx, guid, step.update); err != nil {
					t.Fatal(err)
				}
				hasMetadata(t, "updated", u, step.labels, step.annotations)
			}
			removal := cfresource.NewMetadata()
			removal.RemoveLabel("example.org", "tier")
			removal.RemoveLabel("", "absent")
			removal.RemoveAnnotation("", "more")
			if u, err = c.Users.Update(ctx, guid, &cfresource.UserUpdate{Metadata: removal}); err != nil {
				t.Fatal(err)
			}
			hasMetadata(t, "removed", u, map[string]string{"team": "dba"}, map[string]string{"note": "<ä & b>"})
			if u, err = c.Users.Get(ctx, guid); err != nil {
				t.Fatal(err)
			}
			hasMetadata(t, "got", u, map[string]string{"team": "dba"}, map[string]string{"note": "<ä & b>"})
			u.Metadata.Clear()
			if u, err = c.Users.Update(ctx, guid, &cfresource.UserUpdate{Metadata: u.Metadata}); err != nil {
				t.Fatal(err)
			}
			hasMetadata(t, "cleared", u, nil, nil)

			name := "Name of " + guid
			named, err := c.Users.CreateWithUsername(ctx, cfresource.NewUserCreateWithUsername(name, "ldap"))
			if err != nil || *named.Username != name || *named.Origin != "ldap" || named.PresentationName != name {
				t.Fatalf("create by name: %+v, %v", named, err)
			}
			_, err = c.Users.CreateWithUsername(ctx, cfresource.NewUserCreateWithUsername(strings.ToUpper(name), "ldap"))
			if !cfresource.IsUnprocessableEntityError(err) || !strings.Contains(err.Error(), "already exists.") {
				t.Errorf("create by name again: %v", err)
			}
			_, err = c.Users.CreateWithUsername(ctx, cfresource.NewUserCreateWithUsername(name, "uaa"))
			if !cfresource.IsUnprocessableEntityError(err) {
				t.Errorf("create by name in uaa: %v", err)
			}

			discard(t, "/uaa/Users/"+named.GUID)
			for _, guid := range []string{guid, named.GUID} {
				job, err := c.Users.Delete(ctx, guid)
				if err != nil || job == "" {
					t.Fatalf("delete: job %q, %v", job, err)
				}
				if err := c.Jobs.PollComplete(ctx, job, &cfclient.PollingOptions{FailedState: "FAILED", Timeout: patience,
					CheckInterval: 10 * time.Millisecond}); err != nil {
					t.Errorf("poll: %v", err)
				}
				if j, err := c.Jobs.Get(ctx, job); err != nil || j.Operation != "user.delete" ||
					j.State != cfresource.JobStateComplete || len(j.Errors) > 0 {
					t.Errorf("job: %+v, %v", j, err)
				}
				if _, err := c.Users.Get(ctx, guid); !cfresource.IsResourceNotFoundError(err) {
					t.Errorf("get a deleted user: %v", err)
				}
				if _, err := c.Users.Update(ctx, guid, &cfresource.UserUpdate{}); !cfresource.IsResourceNotFoundError(err) {
					t.Errorf("update a deleted user: %v", err)
				}
				if _, err := c.Users.Delete(ctx, guid); !cfresource.IsResourceNotFoundError(err) {
					t.Errorf("delete a deleted user: %v", err)
				}
			}
		})
	}
}

func TestCFClientList(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := cf(t, asAdmin())
	began := time.Now().Add(-time.Minute)
	var guids []string
	users := map[string]*cfresource.User{}
	for i, labels := range []map[string]string{
		{"listed": "1", "team": "payments", "tier": "1"},
		{"listed": "1", "team": "payments", "tier": "2"},
		{"listed": "1", "team": "dba"},
		{"listed": "1", "example.org/team": "payments"},
		{"listed": "1"},
	} {
		create := cfresource.NewUserCreateWithUsername(fmt.Sprintf("Listed-%d", i), []string{"ldap", "saml"}[i%2])
		create.Metadata = &cfresource.Metadata{Labels: pointers(labels)}
		u, err := c.Users.CreateWithUsername(ctx, create)
		if err != nil {
			t.Fatal(err)
		}
		discard(t, "/v3/users/"+u.GUID, "/uaa/Users/"+u.GUID)
		guids, users[u.GUID] = append(guids, u.GUID), u
	}
	berlin := time.FixedZone("", 3600)
	created := users[guids[0]].CreatedAt
	for _, test := range []struct {
		name   string
		filter func(*cfclient.UserListOptions)
		want   string // the digits of the names
	}{
		{"guids", func(o *cfclient.UserListOptions) { o.GUIDs.EqualTo(guids[3], "unknown", guids[1]) }, "13"},
		{"usernames", func(o *cfclient.UserListOptions) { o.UserNames.EqualTo("listed-0", "LISTED-4", "unknown") }, "04"},
		{"partial usernames", func(o *cfclient.UserListOptions) { o.PartialUsernames.EqualTo("isted-2", "ISTED-3") }, "23"},
		{"origins", func(o *cfclient.UserListOptions) {
			o.PartialUsernames.EqualTo("listed-")
			o.Origins.EqualTo("saml", "unknown")
		}, "13"},
		{"usernames and origins", func(o *cfclient.UserListOptions) {
			o.UserNames.EqualTo("listed-0", "listed-1")
			o.Origins.EqualTo("ldap")
		}, "0"},
		{"nothing", func(o *cfclient.UserListOptions) { o.UserNames.EqualTo("nobody has this name") }, ""},
		{"label", func(o *cfclient.UserListOptions) {
			o.LabelSel = cfclient.LabelSelector{}
			o.LabelSel.EqualTo("listed", "1")
			o.LabelSel.EqualTo("team", "payments")
		}, "01"},
		{"label exists", func(o *cfclient.UserListOptions) {
			o.LabelSel = cfclient.LabelSelector{}
			o.LabelSel.Existence("tier")
			o.LabelSel.Existence("listed")
		}, "01"},
		{"label with a prefix", func(o *cfclient.UserListOptions) {
			o.LabelSel = cfclient.LabelSelector{}
			o.LabelSel.Existence("example.org/team")
			o.LabelSel.Existence("listed")
		}, "3"},
		{"label does not exist", func(o *cfclient.UserListOptions) {
			o.LabelSel = cfclient.LabelSelector{}
			o.LabelSel.Existence("listed")
			o.LabelSel.NotExistence("team")
		}, "34"},
		{"label in", func(o *cfclient.UserListOptions) {
			o.LabelSel = cfclient.LabelSelector{}
			o.LabelSel.EqualTo("team", "payments", "dba")
			o.LabelSel.EqualTo("listed", "1", "2")
		}, "012"},
		{"label not equal", func(o *cfclient.UserListOptions) {
			o.LabelSel = cfclient.LabelSelector{}
			o.LabelSel.NotEqualTo("team", "payments")
			o.LabelSel.Existence("listed")
		}, "234"},
		{"label notin", func(o *cfclient.UserListOptions) {
			o.LabelSel = cfclient.LabelSelector{}
			o.LabelSel.NotEqualTo("tier", "1", "2")
			o.LabelSel.Existence("listed")
		}, "234"},
		{"created at", func(o *cfclient.UserListOptions) {
			o.GUIDs.EqualTo(guids[0])
			o.CreatedAts.EqualTo(created.In(berlin), created.Add(time.Hour))
		}, "0"},
		{"not created at", func(o *cfclient.UserListOptions) {
			o.GUIDs.EqualTo(guids[0])
			o.CreatedAts.EqualTo(created.Add(time.Second))
		}, ""},
		{"created between", func(o *cfclient.UserListOptions) {
			o.PartialUsernames.EqualTo("listed-")
			o.CreatedAts.After(began.In(berlin))
			o.CreatedAts.BeforeOrEqualTo(time.Now().Add(time.Minute))
		}, "01234"},
		{"created before", func(o *cfclient.UserListOptions) {
			o.PartialUsernames.EqualTo("listed-")
			o.CreatedAts.Before(created)
		}, ""},
		{"created at or after", func(o *cfclient.UserListOptions) {
			o.GUIDs.EqualTo(guids[0])
			o.CreatedAts.AfterOrEqualTo(created)
		}, "0"},
		{"created after", func(o *cfclient.UserListOptions) { o.GUIDs.EqualTo(guids[0]); o.CreatedAts.After(created) }, ""},
		{"updated after", func(o *cfclient.UserListOptions) {
			o.PartialUsernames.EqualTo("listed-")
			o.UpdatedAts.After(began)
		}, "01234"},
		{"in order", func(o *cfclient.UserListOptions) { o.PartialUsernames.EqualTo("listed-"); o.OrderBy = "created_at" },
			"01234"},
		{"in reverse order", func(o *cfclient.UserListOptions) {
			o.PartialUsernames.EqualTo("listed-")
			o.OrderBy = "-updated_at"
		}, "01234"},
	} {
		// On one page, and page by page.
		for _, perPage := range []int{50, 2} {
			o := cfclient.NewUserListOptions()
			o.PerPage = perPage
			test.filter(o)
			list, err := c.Users.ListAll(ctx, o)
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			var got []string
			for _, u := range list {
				if u.Username == nil || users[u.GUID] == nil {
					t.Errorf("%s: lists %+v", test.name, u)
					continue
				}
				got = append(got, strings.TrimPrefix(*u.Username, "Listed-"))
			}
			slices.Sort(got)
			if strings.Join(got, "") != test.want {
				t.Errorf("%s: lists %q, want %q", test.name, got, test.want)
			}
		}
	}

	// Forth and back.
	o := cfclient.NewUserListOptions()
	o.PartialUsernames.EqualTo("listed-")
	o.PerPage = 2
	var seen []string
	forth := func(page, size int) (pager *cfclient.Pager) {
		t.Helper()
		list, pager, err := c.Users.List(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != size || pager.TotalResults != 5 || pager.TotalPages != 3 || o.Page != page ||
			pager.HasNextPage() != (page < 3) || pager.HasPreviousPage() != (page > 1) {
			t.Errorf("page %d: %d users, %+v", page, len(list), pager)
		}
		for _, u := range list {
			seen = append(seen, u.GUID)
		}
		return pager
	}
	forth(1, 2).NextPage(o)
	forth(2, 2).NextPage(o)
	last := forth(3, 1)
	if slices.Sort(seen); !slices.Equal(seen, slices.Sorted(slices.Values(guids))) {
		t.Errorf("the pages have %v, want %v", seen, guids)
	}
	last.PreviousPage(o)
	forth(2, 2).PreviousPage(o)
	forth(1, 2)

	one := cfclient.NewUserListOptions()
	one.UserNames.EqualTo("listed-2")
	if u, err := c.Users.Single(ctx, one); err != nil || u.GUID != guids[2] {
		t.Errorf("single: %v", err)
	}
	if u, err := c.Users.First(ctx, one); err != nil || u.GUID != guids[2] {
		t.Errorf("first: %v", err)
	}
	one.UserNames.EqualTo("nobody has this name")
	if _, err := c.Users.Single(ctx, one); !errors.Is(err, cfclient.ErrExactlyOneResultNotReturned) {
		t.Errorf("single of none: %v", err)
	}
	wrong := cfclient.NewUserListOptions()
	wrong.Origins.EqualTo("ldap")
	if _, err := c.Users.ListAll(ctx, wrong); !cfresource.IsUnprocessableEntityError(err) {
		t.Errorf("origins alone: %v", err)
	}

	// What else the client looks at before it gets to users.
	if root, err := c.Root.Get(ctx); err != nil || root.Links.CloudControllerV3.Href != shared.env["CF_API_URL"]+"/v3" {
		t.Errorf("root: %v", err)
	}
	if orgs, err := c.Organizations.ListAll(ctx, nil); err != nil || len(orgs) != 0 {
		t.Errorf("organizations: %v, %v", orgs, err)
	}
	if roles, users, err := c.Roles.ListIncludeUsersAll(ctx, nil); err != nil || len(roles) != 0 || len(users) != 0 {
		t.Errorf("roles: %v, %v, %v", roles, users, err)
	}
	_, err := c.Roles.CreateOrganizationRole(ctx, "org", guids[0], cfresource.OrganizationRoleManager)
	if !cfresource.IsUnprocessableEntityError(err) {
		t.Errorf("create a role: %v", err)
	}
	if spaces, err := c.Spaces.ListAll(ctx, nil); err != nil || len(spaces) != 0 {
		t.Errorf("spaces: %v, %v", spaces, err)
	}
}

func TestCFClientErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := cf(t, asAdmin())
	guid := person(t, "cfclient-errors", "a password")
	other, err := c.Users.Create(ctx, cfresource.NewUserCreateWithGUID("cfclient-errors-other"))
	if err != nil {
		t.Fatal(err)
	}
	discard(t, "/v3/users/"+other.GUID)
	self := cf(t, cfconfig.UserPassword("cfclient-errors", "a password"))
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("k%d", i)] = "v"
		}
		return m
	}
	update := func(c *cfclient.Client, guid string, m *cfresource.Metadata) error {
		_, err := c.Users.Update(ctx, guid, &cfresource.UserUpdate{Metadata: m})
		return err
	}
	// The first call with its token makes the platform user.
	if u, err := self.Users.Get(ctx, guid); err != nil || *u.Username != "cfclient-errors" || *u.Origin != "uaa" {
		t.Fatalf("get oneself: %v", err)
	}
	get := func(guid string) error { _, err := self.Users.Get(ctx, guid); return err }
	remove := func(guid string) error { _, err := self.Users.Delete(ctx, guid); return err }
	_, notAdmin := self.Users.Create(ctx, cfresource.NewUserCreateWithGUID("cfclient-errors-third"))
	_, noJob := c.Jobs.Get(ctx, "nonsense")
	for _, test := range []struct {
		what string
		err  error
		is   func(error) bool
	}{
		{"51 labels", update(c, guid, &cfresource.Metadata{Labels: pointers(many(51))}), cfresource.IsLabelLimitExceededError},
		{"201 annotations", update(c, guid, &cfresource.Metadata{Annotations: pointers(many(201))}),
			cfresource.IsAnnotationLimitExceededError},
		{"a bad label", update(c, guid, cfresource.NewMetadata().WithLabel("", "a b", "c")),
			cfresource.IsUnprocessableEntityError},
		{"a long annotation", update(c, guid, cfresource.NewMetadata().WithAnnotation("", "a", strings.Repeat("é", 5001))),
			cfresource.IsUnprocessableEntityError},
		{"a reserved prefix", update(c, guid, cfresource.NewMetadata().WithLabel("cloudfoundry.org", "a", "b")),
			cfresource.IsUnprocessableEntityError},
		{"no such user", update(c, "nobody", cfresource.NewMetadata()), cfresource.IsResourceNotFoundError},
		{"no such job", noJob, cfresource.IsResourceNotFoundError},
		{"another user", get(other.GUID), cfresource.IsResourceNotFoundError},
		{"change oneself", update(self, guid, cfresource.NewMetadata().WithLabel("", "team", "dba")),
			cfresource.IsNotAuthorizedError},
		{"change another", update(self, other.GUID, cfresource.NewMetadata().WithLabel("", "team", "dba")),
			cfresource.IsResourceNotFoundError},
		{"delete oneself", remove(guid), cfresource.IsNotAuthorizedError},
		{"create without rights", notAdmin, cfresource.IsNotAuthorizedError},
	} {
		if !test.is(test.err) {
			t.Errorf("%s: %v", test.what, test.err)
		}
	}
	if list, err := self.Users.ListAll(ctx, nil); err != nil || len(list) != 1 || list[0].GUID != guid {
		t.Errorf("a plain user lists %v, %v", list, err)
	}
	if u, err := c.Users.Get(ctx, guid); err != nil {
		t.Error(err)
	} else {
		hasMetadata(t, "after all", u, nil, nil)
	}
	if _, err := cfconfig.New(shared.env["CF_API_URL"], cfconfig.UserPassword("cfclient-errors", "wrong")); err == nil ||
		!strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("a wrong password: %v", err)
	}
}

// counting counts the requests for tokens.
type counting struct {
	http.Transport
	tokens atomic.Int64
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/oauth/token") {
		c.tokens.Add(1)
	}
	return c.Transport.RoundTrip(r)
}

// TestCFClientSignsInAgain goes on with go-cfclient when its token has come to an end.
func TestCFClientSignsInAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	program(t, "cfclient-again", "cloud_controller.read")
	guid := person(t, "cfclient-again-user", "a password")
	for _, test := range []struct {
		name, guid string
		option     cfconfig.Option
		end        func(t *testing.T)
	}{
		// A new password or secret ends all tokens, even when it is the old one.
		{"password", guid, cfconfig.UserPassword("cfclient-again-user", "a password"), func(t *testing.T) {
			admin(t, 200, "PUT", "/uaa/Users/"+guid+"/password", `{"password":"a password"}`, nil)
		}},
		{"client credentials", "cfclient-again", cfconfig.ClientCredentials("cfclient-again", secret), func(t *testing.T) {
			admin(t, 200, "PUT", "/uaa/oauth/clients/cfclient-again/secret", fmt.Sprintf(`{"secret":%q}`, secret), nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			requests := &counting{}
			c := cf(t, test.option, cfconfig.HttpClient(&http.Client{Transport: requests}))
			if _, err := c.Users.Get(ctx, test.guid); err != nil || requests.tokens.Load() != 1 {
				t.Fatalf("%d tokens, %v", requests.tokens.Load(), err)
			}
			test.end(t)
			for end := time.Now().Add(stale); requests.tokens.Load() == 1; time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the old token goes on")
				}
				if _, err := c.Users.Get(ctx, test.guid); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.Users.Get(ctx, test.guid); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		// It looks at nothing in the token but when it expires.
		expired := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1}`)) + ".e30"
		_, refresh := token(t, shared.env["CF_USERNAME"], shared.env["CF_PASSWORD"])
		requests := &counting{}
		c := cf(t, cfconfig.Token(expired, refresh), cfconfig.HttpClient(&http.Client{Transport: requests}))
		for range 2 {
			if _, err := c.Users.ListAll(ctx, nil); err != nil {
				t.Error(err)
			}
		}
		if n := requests.tokens.Load(); n != 1 {
			t.Errorf("%d tokens, want 1", n)
		}
	})
}

// stale is how long an ended token may go on: it is looked up again every 5 s, on each replica.
const stale = 7 * time.Second
