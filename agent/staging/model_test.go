package staging_test

import (
	"bytes"
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
