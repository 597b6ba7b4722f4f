package pgtest_test

import (
	"testing"

	"rolecall/internal/pgtest"
)

func TestStandby(t *testing.T) {
	for _, major := range []int{pgtest.Majors[0], pgtest.Majors[len(pgtest.Majors)-1]} {
		first := pgtest.NewMajor(t, major, nil)
		second := first.Standby(t, nil)
		first.Exec(t, `CREATE ROLE streamed`)
		second.WaitForReplay(t, first)
		const streamed = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'streamed') AND pg_is_in_recovery()`
		if !pgtest.Value[bool](t, second, streamed) {
			t.Errorf("%d: the standby does not follow", major)
		}
		first.Stop(t)
		second.Promote(t)
		second.Exec(t, `CREATE ROLE after`)
		first.Follow(t, second)
		first.WaitForReplay(t, second)
		if !pgtest.Value[bool](t, first, streamed) {
			t.Errorf("%d: the old primary does not follow the new one", major)
		}
		second.Kill(t)
		second.Start(t)
		second.Exec(t, `CREATE ROLE recovered`)
	}
}

func TestOther(t *testing.T) {
	const identifier = `SELECT system_identifier::text FROM pg_control_system()`
	if one, other := pgtest.Value[string](t, pgtest.Shared(t), identifier),
		pgtest.Value[string](t, pgtest.Other(t), identifier); one == other {
		t.Errorf("both are %s", one)
	}
}
