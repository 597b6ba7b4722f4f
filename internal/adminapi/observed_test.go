package adminapi_test

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

// observedUser is what a client reads of what was observed of a user.
type observedUser struct {
	Username                                          string
	PasswordChangedOutside                            *bool
	PasswordChangedOutsideAt, LastSeen, LastSeenSince *time.Time
}

// String is the fields that are set, the first one with its value.
func (u observedUser) String() string {
	is := "null"
	if u.PasswordChangedOutside != nil {
		is = fmt.Sprint(*u.PasswordChangedOutside)
	}
	return fmt.Sprint(is, " ", u.PasswordChangedOutsideAt != nil, " ", u.LastSeen != nil, " ", u.LastSeenSince != nil)
}

// What was observed is the same in every answer that shows a user, also right after a change.
func TestObserved(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := servicetest.NewAs(t, pg, pg.User, pg.Password)
	s.Admin(t, "root")
	f := fixtureOn(t, s, 10_000)
	worker := &task.Worker{DB: f.DB, Log: slog.New(slog.NewTextHandler(f.Log, nil)), Kinds: f.Users.Tasks()}
	look := func() {
		t.Helper()
		if _, err := f.DB.Pool.Exec(t.Context(), `
			INSERT INTO tasks (kind, key, cluster_id, due) VALUES ('observe.look', $1, $1, now())
			ON CONFLICT (kind, key) DO UPDATE SET due = now()`, f.ClusterID); err != nil {
			t.Fatal(err)
		}
		if n, err := worker.RunDue(t.Context()); err != nil || n == 0 {
			t.Fatalf("%d tasks: %v", n, err)
		}
	}
	path := f.user(t, "obs_app")
	want := func(when, shown string, changed string) {
		t.Helper()
		var one observedUser
		f.want(t, 200, "GET", path, "").Into(t, &one)
		if one.String() != shown {
			t.Errorf("%s: by itself it is %s, want %s", when, one, shown)
		}
		for _, at := range []string{"/clusters/" + f.ClusterID + "/users?", "/users?", "/users?sort=-lastSeen&",
			"/users?passwordChangedOutside=" + changed + "&"} {
			if changed == "" && strings.Contains(at, "passwordChangedOutside") {
				continue
			}
			query := "name=obs_*"
			if strings.HasPrefix(at, "/clusters/") {
				query = ""
			}
			var list struct{ Items []observedUser }
			f.want(t, 200, "GET", at+query, "").Into(t, &list)
			if len(list.Items) != 1 || list.Items[0].String() != shown {
				t.Errorf("%s: %s shows %s, want %s", when, at, list.Items, shown)
			}
		}
		if changed == "" {
			return
		}
		other := map[string]string{"true": "false", "false": "true"}[changed]
		if found := f.search(t, "root", url.Values{"passwordChangedOutside": {other}}.Encode()); len(found) > 0 {
			t.Errorf("%s: passwordChangedOutside=%s finds %s", when, other, found)
		}
	}
	want("before the first look", "null false false false", "")
	look()
	want("after it", "false false false true", "false")
	pg.Exec(t, `ALTER ROLE obs_app PASSWORD 'x'`)
	conn := pg.Connect(t, "obs_app", "x", "postgres")
	defer conn.Close(t.Context())
	look()
	want("after SQL has changed the password", "true true true true", "true")
	var set observedUser
	f.want(t, 200, "POST", path+"/password", `{"password":"a new password"}`).Into(t, &set)
	if set.PasswordChangedOutside != nil && *set.PasswordChangedOutside {
		t.Errorf("the answer to a new password is %s", set)
	}
	want("after a new password", "false false true true", "false")
}
