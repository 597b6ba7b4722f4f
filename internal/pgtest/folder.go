package pgtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/localpg"
)

// templateRevision is part of the template's name: raise it when the data are made differently.
const templateRevision = 3

// folder is where one cluster lives.
type folder struct {
	path string
	lock *os.File // held as long as this process uses the folder, so that others can tell
}

// newFolder returns a copy of the template that belongs to the server in bin.
func newFolder(bin string) (*folder, error) {
	base, err := baseFolder()
	if err != nil {
		return nil, err
	}
	if err := sweep(base); err != nil {
		return nil, err
	}
	template, err := template(base, bin)
	if err != nil {
		return nil, err
	}
	f, err := emptyFolder(base)
	if err != nil {
		return nil, err
	}
	if out, err := exec.Command("cp", "-a", template+"/.", f.path).CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("copy %s: %w: %s", template, err, out), f.remove())
	}
	return f, nil
}

// baseFolder holds the folders of all test processes of this user. It is not below t.TempDir(), which is closed to the
// OS user that PostgreSQL runs as when the tests run as root. Unless TMPDIR says otherwise it is in memory where there
// is plenty: the thousand files of a cluster take some disks half a second, and memory a twentieth of one.
func baseFolder() (string, error) {
	temp := os.TempDir()
	var shm syscall.Statfs_t
	switch {
	case os.Getenv("TMPDIR") == "" && syscall.Statfs("/dev/shm", &shm) == nil && shm.Bavail*uint64(shm.Bsize) >= 2<<30:
		temp = "/dev/shm"
	case os.Geteuid() == 0 && !open(temp):
		temp = "/tmp"
	}
	base := filepath.Join(temp, "rolecall-pgtest-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(base, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(base)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a folder of this user; remove it", base)
	}
	return base, nil
}

// open reports whether everybody may pass through dir and all that is above it.
func open(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func emptyFolder(base string) (*folder, error) {
	path, err := os.MkdirTemp(base, "run-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o711); err != nil {
		return nil, err
	}
	f := &folder{path: path}
	f.lock, err = lock(path)
	return f, err
}

func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (f *folder) remove() error {
	return errors.Join(os.RemoveAll(f.path), f.lock.Close())
}

// sweep removes what killed test processes left behind.
func sweep(base string) error {
	entries, err := filepath.Glob(filepath.Join(base, "run-*"))
	if err != nil {
		return err
	}
	for _, path := range entries {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // gone, or so new that its maker may not have locked it yet
		}
		file, err := lock(path)
		if err != nil {
			continue
		}
		os.RemoveAll(path)
		file.Close()
	}
	return nil
}

var templates struct {
	sync.Mutex
	paths map[string]string // by the folder of the binaries
}

// template returns a folder with fresh data that no server runs on. It is made once and kept: initdb takes longer than
// all the rest.
func template(base, bin string) (path string, err error) {
	templates.Lock()
	defer templates.Unlock()
	if path, found := templates.paths[bin]; found {
		return path, nil
	}
	if path, err = makeTemplate(base, bin); err == nil {
		if templates.paths == nil {
			templates.paths = map[string]string{}
		}
		templates.paths[bin] = path
	}
	return path, err
}

func makeTemplate(base, bin string) (string, error) {
	version, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", bin, version, templateRevision))
	path := filepath.Join(base, fmt.Sprintf("template-%x", key[:6]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	f, err := emptyFolder(base)
	if err != nil {
		return "", err
	}
	defer f.remove()
	made := filepath.Join(f.path, "made")
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	s, err := localpg.Start(ctx, localpg.Options{Dir: made, BinDir: bin, NoSync: true, DieWithParent: true})
	if err != nil {
		return "", err
	}
	if s.Major >= 16 {
		err = cheapenLogins(s)
	}
	if err := errors.Join(err, s.Stop(ctx)); err != nil {
		return "", err
	}
	for _, name := range []string{"pg.log", "pg.port", "pg.lock"} {
		if err := os.Remove(filepath.Join(made, name)); err != nil {
			return "", err
		}
	}
	// Of several processes that make it at the same time the first one wins.
	if err := os.Rename(made, path); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	return path, nil
}

// cheapenLogins has passwords stored with few iterations, that of the superuser too. PostgreSQL's own 4096 are a good part
// of what a login costs; UsualIterations gives them back.
func cheapenLogins(s *localpg.Server) error {
	c := &Cluster{Server: s}
	defer c.disconnect()
	return c.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
		for _, sql := range []string{
			`ALTER SYSTEM SET scram_iterations = 100`,
			`SET scram_iterations = 100`,
			`ALTER ROLE ` + s.User + ` PASSWORD '` + s.Password + `'`,
		} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}
