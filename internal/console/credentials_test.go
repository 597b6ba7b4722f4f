package console_test

import (
	"net/http"
	"strings"
	"testing"

	"rolecall/internal/pgtest"
)

// A stored credential is made, shown without its password, read once by somebody who proves who they are, changed, rotated
// and deleted.
func TestCredentials(t *testing.T) {
	pg := pgtest.New(t, nil)
	s, manager, viewer, nobody, _ := team(t, pg)
	all := "/console/clusters/" + s.ClusterID + "/credentials"
	one := all + "/shop%20api"
	manager.get(all).is(200).shows("This cluster has no stored credentials.", "Store a credential", `value="30d"`)
	viewer.get(all).is(200).shows("an account must manage it").hides("Store a credential")
	nobody.get(all).is(404)
	viewer.post(all, "name", "x", "for", "app", "rotateEvery", "30d", "overlap", "1h").is(403)

	for _, wrong := range []struct{ field, value, says string }{
		{"name", "", "has 1 to 63 characters"}, {"name", "a/b", "cannot stand in a URL"}, {"for", "nope", "There is no role"},
		{"rotateEvery", "", "Say how often"}, {"rotateEvery", "often", "The duration is"}, {"rotateEvery", "0s", "use 1s to"},
		{"overlap", "", "Say how long"}, {"overlap", "31d", "use at most “Replace the password every”"},
		{"window.days", "sat", "not a time of day"}, {"window.from", "2 am", "window.days is empty"},
	} {
		typed := map[string]string{"name": "shop api", "for": "app", "rotateEvery": "30d", "overlap": "1h"}
		typed[wrong.field] = wrong.value
		var pairs []string
		for name, value := range typed {
			pairs = append(pairs, name, value)
		}
		a := manager.post(all, pairs...).is(422).shows(wrong.says, `role="alert"`)
		if !strings.HasPrefix(wrong.field, "window") {
			a.shows(`id="error-` + wrong.field + `"`)
		}
		if wrong.field != "name" {
			a.shows(`value="shop api"`)
		}
	}
	a := manager.post(all, "name", "shop api", "for", "app", "rotateEvery", "30d", "overlap", "1h", "window.days", "sat",
		"window.days", "sun", "window.from", "02:00", "window.to", "04:00", "window.timezone", "Europe/Berlin").is(303)
	if a.Location != one {
		t.Errorf("it leads to %s", a.Location)
	}
	page := manager.get(one).is(200).shows("The credential is stored.", "Active", "sat, sun from 02:00 to 04:00 Europe/Berlin",
		"rolecall credentials current &#39;shop api&#39; -c main -o env", `value="sat" checked`, "Replace the password now")
	viewer.get(one).is(200).shows("shop api", "30d").hides("Replace the password now", "Save the settings", "Delete")
	viewer.get(one + "/current").is(200).hides("Show the password")
	viewer.post(one + "/current").is(403).hides("secret")
	viewer.post(one + "/rotate").is(403)
	viewer.get(one + "/delete").is(200).hides(`class="danger"`)
	viewer.post(one+"/delete", "confirm", "shop api").is(403)
	nobody.get(one).is(404)
	nobody.post(one + "/current").is(404)
	manager.post(all, "name", "shop api", "for", "app", "rotateEvery", "60d", "overlap", "1h").is(409).
		shows("There is a credential", `id="error-name"`, `value="60d"`)

	// The password is shown once, to somebody who has proved who they are, and that is recorded.
	form := manager.get(one + "/current").is(200).shows("The audit log records that you have read it.")
	once := manager.post(one+"/current", "_once", form.hidden("_once")).is(200).shows("It is gone when you leave this page")
	first := once.password()
	user := strings.TrimSpace(between(once.Body, `data-copy="`, `"`))
	if err := pg.Login(user, first); err != nil {
		t.Fatalf("%s does not log in: %v", user, err)
	}
	if once.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page may be kept: %s", once.Header.Get("Cache-Control"))
	}
	manager.post(one+"/current", "_once", form.hidden("_once")).is(409).hides(first)
	manager.get(one).is(200).hides(first)
	read := false
	for _, row := range s.AuditRows(t, "shop api") {
		read = read || row.Action == "credential.read" && row.Outcome == "done"
		if strings.Contains(row.Detail, first) {
			t.Error("the audit log has the password")
		}
	}
	if !read {
		t.Error("the reading is not recorded")
	}

	// Of two forms that were made from one state, the second shows both versions.
	tag := page.hidden("etag")
	save := func(every, tag string) *answer {
		return manager.post(one, "for", "app", "rotateEvery", every, "overlap", "1h", "etag", tag)
	}
	save("10d", tag).is(303)
	second := save("20d", tag).is(http.StatusPreconditionFailed).shows("Somebody has saved other settings", "As it is now",
		"<dd>10d</dd>", `value="20d"`)
	save("20d", second.hidden("etag")).is(303)
	manager.get(one).is(200).shows("<dd>20d</dd>", "any time")

	manager.post(one + "/rotate").is(303)
	manager.get(one).is(200).shows("The password is replaced. The one before is accepted for 1h.", user)
	if err := pg.Login(user, first); err != nil {
		t.Errorf("the replaced password is not accepted: %v", err)
	}
	plan := manager.get(one+"/delete").is(200).shows("ends at once", user, "Type the name of the credential")
	manager.post(one+"/delete", "confirm", "shop", "etag", plan.hidden("etag")).is(422).shows(`id="error-confirm"`)
	manager.post(one+"/delete", "confirm", " shop api ", "etag", tag).is(412).shows("has changed")
	a = manager.post(one+"/delete", "confirm", "shop api", "etag", plan.hidden("etag")).is(303)
	manager.get(a.Location).is(200).shows("The credential shop api is deleted.")
	manager.get(one).is(404)
	if pg.Login(user, first) == nil {
		t.Error("the credential logs in after it was deleted")
	}
}

func between(text, before, after string) string {
	_, text, _ = strings.Cut(text, before)
	text, _, _ = strings.Cut(text, after)
	return text
}

// Who has signed in long ago proves again who they are before a password is shown.
func TestCredentialNeedsProof(t *testing.T) {
	s, manager, _, _, _ := team(t, pgtest.New(t, nil))
	one := "/console/clusters/" + s.ClusterID + "/credentials/api"
	manager.post("/console/clusters/"+s.ClusterID+"/credentials", "name", "api", "for", "app", "rotateEvery", "30d", "overlap",
		"1h").is(303)
	s.sql(t, `UPDATE console_sessions SET proven_at = now() - interval '11 minutes'`)
	other := newSite(t, s.Replica(t)) // this one remembers when the session was proven
	moved := other.browser(t)
	moved.http.Jar.SetCookies(mustURL(t, other.URL), manager.http.Jar.Cookies(mustURL(t, s.URL)))
	a := moved.post(one+"/current", "_once", "b3f8a0f0-6c1c-4c40-9b0e-000000000001").is(401).shows("Is it you?").
		hides(`id="secret"`)
	a = moved.post("/console/prove", "next", a.hidden("next"), "typed", a.hidden("typed"), "password", "mgr-password")
	if a.Status != 200 && a.Status != 303 {
		t.Fatalf("got %d:\n%s", a.Status, a.Body)
	}
	moved.post(one + "/current").is(200).shows("It is gone when you leave this page")
}

// A credential that does not rotate says why.
func TestCredentialFails(t *testing.T) {
	s, manager, _, _, _ := team(t, pgtest.New(t, nil))
	all := "/console/clusters/" + s.ClusterID + "/credentials"
	manager.post(all, "name", "api", "for", "app", "rotateEvery", "30d", "overlap", "1h").is(303)
	s.sql(t, `UPDATE credentials SET last_error = 'The user <app> is disabled.'`)
	manager.get(all).is(200).shows("Failing")
	manager.get(all+"/api").is(200).shows("Failing", "The user &lt;app&gt; is disabled.")
	manager.get("/console/").is(200).shows("stored credential does not rotate", `href="`+all+`"`)
}
