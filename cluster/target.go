package cluster

import (
	"path"
	"slices"
	"strings"
)

// SystemBucket is where Clary keeps what jobs produce. Users may have prefixes of their own in it.
const SystemBucket = "clary"

// ownFolders are those of the bucket that Clary writes: a job's output there would be in another
// job's folder, a model's version, or what somebody has uploaded, and be deleted with it.
func ownFolders() []string { return []string{"jobs", "models", "uploads"} }

// CheckTarget reports an address that no job's output may go to. The key is read as a path,
// since that is how names below it are made.
func CheckTarget(p *Problems, field, uri string) {
	before := len(*p)
	checkURI(p, field, uri)
	bucket, key, _ := strings.Cut(strings.TrimPrefix(uri, "s3://"), "/")
	if len(*p) > before || bucket != SystemBucket {
		return
	}
	top, _, _ := strings.Cut(path.Clean("/" + key)[1:], "/")
	switch {
	case top == "":
		p.Add(field, "%q is the root of Clary's own bucket: name a prefix, as s3://%s/NAME/, or another bucket", Clip(uri), SystemBucket)
	case slices.Contains(ownFolders(), top):
		p.Add(field, "%q is below s3://%s/%s/, where Clary keeps what is its own: name another prefix, as s3://%s/NAME/, or another bucket",
			Clip(uri), SystemBucket, top, SystemBucket)
	}
}
