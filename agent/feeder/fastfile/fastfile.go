// Package fastfile shows objects of a store as a folder of read-only files, whose content
// is fetched when it is read.
package fastfile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/internal/fault"
)

// FSType is the type of these mounts in the kernel's list.
const FSType = "fuse.clary"

// forever is how long the kernel may believe what it was told: objects do not change, and
// if they do reading them fails.
const forever = 24 * time.Hour

// requestSize is the most that the kernel asks for at once, in bytes.
const requestSize = 512 << 10

// Mount shows the objects in a folder, until Close. Of whom they are read is decided by
// blocks. Every user may read them.
func Mount(folder string, items []staging.Item, blocks *Blocks, log *slog.Logger) (*Mounted, error) {
	files := &files{tree: newTree(items), blocks: blocks, log: log, made: time.Now()}
	files.sources = make([]source, len(files.tree))
	for i, item := range files.tree {
		files.sources[i] = source{item.Bucket, item.Object}
	}
	timeout := forever
	root := &dirNode{files: files, folder: files.tree.root()}
	server, err := fs.Mount(folder, root, &fs.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout, NegativeTimeout: &timeout, NullPermissions: true,
		RootStableAttr: &fs.StableAttr{Ino: rootInode},
		MountOptions: fuse.MountOptions{
			AllowOther: os.Geteuid() == 0, DirectMount: true, DirectMountFlags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
			Options: []string{"ro", "default_permissions"}, FsName: "clary", Name: "clary",
			MaxReadAhead: requestSize, MaxWrite: requestSize, MaxBackground: 64, DisableXAttrs: true,
		},
	})
	if err != nil {
		return nil, fault.New(fault.Unready, "this node cannot show inputs in fast_file mode, use file or pipe: %w", err)
	}
	readAhead(folder)
	return &Mounted{server: server, folder: folder}, nil
}

// readAhead lets the kernel ask for more at once than it does by itself. Without, it is
// only slower.
func readAhead(folder string) {
	var info unix.Stat_t
	if unix.Stat(folder, &info) != nil {
		return
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(info.Dev), unix.Minor(info.Dev))
	if file, err := os.OpenFile(name, os.O_WRONLY, 0); err == nil {
		_, _ = file.WriteString(strconv.Itoa(requestSize >> 10))
		_ = file.Close()
	}
}

// Mounted is a folder that shows objects.
type Mounted struct {
	server *fuse.Server
	folder string
}

// Close takes the folder away, also from under those who still read in it.
func (m *Mounted) Close() error { return Unmount(m.folder) }

// Unmount takes away what is mounted at a folder, if anything: at once from sight, and
// wholly when nobody uses it any more.
func Unmount(folder string) error {
	err := unix.Unmount(folder, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // nothing is mounted there
	}
	if err != nil {
		return fault.New(fault.Internal, "unmount %s: %w", folder, err)
	}
	return nil
}

// files is what a mount shows.
type files struct {
	tree    tree
	sources []source // of each object of the tree
	blocks  *Blocks
	log     *slog.Logger
	made    time.Time
}

// Inode numbers: objects have their place in the list, folders that of their first object
// and how deep they are.
const (
	rootInode   = 1
	firstInode  = 2
	folderShift = 40
)

func (f *files) stableOf(c child) fs.StableAttr {
	if c.object >= 0 {
		return fs.StableAttr{Mode: syscall.S_IFREG, Ino: uint64(c.object) + firstInode}
	}
	depth := 1
	for _, b := range []byte(c.below.prefix) {
		if b == '/' {
			depth++
		}
	}
	return fs.StableAttr{Mode: syscall.S_IFDIR, Ino: uint64(depth)<<folderShift | uint64(c.below.lo)}
}

func (f *files) describe(c child, out *fuse.Attr) {
	out.Mode = syscall.S_IFDIR | 0o555
	out.Nlink = 2
	if c.object >= 0 {
		out.Mode, out.Nlink = syscall.S_IFREG|0o444, 1
		out.Size = uint64(f.tree[c.object].Size)
		out.Blocks = (out.Size + 511) / 512
		out.Blksize = blockSize
	}
	out.Ino = f.stableOf(c).Ino
	out.SetTimes(&f.made, &f.made, &f.made)
}

type dirNode struct {
	fs.Inode
	*files
	folder
}

var (
	_ fs.NodeLookuper  = (*dirNode)(nil)
	_ fs.NodeReaddirer = (*dirNode)(nil)
	_ fs.NodeGetattrer = (*dirNode)(nil)
)

// Lookup finds one child.
func (d *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	found := child{name: name, object: d.tree.file(d.folder, name)}
	var node fs.InodeEmbedder = &fileNode{files: d.files, object: found.object}
	if found.object < 0 {
		if found.below = d.tree.below(d.folder, name); found.below.empty() {
			return nil, syscall.ENOENT
		}
		node = &dirNode{files: d.files, folder: found.below}
	}
	d.describe(found, &out.Attr)
	return d.NewInode(ctx, node, d.stableOf(found)), 0
}

// Getattr describes the folder.
func (d *dirNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.describe(child{object: -1, below: d.folder}, &out.Attr)
	return 0
}

// Readdir lists the children one by one.
func (d *dirNode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	return &listing{dir: d, at: d.lo}, 0
}

// listing is a folder being read; its offsets are places in the list of objects.
type listing struct {
	dir *dirNode
	at  int
}

var _ fs.FileSeekdirer = (*listing)(nil)

func (l *listing) HasNext() bool { return l.at < l.dir.hi }

func (l *listing) Next() (fuse.DirEntry, syscall.Errno) {
	var next child
	next, l.at = l.dir.tree.next(l.dir.folder, l.at)
	stable := l.dir.stableOf(next)
	return fuse.DirEntry{Name: next.name, Mode: stable.Mode, Ino: stable.Ino, Off: uint64(l.at-l.dir.lo) + 1}, 0
}

func (l *listing) Seekdir(_ context.Context, offset uint64) syscall.Errno {
	at := l.dir.lo
	if offset > 0 {
		at += int(offset) - 1
	}
	if at < l.dir.lo || at > l.dir.hi {
		return syscall.EINVAL
	}
	l.at = at
	return 0
}

func (l *listing) Close() {}

type fileNode struct {
	fs.Inode
	*files
	object int
}

var (
	_ fs.NodeOpener    = (*fileNode)(nil)
	_ fs.NodeReader    = (*fileNode)(nil)
	_ fs.NodeGetattrer = (*fileNode)(nil)
)

// Getattr describes the file.
func (n *fileNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.describe(child{object: n.object}, &out.Attr)
	return 0
}

// Open begins to read. The kernel may keep what it has of the file from before. Reads that
// pass by it are refused, as by other file systems: of those it sends any number at a time.
func (n *fileNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	switch {
	case flags&syscall.O_ACCMODE != syscall.O_RDONLY:
		return nil, 0, syscall.EROFS
	case flags&syscall.O_DIRECT != 0:
		return nil, 0, syscall.EINVAL
	}
	return &cursor{file: &n.sources[n.object]}, fuse.FOPEN_KEEP_CACHE, 0
}

// Read reads. What cannot be had is an input/output error, and said in the log.
func (n *fileNode) Read(ctx context.Context, handle fs.FileHandle, to []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	c := handle.(*cursor)
	length, err := n.blocks.read(ctx, c, to, offset)
	switch {
	case err == nil:
		return fuse.ReadResultData(to[:length]), 0
	case ctx.Err() != nil:
		return nil, syscall.EINTR
	}
	name := filepath.Base(n.tree[n.object].Name)
	n.log.Error("a read of an input failed", "file", name, "object", "s3://"+c.file.bucket+"/"+c.file.object.Key, "offset", offset, "error", err)
	return nil, syscall.EIO
}
