package kv

import (
	"errors"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/clary-ml/clary/internal/fault"
)

// Options say how a file is opened. The zero value is for a small durable file.
type Options struct {
	// InitialMmap is how many bytes of address space are mapped at once. Growing the
	// map waits for every open Snapshot, so a server asks for more than it will need
	// (1 GiB or more). It costs address space, not memory or disk.
	InitialMmap int
	// NoSync leaves out the fsync of each batch. Only for a file that is rebuilt from
	// something durable at each start.
	NoSync bool
}

// DB is one open file. Its methods may be called from any goroutine; batches run one
// at a time, snapshots beside them.
type DB struct {
	path    string
	options Options

	writer sync.Mutex // held for the length of a batch, and while Restore swaps the file

	mu   sync.Mutex // guards file and every file's refs and retired
	file *file
}

// file is one generation of the database: Restore opens the next one, and the last
// snapshot of the old one closes it.
type file struct {
	bolt    *bbolt.DB
	refs    int
	retired bool
}

// Open opens the file at path, and makes it if there is none. It fails after a second
// if another process has it open.
func Open(path string, options Options) (*DB, error) {
	bolt, err := openBolt(path, options)
	if err != nil {
		return nil, err
	}
	return &DB{path: path, options: options, file: &file{bolt: bolt}}, nil
}

func openBolt(path string, options Options) (*bbolt.DB, error) {
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: options.InitialMmap,
		NoSync:          options.NoSync,
		NoGrowSync:      options.NoSync,
		NoStatistics:    true,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fault.New(fault.Unready, "open %s: another process has it open; stop that process first", path)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "open %s: %w", path, err)
	}
	return bolt, nil
}

// Close waits for a running batch, then closes the file; the last open Snapshot, if
// any, closes it in its stead.
func (db *DB) Close() error {
	db.writer.Lock()
	defer db.writer.Unlock()
	return db.retire(nil)
}

// retire puts next in the place of the current file, which is closed with its last user.
func (db *DB) retire(next *file) error {
	db.mu.Lock()
	old := db.file
	db.file = next
	if old != nil {
		old.retired = true
	}
	idle := old != nil && old.refs == 0
	db.mu.Unlock()
	if idle {
		return old.bolt.Close()
	}
	return nil
}

func (db *DB) acquire() (*file, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.file == nil {
		return nil, fault.New(fault.Unready, "%s is closed", db.path)
	}
	db.file.refs++
	return db.file, nil
}

func (db *DB) release(f *file) error {
	db.mu.Lock()
	f.refs--
	last := f.retired && f.refs == 0
	db.mu.Unlock()
	if last {
		return f.bolt.Close()
	}
	return nil
}
