package console_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

func (s *site) device(t testing.TB) *identity.DeviceLogin {
	t.Helper()
	d, err := s.Identity.StartDeviceLogin(t.Context(), s.client(t, "rolecall"), nil, "203.0.113.7")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *site) poll(t testing.TB, d *identity.DeviceLogin) (*identity.Tokens, error) {
	return s.Identity.GrantWithDevice(t.Context(), s.client(t, "rolecall"), string(d.DeviceCode), "203.0.113.7")
}

// A person types the code of a device, sees what asks, and approves or denies.
func TestDevicePage(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	guid := s.Account(t, "device", account.DefaultScopes, nil)
	d := s.device(t)
	stranger := s.browser(t).get("/console/device?user_code=" + d.UserCode).is(http.StatusSeeOther).Location
	if !strings.HasPrefix(stranger, "/console/sign-in?next=%2Fconsole%2Fdevice%3Fuser_code%3D") {
		t.Errorf("a stranger is led to %s", stranger)
	}
	b := s.signedIn(t, "device", "device-password")
	b.get("/console/device").is(http.StatusOK).shows(`name="user_code"`).hides("Approve")
	typed := strings.ToLower(strings.ReplaceAll(d.UserCode, "-", "+"))
	b.get("/console/device?user_code="+typed).is(http.StatusOK).
		shows(d.UserCode, "203.0.113.7", "not yours, 127.0.0.1", "<code>rolecall</code>", "Approve", "Deny")
	b.post("/console/device", "user_code", d.UserCode).is(http.StatusUnprocessableEntity).shows("Choose one of the two buttons")
	if _, err := s.poll(t, d); !errors.Is(err, identity.ErrPending) {
		t.Fatalf("before the approval: %v", err)
	}
	if to := b.post("/console/device", "user_code", d.UserCode, "decision", "approve").is(http.StatusSeeOther).Location; to !=
		"/console/device" {
		t.Errorf("the approval leads to %s", to)
	}
	b.get("/console/device").is(http.StatusOK).shows("The device is signed in as device.")
	tokens, err := s.poll(t, d)
	s.signsIn(t, tokens, err, guid)

	denied := s.device(t)
	b.post("/console/device", "user_code", denied.UserCode, "decision", "deny").is(http.StatusSeeOther)
	b.get("/console/device").is(http.StatusOK).shows("The device was denied.")
	if _, err := s.poll(t, denied); !errors.Is(err, identity.ErrDenied) {
		t.Errorf("after the denial: %v", err)
	}
}

// A code that is wrong, or has its answer, is shown again with why.
func TestWrongUserCodes(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "wrong-code", account.DefaultScopes, nil)
	b := s.signedIn(t, "wrong-code", "wrong-code-password")
	d := s.device(t)
	b.post("/console/device", "user_code", d.UserCode, "decision", "approve").is(http.StatusSeeOther)
	b.get("/console/device?user_code="+d.UserCode).is(http.StatusConflict).
		shows("approved or denied before", `href="#field-user_code"`)
	b.post("/console/device", "user_code", d.UserCode, "decision", "deny").is(http.StatusConflict).
		shows("approved or denied before")

	b.get("/console/device?user_code=BCDF-GHJK").is(http.StatusNotFound).shows("No device waits", `value="BCDF-GHJK"`)
	b.get("/console/device?user_code=%3Cscript%3E").is(http.StatusNotFound).hides("<script>")
	b.post("/console/device", "user_code", "BCDF-GHJK", "decision", "approve").is(http.StatusUnprocessableEntity).
		shows("No device waits", `value="BCDF-GHJK"`)
	for range 10 {
		b.get("/console/device?user_code=BCDF-GHJK")
	}
	waits := b.get("/console/device?user_code=BCDF-GHJK").is(http.StatusTooManyRequests).shows(`value="BCDF-GHJK"`)
	if waits.Header.Get("Retry-After") == "" {
		t.Error("it does not say how long to wait")
	}
}
