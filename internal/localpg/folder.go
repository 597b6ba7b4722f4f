package localpg

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// elsewhereRoot holds the data of folders that PostgreSQL's OS user cannot reach.
const elsewhereRoot = "/var/lib/rolecall"

// folder is where a server's files are. Data and lock are in home, the rest in dir.
type folder struct {
	dir     string
	home    string // dir, or a folder below elsewhereRoot that the link pg.elsewhere in dir leads to
	major   int    // of the data; 0: there is none yet
	account account
}

func (f *folder) data() string      { return filepath.Join(f.home, "pg") }
func (f *folder) password() string  { return filepath.Join(f.dir, "pg.password") }
func (f *folder) port() string      { return filepath.Join(f.dir, "pg.port") }
func (f *folder) log() string       { return filepath.Join(f.dir, "pg.log") }
func (f *folder) elsewhere() string { return filepath.Join(f.dir, "pg.elsewhere") }

// openFolder reads the state of the folder, and changes nothing.
func openFolder(dir string) (*folder, error) {
	f := &folder{dir: dir, home: dir}
	switch home, err := os.Readlink(f.elsewhere()); {
	case err == nil:
		if _, err := os.Stat(home); err != nil {
			return nil, fmt.Errorf("the data of %s is missing: %w", dir, err)
		}
		f.home = home
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return f, f.readMajor()
}

func (f *folder) readMajor() error {
	text, err := os.ReadFile(filepath.Join(f.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(f.data()); err == nil {
			return fmt.Errorf("%s contains no PostgreSQL data (it has no PG_VERSION); move it away, or choose another folder",
				f.data())
		}
		return nil
	}
	if err != nil {
		return err
	}
	f.major, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s/PG_VERSION: %w", f.data(), err)
	}
	return nil
}

// prepare creates the folder and decides on home and account.
func (f *folder) prepare(ctx context.Context, bin binaries) (err error) {
	if f.major != 0 {
		f.account, err = ownerAccount(f.data())
		return err
	}
	if f.account, err = serverAccount(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.dir), 0o755); err != nil {
		return err
	}
	if err := f.account.passage(f.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !f.account.switched || f.home != f.dir {
		return nil
	}
	// If ctx ended, a forbidden access could not be told from an interrupted one.
	ctx = context.WithoutCancel(ctx)
	postgres := filepath.Join(bin.dir, "postgres")
	if err := f.account.command(ctx, postgres, "--version").Run(); err != nil {
		return fmt.Errorf("PostgreSQL does not run as root, and the OS user %s cannot run %s: %w", f.account.name, postgres, err)
	}
	there := f.account.command(ctx, postgres, "--version")
	there.Dir = f.dir
	if there.Run() == nil {
		return nil
	}
	if err := os.MkdirAll(elsewhereRoot, 0o755); err != nil {
		return err
	}
	// The name is new each time: an earlier one may belong to a folder that was moved.
	home, err := os.MkdirTemp(elsewhereRoot, filepath.Base(f.dir)+"-")
	if err != nil {
		return err
	}
	if err := f.account.open(home); err != nil {
		return err
	}
	f.home = home
	return os.Symlink(home, f.elsewhere()) // fails if another process has just done the same
}

// passage creates a folder that the account can pass through but not list.
func (a account) passage(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return a.open(dir)
}

// open lets the account pass through a folder of this process.
func (a account) open(dir string) error {
	if !a.switched {
		return nil
	}
	if err := os.Chown(dir, -1, a.gid); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}

// lock locks the folder for this process. It waits a few seconds for a process that is shutting its server down.
func (f *folder) lock(ctx context.Context) (release func(), err error) {
	file, err := os.OpenFile(filepath.Join(f.home, "pg.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("%s is in use: another process runs its PostgreSQL (%w)", f.home, err)
		}
	}
}

// initialize creates the data. The data gets its name only when it is complete.
func (f *folder) initialize(ctx context.Context, bin binaries, noSync bool) error {
	// Another process may have done it before this one got the lock.
	if err := f.readMajor(); err != nil || f.major != 0 {
		return err
	}
	left, err := filepath.Glob(filepath.Join(f.home, "pg.new-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		os.RemoveAll(dir)
	}
	work, err := os.MkdirTemp(f.home, "pg.new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	password := rand.Text()
	if err := writeSecret(f.password(), password); err != nil {
		return err
	}
	pwfile := filepath.Join(work, "password")
	if err := writeSecret(pwfile, password); err != nil {
		return err
	}
	for _, path := range []string{work, pwfile} {
		if err := f.account.give(path); err != nil {
			return err
		}
	}
	made := filepath.Join(work, "data")
	args := []string{"-D", made, "--username=postgres", "--pwfile=" + pwfile, "--encoding=UTF8", "--lc-messages=C",
		"--data-checksums", "--auth-host=scram-sha-256", "--auth-local=reject"}
	if noSync {
		args = append(args, "--no-sync")
	}
	// C.UTF-8 supports letters beyond ASCII, but not every system has it.
	err = f.initdb(ctx, bin, append(args, "--locale=C.UTF-8")...)
	if err != nil && ctx.Err() == nil {
		err = f.initdb(ctx, bin, append(args, "--locale=C")...)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(made, f.data()); err != nil {
		return err
	}
	f.major = bin.major
	return nil
}

func (f *folder) initdb(ctx context.Context, bin binaries, args ...string) error {
	cmd := f.account.command(ctx, filepath.Join(bin.dir, "initdb"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a killed initdb may leave a child that holds the pipe
	endWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	runtime.LockOSThread() // endWithParent depends on the thread that forked
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("create the data of PostgreSQL %s in %s: %w\n%s", bin.version, f.home, err, tail(&out))
	}
	return nil
}

// writeSecret writes a file that only its owner can read, and syncs it to disk.
func writeSecret(path, secret string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(secret + "\n")
	return errors.Join(err, file.Sync(), file.Close())
}

// keptPort is the port of the last start, or 0.
func (f *folder) keptPort() int {
	text, err := os.ReadFile(f.port())
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || port < 1 || port > 65535 {
		return 0
	}
	return port
}

func (f *folder) keepPort(port int) error {
	return os.WriteFile(f.port(), []byte(strconv.Itoa(port)+"\n"), 0o644)
}
