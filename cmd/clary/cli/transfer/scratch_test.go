package transfer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
)

func pack(t *testing.T, entries ...tar.Header) string {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	w := tar.NewWriter(zipped)
	for _, entry := range entries {
		body := []byte("body")
		if entry.Typeflag != tar.TypeReg {
			body = nil
		}
		entry.Size, entry.Mode = int64(len(body)), 0o644
		if err := w.WriteHeader(&entry); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.tar.gz")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAModelArchiveCannotWriteOutsideOfItsFolder(t *testing.T) {
	regular := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	for name, entries := range map[string][]tar.Header{
		"a path upwards":   {regular("../evil")},
		"an absolute path": {regular("/evil")},
		"a link":           {{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, regular("link/evil")},
		"a file twice":     {regular("a"), regular("a")},
		"a device":         {{Name: "null", Typeflag: tar.TypeChar}},
	} {
		s := &Scratch{folder: t.TempDir()}
		if target, err := s.Unpack(pack(t, entries...), maxUnpacked); err == nil {
			t.Errorf("%s: unpacked to %s", name, target)
		}
		if _, err := os.Stat(filepath.Join(s.folder, "evil")); err == nil {
			t.Errorf("%s: written outside", name)
		}
	}
	s := &Scratch{folder: t.TempDir()}
	target, err := s.Unpack(pack(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, regular("./sub/weights.bin")), maxUnpacked)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(target, "sub", "weights.bin")); string(data) != "body" {
		t.Errorf("%q, %v", data, err)
	}
}
