package coordinator

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/storage/raftlog"
)

// Restoration is how the data folder of the first coordinator of a cluster's new life is made of a snapshot or a backup.
type Restoration struct {
	ID        string // of the coordinator
	Data      string // its folder, in which no coordinator has been yet
	Advertise string // host:port under which others will reach it
	Keyring   string // file; of a snapshot, which has none of its own. A backup has.
	Key       string // what decrypts a backup: the text of a file with secret keys of age (AGE-SECRET-KEY-1…)
	// Store is the S3 that the cluster uses; with an empty endpoint it is that of the backup, else the embedded one.
	Store object.Config
	By    string // who restores it, for the audit
	Now   time.Time
}

// Restored is what was made.
type Restored struct {
	backup.Reborn
	Header   backup.Header
	Life     string
	Embedded bool // objects are in the embedded store
}

// restoringFolder is there while a restore is on its way, and after one that was cut off.
const restoringFolder = ".restoring"

// Restore makes the folder. All of a file that is damaged, or for which a key does not fit, is refused, and the folder is
// as it was. The coordinator is then started as usual, and others join it.
func Restore(r Restoration, from io.Reader) (made Restored, err error) {
	if r.Advertise == "" {
		return made, fault.New(fault.Invalid, "--advertise is missing: name the host:port under which others will reach this coordinator")
	}
	c := Config{ID: r.ID, Data: r.Data, Listen: r.Advertise, Advertise: r.Advertise, Gossip: "0.0.0.0:7421", Store: r.Store, StoreListen: "0.0.0.0:7423"}
	if err := c.Validate().Err(); err != nil {
		return made, fault.New(fault.Invalid, "%w", err)
	}
	if err := unused(c); err != nil {
		return made, err
	}
	existed := true
	if _, err := os.Stat(r.Data); errors.Is(err, fs.ErrNotExist) {
		existed = false
	}
	work := c.path(restoringFolder)
	if err := os.MkdirAll(work, 0o700); err != nil {
		return made, fault.New(fault.Invalid, "--data: %w", err)
	}
	built := c
	built.Data = work
	if made, err = build(r, built, from); err != nil {
		err = errors.Join(err, os.RemoveAll(work))
		if !existed {
			err = errors.Join(err, os.Remove(r.Data))
		}
		return made, err
	}
	return made, settleIn(c, work)
}

// unused refuses a folder that has something of a coordinator. Objects that were saved may be there.
func unused(c Config) error {
	for _, name := range []string{notesFile, keyringFile, tlsFolder, "raft", beganFile, removedFile, AdminTokenFile} {
		if _, err := os.Lstat(c.path(name)); err == nil {
			return fault.New(fault.Conflict, "--data: %s has been a coordinator's folder (there is %s in it): restore into an empty one; nothing was changed", c.Data, name)
		}
	}
	if _, err := os.Lstat(c.path(restoringFolder)); err == nil {
		return wasCutOff(c)
	}
	return nil
}

// wasCutOff refuses a folder in which a restore did not come to its end.
func wasCutOff(c Config) error {
	return fault.New(fault.Conflict, "--data: a restore into %s was cut off: delete all in it but objects, and restore again; a folder before-… in it is what a recovery has put aside: move its content back, delete %s, and recover again",
		c.Data, restoringFolder)
}

// settleIn moves what was built to its place; the notes, which make it a coordinator's folder, come last.
func settleIn(c Config, work string) error {
	for _, name := range []string{keyringFile, tlsFolder, "raft", notesFile} {
		if err := os.Rename(filepath.Join(work, name), c.path(name)); err != nil {
			return fmt.Errorf("%w: %w", wasCutOff(c), err)
		}
	}
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	folder, err := os.Open(c.Data)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// build makes all that a coordinator needs, in c.Data.
func build(r Restoration, c Config, from io.Reader) (Restored, error) {
	var made Restored
	secrets, snapshot, err := r.open(from)
	if err != nil {
		return made, err
	}
	keys, err := keyring.Unmarshal(secrets.Keyring)
	if err != nil {
		return made, err
	}
	named, err := r.store(secrets)
	if err != nil {
		return made, err
	}
	made.Embedded = named.Endpoint == ""
	made.Header, err = backup.ReadSnapshot(snapshot, c.Data, func(header backup.Header, body io.Reader) error {
		made.Life = cluster.NewLife(r.Now, max(header.Life, keys.Life), strings.ToLower(rand.Text()[:8]))
		birth := backup.Rebirth{Of: header, Life: made.Life, By: r.By, Now: r.Now, Random: strings.ToLower(rand.Text()[:12])}
		var err error
		made.Reborn, err = rebuild(c, keys, birth, body)
		return err
	})
	if err != nil {
		return made, err
	}
	keys.Life = made.Life
	if err := keys.Save(c.path(keyringFile)); err != nil {
		return made, err
	}
	m := membership{keyring: keyring.NewCurrent(keys), notes: notes{ID: c.ID, Founder: true, Store: named}}
	key, err := pki.NewKey()
	if err != nil {
		return made, err
	}
	if err := os.MkdirAll(c.path(tlsFolder), 0o700); err != nil {
		return made, err
	}
	if err := m.certify(c, key, nil); err != nil {
		return made, err
	}
	return made, m.note(c)
}

// open finds the secrets and the snapshot in what is restored.
func (r Restoration) open(from io.Reader) (backup.Secrets, io.Reader, error) {
	var secrets backup.Secrets
	from, sealed, err := backup.Sealed(from)
	switch {
	case err != nil:
		return secrets, nil, fault.New(fault.Invalid, "read what is to be restored: %w", err)
	case sealed && r.Key == "":
		return secrets, nil, fault.New(fault.Invalid, "--key-file: is not given: the backup is encrypted; name the file with a secret key of age (AGE-SECRET-KEY-1…) that belongs to one of backup.recipients")
	case sealed && r.Keyring != "":
		return secrets, nil, fault.New(fault.Invalid, "--keyring: a backup has its keyring in it: leave it out")
	case sealed:
		identities, err := age.ParseIdentities(strings.NewReader(r.Key))
		if err != nil { // it is not repeated: it may hold a secret key
			return secrets, nil, fault.New(fault.Invalid, "--key-file: has no secret keys of age, which are lines like AGE-SECRET-KEY-1…")
		}
		return backup.Open(from, identities...)
	case r.Keyring == "":
		return secrets, nil, fault.New(fault.Invalid, "--keyring: is not given: a snapshot has no keys; name a copy of the file %s of a coordinator's data folder, as it was when the snapshot was made", keyringFile)
	}
	kept, err := keyring.Load(r.Keyring)
	if err != nil {
		return secrets, nil, fault.New(fault.KindOf(err), "--keyring: %w", err)
	}
	secrets.Keyring, err = kept.Marshal()
	return secrets, from, err
}

// store is the S3 that the cluster uses, as notes have it.
func (r Restoration) store(secrets backup.Secrets) (store, error) {
	if r.Store.Endpoint != "" {
		return Config{Store: r.Store}.storeNotes(), nil
	}
	return readStore(secrets.Store)
}

// rebuild makes the log's folder: a snapshot of the state as the new life begins with it, in a cluster of one.
func rebuild(c Config, keys *keyring.Keyring, birth backup.Rebirth, body io.Reader) (told backup.Reborn, err error) {
	dir := c.path("raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return told, err
	}
	kept, err := state.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	if err := kept.Restore(body); err != nil {
		return told, err
	}
	if err := belongs(kept, keys, birth.Of); err != nil {
		return told, err
	}
	if told, err = birth.Begin(kept); err != nil {
		return told, err
	}
	return told, beginAlone(dir, c, kept)
}

// belongs refuses a keyring that is not the one which the state was sealed with.
func belongs(kept *state.Store, keys *keyring.Keyring, header backup.Header) error {
	snapshot, err := kept.Snapshot()
	if err != nil {
		return err
	}
	defer snapshot.Close()
	switch trust := snapshot.Trust(); {
	case keys.Authority.Pin() != header.Cluster && !trusts(keys, header.Cluster):
		return fault.New(fault.Denied, "the keyring is that of another cluster (ca pin %s, the snapshot is of %s)", keys.Authority.Pin(), header.Cluster)
	case trust.Keyring != keys.ID:
		return fault.New(fault.Denied, "the keyring is number %q and the snapshot was made with number %q: keys were replaced in between; use the keyring of the snapshot's time", keys.ID, trust.Keyring)
	}
	return nil
}

func trusts(keys *keyring.Keyring, pin string) bool {
	for _, ca := range keys.CAs() {
		if pki.PinOf(ca) == pin {
			return true
		}
	}
	return false
}

// beginAlone begins a log with the state, of which this coordinator is the only member.
func beginAlone(dir string, c Config, kept *state.Store) (err error) {
	snapshot, err := kept.Snapshot()
	if err != nil {
		return err
	}
	defer snapshot.Close()
	files, err := raftlog.Open(filepath.Join(dir, "raft"), raftlog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	return files.Begin(raft.Server{ID: raft.ServerID(c.ID), Address: raft.ServerAddress(c.advertised())}, snapshot.Index(), func(to io.Writer) error {
		_, err := snapshot.Backup(to)
		return err
	})
}
