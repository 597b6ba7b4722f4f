package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"rolecall/tools/archive"
	"rolecall/tools/image"
)

// archives writes one for each platform: the program, its license, what has changed, manual pages and completions.
func (b *build) archives() error {
	documents, err := documents()
	if err != nil {
		return err
	}
	defer os.RemoveAll(documents)
	for _, platform := range b.platforms {
		name := "rolecall-" + b.version + "-" + platform
		var files []archive.File
		for _, from := range []string{"CHANGELOG.md", "LICENSE", program(platform)} {
			file, err := read(from, path.Join(name, filepath.Base(from)))
			if err != nil {
				return err
			}
			files = append(files, file)
		}
		more, err := folder(documents, name)
		if err != nil {
			return err
		}
		if err := b.compressed(name+".tar.gz", append(files, more...)); err != nil {
			return err
		}
	}
	return nil
}

// bills copies the bill of materials of each program.
func (b *build) bills() error {
	for _, platform := range b.platforms {
		bill, err := os.ReadFile(program(platform) + ".cdx.json")
		if err != nil {
			return err
		}
		name := "rolecall-" + b.version + "-" + platform + ".cdx.json"
		if err := os.WriteFile(filepath.Join(b.out, name), bill, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// chart writes the Helm chart as helm package does: with the version of the release, whatever Chart.yaml has.
func (b *build) chart() error {
	const chart = "deploy/helm/rolecall"
	files, err := folder(chart, "rolecall")
	if err != nil {
		return err
	}
	for i, f := range files {
		if f.Name != "rolecall/Chart.yaml" {
			continue
		}
		var fields map[string]any
		if err := yaml.Unmarshal(f.Data, &fields); err != nil {
			return fmt.Errorf("%s/Chart.yaml: %w", chart, err)
		}
		fields["version"], fields["appVersion"] = b.version, b.version
		if files[i].Data, err = yaml.Marshal(fields); err != nil {
			return err
		}
	}
	return b.compressed("rolecall-chart-"+b.version+".tgz", files)
}

// imageArchive packs the image into one file, as skopeo, podman load and docker load read it.
func (b *build) imageArchive() error {
	files, err := folder(b.imageFolder(), "")
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(b.out, "rolecall-"+image.Tag(b.version)+"-image.tar"))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := archive.Tar(out, b.time, files); err != nil {
		return err
	}
	if err := os.RemoveAll(b.imageFolder()); err != nil {
		return err
	}
	return out.Close()
}

// checksums writes SHA256SUMS, which sha256sum --check reads.
func (b *build) checksums() error {
	entries, err := os.ReadDir(b.out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, entry := range entries {
		file, err := os.Open(filepath.Join(b.out, entry.Name()))
		if err != nil {
			return err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, file)
		file.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sum.Sum(nil), entry.Name())
	}
	return os.WriteFile(filepath.Join(b.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

func (b *build) compressed(name string, files []archive.File) error {
	out, err := os.Create(filepath.Join(b.out, name))
	if err != nil {
		return err
	}
	defer out.Close()
	if err := archive.TarGzip(out, b.time, files); err != nil {
		return err
	}
	return out.Close()
}

// read reads a file for an archive. Its mode there depends only on whether it is a program.
func read(from, name string) (archive.File, error) {
	data, err := os.ReadFile(from)
	if err != nil {
		return archive.File{}, err
	}
	info, err := os.Stat(from)
	if err != nil {
		return archive.File{}, err
	}
	mode := int64(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	return archive.File{Name: name, Mode: mode, Data: data}, nil
}

// folder reads all files below a folder, in the order of their names.
func folder(from, name string) (files []archive.File, err error) {
	err = filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		file, err := read(path, filepath.ToSlash(filepath.Join(name, relative)))
		files = append(files, file)
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no files", from)
	}
	return files, err
}
