package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	driver "github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// bench is one driver with folders of its own.
type bench struct {
	*testing.T
	e      *enginetest.Engine
	config driver.Config
	d      *driver.Driver
}

func newBench(t *testing.T, e *enginetest.Engine, change ...func(*driver.Config)) *bench {
	t.Helper()
	b := &bench{T: t, e: e, config: driver.Config{Root: filepath.Join(t.TempDir(), "tasks"), Socket: e.Socket, Simulated: true}}
	for _, c := range change {
		c(&b.config)
	}
	b.open()
	t.Cleanup(func() {
		if err := b.d.Close(); err != nil {
			t.Error(err)
		}
		e.Clear()
	})
	return b
}

func (b *bench) open() {
	b.Helper()
	var err error
	if b.d, err = driver.Open(b.config); err != nil {
		b.Fatal(err)
	}
}

// again is the agent after a restart.
func (b *bench) again() []runtime.Found {
	b.Helper()
	if err := b.d.Close(); err != nil {
		b.Error(err)
	}
	b.open()
	found, err := b.d.Recover(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return found
}

// said is what a task wrote to stdout.
func (b *bench) said(id string) string {
	b.Helper()
	var text []byte
	err := b.d.Logs(b.Context(), id, journal.Query{Streams: []string{runtime.Stdout}}, func(batch []journal.Entry) error {
		for _, e := range batch {
			text = e.AppendRaw(text)
		}
		return nil
	})
	if err != nil {
		b.Error(err)
	}
	return string(text)
}

func (b *bench) start(id, image, script string) error {
	b.Helper()
	_, err := b.d.Start(b.Context(), runtime.Spec{ID: id, Image: image, Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}})
	return err
}

func (b *bench) wait(id string) runtime.Exit {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	exit, err := b.d.Wait(ctx, id)
	if err != nil {
		b.Fatalf("%s: %v", id, err)
	}
	return exit
}

// must runs a script and wants it to succeed.
func (b *bench) must(id, image string) {
	b.Helper()
	if err := b.start(id, image, "exit 0"); err != nil {
		b.Fatal(err)
	}
	if exit := b.wait(id); exit.Code != 0 || exit.Unknown {
		b.Fatalf("%s ended as %+v", id, exit)
	}
}

func (b *bench) refuses(id, image, want string) {
	b.Helper()
	if err := b.start(id, image, "exit 0"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
		b.Errorf("image %s: %v, want an error that says %q", image, err, want)
	}
}

// busybox is the image as a registry has it.
func busybox(t *testing.T, variant string) v1.Image {
	t.Helper()
	text, err := io.ReadAll(enginetest.RootFS(t))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		image, err = mutate.Config(image, v1.Config{Labels: map[string]string{"variant": variant}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestEngines(t *testing.T) {
	for engineName := range enginetest.Engines {
		t.Run(engineName, func(t *testing.T) {
			e := enginetest.Open(t, engineName)
			for _, c := range []struct {
				claim string
				check func(*testing.T, *enginetest.Engine)
			}{
				{"loads what docker save and OCI tools wrote, once, under no name of its own", loads},
				{"says what is wrong with an image's file", loadsRubbish},
				{"keeps no more images than it may", collects},
				{"starts again what never started", neverStarted},
				{"removes what nobody knows", sweeps},
				{"brings an image once for a whole gang", onceForAll},
				{"says what may be tried again", unready},
				{"pulls, by digest and from a mirror", pulls},
				{"gives a registry the credentials for it", credentials},
				{"refuses what an engine cannot keep", refuses},
				{"asks the engine what a task uses where it cannot look itself", asksForUsage},
				{"gives a task an address of its own behind the machine's", bridged},
			} {
				t.Run(c.claim, func(t *testing.T) { c.check(t, e) })
			}
			own := map[string]struct {
				claim string
				check func(*testing.T, *enginetest.Engine)
			}{
				"docker": {"knows that an engine took its containers with it", restarts},
				"podman": {"keeps containers, and gives them GPUs, though the service ends", serviceless},
			}[engineName]
			t.Run(own.claim, func(t *testing.T) { own.check(t, e) })
		})
	}
}

// archives is an object store with image files.
type archives struct {
	files  map[string][]byte
	opened int
}

func (a *archives) find(_ context.Context, uri string) (string, func(context.Context) (io.ReadCloser, error), error) {
	text, ok := a.files[uri]
	if !ok {
		return "", nil, fault.New(fault.NotFound, "there is no %s", uri)
	}
	return strconv.Itoa(len(text)), func(context.Context) (io.ReadCloser, error) {
		a.opened++
		return io.NopCloser(bytes.NewReader(text)), nil
	}, nil
}

func loads(t *testing.T, e *enginetest.Engine) {
	saved, tag := new(bytes.Buffer), name.MustParseReference("other/busybox:latest")
	if err := tarball.Write(tag, busybox(t, "saved"), saved); err != nil {
		t.Fatal(err)
	}
	store := &archives{files: map[string][]byte{
		"s3://data/saved.tar": saved.Bytes(), "s3://data/oci.tar": ociArchive(t, busybox(t, "oci")), "s3://data/oci.tar.gz": zipped(t, ociArchive(t, busybox(t, "zipped"))),
	}}
	b := newBench(t, e, func(c *driver.Config) { c.Archive = store.find })
	for uri := range store.files {
		before := store.opened
		for attempt := range 2 {
			b.must(fmt.Sprintf("job/main/%s-0.%d", strings.ReplaceAll(filepath.Base(uri), ".", "-"), attempt+1), uri)
		}
		if store.opened != before+1 {
			t.Errorf("%s was read %d times", uri, store.opened-before)
		}
	}
	client := e.Client()
	defer client.Close()
	if _, err := client.ImageInspect(t.Context(), tag.String()); err == nil {
		t.Errorf("the file's own name %s is known to the engine", tag)
	}
	if err := b.start("job/main/none-0.1", "s3://data/none.tar", "true"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func loadsRubbish(t *testing.T, e *enginetest.Engine) {
	store := &archives{files: map[string][]byte{
		"s3://data/text.tar": []byte("not a tar"), "s3://data/empty.tar": nil, "s3://data/cut.tar": ociArchive(t, busybox(t, "cut"))[:4096],
		"s3://data/foreign.tar": ociArchive(t, foreign(t)),
	}}
	b := newBench(t, e, func(c *driver.Config) { c.Archive = store.find })
	for uri, want := range map[string]string{
		"s3://data/text.tar": "neither of docker save nor an OCI archive", "s3://data/empty.tar": "neither", "s3://data/cut.tar": "neither",
		"s3://data/foreign.tar": "no image for linux/",
	} {
		b.refuses("job/main/bad-0.1", uri, want)
	}
	b.refuses("job/main/bad-0.1", "no::name", "no::name")
}

func collects(t *testing.T, e *enginetest.Engine) {
	store := &archives{files: map[string][]byte{"s3://data/a.tar": ociArchive(t, busybox(t, "a")), "s3://data/b.tar": ociArchive(t, busybox(t, "bb"))}}
	b := newBench(t, e, func(c *driver.Config) { c.Archive, c.ImageBytes = store.find, 1 })
	b.must("job/main/a-0.1", "s3://data/a.tar")
	b.must("job/main/b-0.1", "s3://data/b.tar") // a's container still has a's image
	if err := b.d.Remove(t.Context(), "job/main/a-0.1"); err != nil {
		t.Fatal(err)
	}
	store.files["s3://data/c.tar"] = ociArchive(t, busybox(t, "ccc"))
	b.must("job/main/c-0.1", "s3://data/c.tar")
	opened := store.opened
	b.must("job/main/b-0.2", "s3://data/b.tar")
	if store.opened != opened {
		t.Error("an image that a container has was deleted")
	}
	b.must("job/main/a-0.2", "s3://data/a.tar")
	if store.opened != opened+1 {
		t.Error("an image that nobody had was kept beyond the bound")
	}
	b.must("job/main/test-0.1", image) // not brought by the driver, and so not its to delete
}

func neverStarted(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	b.must("job/main/worker-0.1", image)
	client := e.Client()
	defer client.Close()
	list, err := client.ContainerList(t.Context(), moby.ContainerListOptions{All: true})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	// As if the agent had died before the start: the same container, new, and nothing noted of its end.
	note := filepath.Join(b.config.Root, "job~main~worker-0.1", "container.json")
	if err := os.WriteFile(note, fmt.Appendf(nil, `{"container": %q}`, list.Items[0].Names[0][1:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ContainerRemove(t.Context(), list.Items[0].ID, moby.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ContainerCreate(t.Context(), moby.ContainerCreateOptions{
		Name: list.Items[0].Names[0][1:], Config: &container.Config{Image: image, Cmd: []string{"true"}, Labels: list.Items[0].Labels},
	}); err != nil {
		t.Fatal(err)
	}
	if found := b.again(); len(found) != 0 {
		t.Errorf("recovered %+v", found)
	}
	b.must("job/main/worker-0.1", image)

	// One that is gone is unknown, and not started again.
	if err := b.d.Remove(t.Context(), "job/main/worker-0.1"); err != nil {
		t.Fatal(err)
	}
	if err := b.start("job/main/worker-0.1", image, "sleep 300"); err != nil {
		t.Fatal(err)
	}
	if err := b.d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.ContainerRemove(t.Context(), list.Items[0].Names[0][1:], moby.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if found := b.again(); len(found) != 1 || found[0].Running {
		t.Errorf("recovered %+v", found)
	}
	if exit := b.wait("job/main/worker-0.1"); !exit.Unknown || !strings.Contains(exit.Error, "gone") {
		t.Errorf("it ended as %+v", exit)
	}
	if err := b.start("job/main/worker-0.1", image, "true"); !fault.Is(err, fault.Conflict) {
		t.Errorf("started twice: %v", err)
	}
}

func sweeps(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	if err := b.start("job/main/worker-0.1", image, "sleep 60"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.config.Root); err != nil {
		t.Fatal(err)
	}
	if found := b.again(); len(found) != 0 {
		t.Errorf("recovered %+v", found)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := e.Left()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left over: %v", left)
		}
	}
}

// onceForAll starts a gang whose image nobody has.
func onceForAll(t *testing.T, e *enginetest.Engine) {
	store := &archives{files: map[string][]byte{"s3://data/gang.tar": ociArchive(t, busybox(t, "gang"))}}
	b := newBench(t, e, func(c *driver.Config) { c.Archive = store.find })
	const size = 4
	failed := make(chan error, size)
	for i := range size {
		go func() { failed <- b.start(fmt.Sprintf("job/main/worker-%d.1", i), "s3://data/gang.tar", "exit 0") }()
	}
	for range size {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	for i := range size {
		b.wait(fmt.Sprintf("job/main/worker-%d.1", i))
	}
	if store.opened != 1 {
		t.Errorf("the image's file was read %d times", store.opened)
	}
}

// breaks is a file that ends too early, as when a store goes away.
type breaks struct{ io.Reader }

func (b breaks) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func unready(t *testing.T, e *enginetest.Engine) {
	half := ociArchive(t, busybox(t, "half"))[:8192]
	b := newBench(t, e, func(c *driver.Config) {
		c.Archive = func(context.Context, string) (string, func(context.Context) (io.ReadCloser, error), error) {
			return "1", func(context.Context) (io.ReadCloser, error) { return io.NopCloser(breaks{bytes.NewReader(half)}), nil }, nil
		}
	})
	for _, image := range []string{"s3://data/half.tar", "127.0.0.1:1/none/such:1"} {
		if err := b.d.Fetch(t.Context(), image); !fault.Is(err, fault.Unready) {
			t.Errorf("image %s: %v, want one that may be tried again", image, err)
		}
	}
	if err := b.d.Fetch(t.Context(), "no::name"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a name that is none: %v", err)
	}
	files, err := os.ReadDir(filepath.Join(filepath.Dir(b.config.Root), "image-files"))
	if err != nil || len(files) != 0 {
		t.Errorf("left over: %v, %v", files, err)
	}
}

// refuses sees that a task is not run with less than it asks for.
func refuses(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	for want, spec := range map[string]runtime.Spec{
		"exclusive":       {ID: "job/main/a-0.1", Image: image, Exclusive: true},
		"secrets as file": {ID: "job/main/b-0.1", Image: image, Secrets: []string{"TOKEN=hush"}},
		"no image":        {ID: "job/main/c-0.1"},
	} {
		if _, err := b.d.Start(t.Context(), spec); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if e.Name == "docker" { // it has no hook for GPUs here
		b = newBench(t, e, func(c *driver.Config) { c.Simulated = false })
		_, err := b.d.Start(t.Context(), runtime.Spec{ID: "job/main/gpu-0.1", Image: image, Argv: []string{"true"}, Devices: []string{"GPU-1"}})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "gpu") {
			t.Errorf("a GPU that the engine cannot give: %v", err)
		}
	}
}

func asksForUsage(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	const id = "job/main/busy-0.1"
	if err := b.start(id, image, "while :; do :; done"); err != nil {
		t.Fatal(err)
	}
	b.d.HideGroup(id)
	var used runtime.Usage
	for deadline := time.Now().Add(30 * time.Second); used.CPU < 20*time.Millisecond || used.Memory <= 0; {
		var err error
		if used, err = b.d.Usage(id); err != nil || time.Now().After(deadline) {
			t.Fatalf("it is told to use %+v, %v", used, err)
		}
	}
	if err := b.d.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(id); exit.Usage.CPU < used.CPU || used.PeakMemory < used.Memory {
		t.Errorf("it used %+v, and is told to have used %+v", used, exit.Usage)
	}
}

func bridged(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	const id = "job/main/bridged-0.1"
	spec := runtime.Spec{
		ID: id, Image: image, Argv: []string{"sh", "-c", "ls /sys/class/net; " + listener}, Env: []string{"PATH=/bin"},
		Isolation: &runtime.Isolation{Network: runtime.NetworkBridge, Hosts: map[string]string{"algo-1": "10.1.2.3"}},
	}
	if _, err := b.d.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	// A connection that comes while busybox's listener begins again is reset.
	for deadline, said := time.Now().Add(30*time.Second), []byte(nil); string(said) != "hello\n"; time.Sleep(10 * time.Millisecond) {
		conn, err := b.d.Dial(t.Context(), id, 31234)
		if err == nil {
			said, err = io.ReadAll(conn)
			_ = conn.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("it said %q, %v", said, err)
		}
	}
	if interfaces := b.said(id); !strings.HasPrefix(interfaces, "eth0\nlo\n") {
		t.Errorf("it has the interfaces %q", interfaces)
	}
	if err := b.d.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	b.wait(id)
}
