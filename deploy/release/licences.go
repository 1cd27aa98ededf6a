package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// licenceName is how files are called that say under what terms something may be used.
var licenceName = regexp.MustCompile(`(?i)^(licen[sc]e|copying|notice|patents|copyright|unlicense|authors)([-._].*)?$`)

// licences adds the terms of every module that is inside the binary, and of Go itself. A module without any is an error.
func licences(b *bundle, info *buildinfo.BuildInfo, root string) error {
	folders, err := modules(root)
	if err != nil {
		return err
	}
	var index bytes.Buffer
	fmt.Fprintf(&index, "Clary %s is under the Apache License 2.0. Inside of it are, each under the terms in its folder here:\n\n", b.version)
	for _, dep := range slices.SortedFunc(slices.Values(info.Deps), func(a, b *debug.Module) int { return strings.Compare(a.Path, b.Path) }) {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		dir := folders[dep.Path+"@"+dep.Version]
		if dir == "" {
			return fmt.Errorf("%s %s is in the binary and not in go.mod's list: build the binary from these sources", dep.Path, dep.Version)
		}
		n, err := terms(b, dir, dep.Path)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%s %s has no file that says its licence: it must not be given on", dep.Path, dep.Version)
		}
		fmt.Fprintf(&index, "%s %s\n", dep.Path, dep.Version)
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find Go: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(goroot)), "LICENSE"))
	if err != nil {
		return fmt.Errorf("the licence of Go itself: %w", err)
	}
	b.add("docs/licenses/go/LICENSE", text, false)
	fmt.Fprintf(&index, "go %s\n", info.GoVersion)
	b.add("docs/licenses/MODULES", index.Bytes(), false)
	return nil
}

// modules are the folders of all modules in the build list.
func modules(root string) (map[string]string, error) {
	list := exec.Command("go", "list", "-m", "-json=Path,Version,Dir,Replace", "all")
	list.Dir, list.Stderr = root, os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the modules: %w", err)
	}
	folders := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct {
			Path, Version, Dir string
			Replace            *struct{ Path, Version, Dir string }
		}
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return folders, nil
		} else if err != nil {
			return nil, err
		}
		if m.Replace != nil {
			m.Path, m.Version, m.Dir = m.Replace.Path, m.Replace.Version, m.Replace.Dir
		}
		folders[m.Path+"@"+m.Version] = m.Dir
	}
}

// terms adds a module's own files of terms, and those of what it has taken in below.
func terms(b *bundle, dir, module string) (int, error) {
	found := 0
	err := filepath.WalkDir(dir, func(at string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == "node_modules"):
			return fs.SkipDir
		case entry.IsDir() || !licenceName.MatchString(entry.Name()) || strings.HasSuffix(entry.Name(), ".go"):
			return nil
		}
		data, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		b.add("docs/licenses/"+module+"/"+filepath.ToSlash(below), data, false)
		found++
		return nil
	})
	return found, err
}
