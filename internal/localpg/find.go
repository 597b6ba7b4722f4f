package localpg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// debianRoot is where Debian and Ubuntu install servers: <major>/bin, which is not on PATH.
const debianRoot = "/usr/lib/postgresql"

type binaries struct {
	dir     string // symbolic links resolved, so that initdb and the share files are found next to postgres
	major   int
	version string
}

// FindBinaries returns the folder of a server's postgres and initdb, with symbolic links resolved, and its major. It
// searches binDir only, if that is given; else each folder of PATH and then /usr/lib/postgresql/*/bin, newest first. With a
// major other than 0 it searches all of these for the first server of that major.
func FindBinaries(binDir string, major int) (dir string, foundMajor int, err error) {
	b, err := find(os.Getenv("PATH"), debianRoot, binDir, major)
	return b.dir, b.major, err
}

func find(path, root, binDir string, major int) (binaries, error) {
	var dirs []string
	if binDir != "" {
		var err error
		if binDir, err = filepath.Abs(binDir); err != nil {
			return binaries{}, err
		}
		dirs = append(dirs, binDir)
	}
	if binDir == "" || major != 0 {
		for _, dir := range filepath.SplitList(path) {
			if filepath.IsAbs(dir) { // no program of the current folder
				dirs = append(dirs, dir)
			}
		}
		installed, err := filepath.Glob(filepath.Join(root, "*", "bin"))
		if err != nil {
			return binaries{}, err
		}
		slices.SortFunc(installed, func(a, b string) int { return majorOf(b) - majorOf(a) })
		dirs = append(dirs, installed...)
	}
	for _, dir := range dirs {
		b, err := inspect(dir)
		if errors.Is(err, os.ErrNotExist) {
			if dir == binDir && major == 0 {
				return binaries{}, fmt.Errorf("%s does not contain PostgreSQL's server (postgres and initdb); use a folder like "+
					"/usr/lib/postgresql/15/bin", binDir)
			}
			continue
		}
		if err != nil {
			return binaries{}, err
		}
		if major == 0 || b.major == major {
			return b, nil
		}
	}
	if major != 0 {
		return binaries{}, fmt.Errorf("the server of PostgreSQL %d is neither on PATH nor in %s; install it: apt-get install "+
			"postgresql-%[1]d", major, root)
	}
	return binaries{}, fmt.Errorf("no PostgreSQL server is on PATH or in %s; install one (apt-get install postgresql) or "+
		"name the folder of postgres and initdb with --pg-bin", root)
}

// majorOf is the major in a path such as /usr/lib/postgresql/15/bin.
func majorOf(bin string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return n
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// inspect describes the server in dir. The error is os.ErrNotExist if there is none.
func inspect(dir string) (binaries, error) {
	postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return binaries{}, os.ErrNotExist
	}
	b := binaries{dir: filepath.Dir(postgres)}
	if _, err := os.Stat(filepath.Join(b.dir, "initdb")); err != nil {
		return binaries{}, os.ErrNotExist
	}
	cmd := exec.Command(postgres, "--version")
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return binaries{}, fmt.Errorf("%s --version: %w: %s", postgres, err, out)
	}
	m := versionText.FindSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("%s --version gives no version of PostgreSQL: %s", postgres, out)
	}
	b.version = string(m[1])
	b.major, err = strconv.Atoi(string(m[2]))
	return b, err
}
