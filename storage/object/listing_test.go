package object_test

import (
	"bytes"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

func TestAListingLiesBesideItsFolder(t *testing.T) {
	for _, text := range []string{"s3://bucket/jobs/x/outputs/data", "s3://bucket/jobs/x/outputs/data/"} {
		folder, err := object.ParseURI(text)
		if err != nil {
			t.Fatal(err)
		}
		listing := object.Listing(folder)
		back, err := object.ListedFolder(listing)
		if err != nil || listing.String() != "s3://bucket/jobs/x/outputs/data.jsonl" || back.String() != "s3://bucket/jobs/x/outputs/data/" {
			t.Errorf("%s has %s, and that %s: %v", text, listing, back, err)
		}
	}
	if _, err := object.ListedFolder(object.URI{Bucket: "bucket", Key: "model.tar.gz"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("an archive is no listing: %v", err)
	}
}

func TestAListingThatIsCutOrNoneIsRefused(t *testing.T) {
	for text, kind := range map[string]fault.Kind{
		`{"name": "a"}`:                     fault.Unready, // its newline is missing: so may be more
		"{\"name\": \"a\"}\n{\"na":          fault.Unready,
		"rubbish\n":                         fault.Invalid,
		"{\"name\": \"../a\"}\n":            fault.Invalid,
		"{\"name\": \"/a\"}\n":              fault.Invalid,
		"{\"name\": \"\"}\n":                fault.Invalid,
		"{\"name\": \"a//b\"}\n":            fault.Invalid,
		"{\"name\": \"a\", \"size\": []}\n": fault.Invalid,
	} {
		if err := object.ReadListing(strings.NewReader(text), func(object.Listed) error { return nil }); !fault.Is(err, kind) {
			t.Errorf("%q: %v", text, err)
		}
	}
	full := errors.New("enough")
	if err := object.ReadListing(strings.NewReader("{\"name\": \"a\"}\n"), func(object.Listed) error { return full }); !errors.Is(err, full) {
		t.Errorf("who takes it refuses: %v", err)
	}
}

func FuzzReadListing(f *testing.F) {
	f.Add([]byte("{\"name\": \"a/b\", \"size\": 3, \"sha256\": \"x\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = object.ReadListing(bytes.NewReader(text), func(listed object.Listed) error {
			if path.IsAbs(listed.Name) || path.Clean(listed.Name) != listed.Name || listed.Name == ".." || strings.HasPrefix(listed.Name, "../") || listed.Name == "." {
				t.Errorf("%q leads elsewhere", listed.Name)
			}
			return nil
		})
	})
}
