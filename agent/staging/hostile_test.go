package staging_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// hostile is a folder as a task may leave it for an agent that is root.
func hostile(t *testing.T) (folder, secret string) {
	t.Helper()
	secret = filepath.Join(t.TempDir(), "secret")
	folder = t.TempDir()
	write(t, "hush", secret)
	for _, link := range [][2]string{{secret, "link"}, {filepath.Dir(secret), "dir"}} {
		if err := os.Symlink(link[0], filepath.Join(folder, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	return folder, secret
}

func TestNothingOutsideATasksFolderIsReadForIt(t *testing.T) {
	folder, _ := hostile(t)
	for _, name := range []string{"link", "dir/secret", "pipe", ".", "../secret"} {
		done := make(chan error, 1)
		go func() {
			file, err := staging.OpenIn(folder, filepath.Join(folder, name))
			if err == nil {
				_ = file.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s was opened", name)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s blocks", name)
		}
	}
	write(t, "fine", folder, "file")
	file, err := staging.OpenIn(folder, filepath.Join(folder, "file"))
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()

	store := newStore(t, nil)
	mirror, err := staging.NewMirror(store, "s3://data/ckpt", cluster.Task{Role: "worker", Attempt: 1}, staging.Folder{Base: folder})
	if err != nil {
		t.Fatal(err)
	}
	if err := mirror.Finish(t.Context()); err != nil || len(keys(t, store, "ckpt/")) != 1 {
		t.Errorf("the store holds %v, %v", keys(t, store, "ckpt/"), err)
	}
	for _, name := range []string{"pipe", "link", "dir"} {
		if err := staging.Pack(t.Context(), folder, io.Discard, nil); err == nil {
			t.Errorf("a folder with %s is packed", name)
		}
		_ = os.Remove(filepath.Join(folder, name))
	}
	if err := staging.Pack(t.Context(), folder, io.Discard, nil); err != nil {
		t.Errorf("what is left is fine: %v", err)
	}
}

type item struct {
	name, link, text string
	kind             byte
}

func archive(t *testing.T, items ...item) io.Reader {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	to := tar.NewWriter(zipped)
	for _, one := range items {
		header := &tar.Header{Name: one.name, Linkname: one.link, Typeflag: one.kind, Size: int64(len(one.text)), Mode: 0o755}
		if err := to.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(to, one.text); err != nil {
			t.Fatal(err)
		}
	}
	if to.Close() != nil || zipped.Close() != nil {
		t.Fatal("the archive cannot be made")
	}
	return &out
}

func TestASourceIsUnpackedInsideItsFolderOrNotAtAll(t *testing.T) {
	file := func(name, text string) item { return item{name: name, text: text, kind: tar.TypeReg} }
	link := func(name, to string) item { return item{name: name, link: to, kind: tar.TypeSymlink} }
	folder := t.TempDir()
	good := archive(t, file("train.py", "print(1)"), item{name: "lib/", kind: tar.TypeDir}, file("lib/a/b.py", "x"), link("lib/c", "a/b.py"), file("./deep/./d", "y"))
	if err := staging.Unpack(good, folder); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"train.py": "print(1)", "lib/c": "x", "deep/d": "y"} {
		if got := read(t, folder, name); got != want {
			t.Errorf("%s holds %q", name, got)
		}
	}
	for claim, bad := range map[string]io.Reader{
		"no archive":             strings.NewReader("rubbish"),
		"a name that leads out":  archive(t, file("../out", "x")),
		"an absolute link":       archive(t, link("l", "/etc")),
		"a link that leads out":  archive(t, link("a/l", "../../etc")),
		"a file through a link":  archive(t, link("l", "lib"), link("m", "l/../../x")),
		"a device":               archive(t, item{name: "d", kind: tar.TypeBlock}),
		"a hard link":            archive(t, item{name: "h", link: "train.py", kind: tar.TypeLink}),
		"an archive that is cut": io.LimitReader(archive(t, file("f", strings.Repeat("x", 4096))), 60),
	} {
		parent := t.TempDir()
		inner := filepath.Join(parent, "code")
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := staging.Unpack(bad, inner); err == nil {
			t.Errorf("%s is unpacked", claim)
		}
		if items, _ := os.ReadDir(parent); len(items) != 1 {
			t.Errorf("%s leaves %v outside", claim, items)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("rubbish"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parent := t.TempDir()
		inner := filepath.Join(parent, "code")
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = staging.Unpack(bytes.NewReader(text), inner)
		if items, _ := os.ReadDir(parent); len(items) != 1 {
			t.Errorf("it leaves %v outside", items)
		}
	})
}

func TestAFolderWithoutBottomIsRefusedAndRemoved(t *testing.T) {
	base := t.TempDir()
	at, err := os.OpenRoot(base)
	for range 3000 {
		if err != nil {
			t.Fatal(err)
		}
		err = at.Mkdir("d", 0o755)
		below, deeper := at.OpenRoot("d")
		_ = at.Close()
		at, err = below, errors.Join(err, deeper)
	}
	_ = at.Close()
	folder := staging.Folder{Base: base, Name: "d"}
	mirror := staging.Mirror{Store: stagingtest.Store{Dir: t.TempDir()}, Folder: folder, Bucket: "b", Prefix: "p/"}
	if err := mirror.Sync(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "lie in one another") {
		t.Errorf("mirrored: %v", err)
	}
	if err := staging.Pack(t.Context(), filepath.Join(base, "d"), io.Discard, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("packed: %v", err)
	}
	if err := folder.Remove(); err != nil {
		t.Errorf("removed: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(base, "d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	packed := tar.NewWriter(zipped)
	if err := errors.Join(packed.WriteHeader(&tar.Header{Name: strings.Repeat("d/", 5000), Typeflag: tar.TypeDir}), packed.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	if err := staging.Unpack(&archive, base); !fault.Is(err, fault.Invalid) {
		t.Errorf("unpacked: %v", err)
	}
}
