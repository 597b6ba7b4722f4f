package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"rolecall/internal/localpg"
)

// Majors are those of PostgreSQL that the tests run on, oldest first.
var Majors = []int{14, 15, 16, 17, 18, 19}

// variable names the major that Shared and New use.
const variable = "ROLECALL_TEST_MAJOR"

// EachMajor runs f on some majors, in parallel. If ROLECALL_TEST_MAJOR names a major, f runs on that one or not at all. It
// is for packages that scripts/test-majors runs on each of these majors.
func EachMajor(t *testing.T, majors []int, f func(t *testing.T, major int)) {
	only := os.Getenv(variable)
	for _, major := range majors {
		if name := strconv.Itoa(major); only == "" || only == name {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, major)
			})
		}
	}
}

// findBinaries returns the folder of a major's postgres and initdb. 0 is the major that the environment variable
// ROLECALL_TEST_MAJOR names, else the PostgreSQL that Rolecall itself would find.
func findBinaries(major int) (string, error) {
	if name := os.Getenv(variable); name != "" && major == 0 {
		var err error
		if major, err = strconv.Atoi(name); err != nil {
			return "", fmt.Errorf("%s must be a major of PostgreSQL, such as 16: %w", variable, err)
		}
	}
	if major == 0 {
		bin, _, err := localpg.FindBinaries("", 0)
		return bin, err
	}
	cache, err := installed()
	if err != nil {
		return "", err
	}
	bin, found, err := localpg.FindBinaries(filepath.Join(cache, strconv.Itoa(major), "bin"), 0)
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL %d: %w; run scripts/install-majors", major, err)
	}
	if found != major {
		return "", fmt.Errorf("%s holds PostgreSQL %d, not %d", bin, found, major)
	}
	return bin, nil
}

// installed is the folder that scripts/install-majors fills. Root's own cache is closed to the OS user that servers run
// as when the tests run as root.
func installed() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/rolecall/postgresql", nil
	}
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "rolecall", "postgresql"), err
}
