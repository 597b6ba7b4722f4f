package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// asCounter is an argument that makes the test binary print each signal that it gets, until SIGTERM ends it with the exit
// code 9.
const asCounter = "count-signals"

func countSignals() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
	fmt.Println("ready")
	for s := range signals {
		fmt.Println("got", s)
		if s == syscall.SIGTERM {
			os.Exit(9)
		}
	}
}

// leased is a server with a database user shop, whose leases are tried.
type leased struct {
	*shell
	url, dir string
	postgres map[string]string // the variables of rolecall env
}

func newLeased(t *testing.T) *leased {
	t.Helper()
	l := &leased{shell: newShell(t), dir: preparedFolder(t)}
	_, l.url = beginDev(t, l.dir)
	l.signIn(t, l.url, "admin", preparedPassword)
	l.ok(t, "", "users", "create", "shop", "-c", "local", "--generate")
	l.postgres = variables(t, l.dir)
	return l
}

// all are the leases that match.
func (l *leased) all(t *testing.T, args ...string) []client.Lease {
	t.Helper()
	var leases []client.Lease
	if err := json.Unmarshal([]byte(l.ok(t, "", append([]string{"leases", "list", "-o", "json"}, args...)...)),
		&leases); err != nil {
		t.Fatal(err)
	}
	return leases
}

// nothingLeft checks that no lease and no role of one is left.
func (l *leased) nothingLeft(t *testing.T) {
	t.Helper()
	if left := l.all(t, "--state", "active", "--state", "ending,blocked"); len(left) != 0 {
		t.Errorf("leases are left: %+v", left)
	}
	if left := psql(t, l.postgres, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'shop\_%'`); left != "" {
		t.Errorf("roles are left: %s", left)
	}
}

// exec begins a command with a lease, in a process of its own.
func (l *leased) exec(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	return beginProcess(t, append(l.environment(), env...), append([]string{"exec", "-c", "local", "--for", "shop"},
		args...)...)
}

func (l *leased) environment() []string {
	return []string{"ROLECALL_URL=" + l.url, "ROLECALL_TOKEN=" + l.postgres["ROLECALL_TOKEN"]}
}

func TestLeases(t *testing.T) {
	l := newLeased(t)
	text := l.ok(t, "", "leases", "create", "-c", "local", "--for", "shop", "--ttl", "10m", "--max-ttl", "1h", "--note",
		"by hand", "-o", "json")
	var made struct {
		client.Lease
		Password string `json:"password"`
	}
	if err := json.Unmarshal([]byte(text), &made); err != nil {
		t.Fatal(err)
	}
	login := func(user, password string) error {
		return tryPsql(t, map[string]string{
			"PGHOST": l.postgres["PGHOST"], "PGPORT": l.postgres["PGPORT"], "PGUSER": user, "PGPASSWORD": password,
		})
	}
	if err := login(made.Username, made.Password); err != nil || made.ExpiresAt.Sub(made.CreatedAt) != 10*time.Minute {
		t.Errorf("the lease is %+v: %v", made, err)
	}
	id := made.ID
	l.has(t, []string{"id " + id, "cluster local", "for shop", "user name " + made.Username, "state active", "account admin",
		"renewed -", "note by hand"}, "leases", "show", id)
	l.has(t, []string{"ID NAME STATE ENDS FOR CLUSTER ACCOUNT NOTE",
		id + " " + made.Username + ` active \S+ \S+ shop local admin by hand`}, "leases", "list", "-c", "local")
	for _, test := range []struct {
		args string
		want int
	}{
		{"--for shop", 1}, {"--for other", 0}, {"--account admin", 1}, {"--state active", 1}, {"--state ended,blocked", 0},
		{"--expires-before 9m", 0}, {"--expires-before 11m", 1}, {"--expires-before 2020-01-01", 0}, {"-c local --for shop", 1},
	} {
		if got := l.all(t, strings.Fields(test.args)...); len(got) != test.want {
			t.Errorf("leases list %s: %d, want %d", test.args, len(got), test.want)
		}
	}
	before := made.ExpiresAt.Format(time.RFC3339Nano)
	l.ok(t, "", "leases", "renew", id, "--ttl", "1s")
	if got, _ := l.value(t, "expiresAt", "leases", "show", id).(string); got != before {
		t.Errorf("a renewal has moved the end from %s to %s", before, got)
	}
	l.has(t, []string{"name " + made.Username, "lease " + id, "acts for shop"}, "users", "show", made.Username, "-c", "local")
	if _, out, errOut := l.run(t, "", "leases", "renew", id, "--ttl", "2h"); !strings.Contains(errOut, "its latest end") {
		t.Errorf("a renewal that is cut says %s%s", out, errOut)
	}
	if l.value(t, "expiresAt", "leases", "show", id) != l.value(t, "maxExpiresAt", "leases", "show", id) {
		t.Error("the renewal does not last to the latest end")
	}
	l.fails(t, term.ExitFailed, "", "", "leases", "renew", id, "--ttl", "2h")
	l.ok(t, "", "leases", "end", id)
	l.ok(t, "", "leases", "end", id)
	l.has(t, []string{"state ended", `ended 20.*`, "end reason deleted"}, "leases", "show", id)
	eventually(t, func() error { // rows are sealed within a second
		out := l.ok(t, "", "audit", "--user", made.Username)
		for _, want := range []string{"expiresAt=" + term.Time(&made.ExpiresAt) + " for=shop", "note=by hand ttl=10m\n",
			"endReason=deleted for=shop lease=" + id} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("the audit log has no %q: %s", want, out)
			}
		}
		return nil
	})
	if login(made.Username, made.Password) == nil {
		t.Error("the lease logs in after its end")
	}

	out := l.ok(t, "", "leases", "create", "-c", "local", "--for", "shop")
	if !regexp.MustCompile(`(?m)^password +\S{20,}$`).MatchString(out) {
		t.Errorf("the table has no password:\n%s", out)
	}
	exports := l.ok(t, "", "leases", "create", "-c", "local", "--for", "shop", "-d", "postgres", "-o", "env")
	if out, err := exec.Command("/bin/sh", "-euc",
		exports+`psql -XAtc 'select current_user, session_user'`).Output(); err != nil ||
		!regexp.MustCompile(`^shop\|shop_[a-z2-7]{8}\n$`).Match(out) {
		t.Errorf("with the variables psql prints %q: %v", out, err)
	}
	uri := strings.TrimSpace(l.ok(t, "", "leases", "create", "-c", "local", "--for", "shop", "-o", "uri"))
	if out, err := exec.Command("psql", uri, "-XAtc", "select 1").CombinedOutput(); err != nil || string(out) != "1\n" {
		t.Errorf("with the URI psql prints %q: %v", out, err)
	}
	binding := filepath.Join(t.TempDir(), "binding")
	l.ok(t, "", "leases", "create", "-c", "local", "--for", "shop", "-o", "binding-dir", binding)
	if err := login(read(t, binding+"/username"), read(t, binding+"/password")); err != nil {
		t.Errorf("the binding does not log in: %v", err)
	}
	made.Lease = l.all(t, "--state", "active")[0]
	count := len(l.all(t))
	for _, args := range []string{"--for", "", "--for shop --ttl soon", "--for shop -o binding-dir", "--for shop extra",
		"--for shop -o secret --secret-name A_B", "--for shop --secret-name shop", "--for shop -d shop",
		"--for shop -d shop -o json"} {
		l.fails(t, term.ExitUsage, "", "", append([]string{"leases", "create", "-c", "local"}, strings.Fields(args)...)...)
	}
	l.fails(t, term.ExitFailed, "was not written by rolecall", "", "leases", "create", "-c", "local", "--for", "shop", "-o",
		"binding-dir", l.dir)
	l.fails(t, term.ExitFailed, "absent", "", "leases", "create", "-c", "local", "--for", "absent")
	l.fails(t, term.ExitUsage, "--state", "", "leases", "list", "--state", "gone")
	l.fails(t, term.ExitUsage, "--expires-before", "", "leases", "list", "--expires-before", "never")
	l.fails(t, term.ExitNotFound, "", "", "leases", "show", "11111111-2222-4333-8444-555555555555")
	if got := len(l.all(t)); got != count {
		t.Errorf("there are %d leases, want %d", got, count)
	}
	for args, want := range map[string]string{
		"leases create -c local --for ": "shop\n", "leases show ": made.ID + "\n", "leases list --state ": "blocked\n",
		"leases create -o ": "binding-dir\n", "psql -c local --for ": "shop\n", "exec -c local --for ": "shop\n",
		"leases list --account ": "admin\n",
	} {
		if out := l.ok(t, "", append([]string{"__complete"}, strings.Split(args, " ")...)...); !strings.Contains(out, want) {
			t.Errorf("completing %q offers %q, want %q", args, out, want)
		}
	}
	for args, ended := range map[string]string{"leases show ": id, "psql -c local --for ": "shop_"} {
		if out := l.ok(t, "", append([]string{"__complete"}, strings.Split(args, " ")...)...); strings.Contains(out, ended) {
			t.Errorf("completing %q offers %q", args, out)
		}
	}
}

func TestExec(t *testing.T) {
	l := newLeased(t)
	t.Run("environment", func(t *testing.T) {
		p := l.exec(t, []string{"PGHOSTADDR=192.0.2.1", "PGSERVICE=other", "PGAPPNAME=kept", "SECOND=" +
			l.postgres["ROLECALL_TOKEN"]},
			"--", "sh", "-c", `env; exec psql -XAtwc "select 'as', current_user, session_user"`)
		if code := p.wait(t); code != 0 {
			t.Fatalf("exit code %d: %s", code, p.errOut)
		}
		out := p.out.String()
		for _, want := range []string{"PGHOST=127.0.0.1", "PGPORT=" + l.postgres["PGPORT"], `PGUSER=shop_\w{8}`,
			`PGPASSWORD=\S{20,}`,
			"PGDATABASE=postgres", "PGSSLMODE=disable", "PGAPPNAME=kept",
			`DATABASE_URL=postgres://shop_\w{8}:\S{20,}@127.0.0.1:\d+/postgres\?sslmode=disable`, `as\|shop\|shop_\w{8}`} {
			if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(out) {
				t.Errorf("there is no line %q in\n%s", want, out)
			}
		}
		for _, secret := range []string{"ROLECALL_TOKEN", l.postgres["ROLECALL_TOKEN"], "PGHOSTADDR", "PGSERVICE"} {
			if strings.Contains(out, secret) {
				t.Errorf("%s is in the environment of the command", secret)
			}
		}
		if p.errOut.String() != "" {
			t.Errorf("reported was %s", p.errOut)
		}
		l.nothingLeft(t)
		if leases := l.all(t, "--state", "ended"); len(leases) == 0 || leases[0].Note != "rolecall exec" {
			t.Errorf("the leases are %+v", leases)
		}
	})

	t.Run("exit codes", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "script")
		write(t, script, "#!/bin/sh\n") // not executable
		for _, test := range []struct {
			want int
			args []string
		}{
			{7, []string{"--", "sh", "-c", "exit 7"}},
			{7, []string{"sh", "-c", "exit 7"}},
			{128 + 9, []string{"--", "sh", "-c", "kill -9 $$"}},
			{128 + 15, []string{"--", "sh", "-c", "kill -15 $$"}},
			{127, []string{"--", "no-such-command"}},
			{127, []string{"--", "/no/such/command"}},
			{126, []string{"--", script}},
			{126, []string{"--", l.dir}},
			{term.ExitUsage, nil},
			{term.ExitUsage, []string{"--ttl", "soon", "--", "true"}},
		} {
			p := l.exec(t, nil, test.args...)
			code := p.wait(t)
			if said := p.errOut.String(); code != test.want || (said != "") != slices.Contains([]int{2, 126, 127}, code) ||
				said != "" && !isSentence(said) {
				t.Errorf("exec %q: exit code %d, want %d: %s", test.args, code, test.want, said)
			}
		}
		l.nothingLeft(t)
		mark := filepath.Join(t.TempDir(), "started")
		for _, test := range []struct {
			want int
			env  string
			args []string
		}{
			{term.ExitFailed, "", []string{"--for", "absent"}},
			{term.ExitFailed, "", []string{"--ttl", "1000d"}},
			{term.ExitFailed, "ROLECALL_URL=http://127.0.0.1:1", nil},
			{term.ExitNotFound, "", []string{"-c", "absent"}},
			{term.ExitDenied, "", []string{"--for", "postgres"}}, // it is protected
			{term.ExitDenied, "ROLECALL_TOKEN=wrong", nil},
		} {
			p := l.exec(t, []string{test.env}, append(test.args, "--", "touch", mark)...)
			if code := p.wait(t); code != test.want || !isSentence(p.errOut.String()) {
				t.Errorf("exec %q: exit code %d, want %d: %s", test.args, code, test.want, p.errOut)
			}
		}
		if _, err := os.Stat(mark); err == nil {
			t.Error("the command was started without a lease")
		}
	})

	t.Run("signals", func(t *testing.T) {
		// Under nohup, SIGHUP is ignored and not passed on. A child of a process that handles it does not inherit that.
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		p := l.exec(t, nil, "--", executable(t), asCounter)
		p.awaits(t, p.out, "ready\n")
		want := "ready\n"
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1,
			syscall.SIGTERM} {
			if err := p.process.Signal(s); err != nil {
				t.Fatal(err)
			}
			want += "got " + s.String() + "\n"
			p.awaits(t, p.out, want)
		}
		if code := p.wait(t); code != 9 || p.out.String() != want {
			t.Errorf("exit code %d, printed %q, want %q: %s", code, p.out, want, p.errOut)
		}
		l.nothingLeft(t)
	})

	t.Run("renewal", func(t *testing.T) {
		p, stdin := l.waiting(t, "--ttl", "3s")
		eventually(t, func() error {
			renewed := l.all(t, "--state", "active")
			if len(renewed) == 1 && renewed[0].RenewedAt != nil && renewed[0].ExpiresAt.Sub(renewed[0].CreatedAt) > 4*time.Second {
				return nil
			}
			return fmt.Errorf("the leases are %+v: %s", renewed, p.errOut)
		})
		stdin.Close()
		if code := p.wait(t); code != 0 || p.errOut.String() != "" {
			t.Errorf("exit code %d: %s", code, p.errOut)
		}
		l.nothingLeft(t)
	})

	t.Run("no renewal", func(t *testing.T) {
		p, stdin := l.waiting(t, "--ttl", "3s")
		id := l.all(t, "--state", "active")[0].ID
		l.ok(t, "", "leases", "end", id)
		p.awaits(t, p.errOut, "Warning: the lease "+id+" cannot be renewed: ")
		stdin.Close()
		if code := p.wait(t); code != 0 {
			t.Errorf("exit code %d: %s", code, p.errOut)
		}
		l.ok(t, "", "clusters", "update", "local", "--lease-default-ttl", "3s", "--lease-max-ttl", "3s")
		defer l.ok(t, "", "clusters", "update", "local", "--lease-max-ttl", "", "--lease-default-ttl", "")
		p, stdin = l.waiting(t)
		p.awaits(t, p.errOut, "cannot be renewed further")
		stdin.Close()
		if code := p.wait(t); code != 0 {
			t.Errorf("exit code %d: %s", code, p.errOut)
		}
		l.nothingLeft(t)
	})

	t.Run("psql", func(t *testing.T) {
		run := func(env []string, args ...string) *program {
			p := beginProcess(t, append(l.environment(), env...), append([]string{"psql", "-c", "local", "--for", "shop"},
				args...)...)
			p.wait(t)
			return p
		}
		for _, args := range [][]string{
			{"--database", "template1", "--", "-XAtc", "select current_database(), current_user"},
			{"template1", "--", "-XAtc", "select current_database(), current_user"},
			{"--", "-XAt", "-d", "template1", "-c", "select current_database(), current_user"},
		} {
			if p := run(nil, args...); p.code != 0 || p.out.String() != "template1|shop\n" {
				t.Errorf("psql %q: exit code %d, printed %q: %s", args, p.code, p.out, p.errOut)
			}
		}
		if p := run([]string{"PATH=" + t.TempDir()}); p.code != 127 || !strings.Contains(p.errOut.String(), "psql was not found") {
			t.Errorf("without psql: exit code %d: %s", p.code, p.errOut)
		}
		for _, args := range [][]string{{"a", "b"}, {"a", "-d", "b"}} {
			if p := run(nil, args...); p.code != term.ExitUsage {
				t.Errorf("psql %q: exit code %d: %s", args, p.code, p.errOut)
			}
		}
		l.nothingLeft(t)
	})

	t.Run("terminal", func(t *testing.T) {
		s := l.terminal(t, "/bin/sh", "-i")
		rolecall := asProgram + "=1 " + executable(t) + " exec -c local --for shop -- "
		s.types(t, "PS1='> '\n", "> ")
		// What the terminal sends to all reaches the command once. Both pass through one channel in their order, so that a
		// second SIGINT would come before SIGTERM.
		s.types(t, rolecall+executable(t)+" "+asCounter+"\n", "ready")
		s.types(t, "\x03", "got interrupt")
		s.types(t, "\x1c", "got quit")
		s.types(t, "\x1a", "\n> ") // the shell has the terminal again
		s.types(t, "bg\n", "> ")
		s.types(t, "kill %1 && wait %1; echo code $?\n", "code 9")
		if screen := s.screen.String(); strings.Count(screen, "got interrupt") != 1 || strings.Count(screen, "got quit") != 1 {
			t.Errorf("a signal came twice:\n%s", screen)
		}
		s.types(t, rolecall+"psql -X\n", "=>")
		s.types(t, "select 'as ' || current_user;\n", "as shop")
		s.types(t, "\x1a", "\n> ") // the shell has the terminal again
		s.types(t, "fg\n", "psql")
		s.types(t, "select pg_sleep(600);\n", "")
		eventually(t, func() error {
			if psql(t, l.postgres, "SELECT count(*) FROM pg_stat_activity WHERE query = 'select pg_sleep(600);'") == "1" {
				return nil
			}
			return errors.New("psql does not sleep:\n" + s.screen.String())
		})
		s.types(t, "\x03", "canceling statement due to user request")
		s.types(t, "select 'still here';\n", "still here")
		s.types(t, "\\q\n", "> ")
		s.types(t, "echo code $?\n", "code 0")
		s.types(t, "exit\n", "")
		l.nothingLeft(t)
	})
}

// waiting begins a command that ends when its standard input does, and waits until it runs.
func (l *leased) waiting(t *testing.T, args ...string) (*program, *os.File) {
	t.Helper()
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	t.Cleanup(func() { stdin.Close() })
	argv := append([]string{"exec", "-c", "local", "--for", "shop"}, args...)
	cmd := exec.Command(executable(t), append(argv, "--", "sh", "-c", "echo ready; exec cat")...)
	cmd.Stdin = in
	p := beginCommand(t, cmd, l.environment())
	p.awaits(t, p.out, "ready\n")
	return p, stdin
}

// screen is a process on a terminal of its own.
type screen struct {
	keyboard *os.File
	screen   *buffer
	seen     int // of the screen
}

func (l *leased) terminal(t *testing.T, name string, args ...string) *screen {
	t.Helper()
	keyboard, tty := openTerminal(t)
	defer tty.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = append(l.environment(), leaveAtOnce, "PATH="+os.Getenv("PATH"), "TERM=dumb", "PAGER=cat")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &screen{keyboard: keyboard, screen: &buffer{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for data := make([]byte, 4096); ; {
			n, err := keyboard.Read(data)
			_, _ = s.screen.Write(data[:n])
			if err != nil { // the last process has closed the terminal
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		<-read
		keyboard.Close()
	})
	return s
}

// types types, and waits until a text appears after what was seen before. The echo of what is typed does not count.
func (s *screen) types(t *testing.T, keys, text string) {
	t.Helper()
	if _, err := s.keyboard.WriteString(keys); err != nil {
		t.Fatal(err)
	}
	if echoed := strings.TrimSuffix(keys, "\n"); echoed != keys {
		s.waits(t, echoed)
	}
	s.waits(t, text)
}

func (s *screen) waits(t *testing.T, text string) {
	t.Helper()
	eventually(t, func() error {
		all := s.screen.String()
		if i := strings.Index(all[s.seen:], text); i >= 0 {
			s.seen += i + len(text)
			return nil
		}
		return fmt.Errorf("%q does not appear after %q:\n%s", text, all[:s.seen], all[s.seen:])
	})
}

// openTerminal returns both ends of a new terminal.
func openTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var number, locked int32
	for request, value := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &locked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return keyboard, tty
}

func TestCredentials(t *testing.T) {
	l := newLeased(t)
	login := func(text string) error {
		t.Helper()
		var current client.CurrentCredential
		if err := json.Unmarshal([]byte(text), &current); err != nil {
			t.Fatal(err)
		}
		return tryPsql(t, map[string]string{"PGHOST": l.postgres["PGHOST"], "PGPORT": l.postgres["PGPORT"],
			"PGUSER": current.Username, "PGPASSWORD": string(current.Password)})
	}
	current := []string{"credentials", "current", "app", "-c", "local", "-o", "json"}
	l.fails(t, term.ExitUsage, "--overlap", "", "credentials", "put", "app", "-c", "local", "--for", "shop", "--rotate-every",
		"30d")
	l.fails(t, term.ExitUsage, "--window", "", "credentials", "put", "app", "-c", "local", "--for", "shop", "--rotate-every",
		"30d", "--overlap", "1h", "--window", "sometimes")
	l.fails(t, term.ExitNotFound, "", "", current...)
	l.ok(t, "", "credentials", "put", "app", "-c", "local", "--for", "shop", "--rotate-every", "30d", "--overlap", "1h",
		"--window", "sat,sun 02:00-04:00 Europe/Berlin")
	l.has(t, []string{"name app", "cluster local", "for shop", "state active", "rotates every 30d", "overlap 1h",
		"window sat,sun 02:00-04:00 Europe/Berlin", "created .* by admin"}, "credentials", "show", "app", "-c", "local")
	l.ok(t, "", "credentials", "put", "app", "-c", "local", "--overlap", "2h", "--window", "")
	l.has(t, []string{"rotates every 30d", "overlap 2h", "window any time"}, "credentials", "show", "app", "-c", "local")
	l.has(t, []string{"NAME STATE FOR USER NAME ROTATES EVERY OVERLAP ERROR", `app active shop shop_\w{8} \S+ \S+ 30d 2h`},
		"credentials", "list", "-c", "local")

	first := l.ok(t, "", current...)
	l.ok(t, "", "credentials", "rotate", "app", "-c", "local")
	second := l.ok(t, "", current...)
	if err := errors.Join(login(first), login(second)); err != nil || first == second {
		t.Errorf("after a rotation: %v\n%s%s", err, first, second)
	}
	l.has(t, []string{`password \S{20,}`, `user name shop_\w{8}`}, "credentials", "current", "app", "-c", "local")
	l.has(t, []string{`127.0.0.1:\d+:template1:shop_\w{8}:\S{20,}`}, "credentials", "current", "app", "-c", "local", "-o",
		"pgpass", "-d", "template1")
	binding := filepath.Join(t.TempDir(), "binding")
	l.ok(t, "", "credentials", "current", "app", "-c", "local", "-o", "binding-dir", binding)
	if !strings.Contains(second, `"`+read(t, binding+"/password")+`"`) {
		t.Error("the binding has another password")
	}

	l.fails(t, term.ExitUsage, "CLUSTER/NAME", "", "tokens", "create", "app", "--credential", "app")
	token := strings.TrimSpace(l.ok(t, "", "tokens", "create", "app", "--credential", "local/app"))
	l.has(t, []string{"app no credential local/app never .*"}, "tokens", "list")
	l.ok(t, "", "tokens", "create", "other", "--cluster", "local")
	eventually(t, func() error { // rows are sealed within a second
		out := l.ok(t, "", "audit")
		for _, want := range []string{" overlap=1h rotateEvery=30d ", " window=sat,sun 02:00-04:00 Europe/Berlin\n",
			" credentials=local/app name=app ", " clusters=local name=other "} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("the audit log has no %q: %s", want, out)
			}
		}
		return nil
	})
	id := l.postgres["ROLECALL_CLUSTER_ID"]
	for _, test := range []struct {
		want int
		args []string
	}{
		{term.ExitDenied, []string{"credentials", "current", "app", "-c", "local"}},
		{0, []string{"credentials", "current", "app", "-c", id}},
		{term.ExitDenied, []string{"credentials", "show", "app", "-c", id}},
		{term.ExitDenied, []string{"leases", "create", "--for", "shop", "-c", id}},
		{term.ExitDenied, []string{"credentials", "current", "other", "-c", id}},
	} {
		p := beginProcess(t, []string{"ROLECALL_URL=" + l.url, "ROLECALL_TOKEN=" + token}, test.args...)
		if code := p.wait(t); code != test.want {
			t.Errorf("with the token %q ended with %d, want %d: %s", test.args, code, test.want, p.errOut)
		} else if slices.Contains(test.args, "local") && !strings.Contains(p.errOut.String(), "give the cluster by its id") {
			t.Errorf("with the token %q says %s", test.args, p.errOut)
		}
	}
	for args, want := range map[string]string{
		"credentials show -c local ": "app\n", "tokens create --credential ": "local/\n",
		"tokens create --credential local/": "local/app\n", "credentials current -o ": "binding-dir\n",
	} {
		if out := l.ok(t, "", append([]string{"__complete"}, strings.Split(args, " ")...)...); !strings.Contains(out, want) {
			t.Errorf("completing %q offers %q, want %q", args, out, want)
		}
	}

	l.fails(t, term.ExitFailed, "the flag --end-leases", "", "clusters", "remove", "local", "--yes")
	l.fails(t, term.ExitUsage, "--yes", "", "credentials", "delete", "app", "-c", "local")
	l.ok(t, "", "credentials", "delete", "app", "-c", "local", "--yes")
	if login(first) == nil || login(second) == nil {
		t.Error("a password of a deleted credential logs in")
	}
	l.nothingLeft(t)
}
