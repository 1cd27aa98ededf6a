package container_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	moby "github.com/moby/moby/client"
)

// image is what tests run: busybox and nothing else.
const image = "clary-test:busybox"

// engine is a container engine of the test's own.
type engine struct {
	t       testing.TB
	name    string
	dir     string
	socket  string
	space   string // its network namespace
	start   func(e *engine) *exec.Cmd
	extra   []string // flags
	process *exec.Cmd
	ended   chan struct{}
}

// engines are those that are installed here.
var engines = map[string]struct {
	programs []string
	start    func(e *engine) *exec.Cmd
}{
	"docker": {[]string{"dockerd", "iptables"}, dockerd},
	"podman": {[]string{"podman", "runc"}, podman},
}

// open starts an engine with folders and a network of its own, and an image in it.
func open(t testing.TB, name string) *engine {
	t.Helper()
	if os.Getenv("CLARY_TEST_ENGINES") == "" {
		t.Skip("skipped: it takes a container engine; `make engines` installs and tests them")
	}
	for _, program := range append(engines[name].programs, "busybox", "ip", "nsenter") {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: `make engines` installs it", err)
		}
	}
	dir, err := os.MkdirTemp("", "clary-"+name)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, name: name, dir: dir, socket: "unix://" + filepath.Join(dir, "api.sock"), space: filepath.Base(dir), start: engines[name].start}
	e.ip("netns", "add", e.space)
	e.ip("-n", e.space, "link", "set", "lo", "up")
	t.Cleanup(e.close)
	e.run()
	e.importImage()
	return e
}

func (e *engine) ip(args ...string) {
	e.t.Helper()
	if text, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		e.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, text)
	}
}

func (e *engine) path(name string) string { return filepath.Join(e.dir, name) }

// command runs a program in the engine's network. Not `ip netns exec`: it hides the control
// groups.
func (e *engine) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + e.space}, args...)...)
}

func dockerd(e *engine) *exec.Cmd {
	flags := []string{"dockerd", "--data-root", e.path("data"), "--exec-root", e.path("exec"), "--pidfile", e.path("pid"), "-H", e.socket}
	return e.command(append(flags, e.extra...)...)
}

func podman(e *engine) *exec.Cmd {
	config := "[containers]\ndefault_ulimits=[\"nofile=20000:20000\",\"nproc=32768:32768\"]\n[engine]\nruntime=\"runc\"\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n"
	if err := os.WriteFile(e.path("containers.conf"), []byte(config), 0o600); err != nil {
		e.t.Fatal(err)
	}
	command := e.command("podman", "--root", e.path("data"), "--runroot", e.path("exec"), "--tmpdir", e.path("tmp"), "system", "service", "--time=0", e.socket)
	command.Env = append(os.Environ(), "CONTAINERS_CONF="+e.path("containers.conf"))
	return command
}

// run starts the engine and waits until it answers.
func (e *engine) run() {
	e.t.Helper()
	log, err := os.OpenFile(e.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	e.process = e.start(e)
	e.process.Stdout, e.process.Stderr = log, log
	if err := e.process.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.ended = make(chan struct{})
	go func() { // ends with the process, for which end waits
		_ = e.process.Wait()
		_ = log.Close()
		close(e.ended)
	}()
	client := e.client()
	defer client.Close()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := client.Ping(context.Background(), moby.PingOptions{}); err == nil {
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(e.path("log"))
			e.t.Fatalf("%s does not start:\n%s", e.name, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// crash kills the engine, and the daemon below it that dockerd would find again.
func (e *engine) crash() {
	e.t.Helper()
	text, _ := os.ReadFile(e.path("exec/containerd/containerd.pid"))
	e.end(syscall.SIGKILL)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = os.Remove(e.path("exec/containerd/containerd.pid")) // nobody may be there to reap it
	}
}

// end stops the engine, at once if it is killed.
func (e *engine) end(signal syscall.Signal) {
	e.t.Helper()
	_ = e.process.Process.Signal(signal)
	select {
	case <-e.ended:
	case <-time.After(30 * time.Second):
		e.t.Errorf("%s does not end", e.name)
		_ = e.process.Process.Kill()
		<-e.ended
	}
}

// clear removes all containers.
func (e *engine) clear() {
	client := e.client()
	defer client.Close()
	list, err := client.ContainerList(context.Background(), moby.ContainerListOptions{All: true})
	if err != nil {
		e.t.Errorf("list the containers: %v", err)
	}
	for _, item := range list.Items {
		// The list may be older than what was waited for.
		if now, err := client.ContainerInspect(context.Background(), item.ID, moby.ContainerInspectOptions{}); err == nil && now.Container.State.Running && !e.t.Failed() {
			e.t.Errorf("container %v still runs", item.Names)
		}
		if _, err := client.ContainerRemove(context.Background(), item.ID, moby.ContainerRemoveOptions{Force: true}); err != nil {
			e.t.Error(err)
		}
	}
}

func (e *engine) close() {
	e.clear()
	e.end(syscall.SIGTERM)
	if e.t.Failed() {
		text, _ := os.ReadFile(e.path("log"))
		e.t.Logf("%s said:\n%s", e.name, text[max(0, len(text)-2000):])
	}
	e.unmount()
	e.ip("netns", "delete", e.space)
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Error(err)
	}
}

// unmount takes away what an engine leaves mounted in its own folders.
func (e *engine) unmount() {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		e.t.Fatal(err)
	}
	var mounts []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4], e.dir+"/") {
			mounts = append(mounts, fields[4])
		}
	}
	for _, mount := range slices.Backward(mounts) {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			e.t.Errorf("unmount %s: %v", mount, err)
		}
	}
}

func (e *engine) client() *moby.Client {
	client, err := moby.New(moby.WithHost(e.socket))
	if err != nil {
		e.t.Fatal(err)
	}
	return client
}

// importImage makes the image out of the machine's static busybox.
func (e *engine) importImage() {
	e.t.Helper()
	client := e.client()
	defer client.Close()
	answer, err := client.ImageImport(context.Background(), moby.ImageImportSource{Source: rootfs(e.t), SourceName: "-"}, image, moby.ImageImportOptions{})
	if err == nil {
		_, err = io.Copy(io.Discard, answer)
		_ = answer.Close()
	}
	if err != nil {
		e.t.Fatalf("import the image: %v", err)
	}
}

// rootfs is a tar of a root folder with busybox.
func rootfs(t testing.TB) io.Reader {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	put := func(header tar.Header, content []byte) {
		header.Size = int64(len(content))
		if err := archive.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"bin/", "etc/", "opt/", "proc/", "sys/", "dev/", "usr/"} {
		put(tar.Header{Name: folder, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	put(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	put(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			put(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
		}
	}
	put(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, fmt.Appendf(nil, "root:x:0:0:root:/:/bin/sh\ntester:x:%d:%d::/:/bin/sh\n", uid, uid))
	put(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, fmt.Appendf(nil, "root:x:0:\ntester:x:%d:\n", uid))
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}
