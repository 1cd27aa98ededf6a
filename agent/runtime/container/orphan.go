package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/storage"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime/cgroup"
)

// An engine that is killed forgets: that a container which it was just about to start has
// started, and what it had mounted for it. What it forgot is found by the container's ID.

const (
	orphanPatience = 5 * time.Second // until killed processes are gone
	removalEcho    = time.Second     // until what an engine removes is gone, after it has said so
)

// mayHaveRun reports whether there is a sign that a container was started of which its engine
// says that it was not, and ends what there is of it.
func (d *Driver) mayHaveRun(id string) bool {
	group, watching := groupsOf(id), monitors(id)
	if group.Empty() && len(watching) == 0 {
		return false
	}
	d.bury(id, group, watching)
	return true
}

// bury ends what is left of a container: its processes, its monitor, its control groups.
func (d *Driver) bury(id string, group cgroup.Group, watching []int) {
	d.config.Log.Warn("a container's engine forgot what is left of it: ending that", "container", id, "processes", group.Pids(), "monitors", watching)
	for _, pid := range watching {
		_ = syscall.Kill(pid, syscall.SIGKILL) // containerd clears away after it
	}
	if err := errors.Join(group.Kill(orphanPatience), group.Remove()); err != nil {
		d.config.Log.Error("end what is left of a container", "container", id, "error", err)
	}
}

// lengthOfID is how many hexadecimal digits the ID of a container has.
const lengthOfID = 64

// isID reports whether a word is one. What is found by it is ended: a shorter word could be in the names of others' too,
// whatever an engine says.
func isID(word string) bool {
	return len(word) == lengthOfID && strings.Trim(word, "0123456789abcdef") == ""
}

// groupsOf finds a container's control groups by its ID.
func groupsOf(id string) cgroup.Group {
	if !isID(id) {
		return cgroup.Group{}
	}
	return cgroup.Named(id)
}

// monitors are the processes by which containerd watches over a container.
func monitors(id string) []int {
	if !isID(id) {
		return nil
	}
	var found []int
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		text, _ := os.ReadFile(line)
		words := strings.Split(string(text), "\x00")
		if !strings.HasPrefix(filepath.Base(words[0]), "containerd-shim") || !strings.Contains(string(text), "\x00"+id+"\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line))); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

var busy = regexp.MustCompile(`unlinkat (/[^ ]+): device or resource busy`)

// forgotten is the folder of a container that its engine cannot remove since something is mounted there: it was when the engine was
// killed. The engine's complaint names it; else it is where the engine says that the container's root is.
func (d *Driver) forgotten(ctx context.Context, graph *storage.DriverData, complaint error) string {
	if complaint == nil || !strings.Contains(complaint.Error(), "busy") {
		return ""
	}
	if said := busy.FindStringSubmatch(complaint.Error()); said != nil {
		info, err := d.engine.Info(ctx, moby.InfoOptions{})
		if err == nil && info.Info.DockerRootDir != "" && strings.HasPrefix(said[1], filepath.Clean(info.Info.DockerRootDir)+"/") {
			return said[1]
		}
	}
	if graph != nil {
		return graph.Data["MergedDir"]
	}
	return ""
}

// discard removes a container, running or not, and all that is left of it; one that is not
// there is no error.
func (d *Driver) discard(ctx context.Context, name string) error {
	known, err := d.engine.ContainerInspect(ctx, name, moby.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	remove := func() error {
		_, err := d.engine.ContainerRemove(ctx, name, moby.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		return err
	}
	err = remove()
	if folder := d.forgotten(ctx, known.Container.GraphDriver, err); folder != "" {
		// Whatever may use it yet: engines unmount so too.
		left := syscall.Unmount(folder, syscall.MNT_DETACH)
		d.config.Log.Warn("a container's engine forgot a mount of it, which is unmounted", "container", name, "folder", folder, "error", left)
		err = remove()
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	for deadline := time.Now().Add(removalEcho); ; pause(ctx, askOften) {
		if groupsOf(known.Container.ID).Empty() {
			return nil
		}
		if time.Now().After(deadline) {
			d.mayHaveRun(known.Container.ID)
			return nil
		}
	}
}
