// Command release makes the bundle that Clary is installed from where there is no network: the binary, units, the install
// script, completions, the documentation as pages, examples and the licences of everything inside, in one archive with
// checksums. The same sources and binary give the same bytes. `make release` runs it.
package main

import (
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	var r release
	var epoch string
	flag.StringVar(&r.root, "root", ".", "folder of Clary's sources")
	flag.StringVar(&r.binary, "binary", "bin/clary", "the built clary")
	flag.StringVar(&r.to, "to", "bin/release", "folder for the archive and its checksum")
	flag.StringVar(&epoch, "epoch", os.Getenv("SOURCE_DATE_EPOCH"), "time of all files, in seconds since 1970 (default: SOURCE_DATE_EPOCH, or 1980)")
	flag.Parse()
	archive, err := r.run(epoch)
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
	fmt.Println(archive)
}

// release is where a bundle is made from, and to.
type release struct {
	root, binary, to string
}

// the time of files where none is named: the first that every format of archive knows.
var beginning = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// run makes the archive and returns its path.
func (r release) run(epoch string) (string, error) {
	at := beginning
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return "", fmt.Errorf("-epoch: %q is no number of seconds: %w", epoch, err)
		}
		at = time.Unix(seconds, 0).UTC()
	}
	info, err := buildinfo.ReadFile(r.binary)
	if err != nil {
		return "", fmt.Errorf("-binary %s: %w: make build makes it", r.binary, err)
	}
	version, err := r.says("--version")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(version))
	b := bundle{version: fields[len(fields)-1], platform: platform(info), files: map[string]file{}}
	for _, part := range []func(*bundle) error{r.program, r.completions, r.sources, r.documentation} {
		if err := part(&b); err != nil {
			return "", err
		}
	}
	if err := licences(&b, info, r.root); err != nil {
		return "", err
	}
	b.finish()
	if err := os.MkdirAll(r.to, 0o755); err != nil {
		return "", err
	}
	return b.write(r.to, at)
}

// platform is what a binary was built for, like linux-amd64.
func platform(info *buildinfo.BuildInfo) string {
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	return settings["GOOS"] + "-" + settings["GOARCH"]
}

// says runs the binary and returns what it prints.
func (r release) says(args ...string) ([]byte, error) {
	path, err := filepath.Abs(r.binary)
	if err != nil {
		return nil, err
	}
	command := exec.Command(path, args...)
	command.Env = []string{"HOME=/nonexistent", "PATH=" + os.Getenv("PATH")}
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.binary, strings.Join(args, " "), err)
	}
	return out, nil
}

func (r release) program(b *bundle) error {
	data, err := os.ReadFile(r.binary)
	if err != nil {
		return err
	}
	b.add("bin/clary", data, true)
	return nil
}

// completions are named as each shell looks for them.
func (r release) completions(b *bundle) error {
	for shell, name := range map[string]string{"bash": "clary", "zsh": "_clary", "fish": "clary.fish"} {
		text, err := r.says("completion", shell)
		if err != nil {
			return err
		}
		b.add("completions/"+shell+"/"+name, text, false)
	}
	return nil
}

// sources are the files that go in as they are.
func (r release) sources(b *bundle) error {
	for from, to := range map[string]string{
		"LICENSE":           "docs/licenses/clary/LICENSE",
		"deploy/install.sh": "install.sh",
		"deploy/systemd":    "systemd",
		"deploy/compose":    "docs/compose",
		"deploy/monitoring": "docs/monitoring",
		"examples":          "docs/examples",
		"sdk/python/src":    "docs/sdk/python/src",
	} {
		if err := b.addTree(filepath.Join(r.root, from), to); err != nil {
			return err
		}
	}
	for _, name := range []string{"pyproject.toml", "README.md"} {
		if err := b.addTree(filepath.Join(r.root, "sdk/python", name), "docs/sdk/python/"+name); err != nil {
			return err
		}
	}
	return nil
}
