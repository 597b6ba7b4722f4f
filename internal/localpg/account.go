package localpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is the OS user that the server's processes run as.
type account struct {
	name     string
	uid, gid int
	switched bool // it is not the one that runs this process
}

// serverAccount is the account for new data: the present user or, because PostgreSQL refuses to run as root, an
// unprivileged one. That is never postgres: by peer authentication it is superuser of the system's own cluster.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return present(), nil
	}
	u, err := user.Lookup("rolecall")
	if err != nil {
		// Where this fails (no useradd, a read-only /etc, another process that does the same) nobody serves.
		exec.Command("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "rolecall").Run()
		u, err = user.Lookup("rolecall")
	}
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL does not run as root, and there is no unprivileged OS user for it: %w; make "+
			"one: useradd --system rolecall", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, err
	}
	return account{name: u.Username, uid: uid, gid: gid, switched: true}, nil
}

// ownerAccount is the account for existing data: only its owner can serve it.
func ownerAccount(data string) (account, error) {
	if os.Geteuid() != 0 {
		return present(), nil
	}
	info, err := os.Stat(data)
	if err != nil {
		return account{}, err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if owner.Uid == 0 {
		return serverAccount()
	}
	a := account{name: strconv.Itoa(int(owner.Uid)), uid: int(owner.Uid), gid: int(owner.Gid), switched: true}
	if u, err := user.LookupId(a.name); err == nil {
		a.name = u.Username
	}
	return a, nil
}

func present() account {
	return account{name: strconv.Itoa(os.Geteuid()), uid: os.Geteuid(), gid: os.Getegid()}
}

// give makes the account the owner of path.
func (a account) give(path string) error {
	if !a.switched {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// command is a command run by the account, in a session of its own: Ctrl-C on the terminal is not for it.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = environment()
	cmd.Dir = "/" // the present folder may be closed to the account
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// environment is all that PostgreSQL's programs get: PGDATA, PGPORT or LC_ALL of the caller would change what they do.
func environment() []string {
	env := []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	if libs, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		env = append(env, "LD_LIBRARY_PATH="+libs)
	}
	return env
}
