package dev

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/control"
	"rolecall/internal/localpg"
	"rolecall/internal/server"
)

// folder is the data folder of a local server. It holds secrets, so only its owner can read its files. Others may pass
// through the folder itself, because PostgreSQL may run as another user.
type folder struct {
	path    string
	asGiven string
	lock    *os.File // nil: not locked
}

// The files of the folder.
const (
	lockFile          = "lock"
	stateFile         = "state.json"
	runningFile       = "running.json"
	masterKeyFile     = "master.key"
	adminPasswordFile = "admin-password"
	ignoreFile        = ".gitignore"
)

// DefaultDataDir is the data folder if none is given.
const DefaultDataDir = "./rolecall-data"

// state is what the first start has decided.
type state struct {
	Prepared              bool
	ClusterID             uuid.UUID
	ControlPassword       string
	AdministeringPassword string
}

// running is what the local server leaves for rolecall env while it serves. It holds secrets.
type running struct {
	PID         int
	URL         string
	ClusterID   uuid.UUID
	DatabaseURL string
	PGHost      string
	PGPort      int
	PGUser      string
	PGPassword  string
}

// findFolder names a folder. It neither creates nor locks it.
func findFolder(path string) (*folder, error) {
	absolute, err := filepath.Abs(path)
	return &folder{path: absolute, asGiven: path}, err
}

// openFolder creates the folder if it is missing, and locks it against another server.
func openFolder(path string) (*folder, error) {
	f, err := findFolder(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.path, 0o711); err != nil {
		return nil, fmt.Errorf("the data folder cannot be created: %w", err)
	}
	if f.lock, err = os.OpenFile(f.file(lockFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("the data folder cannot be used: %w", err)
	}
	// The lock ends with the process, however that ends. A rolecall env holds it for a moment.
	for try := 0; syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; try++ {
		if try == 5 {
			f.lock.Close()
			return nil, fmt.Errorf("another rolecall dev is running on %s; stop it, or choose another folder with --data-dir", f.path)
		}
		time.Sleep(20 * time.Millisecond)
	}
	f.retract() // what a killed server has left
	// The folder holds secrets, and is often below somebody's repository.
	if _, err := os.Stat(f.file(ignoreFile)); errors.Is(err, fs.ErrNotExist) {
		if err := f.write(ignoreFile, []byte("*\n")); err != nil {
			f.close()
			return nil, fmt.Errorf("the data folder cannot be used: %w", err)
		}
	}
	return f, nil
}

func (f *folder) close() { f.lock.Close() }

// inUse reports whether a server has locked the folder.
func (f *folder) inUse() bool {
	lock, err := os.Open(f.file(lockFile))
	if err != nil {
		return false
	}
	defer lock.Close()
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// flag is the flag that other commands need to find the folder.
func (f *folder) flag() string {
	if f.asGiven == DefaultDataDir {
		return ""
	}
	return " --data-dir " + quote(f.asGiven)
}

// write replaces a file as a whole, so that a crash leaves either the old or the new one.
func (f *folder) write(name string, data []byte) error {
	temporary := f.file("." + name + ".new")
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, f.file(name))
}

func (f *folder) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return f.write(name, append(data, '\n'))
}

// readJSON reads a file into v, and leaves v as it is if there is no such file.
func (f *folder) readJSON(name string, v any) error {
	data, err := os.ReadFile(f.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s cannot be read: %w", f.file(name), err)
	}
	return nil
}

// keyring reads the master key. At the first start it generates one.
func (f *folder) keyring() (*control.Keyring, error) {
	data, err := os.ReadFile(f.file(masterKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		data = []byte(control.NewMasterKey() + "\n")
		err = f.write(masterKeyFile, data)
	}
	if err != nil {
		return nil, err
	}
	return control.ParseKeyring(string(data))
}

func (f *folder) adminPassword() (string, error) {
	text, err := os.ReadFile(f.file(adminPasswordFile))
	return strings.TrimSuffix(string(text), "\n"), err
}

// announce tells rolecall env of a server that is about to serve.
func (f *folder) announce(s *server.Server, st *state, pg *localpg.Server) error {
	return f.writeJSON(runningFile, running{
		PID:         os.Getpid(),
		URL:         s.PublicURL,
		ClusterID:   st.ClusterID,
		DatabaseURL: string(s.DatabaseURL),
		PGHost:      pg.Host,
		PGPort:      pg.Port,
		PGUser:      pg.User,
		PGPassword:  pg.Password,
	})
}

func (f *folder) retract() { _ = os.Remove(f.file(runningFile)) }

func randomPassword() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}
