package kv

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/clary-ml/clary/internal/fault"
)

// A backup is the database file, then this mark, then the SHA-256 of the file. bbolt
// ends the process when it meets a damaged page, so damage is found before it looks.
const (
	mark    = "clarykv1"
	trailer = len(mark) + sha256.Size
)

// Backup writes a copy of the whole file, for DB.Restore.
func (s *Snapshot) Backup(w io.Writer) (int64, error) {
	hash := sha256.New()
	n, err := s.tx.WriteTo(io.MultiWriter(w, hash))
	if err == nil {
		var m int
		m, err = w.Write(hash.Sum([]byte(mark)))
		n += int64(m)
	}
	if err != nil {
		return n, fault.New(fault.Internal, "back up %s: %w", s.db.path, err)
	}
	return n, nil
}

// Restore replaces everything in the file by a backup, read to its end. Snapshots that
// are open keep showing what they showed. A backup that is cut short or damaged is
// refused and changes nothing.
func (db *DB) Restore(backup io.Reader) error {
	db.writer.Lock()
	defer db.writer.Unlock()
	next, err := db.receive(backup)
	if err != nil {
		return err
	}
	return db.retire(&file{bolt: next})
}

// receive writes a backup beside the file, checks it, and renames it into place.
func (db *DB) receive(backup io.Reader) (*bbolt.DB, error) {
	part, err := os.CreateTemp(filepath.Dir(db.path), filepath.Base(db.path)+".restore-*")
	if err != nil {
		return nil, fault.New(fault.Internal, "restore %s: %w", db.path, err)
	}
	defer os.Remove(part.Name()) // after the rename there is nothing left to remove
	err = db.fill(part, backup)
	if closed := part.Close(); err == nil && closed != nil {
		err = fault.New(fault.Internal, "restore %s: %w", db.path, closed)
	}
	if err != nil {
		return nil, err
	}
	next, err := openBolt(part.Name(), db.options)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(part.Name(), db.path); err != nil {
		return nil, fault.New(fault.Internal, "restore %s: %w", db.path, errors.Join(err, next.Close()))
	}
	return next, nil
}

// fill copies a backup into part, checks it, and cuts its trailer off.
func (db *DB) fill(part *os.File, backup io.Reader) error {
	size, err := io.Copy(part, backup)
	if err != nil {
		return fault.New(fault.Internal, "restore %s: receive the backup: %w", db.path, err)
	}
	size -= int64(trailer)
	if err := verify(part, size); err != nil {
		return fault.New(fault.Invalid, "restore %s: %w; take it from another copy", db.path, err)
	}
	err = part.Truncate(size)
	if err == nil && !db.options.NoSync {
		err = part.Sync()
	}
	if err != nil {
		return fault.New(fault.Internal, "restore %s: %w", db.path, err)
	}
	return nil
}

// verify compares the first size bytes of a backup with the trailer after them.
func verify(part io.ReaderAt, size int64) error {
	if size < 0 {
		return fmt.Errorf("the backup is cut short: it has %d bytes", size+int64(trailer))
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(part, 0, size)); err != nil {
		return err
	}
	end := make([]byte, trailer)
	if _, err := part.ReadAt(end, size); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.HasPrefix(end, []byte(mark)) {
		return errors.New("the backup is cut short, or is not one of Clary's: its end mark is missing")
	}
	if !bytes.Equal(end[len(mark):], hash.Sum(nil)) {
		return errors.New("the backup is damaged: its checksum is wrong")
	}
	return nil
}
