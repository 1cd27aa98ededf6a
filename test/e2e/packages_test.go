package e2e

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostileBackend builds a package as pip asks for, and tries on the way what it must not: to
// read and write what is not its own, to stay behind, and to have the agent, who is root,
// follow a link.
const hostileBackend = `
import glob, os, subprocess, sys, zipfile
def build_wheel(to, config_settings=None, metadata_directory=None):
    said = ["uid %d" % os.getuid()]
    for path in set(glob.glob("@DATA@/*") + glob.glob("@DATA@/*/*")) - {"@DATA@/python", os.path.dirname(os.path.dirname(os.environ["HOME"]))} | {"/etc/shadow", "@VICTIM@"}:
        try:
            open(path).read(1)
            said.append("read " + path)
        except IsADirectoryError:
            said.append("saw " + path)
        except OSError:
            pass
    for path in ["/etc/x", "/usr/x", "/var/tmp/x", "@DATA@/x"]:
        try:
            open(path, "w").close()
            said.append("wrote " + path)
        except OSError:
            pass
    venv = os.environ["HOME"][:-len("/.home")]
    for name in [".clary-complete", "../.clary-complete", "lib/linked"]:
        try:
            os.symlink("@VICTIM@", os.path.join(venv, name))
        except OSError:
            pass
    subprocess.Popen(["setsid", "sleep", "4321"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    name = "hostile-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(to, name), "w") as wheel:
        wheel.writestr("hostile.py", "said = %r\n" % said)
        wheel.writestr("hostile-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
        wheel.writestr("hostile-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("hostile-1.0.dist-info/RECORD", "hostile.py,,\nhostile-1.0.dist-info/METADATA,,\nhostile-1.0.dist-info/WHEEL,,\nhostile-1.0.dist-info/RECORD,,\n")
    return name
`

// sdist writes a package of source that builds itself by a backend of its own.
func (m *machines) sdist(backend string) {
	m.T.Helper()
	file, err := os.Create(m.Path("wheels/hostile-1.0.tar.gz"))
	if err != nil {
		m.T.Fatal(err)
	}
	zipped := gzip.NewWriter(file)
	archive := tar.NewWriter(zipped)
	for name, text := range map[string]string{
		"PKG-INFO":       "Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n",
		"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n[project]\nname = \"hostile\"\nversion = \"1.0\"\n",
		"backend.py":     backend,
	} {
		err = errors.Join(err, archive.WriteHeader(&tar.Header{Name: "hostile-1.0/" + name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, wrote := archive.Write([]byte(text))
		err = errors.Join(err, wrote)
	}
	if err := errors.Join(err, archive.Close(), zipped.Close(), file.Close()); err != nil {
		m.T.Fatal(err)
	}
}

func TestAHostilePackageGainsNothingByBeingInstalled(t *testing.T) {
	m := start(t, 1, 0)
	wheels := m.wheelhouse()
	m.Agent("n1", "--wheelhouse", wheels, "--task-disk", "200MiB")
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	victim := m.File("victim", "precious")
	m.sdist(strings.NewReplacer("@DATA@", m.Path("n1"), "@VICTIM@", victim).Replace(hostileBackend))
	source := m.tree("hostile", map[string]string{"main.py": "import hostile; print(hostile.said)\n"})
	train := func(code int, name string) string {
		return m.Exits(code, "train", "--script", "main.py", "--source", source, "--requirements", m.File("requirements.txt", "hostile==1.0\n"), "--name", name)
	}
	train(0, "installs")
	said := m.Exits(0, "logs", "installs")
	if !strings.Contains(said, "['uid 2") || strings.Contains(said, "read") || strings.Contains(said, "wrote") || strings.Contains(said, "saw") {
		t.Errorf("it said %s", said)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the victim is %q, %v", text, err)
	}
	if info, err := os.Stat(victim); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the victim has another owner: %v", err)
	}
	for _, pid := range m.PIDs("sleep") {
		if words, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(words), "4321") {
			t.Errorf("process %d stayed behind", pid)
		}
	}
	var writable []string
	_ = filepath.WalkDir(m.Path("n1/python"), func(path string, item os.DirEntry, _ error) error {
		if info, err := item.Info(); err == nil && info.Sys().(*syscall.Stat_t).Uid != 0 {
			writable = append(writable, path)
		}
		return nil
	})
	if len(writable) > 0 {
		t.Errorf("not root's: %v", writable)
	}

	// One that takes more than it may is ended, and it is said.
	m.sdist("def build_wheel(to, config_settings=None, metadata_directory=None):\n    import time\n    open(to + '/big', 'wb').write(bytes(400 << 20))\n    time.sleep(60)\n")
	if out := m.Exits(1, "train", "--script", "main.py", "--source", source, "--requirements", m.File("again.txt", "hostile==1.0\n# again\n"), "--name", "fills"); !strings.Contains(out, "more disk than it may (limit 200 MiB)") {
		t.Errorf("it said %s", out)
	}
}
