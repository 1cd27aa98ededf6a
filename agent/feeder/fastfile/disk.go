package fastfile

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/internal/fault"
)

// trimEvery is how much one process adds before it looks whether all have added too much.
const trimEvery = 64 * blockSize

// Disk keeps blocks in a folder that all feeders of a node share, so that the next task
// fetches nothing of what this one has read. A file
//
//	OBJECT-GROUP
//
// with the object's hash has places for 16 blocks one after the other, with holes for those
// that nobody read; each is its content and then the content's CRC-32C. (A file for every
// block was measured to be three times as slow.) Which process adds much looks after the bound: together they exceed it by no
// more than 64 MiB each. A nil Disk keeps nothing.
type Disk struct {
	dir   string
	limit int64
	log   *slog.Logger

	added    atomic.Int64
	trimming sync.Mutex
	complain sync.Once
}

// OpenDisk keeps so many bytes in the folder, which only the agent's user may enter.
func OpenDisk(dir string, limit int64, log *slog.Logger) (*Disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Internal, "open the cache of blocks: %w", err)
	}
	return &Disk{dir: dir, limit: limit, log: log}, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const trailer = 4 // bytes of the checksum

const (
	groupBlocks = 16
	groupStride = blockSize + 4096 // so that content begins on a page
)

// place is the file of a block and where it stands there.
func (d *Disk) place(file *source, index int64) (path string, offset int64) {
	name := staging.Identity(file.bucket, file.object) + "-" + strconv.FormatInt(index/groupBlocks, 10)
	return filepath.Join(d.dir, name), index % groupBlocks * groupStride
}

// read fills data with a block, if it is there and whole.
func (d *Disk) read(file *source, index int64, data []byte) bool {
	if d == nil {
		return false
	}
	path, offset := d.place(file, index)
	from, err := os.Open(path)
	if err != nil {
		return false
	}
	defer from.Close() //nolint:errcheck // only read
	var sum [trailer]byte
	if _, err := from.ReadAt(data, offset); err != nil {
		return false
	}
	if _, err := from.ReadAt(sum[:], offset+int64(len(data))); err != nil || crc32.Checksum(data, castagnoli) != binary.LittleEndian.Uint32(sum[:]) {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // the oldest goes first
	return true
}

// write keeps a block. That it cannot be kept is no error.
func (d *Disk) write(file *source, index int64, data []byte) {
	if d == nil || int64(len(data)) > d.limit {
		return
	}
	if err := d.put(file, index, data); err != nil {
		d.complain.Do(func() { d.log.Warn("blocks of inputs are not kept on disk", "error", err) })
		return
	}
	if added := d.added.Add(int64(len(data))); added >= min(trimEvery, d.limit) && d.trimming.TryLock() {
		d.added.Add(-added)
		if err := d.trim(); err != nil {
			d.complain.Do(func() { d.log.Warn("the cache of blocks is not held to its bound", "error", err) })
		}
		d.trimming.Unlock()
	}
}

// put writes a block. Who reads half of it finds that by the checksum, also after a crash.
func (d *Disk) put(file *source, index int64, data []byte) error {
	path, offset := d.place(file, index)
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = to.WriteAt(data, offset)
	if err == nil {
		_, err = to.WriteAt(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli)), offset+int64(len(data)))
	}
	return errors.Join(err, to.Close())
}

// trim deletes the oldest groups until a tenth of the bound is free, if it is exceeded. One
// process does so at a time.
func (d *Disk) trim() error {
	lock, err := os.OpenFile(filepath.Join(d.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // that frees it
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil // another is at it
	}
	type kept struct {
		path string
		size int64
		used time.Time
	}
	var all []kept
	total := int64(0)
	err = filepath.WalkDir(d.dir, func(path string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() || path == lock.Name() {
			return ignoreMissing(err)
		}
		info, err := item.Info()
		if err == nil {
			size := info.Sys().(*syscall.Stat_t).Blocks * 512 // holes take no room
			all = append(all, kept{path, size, info.ModTime()})
			total += size
		}
		return ignoreMissing(err)
	})
	if err != nil || total <= d.limit {
		return err
	}
	slices.SortFunc(all, func(a, b kept) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
	for _, one := range all {
		if total <= d.limit-d.limit/10 {
			break
		}
		if err := os.Remove(one.path); ignoreMissing(err) != nil {
			return err
		}
		total -= one.size
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
