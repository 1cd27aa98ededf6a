package object

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Listed is a line of a listing: an object below the listing's folder.
type Listed struct {
	Name   string `json:"name"` // below the folder, with slashes
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// listingSuffix is what a listing's key has beyond that of its folder.
const listingSuffix = ".jsonl"

// Listing is where the listing of a folder's objects is: s3://b/x/data/ has s3://b/x/data.jsonl.
func Listing(folder URI) URI {
	folder.Key = strings.TrimSuffix(folder.Key, "/") + listingSuffix
	return folder
}

// ListedFolder is the prefix of what a listing names.
func ListedFolder(listing URI) (URI, error) {
	key, is := strings.CutSuffix(listing.Key, listingSuffix)
	if !is || key == "" {
		return URI{}, fault.New(fault.Invalid, "%s is no listing: its name does not end with %s", listing, listingSuffix)
	}
	listing.Key = key + "/"
	return listing, nil
}

// ReadListing hands on the lines of a listing, in its order, until one is refused.
func ReadListing(from io.Reader, take func(Listed) error) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fault.New(fault.Unready, "the listing was cut short: %w", err)
		}
		var listed Listed
		if err := json.Unmarshal(line, &listed); err != nil {
			return fault.New(fault.Invalid, "it is no listing: %w", err)
		}
		if name := listed.Name; name == "" || path.Clean("/"+name) != "/"+name {
			return fault.New(fault.Invalid, "it is no listing: %q is no name of an object", name)
		}
		if err := take(listed); err != nil {
			return err
		}
	}
}
