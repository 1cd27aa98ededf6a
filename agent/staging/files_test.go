package staging_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// exported exports a folder to a place of the store.
func exported(t *testing.T, store staging.Store, folder, place string) (cluster.Output, bool, error) {
	t.Helper()
	return staging.Export(t.Context(), store, "data", staging.Folder{Base: folder}, "s3://data/"+place, t.TempDir(), nil)
}

// lines are those of an output's listing.
func lines(t *testing.T, store staging.Store, place string) (text string, all []object.Listed) {
	t.Helper()
	body, _, err := store.Open(t.Context(), "data", place+".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := object.ReadListing(bytes.NewReader(whole), func(l object.Listed) error { all = append(all, l); return nil }); err != nil {
		t.Fatal(err)
	}
	return string(whole), all
}

func TestFilesBecomeObjectsAndTheSameOnesTheSameListing(t *testing.T) {
	store, folder := newStore(t, nil), t.TempDir()
	for i := range 600 { // more than are sent in one go
		write(t, strings.Repeat("x", i), folder, fmt.Sprintf("many/%03d", i))
	}
	write(t, "a<b", folder, "z <&> é")
	output, some, err := exported(t, store, folder, "one")
	if err != nil || !some || output.Files != 601 || output.Size != 600*599/2+3 || output.URI != "s3://data/one.jsonl" || output.Name != "data" {
		t.Fatalf("%+v, %v, %v", output, some, err)
	}
	again, _, err := exported(t, store, folder, "two")
	first, all := lines(t, store, "one")
	second, _ := lines(t, store, "two")
	if err != nil || again.SHA256 != output.SHA256 || first != second {
		t.Errorf("the same files make another listing: %v", err)
	}
	if last := all[600]; last.Name != "z <&> é" || last.Size != 3 || all[7].Name != "many/007" {
		t.Errorf("listed are %+v and %+v", all[7], last)
	}
	for _, line := range all {
		found, err := store.Stat(t.Context(), "data", "one/"+line.Name)
		if err != nil || found.Size != line.Size {
			t.Fatalf("%s: %+v, %v", line.Name, found, err)
		}
	}
}

func TestLinksPipesAndFoldersAreNoFiles(t *testing.T) {
	store := newStore(t, nil)
	folder, _ := hostile(t)
	write(t, "fine", folder, "deep", "file")
	output, some, err := exported(t, store, folder, "kept")
	if err != nil || !some || output.Files != 1 {
		t.Fatalf("%+v, %v, %v", output, some, err)
	}
	if found := keys(t, store, "kept"); len(found) != 2 || found[0] != "kept/deep/file" {
		t.Errorf("the store holds %q", found)
	}
	empty := t.TempDir()
	if err := os.Mkdir(filepath.Join(empty, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, some, err := exported(t, store, empty, "none"); err != nil || some {
		t.Errorf("a folder without files is an output: %v", err)
	}
	if _, some, err := exported(t, store, filepath.Join(empty, "gone"), "none"); err != nil || some {
		t.Errorf("a folder that is not there is an output: %v", err)
	}
	write(t, "x", empty, "\xff")
	if _, _, err := exported(t, store, empty, "none"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("a name that is no text: %v", err)
	}
	if found := keys(t, store, "none"); len(found) != 0 {
		t.Errorf("the store holds %q", found)
	}
}
