package staging_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func TestAModelComesToItsFolderUnpackedIfItIsAnArchive(t *testing.T) {
	packed := t.TempDir()
	for name, text := range map[string]string{"weights": "w", "code/inference.py": "pass"} {
		at := filepath.Join(packed, name)
		_ = os.MkdirAll(filepath.Dir(at), 0o755)
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	if err := staging.Pack(t.Context(), packed, &archive, nil); err != nil {
		t.Fatal(err)
	}
	store := newStore(t, map[string]string{"m/model.tar.gz": archive.String(), "m/net.onnx": "onnx", "parts/a": "1", "parts/deep/b": "2", "bad/model.tar.gz": "no archive"})
	cache := newCache(t, t.TempDir(), 1<<20)
	for _, test := range []struct {
		uri  string
		want map[string]string
	}{
		{"s3://data/m/model.tar.gz", map[string]string{"weights": "w", "code/inference.py": "pass"}},
		{"s3://data/m/net.onnx", map[string]string{"net.onnx": "onnx"}},
		{"s3://data/parts/", map[string]string{"a": "1", "deep/b": "2"}},
	} {
		folder, scratch := t.TempDir(), t.TempDir()
		for range 2 { // a preparation that was cut short begins again
			input := cluster.Input{Channel: "model", URI: test.uri, Model: true}
			if _, err := staging.FetchModel(t.Context(), store, cache, input, scratch, folder); err != nil {
				t.Fatal(err)
			}
		}
		if got := filesOf(t, folder); !maps.Equal(got, test.want) {
			t.Errorf("%s becomes %q", test.uri, got)
		}
		if left := filesOf(t, scratch); len(left) > 0 {
			t.Errorf("%s leaves %q", test.uri, left)
		}
	}
	for uri, want := range map[string]string{"s3://data/bad/model.tar.gz": "no .tar.gz", "s3://data/none.tar.gz": "there is no object"} {
		_, err := staging.FetchModel(t.Context(), store, cache, cluster.Input{Channel: "model", URI: uri, Model: true}, t.TempDir(), t.TempDir())
		if err == nil || fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func filesOf(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(folder, func(at string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		text, err := os.ReadFile(at)
		name, _ := filepath.Rel(folder, at)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// headed is an archive that has its own folder so many times, and then the head of a file of a size, which is cut short.
func headed(t *testing.T, folders int, size int64) string {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	for range folders {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "weights", Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Flush(), zipped.Close()); err != nil && size == 0 {
		t.Fatal(err)
	}
	return packed.String()
}

func TestAModelMayBeLargerThanCode(t *testing.T) {
	for claim, test := range map[string]struct {
		folders int
		size    int64
		code    string // of a task
		model   string
	}{
		"many bytes":     {0, 5 << 30, "more than 4 GiB unpacked: leave out what the program does not need", "unexpected EOF"},
		"many files":     {100_000, 0, "more than 100000 files: leave out", ""},
		"too many bytes": {0, 64<<30 + 1, "more than 4 GiB", "more than 64 GiB unpacked: keep its files below a prefix"},
	} {
		t.Run(claim, func(t *testing.T) {
			archive := headed(t, test.folders, test.size)
			store, cache := newStore(t, map[string]string{"m/model.tar.gz": archive}), newCache(t, t.TempDir(), 1<<20)
			_, err := staging.FetchModel(t.Context(), store, cache, cluster.Input{Channel: "model", URI: "s3://data/m/model.tar.gz", Model: true}, t.TempDir(), t.TempDir())
			says(t, "a model", err, test.model)
			says(t, "code", staging.FetchSource(t.Context(), store, cache, "s3://data/m/model.tar.gz", t.TempDir(), t.TempDir()), test.code)
		})
	}
}

func says(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}
