package fault_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"rolecall/internal/fault"
)

// Each addition makes a copy, so a fault that is kept in a variable stays as it is.
func TestAdditions(t *testing.T) {
	cause := errors.New("the log's")
	plain := fault.New(fault.InUse, "%q is in use.", "app")
	full := plain.Because(cause).Suggest(fault.Reassign).After(time.Second)
	if want := (fault.Error{Kind: fault.InUse, Message: `"app" is in use.`, Hint: fault.Reassign, RetryAfter: time.Second,
		Cause: cause}); *full != want {
		t.Errorf("got %#v", *full)
	}
	if want := (fault.Error{Kind: fault.InUse, Message: `"app" is in use.`}); *plain != want {
		t.Errorf("the original became %#v", *plain)
	}
	if plain.Error() != `"app" is in use.` || full.Error() != `"app" is in use.: the log's` || !errors.Is(full, cause) {
		t.Errorf("for the log: %q and %q", plain, full)
	}
}

// An error that is not a fault is Internal, and its text does not reach the caller.
func TestOf(t *testing.T) {
	foreign := errors.New("dial tcp 10.0.0.1: refused")
	if f := fault.Of(foreign); f.Kind != fault.Internal || f.Message == foreign.Error() || !errors.Is(f, foreign) {
		t.Errorf("a foreign error is %#v", f)
	}
	stale := fault.New(fault.Stale, "It was changed.")
	if f := fault.Of(fmt.Errorf("delete: %w", stale)); f != stale {
		t.Errorf("a wrapped fault is %#v", f)
	}
	if !fault.Is(fmt.Errorf("delete: %w", stale), fault.Stale) || fault.Is(stale, fault.InUse) ||
		!fault.Is(foreign, fault.Internal) || fault.Is(nil, fault.Internal) {
		t.Error("Is reports another kind")
	}
}
