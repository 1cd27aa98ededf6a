package object

import (
	"strings"
	"unicode/utf8"

	"github.com/clary-ml/clary/internal/fault"
)

// URI names an object, or with an empty or partial key a bucket or a prefix.
type URI struct {
	Bucket string
	Key    string
}

// String returns s3://bucket/key.
func (u URI) String() string { return "s3://" + u.Bucket + "/" + u.Key }

// ParseURI reads s3://bucket/key; the key may be empty.
func ParseURI(text string) (URI, error) {
	rest, ok := strings.CutPrefix(text, "s3://")
	if !ok {
		return URI{}, fault.New(fault.Invalid, "%q: it must look like s3://bucket/key", text)
	}
	var u URI
	u.Bucket, u.Key, _ = strings.Cut(rest, "/")
	if !bucketName(u.Bucket) {
		return URI{}, fault.New(fault.Invalid,
			"%q: the bucket %q must be 3 to 63 of a-z, 0-9, dot and dash, beginning and ending with a letter or digit", text, u.Bucket)
	}
	if u.Key != "" {
		if err := u.checkKey(); err != nil {
			return URI{}, err
		}
	}
	return u, nil
}

func bucketName(s string) bool {
	ok := len(s) >= 3 && len(s) <= 63 && !strings.Contains(s, "..")
	for i, c := range []byte(s) {
		inner := i > 0 && i < len(s)-1
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || inner && (c == '-' || c == '.'))
	}
	return ok
}

// checkKey refuses keys that a store backed by a folder would read as another place.
func (u URI) checkKey() error {
	if u.Key == "" {
		return fault.New(fault.Invalid, "%s: the key is empty", u)
	}
	if len(u.Key) > 1024 || !utf8.ValidString(u.Key) || strings.ContainsRune(u.Key, 0) {
		return fault.New(fault.Invalid, "%q: the key must be at most 1024 bytes of UTF-8 without NUL", u)
	}
	for _, part := range strings.Split(strings.TrimSuffix(u.Key, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return fault.New(fault.Invalid, "%q: the key has an empty part, . or .. between its slashes", u)
		}
	}
	return nil
}
