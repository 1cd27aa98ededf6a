package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// openTrees takes hold of what is to be shown, while it can still be seen.
func openTrees(mounts []Mount) ([]int, error) {
	var trees []int
	for _, mount := range mounts {
		tree, err := unix.OpenTree(unix.AT_FDCWD, mount.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			closeTrees(trees)
			return nil, fmt.Errorf("show %s: %w", mount.Source, err)
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

func closeTrees(trees []int) {
	for _, tree := range trees {
		_ = unix.Close(tree)
	}
}

// covered are folders that the private view replaces, like those that are hidden: places
// below them are made there, not on the machine.
var covered = []string{"/tmp", "/run", "/dev", "/proc"}

func isCovered(path string, hidden []string) bool {
	below := func(folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }
	return slices.ContainsFunc(covered, below) || slices.ContainsFunc(hidden, below)
}

// isWithin reports whether a place is inside of what is shown before it.
func isWithin(shown []Mount, path string) bool {
	return slices.ContainsFunc(shown, func(m Mount) bool { return strings.HasPrefix(path, m.Target+"/") })
}

// makeTargets makes places on the machine's own root; what is there is left as it is.
func makeTargets(s Spec, trees []int) error {
	for i, mount := range s.Mounts {
		if !isCovered(mount.Target, s.Hide) && !isWithin(s.Mounts[:i], mount.Target) {
			if err := makeTarget(mount, trees[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func makeTarget(mount Mount, tree int) error {
	if !filepath.IsAbs(mount.Target) || filepath.Clean(mount.Target) != mount.Target || mount.Target == "/" {
		return fmt.Errorf("%q is no place to show something at: name an absolute path", mount.Target)
	}
	if _, err := os.Lstat(mount.Target); err == nil {
		return nil
	}
	var info unix.Stat_t
	if err := unix.Fstat(tree, &info); err != nil {
		return err
	}
	if info.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.MkdirAll(mount.Target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(mount.Target), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(mount.Target, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// attachTrees shows what openTrees took hold of. A place is never reached through a link.
func attachTrees(s Spec, trees []int) error {
	for i, mount := range s.Mounts {
		if isCovered(mount.Target, s.Hide) || isWithin(s.Mounts[:i], mount.Target) {
			if err := makeTarget(mount, trees[i]); err != nil {
				return err
			}
		}
		if err := setReadOnly(trees[i], "", mount.ReadOnly); err != nil {
			return fmt.Errorf("%s: %w", mount.Source, err)
		}
		if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, mount.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("%s at %s: %w", mount.Source, mount.Target, err)
		}
	}
	return nil
}

// setReadOnly changes a mount and all below it. Nothing shown may hold devices or gain
// privileges.
func setReadOnly(at int, path string, readOnly bool) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	} else {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
		attr.Attr_clr = unix.MOUNT_ATTR_RDONLY
	}
	flags := uint(unix.AT_RECURSIVE)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.MountSetattr(at, path, flags, &attr)
}

// private puts new, bounded folders over those that tasks would share, and empty ones over
// those that are hidden.
func private(s Spec) error {
	devices, err := hostDevices()
	if err != nil {
		return err
	}
	defer closeDevices(devices)
	size := fmt.Sprintf("size=%d,", s.TempSize)
	for _, m := range []struct{ kind, at, options string }{
		{"proc", "/proc", "hidepid=2"},
		{"tmpfs", "/tmp", size + "mode=1777,nr_inodes=1048576"},
		{"tmpfs", "/run", "size=16m,mode=755"},
		{"tmpfs", "/dev", "size=64k,mode=755,nr_inodes=1024"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID|unix.MS_NODEV, m.options); err != nil {
			return fmt.Errorf("%s: %w", m.at, err)
		}
	}
	if err := fillDev(devices, size); err != nil {
		return err
	}
	for _, folder := range s.Hide {
		info, err := os.Stat(folder)
		if errors.Is(err, fs.ErrNotExist) || err == nil && isCovered(folder, nil) {
			continue
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("hide %s: it is not a folder", folder)
		}
		if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,mode=755,nr_inodes=256"); err != nil {
			return fmt.Errorf("hide %s: %w", folder, err)
		}
	}
	return nil
}

// deviceNames are what a program may expect below /dev, and the GPUs'.
var deviceNames = []string{"null", "zero", "full", "random", "urandom", "tty"}

var devicePatterns = []string{"/dev/nvidia*", "/dev/nvidia-caps/*"}

// hostDevices takes hold of the machine's devices before /dev is covered.
func hostDevices() (map[string]int, error) {
	paths := make([]string, 0, len(deviceNames))
	for _, name := range deviceNames {
		paths = append(paths, "/dev/"+name)
	}
	for _, pattern := range devicePatterns {
		found, _ := filepath.Glob(pattern)
		paths = append(paths, found...)
	}
	devices := map[string]int{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil || info.Mode()&os.ModeCharDevice == 0 {
			continue
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			closeDevices(devices)
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		devices[path] = tree
	}
	return devices, nil
}

func closeDevices(devices map[string]int) {
	for _, tree := range devices {
		_ = unix.Close(tree)
	}
}

// fillDev makes the new /dev usable. Device nodes are the machine's own, bound: a new
// node would need a privilege that a container may lack.
func fillDev(devices map[string]int, size string) error {
	for _, path := range sortedKeys(devices) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV, Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}
		if err := unix.MountSetattr(devices[path], "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := unix.MoveMount(devices[path], "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for link, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(to, "/dev/"+link); err != nil {
			return err
		}
	}
	for _, m := range []struct{ kind, at, options string }{
		{"tmpfs", "/dev/shm", size + "mode=1777"},
		{"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620"},
	} {
		if err := os.Mkdir(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID|unix.MS_NOEXEC, m.options); err != nil {
			return fmt.Errorf("%s: %w", m.at, err)
		}
	}
	return nil
}

// overlayFiles shows texts in place of files. Name servers are kept where /etc/resolv.conf
// is a link into /run.
func overlayFiles(files map[string]string, resolver []byte) error {
	const folder = "/run/clary"
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	if real, err := os.Readlink("/etc/resolv.conf"); err == nil {
		path := filepath.Join("/etc", real)
		if filepath.IsAbs(real) {
			path = filepath.Clean(real)
		}
		if isCovered(path, nil) {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, resolver, 0o644)); err != nil {
				return err
			}
		}
	}
	for _, path := range sortedKeys(files) {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue // the machine has none to stand in for
		}
		source := filepath.Join(folder, filepath.Base(path))
		if err := os.WriteFile(source, []byte(files[path]), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}
