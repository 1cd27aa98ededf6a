package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	driver "github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
	"github.com/clary-ml/clary/agent/runtime/sandbox"
	"github.com/clary-ml/clary/internal/fault"
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
			} {
				t.Run(c.claim, func(t *testing.T) { c.check(t, e) })
			}
			if engineName == "docker" {
				t.Run("pulls, by digest and from a mirror", func(t *testing.T) { pulls(t, e) })
				t.Run("gives a registry the credentials for it", func(t *testing.T) { credentials(t, e) })
				t.Run("knows that an engine took its containers with it", func(t *testing.T) { restarts(t, e) })
			}
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
	// As if the agent had died before the start: the same container, new.
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
	client := e.Client()
	defer client.Close()
	if list, err := client.ContainerList(t.Context(), moby.ContainerListOptions{All: true}); err != nil || len(list.Items) != 0 {
		t.Errorf("left over: %v, %v", list, err)
	}
}

var quiet = log.New(io.Discard, "", 0)

// registryIn serves a registry on the engine's loopback, which it trusts without TLS.
func registryIn(t *testing.T, e *enginetest.Engine, handler http.Handler) string {
	t.Helper()
	var listener net.Listener
	err := sandbox.InNetwork(e.Process.Process.Pid, func() (err error) {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return listener.Addr().String()
}

// dialIn reaches the registry from the test's own network.
func dialIn(e *enginetest.Engine) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = sandbox.InNetwork(e.Process.Process.Pid, func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

func push(t *testing.T, e *enginetest.Engine, to string, image v1.Image, options ...remote.Option) {
	t.Helper()
	reference, err := name.ParseReference(to, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, image, append(options, remote.WithTransport(&http.Transport{DialContext: dialIn(e)}))...); err != nil {
		t.Fatal(err)
	}
}

// keychain has one registry's credentials.
type keychain struct {
	registry string
	known    authn.Authenticator
}

func (k keychain) Resolve(of authn.Resource) (authn.Authenticator, error) {
	if of.RegistryStr() == k.registry {
		return k.known, nil
	}
	return authn.Anonymous, nil
}

func credentials(t *testing.T, e *enginetest.Engine) {
	open := registry.New(registry.Logger(quiet))
	host := registryIn(t, e, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "puller" || password != "open sesame" {
			w.Header().Set("WWW-Authenticate", `Basic realm="tests"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
			return
		}
		open.ServeHTTP(w, r)
	}))
	known := &authn.Basic{Username: "puller", Password: "open sesame"}
	push(t, e, host+"/team/private:1", busybox(t, "private"), remote.WithAuth(known))
	b := newBench(t, e)
	b.refuses("job/main/none-0.1", host+"/team/private:1", "cannot be pulled")
	b = newBench(t, e, func(c *driver.Config) {
		c.Credentials = keychain{host, &authn.Basic{Username: "puller", Password: "wrong"}}
	})
	b.refuses("job/main/wrong-0.1", host+"/team/private:1", "cannot be pulled")
	b = newBench(t, e, func(c *driver.Config) { c.Credentials = keychain{host, known} })
	b.must("job/main/right-0.1", host+"/team/private:1")
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

func pulls(t *testing.T, e *enginetest.Engine) {
	host := registryIn(t, e, registry.New(registry.Logger(quiet)))
	pushed := busybox(t, "pushed")
	push(t, e, host+"/team/tool:1", pushed)
	digest, err := pushed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, e, func(c *driver.Config) { c.Mirrors = map[string]string{"registry.example": host} })
	b.must("job/main/digest-0.1", host+"/team/tool@"+digest.String())
	b.must("job/main/tag-0.1", host+"/team/tool:1")
	b.must("job/main/mirror-0.1", "registry.example/team/tool:1")
	b.refuses("job/main/wrong-0.1", host+"/team/tool@sha256:"+strings.Repeat("0", 64), "cannot be pulled")
	b.refuses("job/main/wrong-0.1", host+"/team/tool:2", "cannot be pulled")
}

func restarts(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	for i, end := range []func(){func() { e.End(syscall.SIGTERM) }, e.Crash} {
		id := fmt.Sprintf("job/main/worker-%d.1", i)
		if err := b.start(id, image, "sleep 300"); err != nil {
			t.Fatal(err)
		}
		end()
		if err := b.start("job/main/away-0.1", image, "true"); !fault.Is(err, fault.Unready) {
			t.Errorf("a start without an engine: %v", err)
		}
		e.Run()
		if exit := b.wait(id); !exit.Unknown || !strings.Contains(exit.Error, "engine ended") {
			t.Errorf("way %d: it ended as %+v", i, exit)
		}
		b.must(fmt.Sprintf("job/main/after-%d.1", i), image)
	}
	// The agent may go with the engine: then nobody saw it go.
	if err := b.start("job/main/alone-0.1", image, "sleep 300"); err != nil {
		t.Fatal(err)
	}
	if err := b.start("job/main/alone-1.1", image, "exit 6"); err != nil {
		t.Fatal(err)
	}
	b.wait("job/main/alone-1.1")
	if err := b.d.Close(); err != nil {
		t.Error(err)
	}
	e.End(syscall.SIGTERM)
	b.open()
	if found, err := b.d.Recover(t.Context()); err != nil || len(found) == 0 {
		t.Errorf("without an engine recovered %+v, %v", found, err)
	}
	e.Run()
	b.again()
	if exit := b.wait("job/main/alone-0.1"); !exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
	if exit := b.wait("job/main/alone-1.1"); exit.Code != 6 || exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
	comesLater(t, e, b)
	// With live-restore containers outlive the engine, and so do exit codes.
	if err := os.WriteFile(e.Path("daemon.json"), []byte(`{"live-restore": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Extra = []string{"--config-file", e.Path("daemon.json")}
	e.End(syscall.SIGTERM)
	e.Run()
	if err := b.start("job/main/lives-0.1", image, "sleep 2; exit 5"); err != nil {
		t.Fatal(err)
	}
	e.End(syscall.SIGTERM)
	e.Run()
	if exit := b.wait("job/main/lives-0.1"); exit.Code != 5 || exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
}

// comesLater has an agent begin before its engine, which has what nobody knows any more.
func comesLater(t *testing.T, e *enginetest.Engine, b *bench) {
	if err := b.start("job/main/orphan-0.1", image, "exit 0"); err != nil {
		t.Fatal(err)
	}
	b.wait("job/main/orphan-0.1")
	orphan := filepath.Join(b.config.Root, "job~main~orphan-0.1")
	if err := os.RemoveAll(orphan); err != nil {
		t.Fatal(err)
	}
	e.End(syscall.SIGTERM)
	b.again()
	e.Run()
	client := e.Client()
	defer client.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		filters := moby.Filters{}.Add("label", "clary.task=job/main/orphan-0.1")
		list, err := client.ContainerList(t.Context(), moby.ContainerListOptions{All: true, Filters: filters})
		if err == nil && len(list.Items) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v, %v", list.Items, err)
		}
	}
}
