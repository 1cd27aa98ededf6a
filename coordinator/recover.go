package coordinator

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// salvageFolder is where the state of a coordinator that does not run is put together.
const salvageFolder = ".salvage"

// Survivor is a coordinator that does not run, and whose others are lost: what there is to begin again from.
type Survivor struct {
	replica.Salvaged
	ID        string
	Advertise string // where it was reached, as the log has it
	Holds     bool   // the objects of the embedded store are here
	Embedded  bool   // objects are in the embedded store

	config Config
	notes  notes
	keys   *keyring.Keyring
	file   *os.File // a snapshot, without a name
}

// Survey looks at the data folder of a coordinator that does not run. It changes nothing in it.
func Survey(data string) (s *Survivor, err error) {
	s = &Survivor{config: Config{Data: data}}
	if _, err := os.Lstat(s.config.path(restoringFolder)); err == nil {
		return nil, wasCutOff(s.config)
	}
	text, err := os.ReadFile(s.config.path(notesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "--data: %s is no coordinator's folder: there is no %s in it", data, notesFile)
	}
	if err == nil {
		err = json.Unmarshal(text, &s.notes)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "--data: %w", err)
	}
	s.ID, s.Embedded = s.notes.ID, s.notes.Store.Endpoint == ""
	_, missing := os.Stat(s.config.path("objects"))
	s.Holds = s.notes.Founder && missing == nil
	if s.keys, err = keyring.Load(s.config.path(keyringFile)); err != nil {
		return nil, err
	}
	work := s.config.path(salvageFolder)
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, fault.New(fault.Invalid, "--data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if s.Salvaged, err = replica.Salvage(s.config.path("raft"), filepath.Join(work, "state.db")); err != nil {
		return nil, err
	}
	for _, member := range s.Members {
		if member.ID == s.ID {
			s.Advertise = member.Address
		}
	}
	err = s.snapshot(work)
	return s, errors.Join(err, s.State.Close())
}

// snapshot keeps what was salvaged.
func (s *Survivor) snapshot(work string) error {
	kept, err := s.State.Snapshot()
	if err != nil {
		return err
	}
	defer kept.Close()
	if s.file, err = os.CreateTemp(work, "snapshot-*"); err != nil {
		return err
	}
	header := backup.Header{
		Cluster: s.keys.Authority.Pin(), Life: s.keys.Life, Keyring: kept.Trust().Keyring, Format: kept.Format(), Revision: kept.Revision(), Index: kept.Index(), Made: s.At.UTC(),
	}
	err = backup.WriteSnapshot(s.file, header, func(w io.Writer) error { _, err := kept.Backup(w); return err })
	if err == nil {
		_, err = s.file.Seek(0, io.SeekStart)
	}
	return err
}

// Close lets go of what was salvaged.
func (s *Survivor) Close() error { return s.file.Close() }

// Recover begins another life of the cluster in the survivor's own folder, with this coordinator alone. What was in the folder
// is kept in another beside it, whose name is returned.
func (s *Survivor) Recover(advertise, by string, now time.Time) (made Restored, before string, err error) {
	c := Config{ID: s.ID, Data: s.config.Data, Listen: cmp.Or(advertise, s.Advertise), Gossip: "0.0.0.0:7421", StoreListen: "0.0.0.0:7423"}
	if err := c.Validate().Err(); err != nil {
		return made, "", fault.New(fault.Invalid, "%w", err)
	}
	work := c.path(restoringFolder)
	if err := os.MkdirAll(work, 0o700); err != nil {
		return made, "", err
	}
	built := c
	built.Data = work
	n := s.notes.Store
	r := Restoration{
		ID: s.ID, Data: c.Data, Advertise: c.Listen, Keyring: c.path(keyringFile), By: by, Now: now,
		Store: object.Config{Endpoint: n.Endpoint, Region: n.Region, AccessKey: n.AccessKey, SecretKey: n.SecretKey, CA: n.CA, Insecure: n.Insecure},
	}
	if made, err = build(r, built, s.file); err != nil {
		return made, "", errors.Join(err, os.RemoveAll(work))
	}
	before = c.path("before-" + now.UTC().Format("20060102T150405Z"))
	if err := os.Mkdir(before, 0o700); err != nil {
		return made, "", errors.Join(err, os.RemoveAll(work))
	}
	for _, name := range []string{notesFile, keyringFile, tlsFolder, "raft", beganFile, removedFile, AdminTokenFile} {
		err := os.Rename(c.path(name), filepath.Join(before, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return made, before, err
		}
	}
	return made, before, settleIn(c, work)
}
