package chaos_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
	"github.com/clary-ml/clary/test/chaos"
)

// loseEngine takes the engine away for a while. What runs in it is excused: nobody sees how
// it ends.
func (d *drill) loseEngine(fault chaos.Fault, meanwhile func()) {
	before, err := d.engine.Containers()
	if err != nil {
		d.t.Fatal(err)
	}
	went := time.Now()
	if fault.Pick%3 == 0 {
		d.engine.End(syscall.SIGTERM)
	} else {
		d.engine.Crash()
	}
	meanwhile()
	time.Sleep(fault.Length)
	d.engine.Run()
	after, err := d.engine.Containers()
	if err != nil {
		d.t.Fatal(err)
	}
	known := map[string]bool{}
	for _, c := range before {
		known[c.ID] = true
		// What ends as if it were killed just before an engine goes may have been: the driver
		// waits to see.
		if c.Running || c.New || (c.Code == 137 || c.Code == 255) && went.Sub(c.Ended) < farewell {
			d.excused[c.Task] = "the engine ended"
		}
	}
	for _, c := range after {
		if !known[c.ID] {
			d.excused[c.Task] = "the engine ended"
		}
	}
}

// farewell is a little more than the driver's.
const farewell = 6 * time.Second

// traces are what is there of tasks, and not of those that wait to be forgotten.
func (d *drill) traces() []string {
	var found []string
	for _, pid := range d.shims("") {
		found = append(found, "the shim of "+taskOf(pid))
	}
	for name, pid := range d.Namespaces() {
		found = append(found, fmt.Sprintf("namespace %s of process %d", name, pid))
	}
	for _, group := range d.Groups() {
		tasks, _ := filepath.Glob(filepath.Join(group, "*~*"))
		found = append(found, tasks...)
	}
	found = append(append(found, d.Mounts()...), d.Ports()...)
	if d.engine == nil {
		return found
	}
	for _, line := range d.engine.Left() {
		// Containers that have ended are kept until their job is deleted, and what an engine that
		// was killed has forgotten to unmount of them goes then.
		if !strings.HasPrefix(line, "container ") && !strings.HasSuffix(line, "/merged") {
			found = append(found, line)
		}
	}
	return found
}

// kept is all that there may be of tasks: nothing once they are forgotten.
func (d *drill) kept() []string {
	found := d.traces()
	for _, node := range nodes {
		folders, _ := filepath.Glob(d.Path(node) + "/tasks/*")
		found = append(found, folders...)
	}
	if d.engine != nil {
		// The layer that an engine prepares before there is a container: if it is killed then, it forgets its mount, and there is nobody to delete.
		prepared := func(line string) bool {
			return strings.HasPrefix(line, "mount ") && strings.HasSuffix(line, "-init/merged")
		}
		found = append(found, slices.DeleteFunc(d.engine.Left(), prepared)...)
	}
	return found
}

// A census that sees nothing proves nothing: here one thing of each kind is left on purpose.
func TestWhatIsLeftIsCounted(t *testing.T) {
	d := begin(t)
	if left := d.kept(); len(left) > 0 {
		t.Fatalf("left before anything was done: %v", left)
	}
	d.Clary("run", "--detach", "--name", "stays", "-n", "2", "--", "sh", "-c", program(chaos.Job{Paired: true, Sleep: time.Minute}))
	listening := func() bool { return len(d.Ports()) == 2 }
	d.WaitFor("both to listen", 20*time.Second, listening)
	lost := filepath.Join(d.Path("n1"), "lost")
	if err := os.Mkdir(lost, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", lost, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	wanted := []string{"the shim of stays/main/worker-0.1", "the shim of stays/main/worker-1.1", "namespace mnt:", "stays~main~worker-0.1", "mount " + lost, "is listened on"}
	take := func() {}
	if d.engine != nil {
		var of []string
		of, take = d.leave()
		wanted = append(wanted, of...)
	}
	left := d.kept()
	for _, want := range wanted {
		if !slices.ContainsFunc(left, func(line string) bool { return strings.Contains(line, want) }) {
			t.Errorf("%q is left, and not counted:\n%s", want, strings.Join(left, "\n"))
		}
	}
	take()
	if err := syscall.Unmount(lost, 0); err != nil {
		t.Error(err)
	}
	d.Clary("cancel", "stays")
	_, _ = d.Try("wait", "stays", "--timeout", "30s")
	d.Clary("delete", "stays")
	d.gone("what was kept of the tasks", d.kept)
}

// leave leaves a container of nobody's that runs and listens. It returns what must be counted
// of it, and a way to take it away.
func (d *drill) leave() (wanted []string, take func()) {
	d.t.Helper()
	client := d.engine.Client()
	made, err := client.ContainerCreate(d.t.Context(), moby.ContainerCreateOptions{
		Name:       "left-behind",
		Config:     &container.Config{Image: enginetest.Image, Cmd: []string{"sh", "-c", "nc -l -p 31999 & sleep 60"}, Labels: map[string]string{"clary.task": "gone/main/worker-0.1"}},
		HostConfig: &container.HostConfig{NetworkMode: "host"},
	})
	if err == nil {
		_, err = client.ContainerStart(d.t.Context(), made.ID, moby.ContainerStartOptions{})
	}
	if err != nil {
		d.t.Fatal(err)
	}
	const port = "port 31999 is listened on in the engine's network"
	d.WaitFor("the container to listen", 20*time.Second, func() bool { return slices.Contains(d.engine.Left(), port) })
	return []string{"container /left-behind of task gone/main/worker-0.1", "monitor ", "control group ", ": sleep 60", "/merged", port}, func() {
		if _, err := client.ContainerRemove(d.t.Context(), made.ID, moby.ContainerRemoveOptions{Force: true}); err != nil {
			d.t.Error(err)
		}
		_ = client.Close()
	}
}
