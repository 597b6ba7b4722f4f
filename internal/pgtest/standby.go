package pgtest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolecall/internal/localpg"
)

// StandbyName is what a standby calls itself, for synchronous_standby_names.
const StandbyName = "standby"

// Standby returns a hot standby that streams from c, which is removed when t ends. The settings come on top of those of
// c. It is made of a copy of the running server's data: what the tests run on has no pg_basebackup.
// https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP
func (c *Cluster) Standby(t testing.TB, settings map[string]string) *Cluster {
	t.Helper()
	base, err := baseFolder()
	if err != nil {
		t.Fatal(err)
	}
	f, err := emptyFolder(base)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := `SELECT pg_backup_start('standby', true)`, `SELECT labelfile FROM pg_backup_stop(false)`
	if c.Major < 15 {
		begin, end = `SELECT pg_start_backup('standby', true, false)`, `SELECT labelfile FROM pg_stop_backup(false, false)`
	}
	c.Exec(t, begin)
	if err := copyRunning(c.options.Dir, f.path); err != nil {
		t.Fatal(errors.Join(err, f.remove()))
	}
	label := Value[string](t, c, end)

	s := &Cluster{options: c.options}
	s.options.Dir, s.options.Settings = f.path, maps.Clone(c.options.Settings)
	maps.Copy(s.options.Settings, settings)
	data := filepath.Join(f.path, strings.TrimPrefix(c.DataDir, c.options.Dir))
	t.Cleanup(func() {
		if s.Server != nil {
			s.stop()
		}
		if err := f.remove(); err != nil {
			t.Error(err)
		}
	})
	// The port is that of c, and its pid file would have the next start end the server of c.
	for _, name := range []string{filepath.Join(f.path, "pg.port"), filepath.Join(f.path, "pg.log"),
		filepath.Join(data, "postmaster.pid")} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	writeAsOwner(t, data, "backup_label", label)
	follow(t, data, c)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	s.waitForStreaming(t, c)
	return s
}

// Follow starts a former primary as a standby of the new one, from whose history it has not departed: Stop has shut it
// down before that one was promoted. It must not run at the same time as other methods.
func (c *Cluster) Follow(t testing.TB, primary *Cluster) {
	t.Helper()
	follow(t, c.DataDir, primary)
	c.Start(t)
	c.waitForStreaming(t, primary)
}

// Promote makes a standby the primary.
func (c *Cluster) Promote(t testing.TB) {
	t.Helper()
	if !Value[bool](t, c, `SELECT pg_promote(true, 30)`) {
		t.Fatal("the standby was not promoted within 30 s")
	}
}

// Kill ends the server at once, as a crash does: no session is notified, and nothing is written. After Start it recovers.
// https://www.postgresql.org/docs/current/server-shutdown.html
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	c.disconnect()
	file, err := os.ReadFile(filepath.Join(c.DataDir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(file), "\n")
	pid, err := strconv.Atoi(first)
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGQUIT)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
}

// follow has the server of a data folder stream from primary when it starts.
func follow(t testing.TB, data string, primary *Cluster) {
	t.Helper()
	writeAsOwner(t, data, "standby.signal", "")
	// In a file and not on the command line, because of the password. Of several lines the last one counts.
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.auto.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conf, "primary_conninfo = 'host=%s port=%d user=%s password=%s application_name=%s sslmode=disable'\n",
		primary.Host, primary.Port, primary.User, primary.Password, StandbyName)
	if err := errors.Join(err, conf.Close()); err != nil {
		t.Fatal(err)
	}
}

// writeAsOwner writes a file that belongs to whom the folder belongs to.
func writeAsOwner(t testing.TB, dir, name, text string) {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	path, owner := filepath.Join(dir, name), info.Sys().(*syscall.Stat_t)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chown(path, int(owner.Uid), int(owner.Gid))); err != nil {
		t.Fatal(err)
	}
}

func (c *Cluster) waitForStreaming(t testing.TB, primary *Cluster) {
	t.Helper()
	for end := time.Now().Add(stepTimeout); !Value[bool](t, c,
		`SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = `+
			`'streaming' AND sender_port = $1)`, primary.Port); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(c.LogFile)
			t.Fatalf("the standby does not stream:\n%s", log[max(0, len(log)-2000):])
		}
	}
}

// WaitForReplay waits until a standby shows everything that primary has committed before the call.
func (c *Cluster) WaitForReplay(t testing.TB, primary *Cluster) {
	t.Helper()
	now := Value[string](t, primary, `SELECT pg_current_wal_lsn()::text`)
	for end := time.Now().Add(stepTimeout); !Value[bool](t, c, `SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn`,
		now); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the standby lags behind")
		}
	}
}

// copyRunning copies the folder of a running server, some of whose temporary files may vanish concurrently.
func copyRunning(from, to string) error {
	cmd := exec.Command("cp", "-a", from+"/.", to)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "No such file or directory") {
			return fmt.Errorf("copy %s: %w: %s", from, err, out)
		}
	}
	if _, exited := errors.AsType[*exec.ExitError](err); exited && len(out) > 0 {
		return nil
	}
	return err
}

// Other returns a cluster that has nothing in common with those of New, which are copies of one and share a system
// identifier. It is made from nothing, which takes a second.
func Other(t testing.TB) *Cluster {
	t.Helper()
	bin, err := findBinaries(0)
	if err != nil {
		t.Fatal(err)
	}
	base, err := baseFolder()
	if err != nil {
		t.Fatal(err)
	}
	f, err := emptyFolder(base)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{options: localpg.Options{Dir: filepath.Join(f.path, "other"), BinDir: bin, NoSync: true, DieWithParent: true}}
	if err := c.start(); err != nil {
		t.Fatal(errors.Join(err, f.remove()))
	}
	t.Cleanup(func() {
		c.stop()
		if err := f.remove(); err != nil {
			t.Error(err)
		}
	})
	return c
}
