package testbed

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

//go:embed box.sh
var bootScript string

// Boxes are machines of their own inside this one, each with its own systemd, network
// and files, on one network that nothing else is on: what an operator types on machines
// can be run on them as it is.
type Boxes struct {
	t    *testing.T
	dir  string
	name string // of what is made outside: namespaces and control groups
	all  map[string]*Box
}

// Box is one such machine.
type Box struct {
	Name, Address string
	boxes         *Boxes
	command       *exec.Cmd
	pid           int // of its first process, as seen from outside
	console       string
}

// How long a machine and a script on it may take; other tests may have the processors meanwhile.
const (
	bootFor    = 2 * time.Minute
	commandFor = 3 * time.Minute
)

// NewBoxes makes their network. Without root, or without what a machine is made with, the test is skipped.
func NewBoxes(t *testing.T) *Boxes {
	t.Helper()
	for _, tool := range []string{"ip", "nsenter", "unshare", "/lib/systemd/systemd", "systemctl"} {
		if _, err := exec.LookPath(tool); err != nil || os.Geteuid() != 0 {
			t.Skipf("machines with a systemd of their own need root, and %s (Debian: iproute2, util-linux, systemd): %v", tool, err)
		}
	}
	number, release := claim(t, "boxes", 100_000)
	t.Cleanup(release)
	b := &Boxes{t: t, dir: t.TempDir(), name: fmt.Sprintf("clarybox%d", number), all: map[string]*Box{}}
	t.Cleanup(b.cleanUp)
	if err := os.WriteFile(filepath.Join(b.dir, "box.sh"), []byte(bootScript), 0o600); err != nil {
		t.Fatal(err)
	}
	b.ip("netns", "add", b.name)
	b.ip("-n", b.name, "link", "add", "hub", "type", "bridge")
	b.ip("-n", b.name, "link", "set", "hub", "up")
	return b
}

// Start begins to boot a machine with an address, like 10.0.0.1/24; Booted waits for it.
func (b *Boxes) Start(name, address string) *Box {
	b.t.Helper()
	host, _, _ := strings.Cut(address, "/")
	box := &Box{Name: name, Address: host, boxes: b}
	space := b.name + "-" + name
	b.ip("netns", "add", space)
	b.all[name] = box
	b.ip("-n", b.name, "link", "add", "to-"+name, "type", "veth", "peer", "name", "eth0", "netns", space)
	b.ip("-n", b.name, "link", "set", "to-"+name, "master", "hub", "up")
	b.ip("-n", space, "link", "set", "lo", "up")
	b.ip("-n", space, "address", "add", address, "dev", "eth0")
	b.ip("-n", space, "link", "set", "eth0", "up")
	b.ip("-n", space, "route", "add", "default", "dev", "eth0")
	for _, folder := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(b.dir, name, folder), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	for _, dir := range hierarchies() {
		if err := os.MkdirAll(filepath.Join(dir, space), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	box.boot()
	return box
}

// boot starts the machine's systemd.
func (x *Box) boot() {
	t, space := x.boxes.t, x.boxes.name+"-"+x.Name
	t.Helper()
	log, err := os.Create(filepath.Join(x.boxes.dir, x.Name, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the process has its own
	x.command = exec.Command(
		"nsenter", "--net=/run/netns/"+space, "unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--propagation", "private",
		"sh", filepath.Join(x.boxes.dir, "box.sh"), "enter", filepath.Join(x.boxes.dir, x.Name), space, x.Name,
	)
	x.command.Stdout, x.command.Stderr = log, log
	x.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := x.command.Start(); err != nil {
		t.Fatal(err)
	}
	x.console = log.Name()
}

// Booted waits until a machine's systemd has started all that it starts by itself.
func (x *Box) Booted() {
	t := x.boxes.t
	t.Helper()
	deadline := time.Now().Add(bootFor)
	for {
		x.pid = firstChild(x.command.Process.Pid)
		if x.pid != 0 {
			out, err := x.Try("systemctl is-system-running --wait 2>/dev/null || true")
			if err == nil && (strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded")) {
				return
			}
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(x.console)
			t.Fatalf("%s has not booted within %s:\n%s", x.Name, bootFor, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func firstChild(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		return 0
	}
	child, _ := strconv.Atoi(fields[0])
	return child
}

// Try runs a shell script on the machine as root and returns all that it printed.
func (x *Box) Try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandFor)
	defer cancel()
	command := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(x.pid), "--all", "env", "-i",
		"HOME=/root", "TERM=dumb", "NO_COLOR=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-euo", "pipefail", "-c", "cd /root\n"+script)
	command.WaitDelay = time.Second // what it started goes on inside, until the machine ends
	out, err := command.CombinedOutput()
	return string(out), err
}

// Run runs a shell script on the machine, which must succeed.
func (x *Box) Run(script string) string {
	x.boxes.t.Helper()
	out, err := x.Try(script)
	if err != nil {
		x.boxes.t.Fatalf("on %s: %v\n%s\n%s", x.Name, err, script, out)
	}
	return out
}

// Copy brings a file of this machine to the box.
func (x *Box) Copy(from, to string) {
	x.boxes.t.Helper()
	target := fmt.Sprintf("/proc/%d/root%s", x.pid, to)
	if out, err := exec.Command("cp", "--reflink=auto", from, target).CombinedOutput(); err != nil {
		x.boxes.t.Fatalf("copy %s to %s of %s: %v: %s", from, to, x.Name, err, out)
	}
}

// Send brings a file of one box to another, as scp would.
func (x *Box) Send(from string, to *Box, at string) {
	x.boxes.t.Helper()
	to.Copy(fmt.Sprintf("/proc/%d/root%s", x.pid, from), at)
}

// Reset cuts the machine's power and boots it again. Its files are as they were.
func (x *Box) Reset() {
	x.boxes.t.Helper()
	x.cut()
	x.boot()
	x.Booted()
}

// cut ends the machine as a power cut would, and waits until nothing of it runs.
func (x *Box) cut() {
	x.boxes.t.Helper()
	_ = x.command.Process.Kill() // unshare, whose child ends with it, and with that all that the machine runs
	_ = x.command.Wait()
	deadline := time.Now().Add(bootFor)
	for ; x.pid != 0 && syscall.Kill(x.pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			x.boxes.t.Errorf("%s (process %d) does not end", x.Name, x.pid)
			break
		}
	}
	x.pid = 0
}

// hierarchies are where control groups are mounted that box.sh uses.
func hierarchies() []string {
	file, err := os.Open("/proc/mounts")
	if err != nil {
		return nil
	}
	defer file.Close() //nolint:errcheck // only read
	var found []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && (fields[2] == "cgroup" && !strings.HasSuffix(fields[3], ",cpuset") || fields[2] == "cgroup2") {
			found = append(found, fields[1])
		}
	}
	return found
}

// cleanUp ends all machines and fails the test if anything of them is left.
func (b *Boxes) cleanUp() {
	for _, name := range slices.Sorted(maps.Keys(b.all)) {
		x := b.all[name]
		if b.t.Failed() && x.pid != 0 {
			out, _ := x.Try("journalctl --no-pager -o cat -n 40 -u 'clary-*'")
			b.t.Logf("== %s\n%s", name, out)
		}
		if x.command != nil && x.command.ProcessState == nil {
			x.cut()
		}
		b.ip("netns", "delete", b.name+"-"+name)
	}
	b.ip("netns", "delete", b.name)
	for _, dir := range hierarchies() {
		for name := range b.all {
			if err := removeGroups(filepath.Join(dir, b.name+"-"+name)); err != nil {
				b.t.Errorf("left over: %v", err)
			}
		}
	}
}

// removeGroups removes a control group and those below it. What ends leaves its group a moment after it is gone.
func removeGroups(dir string) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.Reverse(dirs)
	deadline := time.Now().Add(5 * time.Second)
	for _, dir := range dirs {
		err := syscall.Rmdir(dir)
		for ; errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); err = syscall.Rmdir(dir) {
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			return fmt.Errorf("control group %s: %w", dir, err)
		}
	}
	return nil
}

func (b *Boxes) ip(args ...string) {
	b.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		b.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
