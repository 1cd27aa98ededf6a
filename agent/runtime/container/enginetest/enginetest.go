// Package enginetest starts container engines of a test's own, with folders and a network
// apart from the machine's.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime/sandbox"
)

// Image is what tests run: busybox and nothing else. It knows the user UID as tester, who is nobody of other packages' tests: those see
// what processes their own users have.
const (
	Image = "clary-test:busybox"
	UID   = 245678
)

// Engine is a container engine of the test's own.
type Engine struct {
	t      testing.TB
	Name   string
	dir    string
	Socket string
	space  string // its network namespace
	start  func(e *Engine) *exec.Cmd
	Extra  []string // flags

	registries int // that were served
	Process    *exec.Cmd
	ended      chan struct{}
}

// Engines are the names of those that are installed here.
var Engines = map[string]struct {
	programs []string
	start    func(e *Engine) *exec.Cmd
}{
	"docker": {[]string{"dockerd", "iptables"}, dockerd},
	"podman": {[]string{"podman", "runc"}, podman},
}

// Open starts an engine with folders and a network of its own, and an image in it.
func Open(t testing.TB, name string) *Engine {
	t.Helper()
	if os.Getenv("CLARY_TEST_ENGINES") == "" {
		t.Skip("skipped: it takes a container engine; `make engines` installs and tests them")
	}
	for _, program := range append(Engines[name].programs, "busybox", "ip", "nsenter") {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: `make engines` installs it", err)
		}
	}
	dir, err := os.MkdirTemp("", "clary-"+name)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{t: t, Name: name, dir: dir, Socket: "unix://" + filepath.Join(dir, "api.sock"), space: filepath.Base(dir), start: Engines[name].start}
	e.ip("netns", "add", e.space)
	e.ip("-n", e.space, "link", "set", "lo", "up")
	t.Cleanup(e.close)
	e.Run()
	e.importImage()
	return e
}

func (e *Engine) ip(args ...string) {
	e.t.Helper()
	if text, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		e.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, text)
	}
}

// Path is in the engine's own folder.
func (e *Engine) Path(name string) string { return filepath.Join(e.dir, name) }

// command runs a program in the engine's network. Not `ip netns exec`: it hides the control
// groups.
func (e *Engine) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + e.space}, args...)...)
}

func dockerd(e *Engine) *exec.Cmd {
	flags := []string{
		"dockerd", "--data-root", e.Path("data"), "--exec-root", e.Path("exec"), "--pidfile", e.Path("pid"), "-H", e.Socket,
		"--cgroup-parent", "/" + e.group(), "--exec-opt", "native.cgroupdriver=cgroupfs", // for systemd's the name would have to be a slice's
	}
	return e.command(append(flags, e.Extra...)...)
}

func podman(e *Engine) *exec.Cmd {
	config := "[containers]\ndefault_ulimits=[\"nofile=20000:20000\",\"nproc=32768:32768\"]\n[engine]\nruntime=\"runc\"\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n"
	if err := os.WriteFile(e.Path("containers.conf"), []byte(config), 0o600); err != nil {
		e.t.Fatal(err)
	}
	var trusted strings.Builder // Docker trusts its loopback without being told
	for i := range maxRegistries {
		fmt.Fprintf(&trusted, "[[registry]]\nlocation=%q\ninsecure=true\n", registryAddress(i))
	}
	if err := os.WriteFile(e.Path("registries.conf"), []byte(trusted.String()), 0o600); err != nil {
		e.t.Fatal(err)
	}
	command := e.command("podman", "--root", e.Path("data"), "--runroot", e.Path("exec"), "--tmpdir", e.Path("tmp"), "system", "service", "--time=0", e.Socket)
	command.Env = append(os.Environ(), "CONTAINERS_CONF="+e.Path("containers.conf"), "CONTAINERS_REGISTRIES_CONF="+e.Path("registries.conf"))
	return command
}

// Registries that a test may serve to one engine.
const (
	firstRegistry = 5000 // port
	maxRegistries = 16
)

func registryAddress(i int) string { return fmt.Sprintf("127.0.0.1:%d", firstRegistry+i) }

// Listen is where a registry is served: an address on the engine's own loopback that it
// trusts without TLS. Dial reaches it from the test's network.
func (e *Engine) Listen() net.Listener {
	e.t.Helper()
	if e.registries == maxRegistries {
		e.t.Fatalf("%s trusts no more than %d registries", e.Name, maxRegistries)
	}
	var listener net.Listener
	err := sandbox.InNetwork(e.Process.Process.Pid, func() (err error) {
		listener, err = net.Listen("tcp4", registryAddress(e.registries))
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	e.registries++
	return listener
}

// Dial connects within the engine's network.
func (e *Engine) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = sandbox.InNetwork(e.Process.Process.Pid, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Run starts the engine and waits until it answers.
func (e *Engine) Run() {
	e.t.Helper()
	log, err := os.OpenFile(e.Path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	e.Process = e.start(e)
	e.Process.Stdout, e.Process.Stderr = log, log
	e.Process.Dir = e.dir // Podman's monitor leaves a file where it stands
	if err := e.Process.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.ended = make(chan struct{})
	go func() { // ends with the process, for which end waits
		_ = e.Process.Wait()
		_ = log.Close()
		close(e.ended)
	}()
	client := e.Client()
	defer client.Close()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := client.Ping(context.Background(), moby.PingOptions{}); err == nil {
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(e.Path("log"))
			e.t.Fatalf("%s does not start:\n%s", e.Name, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Crash kills the engine, and the daemon below it that dockerd would find again.
func (e *Engine) Crash() {
	e.t.Helper()
	text, _ := os.ReadFile(e.Path("exec/containerd/containerd.pid"))
	e.End(syscall.SIGKILL)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = os.Remove(e.Path("exec/containerd/containerd.pid")) // nobody may be there to reap it
	}
}

// End stops the engine, at once if it is killed.
func (e *Engine) End(signal syscall.Signal) {
	e.t.Helper()
	_ = e.Process.Process.Signal(signal)
	select {
	case <-e.ended:
	case <-time.After(30 * time.Second):
		e.t.Errorf("%s does not end", e.Name)
		_ = e.Process.Process.Kill()
		<-e.ended
	}
}

// Clear removes all containers.
func (e *Engine) Clear() {
	containers, err := e.Containers()
	if err != nil {
		e.t.Errorf("list the containers: %v", err)
	}
	client := e.Client()
	defer client.Close()
	for _, c := range containers {
		if c.Running && !e.t.Failed() {
			e.t.Errorf("container %v still runs", c.Name)
		}
		if _, err := client.ContainerRemove(context.Background(), c.ID, moby.ContainerRemoveOptions{Force: true}); err != nil {
			e.t.Error(err)
		}
	}
}

func (e *Engine) close() {
	e.Clear()
	e.End(syscall.SIGTERM)
	if e.t.Failed() {
		text, _ := os.ReadFile(e.Path("log"))
		e.t.Logf("%s said:\n%s", e.Name, text[max(0, len(text)-2000):])
	}
	e.tidy()
	e.ip("netns", "delete", e.space)
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Error(err)
	}
}

// Client is one of the test's own.
func (e *Engine) Client() *moby.Client {
	client, err := moby.New(moby.WithHost(e.Socket))
	if err != nil {
		e.t.Fatal(err)
	}
	return client
}

// importImage makes the image out of the machine's static busybox.
func (e *Engine) importImage() {
	e.t.Helper()
	client := e.Client()
	defer client.Close()
	answer, err := client.ImageImport(context.Background(), moby.ImageImportSource{Source: RootFS(e.t), SourceName: "-"}, Image, moby.ImageImportOptions{})
	if err == nil {
		_, err = io.Copy(io.Discard, answer)
		_ = answer.Close()
	}
	if err != nil {
		e.t.Fatalf("import the image: %v", err)
	}
}

// RootFS is a tar of a root folder with busybox.
func RootFS(t testing.TB) io.Reader {
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
	put(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, fmt.Appendf(nil, "root:x:0:0:root:/:/bin/sh\ntester:x:%d:%d::/:/bin/sh\n", UID, UID))
	put(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, fmt.Appendf(nil, "root:x:0:\ntester:x:%d:\n", UID))
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}
