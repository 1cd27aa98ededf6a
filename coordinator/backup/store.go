package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// StoreFile is the file in a coordinator's data folder that says how to reach the S3 that backups go to. Its keys are
// nowhere else: neither in the log nor in a snapshot, nor in a backup.
const StoreFile = "backup-store.json"

// storeForm is the file's form.
type storeForm struct {
	Endpoint  string `json:"endpoint"`
	Region    string `json:"region"`
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
	CAFile    string `json:"ca_file"`
	Plaintext bool   `json:"plaintext"`
}

// LoadStore reads how to reach an S3. NotFound says that there is no such file. One that others may read is refused.
func LoadStore(path string) (object.Config, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return object.Config{}, fault.New(fault.NotFound, "%s does not exist", path)
	}
	if err != nil {
		return object.Config{}, fault.New(fault.Internal, "%w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return object.Config{}, fault.New(fault.Denied, "%s has mode %04o, so others can read the keys in it: run chmod 600 %s", path, mode, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return object.Config{}, fault.New(fault.Internal, "%w", err)
	}
	var form storeForm
	if err := json.Unmarshal(text, &form); err != nil { // its text is not repeated: keys are in it
		return object.Config{}, fault.New(fault.Invalid, "%s is no JSON object with endpoint, region, access_key, secret_key, ca_file and plaintext", path)
	}
	config := object.Config{Endpoint: form.Endpoint, Region: form.Region, AccessKey: form.AccessKey, SecretKey: form.SecretKey, Insecure: form.Plaintext}
	if form.CAFile != "" {
		if config.CA, err = os.ReadFile(form.CAFile); err != nil {
			return config, fault.New(fault.Invalid, "%s: ca_file: %w", path, err)
		}
	}
	if err := config.Validate(); err != nil {
		return config, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	return config, nil
}

// File is a backup in an S3.
type File struct {
	URI  string
	Size int64 // bytes
	Made time.Time
	Life string // of the cluster that made it
}

const (
	timeForm = "20060102T150405Z"
	suffix   = ".age"
)

// Name is that of a backup: of which cluster, when, and in which life. Those of one cluster sort by time.
func Name(cluster, life string, made time.Time) string {
	name := Prefix(cluster) + made.UTC().Format(timeForm)
	if life != "" {
		name += "-" + life
	}
	return name + suffix
}

// Prefix is how the names of a cluster's backups begin.
func Prefix(cluster string) string { return "clary-" + cluster + "-" }

// Parse reads the name of a cluster's backup. Other objects are none.
func Parse(name, cluster string) (made time.Time, life string, ok bool) {
	rest, mine := strings.CutPrefix(name, Prefix(cluster))
	text, isBackup := strings.CutSuffix(rest, suffix)
	if !mine || !isBackup || len(text) < len(timeForm) {
		return made, "", false
	}
	made, err := time.Parse(timeForm, text[:len(timeForm)])
	life, apart := strings.CutPrefix(text[len(timeForm):], "-")
	return made, life, err == nil && apart == (life != "") && len(text) == len(timeForm)+len(life)+min(len(life), 1)
}

// Newest sorts backups so that the newest is first.
func Newest(files []File) {
	slices.SortFunc(files, func(a, b File) int { return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(a.URI, b.URI)) })
}

// Expired are the backups beyond the newest so many of a life of the cluster. Those of other lives are not its own to
// delete: the cluster may be a drill of somebody who restored one.
func Expired(files []File, life string, keep int) []File {
	files = slices.DeleteFunc(slices.Clone(files), func(f File) bool { return f.Life != life })
	Newest(files)
	return files[min(keep, len(files)):]
}
