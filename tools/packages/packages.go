// Package packages writes the packages for Debian and Red Hat from packaging/nfpm.yaml.
package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

// Formats are the formats of the packages that Write can write.
var Formats = []string{"deb", "rpm"}

// Write writes a package into a folder and returns its path. It reads the configuration and the files that this names from
// the current folder, the root of the repository. Variables stand for what only the build knows.
func Write(folder, format string, at time.Time, variables map[string]string) (string, error) {
	const configuration = "packaging/nfpm.yaml"
	config, err := nfpm.ParseFileWithEnvMapping(configuration, func(name string) string { return variables[name] })
	if err != nil {
		return "", fmt.Errorf("%s: %w", configuration, err)
	}
	info, err := config.Get(format)
	if err != nil {
		return "", fmt.Errorf("%s: %w", configuration, err)
	}
	info.MTime = at
	info = nfpm.WithDefaults(info)
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return "", fmt.Errorf("%s: %w", configuration, err)
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, packager.ConventionalFileName(info))
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if err := packager.Package(info, file); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return path, file.Close()
}
