package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/internal/fault"
)

// UploadsPrefix is where local inputs go, each below the digest of its content: the
// same file twice is one object.
const UploadsPrefix = "s3://clary/uploads/"

// Upload stores a file or a folder under its digest, unless it is there already.
func (a App) Upload(ctx context.Context, c *client.Client, path string) (string, error) {
	uri, err := UploadURI(path)
	if err != nil {
		return "", err
	}
	files, err := filesBelow(path)
	if err != nil {
		return "", err
	}
	old := false
	for _, file := range files {
		target := uri
		if strings.HasSuffix(uri, "/") {
			target += file.name
		}
		if known, err := c.StatObject(ctx, target); err == nil && known.Size == file.size {
			old = old || UploadedLongAgo(known)
			continue
		} else if err != nil && !fault.Is(err, fault.NotFound) {
			return "", err
		}
		if err := a.Put(ctx, c, file.path, target); err != nil {
			return "", err
		}
	}
	if old {
		return uri, UseAgain(ctx, c, uri)
	}
	return uri, nil
}

// usedMark is beside what an upload holds. No file is there under that name: commas are escaped.
const usedMark = "/used,"

// renewAfter is how old an upload is when it is marked as used again: less than any cluster keeps one that nothing names.
const renewAfter = 12 * time.Hour

// UploadedLongAgo reports whether an upload must be marked as used again.
func UploadedLongAgo(known client.Object) bool {
	return time.Since(time.Unix(0, known.Modified)) > renewAfter
}

// UseAgain marks an upload as used now, beside what it holds, so that the cluster keeps it until its job is there.
func UseAgain(ctx context.Context, c *client.Client, uri string) error {
	folder, _, _ := strings.Cut(strings.TrimPrefix(uri, UploadsPrefix), "/")
	text := time.Now().UTC().Format(time.RFC3339) + "\n"
	_, err := c.PutObject(ctx, UploadsPrefix+folder+usedMark, strings.NewReader(text), int64(len(text)))
	return err
}

type localFile struct {
	path string
	name string // relative to the folder, with slashes
	size int64
}

// filesBelow is a file itself, or all files of a folder in the order of their names.
func filesBelow(path string) ([]localFile, error) {
	var files []localFile
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fault.New(fault.Invalid, "%s is not a regular file", name)
		}
		relative, err := filepath.Rel(path, name)
		files = append(files, localFile{path: name, name: filepath.ToSlash(relative), size: info.Size()})
		return err
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	if len(files) == 0 {
		return nil, fault.New(fault.Invalid, "%s holds no file", path)
	}
	return files, nil
}

// ContentDigest is the SHA-256 of a file, or of all that a folder holds.
func ContentDigest(path string) (string, error) {
	files, err := filesBelow(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	digest := sha256.New()
	for _, file := range files {
		if info.IsDir() {
			fmt.Fprintf(digest, "%d %s\x00%d\x00", len(file.name), file.name, file.size)
		}
		if err := HashFile(digest, file.path); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// UploadURI is where a file or folder belongs: below the digest of all it holds.
func UploadURI(path string) (string, error) {
	digest, err := ContentDigest(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "%s: %w", path, err)
	}
	uri := UploadsPrefix + digest + "/" + url.PathEscape(filepath.Base(absolute))
	if info.IsDir() {
		uri += "/"
	}
	return uri, nil
}

// HashFile feeds a file to a digest.
func HashFile(digest io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	defer file.Close()
	if _, err := io.Copy(digest, file); err != nil {
		return fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	return nil
}
