package staging_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/internal/fault"
)

func TestAMirrorTakesAsManyFilesAsItIsToldTo(t *testing.T) {
	dir, store := t.TempDir(), stagingtest.Store{Dir: t.TempDir()}
	mirror := staging.Mirror{Store: store, Folder: staging.Folder{Base: dir}, Bucket: "data", Prefix: "live/", Keep: true, Max: 3}
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"a", "b"} { // is none
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := mirror.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sent, err := store.List(t.Context(), "data", "live/"); err != nil || len(sent) != 3 {
		t.Errorf("it has %v, %v", sent, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "3"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Finish(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "more than 3 files: put them into fewer") {
		t.Errorf("one more: %v", err)
	}
}
