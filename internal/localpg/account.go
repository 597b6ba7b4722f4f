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

// account is the OS user of the server's processes.
type account struct {
	name     string
	uid, gid int
	switched bool // it is not the one that runs this process
}

// serverAccount is the account for new data: the current user or, because PostgreSQL refuses to run as root, an unprivileged
// one. It is never postgres, which is superuser of the system's own cluster by peer authentication.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return current(), nil
	}
	u, err := user.Lookup("rolecall")
	if err != nil {
		// If this fails (no useradd, a read-only /etc, another process that does the same), the account nobody is used.
		exec.Command("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "rolecall").Run()
		u, err = user.Lookup("rolecall")
	}
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL does not run as root, and there is no unprivileged OS user for it: %w; create "+
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

// ownerAccount is the account for existing data, which only its owner can serve.
func ownerAccount(data string) (account, error) {
	if os.Geteuid() != 0 {
		return current(), nil
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

func current() account {
	return account{name: strconv.Itoa(os.Geteuid()), uid: os.Geteuid(), gid: os.Getegid()}
}

// give makes the account the owner of path.
func (a account) give(path string) error {
	if !a.switched {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// command is a command that the account runs, in a session of its own so that Ctrl-C on the terminal does not reach it.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = environment()
	cmd.Dir = "/" // the account may have no access to the current folder
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// environment is all that PostgreSQL's programs get. PGDATA, PGPORT or LC_ALL of the caller would change what they do.
func environment() []string {
	env := []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	if libs, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		env = append(env, "LD_LIBRARY_PATH="+libs)
	}
	return env
}
