package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// program builds a small one that stands for clary: it says its version and completions, and has a module inside.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clary")
	build := exec.Command("go", "build", "-o", path, "./testdata/program")
	build.Env = append(os.Environ(), "GOFLAGS=-trimpath -buildvcs=false", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func made(t *testing.T, binary, epoch string) []byte {
	t.Helper()
	archive, err := release{root: "../..", binary: binary, to: t.TempDir()}.run(epoch)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(archive + ".sha256")
	if want := fmt.Sprintf("%x  %s\n", sha256.Sum256(data), filepath.Base(archive)); err != nil || string(sum) != want {
		t.Errorf("beside the archive stands %q, want %q: %v", sum, want, err)
	}
	return data
}

// unpacked are an archive's files without their common folder.
func unpacked(t *testing.T, data []byte) map[string]string {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(plain); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		if want := (name == "install.sh" || name == "bin/clary"); want != (header.Mode == 0o755) && (want || !strings.HasSuffix(name, ".sh") && !strings.HasSuffix(name, ".py")) {
			t.Errorf("%s has the mode %o", name, header.Mode)
		}
		files[name] = string(text)
	}
}

func TestTheSameSourcesMakeTheSameBytes(t *testing.T) {
	binary := program(t)
	first := made(t, binary, "1700000000")
	if !bytes.Equal(first, made(t, program(t), "1700000000")) {
		t.Error("two runs made two archives")
	}
	if bytes.Equal(first, made(t, binary, "1800000000")) {
		t.Error("the time has no effect, so this test compares nothing")
	}
	files := unpacked(t, first)
	t.Run("which is whole", func(t *testing.T) { whole(t, files) })
	t.Run("whose pages lead to what is there", func(t *testing.T) { follow(t, files) })
}

func whole(t *testing.T, files map[string]string) {
	for _, name := range []string{
		"bin/clary", "install.sh", "README", "PLATFORM", "SHA256SUMS", "systemd/clary-server.service", "systemd/clary-agent.service", "systemd/clary-router.service",
		"docs/index.html", "docs/security.html", "docs/deploy.html", "docs/examples/digits/train.csv.gz", "docs/licenses/clary/LICENSE", "docs/licenses/go/LICENSE",
		"docs/licenses/github.com/spf13/pflag/LICENSE", "completions/bash/clary", "completions/zsh/_clary", "completions/fish/clary.fish",
	} {
		if files[name] == "" {
			t.Errorf("%s is missing, or empty", name)
		}
	}
	listed := map[string]bool{}
	for line := range strings.Lines(files["SHA256SUMS"]) {
		sum, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		listed[name] = true
		if sum != fmt.Sprintf("%x", sha256.Sum256([]byte(files[name]))) {
			t.Errorf("%s has another checksum", name)
		}
	}
	if len(listed) != len(files)-1 {
		t.Errorf("SHA256SUMS lists %d of %d files", len(listed), len(files)-1)
	}
}

var reference = regexp.MustCompile(`(?:href|src)="([^"#]+)(#[^"]*)?"`)

// Without a network only what is in the bundle can be shown.
func follow(t *testing.T, files map[string]string) {
	b := bundle{files: map[string]file{}}
	for name := range files {
		b.files[name] = file{}
	}
	followed := 0
	for name, text := range files {
		if path.Dir(name) != "docs" || !strings.HasSuffix(name, ".html") {
			continue
		}
		if !strings.Contains(text, "<title>") || strings.Contains(text, "<title> ·") {
			t.Errorf("%s has no title", name)
		}
		for _, found := range reference.FindAllStringSubmatch(text, -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			followed++
			target := path.Join("docs", found[1])
			if !b.holds(target) {
				t.Errorf("%s leads to %s, which is not there", name, found[1])
			}
		}
	}
	if followed < 100 {
		t.Errorf("only %d links were followed", followed)
	}
}

func TestLinksOfTheRepositoryBecomeThoseOfTheBundle(t *testing.T) {
	b := &bundle{files: map[string]file{"docs/examples/a/x.py": {}, "docs/compose/compose.yaml": {}}}
	s := site{bundle: b, pages: map[string]*page{"docs/queues.md": {Name: "queues.html"}, "README.md": {Name: "index.html"}}}
	for destination, want := range map[string]string{
		"queues.md": "queues.html", "queues.md#weights": "queues.html#weights", "../README.md": "index.html", "#here": "#here",
		"../examples/a": "examples/a", "../deploy/compose/compose.yaml": "compose/compose.yaml", "https://a.b/c": "https://a.b/c",
		"../agent/agent.go": "", "missing.md": "",
	} {
		got, ok := s.link(&page{Source: "docs/a.md"}, destination)
		if got != want || ok != (want != "") {
			t.Errorf("%s leads to %q, want %q", destination, got, want)
		}
	}
}
