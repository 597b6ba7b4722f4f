package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolecall/tools/packages"
)

// onMachine is set for the test that runs on a machine of its own, to the folder with the packages.
const onMachine = "ROLECALL_TEST_PACKAGES"

// patience is how long one step may take on a busy machine.
const patience = 5 * time.Minute

// packageOf is the package of a version for this machine.
func packageOf(t *testing.T, format, version string) string {
	t.Helper()
	b := build{version, commit, at, []string{here()}, t.TempDir()}
	documents := t.TempDir()
	if err := writeDocuments(documents); err != nil {
		t.Fatal(err)
	}
	path, err := packages.Write(b.out, format, at, map[string]string{
		"ARCHITECTURE": runtime.GOARCH, "VERSION": version, "DOCUMENTS": documents, "PROGRAM": program(here()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newMachine runs this test program on a machine of its own: the file system of this one with a layer in memory above, no
// network but loopback, and no other process. Nothing that happens there is seen here.
const newMachine = `mount -t tmpfs tmpfs "$1" && cd "$1" && mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root && cd root
mount -t proc proc proc && mount --rbind /dev dev && mount -t tmpfs tmpfs run && mount -t tmpfs tmpfs tmp
ip link set lo up
mkdir srv/rolecall && cp "$2" "$3" "$4" "$5" srv/rolecall && mv "srv/rolecall/${2##*/}" srv/rolecall/test
exec env -i ROLECALL_TEST_PACKAGES=/srv/rolecall HOME=/root LC_ALL=C \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  chroot . /srv/rolecall/test -test.run='^TestOnMachine$' -test.v`

// TestDebian installs, starts, upgrades and purges the package on a machine that has only PostgreSQL beside it, as
// docs/quickstart-systemd.md says.
func TestDebian(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	page, err := filepath.Abs("docs/quickstart-systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(asRoot(t, newMachine, t.TempDir(), self, packageOf(t, "deb", "0.1.9"), packageOf(t, "deb", version), page))
}

// machine is what TestOnMachine works on.
type machine struct {
	t       *testing.T
	service *service
}

const registerCommand = "rolecall clusters register local --url postgres://rolecall_admin@127.0.0.1:5432/postgres " +
	"--tls-mode disable"

// The commands of the page, and what their prompts are answered with.
var commands = []struct{ command, with, answer string }{
	{"rolecall-setup", " --password-stdin", "correct horse battery"},
	{"systemctl enable --now rolecall", "", ""},
	{"rolecall login http://127.0.0.1:8080 --username admin", " --password-stdin", "correct horse battery"},
	{registerCommand, " --password-stdin", "another fine password"},
	{"rolecall users create alice --cluster local --generate", "", ""},
	{"systemctl restart rolecall", "", ""},
}

// TestOnMachine is run by TestDebian, as the first process of the new machine. Anywhere else it must change nothing.
func TestOnMachine(t *testing.T) {
	if os.Getenv(onMachine) == "" || os.Getpid() != 1 {
		return
	}
	m := &machine{t: t}
	page := m.read(os.Getenv(onMachine) + "/quickstart-systemd.md")
	m.startPostgres()

	m.sh("dpkg -i "+m.deb("0.1.9"), "")
	for _, says := range []string{"completions/rolecall", "man1/rolecall-serve.1.gz"} {
		if list := m.sh("dpkg -L rolecall", ""); !strings.Contains(list, says) {
			t.Errorf("the package has no %s:\n%s", says, list)
		}
	}
	const unit = "/usr/lib/systemd/system/rolecall.service"
	m.sh("systemd-analyze verify --man=no "+unit, "")
	m.sh("systemd-analyze security --offline=yes --threshold=20 --no-pager "+unit, "")

	for _, c := range commands {
		if !strings.Contains(page, "\n"+c.command+"\n") && !strings.Contains(page, "\nsudo "+c.command+"\n") {
			t.Errorf("the page has no line %q", c.command)
		}
		if c.command == registerCommand {
			m.psql("CREATE ROLE rolecall_admin LOGIN CREATEROLE CREATEDB PASSWORD 'another fine password'")
		}
		if !m.systemctl(c.command) {
			m.sh(c.command+c.with, c.answer)
		}
	}
	if got := m.psql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'alice'"); got != "t" {
		t.Errorf("alice is not in PostgreSQL: %q", got)
	}

	// What exists is kept, by the setup and by an upgrade.
	m.sh("echo ROLECALL_LOG_LEVEL=debug >>/etc/rolecall/rolecall.env", "")
	const settings = "cd /etc/rolecall && sha256sum * && stat -c '%a %U %n' database-url master-key"
	before := m.sh(settings, "")
	if !strings.Contains(before, "600 root database-url\n600 root master-key\n") {
		t.Errorf("others may read the secrets:\n%s", before)
	}
	again := m.sh("rolecall-setup --password-stdin", "a third fine password")
	if !strings.Contains(again, "Nothing was changed") {
		t.Errorf("the second setup says %q", again)
	}
	if says := m.sh("rolecall-setup --help", ""); !strings.Contains(says, "can run again") {
		t.Errorf("the help of the setup is %q", says)
	}
	const withoutURL = "cd /etc/rolecall && mv database-url /srv && ! rolecall-setup 2>&1 && mv /srv/database-url ."
	if says := m.sh(withoutURL, ""); !strings.Contains(says, "role rolecall already, and /etc/rolecall/database-url") {
		t.Errorf("the setup without the URL of its database says %q", says)
	}
	calls := m.recordSystemctl()
	m.sh("dpkg -i "+m.deb("0.2.0"), "")
	if after := m.sh(settings, ""); after != before {
		t.Errorf("before the upgrade:\n%s\nafter it:\n%s", before, after)
	}
	m.systemctl("systemctl restart rolecall")
	if says := m.sh("rolecall whoami", ""); !strings.Contains(says, "admin") {
		t.Errorf("after the upgrade whoami says %q", says)
	}

	m.systemctl("systemctl stop rolecall")
	if out := m.sh("dpkg --purge rolecall", ""); !strings.Contains(out, "master-key is kept") {
		t.Errorf("the purge does not say what it keeps:\n%s", out)
	}
	if got := m.sh("ls -A /etc/rolecall", ""); got != "master-key\n" {
		t.Errorf("after the purge /etc/rolecall has %q", got)
	}
	for _, path := range []string{"/usr/bin/rolecall", unit} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	want := "daemon-reload\n" + // of the old package, when it is replaced
		"daemon-reload\ntry-restart rolecall.service\n" +
		"disable --now rolecall.service\ndaemon-reload\n" + // at the removal
		"daemon-reload\n" // at the purge
	if got := m.read(calls); got != want {
		t.Errorf("the package has called systemctl with\n%s\nwant\n%s", got, want)
	}
}

func (m *machine) read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// deb is the package of a version.
func (m *machine) deb(version string) string {
	m.t.Helper()
	found, err := filepath.Glob(os.Getenv(onMachine) + "/*" + version + "*.deb")
	if err != nil || len(found) != 1 {
		m.t.Fatalf("packages of %s: %q, %v", version, found, err)
	}
	return found[0]
}

// sh runs a command and returns all that it prints.
func (m *machine) sh(command, input string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// startPostgres starts Debian's PostgreSQL as its package does on a new machine.
func (m *machine) startPostgres() {
	m.t.Helper()
	m.sh("pg_createcluster --start --port 5432 $(ls /usr/lib/postgresql | sort -n | tail -1) rolecall", "")
}

func (m *machine) psql(sql string) string {
	m.t.Helper()
	return strings.TrimSpace(m.sh("cd / && runuser -u postgres -- psql -XAtqw -v ON_ERROR_STOP=1", sql))
}

// recordSystemctl lets the scripts of the package believe that systemd runs, and returns the file with their calls of it.
func (m *machine) recordSystemctl() string {
	m.t.Helper()
	const calls = "/srv/rolecall/calls"
	m.sh(`mkdir /run/systemd/system && cat >/usr/local/bin/systemctl && chmod +x /usr/local/bin/systemctl && : >`+calls,
		"#!/bin/sh\necho \"$*\" >>"+calls+"\n")
	return calls
}

// systemctl does what systemd would do, and reports whether the command is one of systemctl.
func (m *machine) systemctl(command string) bool {
	m.t.Helper()
	verb, ok := strings.CutPrefix(command, "systemctl ")
	if !ok {
		return false
	}
	if m.service != nil {
		m.service.stop(m.t)
		m.service = nil
	}
	if !strings.HasPrefix(verb, "stop") {
		m.service = start(m.t)
	}
	return true
}

// service is rolecall.service, run by hand: there is no systemd on this machine.
type service struct {
	process  *exec.Cmd
	socket   *net.UnixConn
	log      *strings.Builder
	reported map[string]bool
	ended    chan struct{}
	err      error // of the process, after it has ended
}

// start runs the unit's command as systemd does: with its variables, its credentials, a socket for reports, and as a user
// without rights.
func start(t *testing.T) *service {
	t.Helper()
	const credentials, user = "/run/credentials/rolecall.service", 61184
	unit := settingsOf(t, "/usr/lib/systemd/system/rolecall.service")
	if err := os.RemoveAll(credentials); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(credentials, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, credential := range unit["LoadCredential"] {
		name, from, _ := strings.Cut(credential, ":")
		secret, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(credentials, name), secret, 0o400)
		}
		if err == nil {
			err = os.Chown(filepath.Join(credentials, name), user, user)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@rolecall-notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	command := strings.Fields(strings.ReplaceAll(unit["ExecStart"][0], "${CREDENTIALS_DIRECTORY}", credentials))
	s := &service{socket: socket, log: &strings.Builder{}, reported: map[string]bool{}, ended: make(chan struct{})}
	s.process = exec.Command("setpriv", append([]string{"--reuid=61184", "--regid=61184", "--clear-groups", "--no-new-privs",
		"--bounding-set=-all", "--inh-caps=-all"}, command...)...)
	s.process.Env = []string{"NOTIFY_SOCKET=@rolecall-notify", "WATCHDOG_USEC=30000000", "CREDENTIALS_DIRECTORY=" + credentials}
	for _, file := range unit["EnvironmentFile"] {
		for name, values := range settingsOf(t, file) {
			s.process.Env = append(s.process.Env, name+"="+values[0])
		}
	}
	s.process.Stdout, s.process.Stderr = s.log, s.log
	if err := s.socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.process.Wait()
		_ = s.socket.SetReadDeadline(time.Now()) // nobody waits for reports of a process that has ended
		close(s.ended)
	}()
	s.waitFor(t, "READY=1")
	s.waitFor(t, "WATCHDOG=1")
	return s
}

// waitFor waits for a report of the service.
func (s *service) waitFor(t *testing.T, report string) {
	t.Helper()
	for datagram := make([]byte, 4096); !s.reported[report]; {
		n, err := s.socket.Read(datagram)
		if err != nil {
			t.Fatalf("the service has not reported %s: %v\n%s", report, err, s.log)
		}
		for line := range strings.SplitSeq(string(datagram[:n]), "\n") {
			s.reported[line] = true
		}
	}
}

func (s *service) stop(t *testing.T) {
	t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Fatalf("the service does not end\n%s", s.log)
	}
	if s.err != nil {
		t.Errorf("the service ended with %v\n%s", s.err, s.log)
	}
	// Its last reports are still in the socket.
	if err := s.socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	s.waitFor(t, "STOPPING=1")
	s.socket.Close()
}

// settingsOf reads the lines name=value of a file.
func settingsOf(t *testing.T, path string) map[string][]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	settings := map[string][]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && !slices.Contains([]byte("#["), lines.Text()[0]) {
			settings[name] = append(settings[name], value)
		}
	}
	if len(settings) == 0 {
		t.Fatal(fmt.Errorf("%s has no settings", path))
	}
	return settings
}
