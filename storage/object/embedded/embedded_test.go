package embedded_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/storage/object/embedded"
)

// TestMain lets this test binary be the child process that it supervises.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "objectstore" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := embedded.Main(ctx, os.Args[2:], os.Getenv); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// testToken is whose keys are good in a store that a test starts.
const testToken = "0123456789abcdef"

// store is a running store with its secrets.
type store struct {
	keys    *keyring.Keyring
	address string
	dir     string
	ready   chan struct{}
	log     *syncBuffer
	tally   *embedded.Tally
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func start(t *testing.T) *store {
	t.Helper()
	keys, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err := keys.Authority.Issue(key.Public(), pki.Request{Hosts: []string{"127.0.0.1", "localhost"}, Validity: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := pki.KeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := pki.ParseCredentials(certPEM, keyPEM, keys.Authority.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := credentials.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := embedded.WriteHolders(filepath.Join(dir, "holders"), []embedded.Holder{{Token: testToken}}); err != nil {
		t.Fatal(err)
	}
	s := &store{keys: keys, address: freeAddress(t), dir: dir, ready: make(chan struct{}, 8), log: &syncBuffer{}, tally: &embedded.Tally{}}
	supervisor := embedded.Supervisor{
		Config: embedded.Config{
			Dir: filepath.Join(dir, "objects"), Address: s.address,
			CertFile: filepath.Join(dir, pki.CertFile), KeyFile: filepath.Join(dir, pki.KeyFile),
			RootSecret: keys.ObjectSecret, DataKey: keys.DataKey, Holders: filepath.Join(dir, "holders"), Reserve: filepath.Join(dir, "reserve"),
		},
		CAs:   keys.CAs,
		Tally: s.tally,
		Log:   slog.New(slog.NewTextHandler(s.log, nil)),
		Ready: func() { s.ready <- struct{}{} },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- supervisor.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s.waitReady(t)
	return s
}

func (s *store) waitReady(t *testing.T) {
	t.Helper()
	select {
	case <-s.ready:
	case <-time.After(30 * time.Second):
		t.Fatalf("the store does not answer:\n%s", s.log)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *store) open(t *testing.T, access, secret string) *object.Client {
	t.Helper()
	c, err := object.Open(object.Config{Endpoint: s.address, AccessKey: access, SecretKey: secret, CA: s.keys.Authority.CertPEM()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *store) as(t *testing.T, role string) *object.Client {
	t.Helper()
	access, secret, err := embedded.Keys(s.keys.DataKey, role, testToken)
	if err != nil {
		t.Fatal(err)
	}
	return s.open(t, access, secret)
}

func read(t *testing.T, c *object.Client, u object.URI, offset, length int64) string {
	t.Helper()
	body, err := c.Get(t.Context(), u, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestObjectsArePutFoundCopiedAndDeleted(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	c := s.open(t, embedded.RootAccess, s.keys.ObjectSecret)
	if err := errors.Join(c.EnsureBucket(ctx, "clary"), c.EnsureBucket(ctx, "clary")); err != nil {
		t.Fatal(err)
	}
	at := func(key string) object.URI { return object.URI{Bucket: "clary", Key: key} }
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	put, err := c.PutFile(ctx, at("a/1"), file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, at("ab"), strings.NewReader("other"), 5); err != nil {
		t.Fatal(err)
	}
	if err := c.Copy(ctx, at("a/2"), at("a/1")); err != nil {
		t.Fatal(err)
	}
	got, err := c.Stat(ctx, at("a/2"))
	if err != nil || got.Size != 10 || got.SHA256 != put.SHA256 || len(got.SHA256) != 64 {
		t.Errorf("the copy is %+v, %v; want 10 bytes and SHA-256 %s", got, err, put.SHA256)
	}
	for _, r := range []struct {
		offset, length int64
		want           string
	}{{0, -1, "0123456789"}, {3, 4, "3456"}, {7, -1, "789"}, {0, 1, "0"}} {
		if got := read(t, c, at("a/2"), r.offset, r.length); got != r.want {
			t.Errorf("bytes %d+%d are %q, want %q", r.offset, r.length, got, r.want)
		}
	}
	keys := func(prefix string) string {
		all, err := c.List(ctx, at(prefix))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range all {
			out = append(out, i.URI.Key)
		}
		return strings.Join(out, " ")
	}
	if got := keys(""); got != "a/1 a/2 ab" {
		t.Errorf("listed %q", got)
	}
	for after, want := range map[string]string{"": "a/1 a/2", "a/1": "a/2 ab", "a/3": "ab"} {
		var got []string
		err := c.Each(ctx, at(""), after, func(info object.Info) bool {
			if info.URI.Key > after { // some stores tell of the one that is named, too
				got = append(got, info.URI.Key)
			}
			return len(got) < 2
		})
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("behind %q there are %v, %v; want the first two of %s", after, got, err, want)
		}
	}
	if n, err := c.DeletePrefix(ctx, at("a/")); n.Objects != 2 || n.Bytes == 0 || err != nil {
		t.Errorf("deleted %d, %v; want 2", n.Objects, err)
	}
	if got := keys(""); got != "ab" {
		t.Errorf("left are %q, want ab", got)
	}
	if err := errors.Join(c.Delete(ctx, at("ab")), c.Delete(ctx, at("ab"))); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
}

func TestWhatListingsNameIsSpreadOnceAndClashesAreTold(t *testing.T) {
	s := start(t)
	c := s.open(t, embedded.RootAccess, s.keys.ObjectSecret)
	ctx := t.Context()
	put := func(bucket, key, text string) {
		if _, err := c.Put(ctx, object.URI{Bucket: bucket, Key: key}, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	for _, bucket := range []string{"from", "there"} {
		if err := c.EnsureBucket(ctx, bucket); err != nil {
			t.Fatal(err)
		}
	}
	for key, text := range map[string]string{
		"w-0/out/a": "one", "w-0/out/deep/empty": "", "w-0/out.jsonl": "{\"name\":\"a\",\"sha256\":\"1\"}\n{\"name\":\"deep/empty\",\"sha256\":\"0\"}\n",
		"w-1/out/a": "two", "w-1/out/b c": "three", "w-1/out.jsonl": "{\"name\":\"a\",\"sha256\":\"2\"}\n{\"name\":\"b c\",\"sha256\":\"3\"}\n{\"name\":\"deep/empty\",\"sha256\":\"0\"}\n",
		"w-2/out.jsonl": "{\"name\":\"missing\",\"sha256\":\"9\"}\n",
	} {
		put("from", key, text)
	}
	put("there", "x/mine", "stays")
	for range 2 { // twice is no harm
		spread := object.Spread{Client: c, To: object.URI{Bucket: "there", Key: "x/"}}
		for _, whose := range []string{"w-0", "w-1"} {
			if err := spread.Copy(ctx, object.URI{Bucket: "from", Key: whose + "/out.jsonl"}, whose); err != nil {
				t.Fatal(err)
			}
		}
		if len(spread.Clashes) != 1 || spread.Clashes[0] != "a of w-1" || !spread.Has("b c") || spread.Has("mine") {
			t.Errorf("clashes %q", spread.Clashes)
		}
	}
	found, err := c.List(ctx, object.URI{Bucket: "there"})
	if err != nil {
		t.Fatal(err)
	}
	texts := ""
	for _, info := range found {
		if texts += info.URI.Key + "="; info.Size > 0 {
			texts += read(t, c, info.URI, 0, -1)
		}
		texts += ";"
	}
	if want := "x/a=one;x/b c=three;x/deep/empty=;x/mine=stays;"; texts != want {
		t.Errorf("there is %s, want %s", texts, want)
	}
	spread := object.Spread{Client: c, To: object.URI{Bucket: "there", Key: "x/"}}
	if err := spread.Copy(ctx, object.URI{Bucket: "from", Key: "w-2/out.jsonl"}, "w-2"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an object that is gone: %v", err)
	}
}

func TestALongStreamOfUnknownLengthArrivesWhole(t *testing.T) {
	s := start(t)
	c := s.as(t, cluster.RoleUser)
	if err := c.EnsureBucket(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 20<<20) // more than one part
	_, _ = rand.Read(content)
	u := object.URI{Bucket: "data", Key: "long"}
	info, err := c.Put(t.Context(), u, io.MultiReader(bytes.NewReader(content)), -1)
	if err != nil || info.Size != int64(len(content)) {
		t.Fatalf("%+v, %v", info, err)
	}
	if read(t, c, u, 0, -1) != string(content) {
		t.Error("what came back is something else")
	}
}

func TestRolesHoldInTheStore(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	user, viewer, admin := s.as(t, cluster.RoleUser), s.as(t, cluster.RoleViewer), s.as(t, cluster.RoleAdmin)
	u := object.URI{Bucket: "data", Key: "k"}
	if err := user.EnsureBucket(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	if _, err := user.Put(ctx, u, strings.NewReader("v"), 1); err != nil {
		t.Fatal(err)
	}
	if got := read(t, viewer, u, 0, -1) + read(t, admin, u, 0, -1); got != "vv" {
		t.Errorf("viewer and admin read %q", got)
	}
	if err := admin.EnsureBucket(ctx, "more"); err != nil {
		t.Error(err)
	}
	_, secret, err := embedded.Keys(s.keys.DataKey, cluster.RoleViewer, "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	_, putErr := viewer.Put(ctx, u, strings.NewReader("w"), 1)
	forged := s.open(t, "CLARY-ADMIN-0123456789abcdef", secret)
	_, forgedErr := forged.Put(ctx, u, strings.NewReader("w"), 1)
	_, rootErr := s.open(t, embedded.RootAccess, secret).List(ctx, u)
	_, strangerErr := s.open(t, "AKIA123", secret).List(ctx, u)
	for name, err := range map[string]error{
		"a viewer's put": putErr, "a viewer's delete": viewer.Delete(ctx, u), "a viewer's new bucket": viewer.EnsureBucket(ctx, "mine"),
		"a viewer's secret with an admin's key": forgedErr, "root with another secret": rootErr, "a stranger": strangerErr,
	} {
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v, want Denied", name, err)
		}
	}
	if got := read(t, viewer, u, 0, -1); got != "v" {
		t.Errorf("the object is %q now", got)
	}
	_, missing := user.Stat(ctx, object.URI{Bucket: "data", Key: "none"})
	_, noBucket := user.List(ctx, object.URI{Bucket: "nowhere"})
	for name, err := range map[string]error{"no object": missing, "no bucket": noBucket} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v, want NotFound", name, err)
		}
	}
}

func TestKeysEndWithTheirToken(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	c := s.as(t, embedded.RoleUser)
	allows := func() bool {
		t.Helper()
		_, err := c.List(ctx, object.URI{Bucket: "clary"})
		if err != nil && !fault.Is(err, fault.Denied) {
			t.Fatal(err)
		}
		return err == nil
	}
	holders := filepath.Join(s.dir, "holders")
	write := func(list ...embedded.Holder) {
		t.Helper()
		if err := embedded.WriteHolders(holders, list); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.open(t, embedded.RootAccess, s.keys.ObjectSecret).EnsureBucket(ctx, "clary"); err != nil {
		t.Fatal(err)
	}
	if !allows() {
		t.Error("a good token's key is refused")
	}
	write(embedded.Holder{Token: "another"})
	if allows() {
		t.Error("a revoked token's key is good")
	}
	write(embedded.Holder{Token: testToken, Expires: time.Now().Add(-time.Second)})
	if allows() {
		t.Error("an expired token's key is good")
	}
	write(embedded.Holder{Token: testToken, Expires: time.Now().Add(time.Hour)})
	if !allows() {
		t.Error("a token's key is refused before it expires")
	}
	// One that was made elsewhere a moment ago is waited for.
	write(embedded.Holder{Token: "another"})
	arrived := make(chan error, 1)
	go func() {
		time.Sleep(300 * time.Millisecond) // as a follower is behind
		arrived <- embedded.WriteHolders(holders, []embedded.Holder{{Token: testToken}})
	}()
	if !allows() {
		t.Error("a new token's key is refused for good")
	}
	if err := <-arrived; err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(holders); err != nil {
		t.Fatal(err)
	}
	if allows() {
		t.Error("without the file everybody is let in")
	}
	if _, err := s.open(t, embedded.RootAccess, s.keys.ObjectSecret).List(ctx, object.URI{Bucket: "clary"}); err != nil {
		t.Errorf("the cluster's own key: %v", err)
	}
}

// kill ends the store's process as a power cut would.
func (s *store) kill(t *testing.T) {
	t.Helper()
	var pid int
	_, after, _ := strings.Cut(s.log.String(), "pid=")
	if _, err := fmt.Sscan(after, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestAKilledStoreComesBackWithItsObjects(t *testing.T) {
	s := start(t)
	c := s.as(t, cluster.RoleUser)
	u := object.URI{Bucket: "data", Key: "k"}
	if err := c.EnsureBucket(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), u, strings.NewReader("v"), 1); err != nil {
		t.Fatal(err)
	}
	s.kill(t)
	s.waitReady(t)
	if got := read(t, c, u, 0, -1); got != "v" {
		t.Errorf("after a restart the object is %q", got)
	}
}

func TestAWrongConfigurationIsReportedAtOnce(t *testing.T) {
	err := embedded.Supervisor{Config: embedded.Config{DataKey: []byte("short")}}.Run(t.Context())
	if !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"dir", "address", "cert", "key", "5 bytes"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in %v", want, err)
		}
	}
	if _, _, err := embedded.Keys(nil, "king", "id"); !fault.Is(err, fault.Invalid) {
		t.Errorf("keys for an unknown role: %v", err)
	}
}

// TestTheRealAWSCommandLineWorks runs aws s3 as a user would.
func TestTheRealAWSCommandLineWorks(t *testing.T) {
	aws, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("aws is not on PATH: the AWS command line was not tried")
	}
	s := start(t)
	access, secret, err := embedded.Keys(s.keys.DataKey, cluster.RoleUser, "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(s.dir, "big")
	content := make([]byte, 12<<20)
	_, _ = rand.Read(content)
	if err := os.WriteFile(big, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), aws, append([]string{"--endpoint-url", "https://" + s.address}, args...)...)
		cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+access, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_DEFAULT_REGION=us-east-1",
			"AWS_CA_BUNDLE="+filepath.Join(s.dir, pki.CAFile), "AWS_EC2_METADATA_DISABLED=true", "HOME="+s.dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("aws %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	back := filepath.Join(s.dir, "back")
	run("s3", "mb", "s3://data")
	run("s3", "cp", "--quiet", big, "s3://data/x/big") // in parts
	if out := run("s3", "ls", "s3://data/x/"); !strings.Contains(out, "12582912 big") {
		t.Errorf("ls shows %q", out)
	}
	run("s3", "cp", "--quiet", "s3://data/x/big", back)
	got, err := os.ReadFile(back)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("another file came back, %v", err)
	}
}

// What the store's process counts is told to its parent, and is not lost with the process.
func TestTheStoreCountsWhatItDoes(t *testing.T) {
	s := start(t)
	ctx, c, at := t.Context(), s.open(t, embedded.RootAccess, s.keys.ObjectSecret), object.URI{Bucket: "clary", Key: "a"}
	round := func(times int64) {
		t.Helper()
		if err := c.EnsureBucket(ctx, "clary"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, at, strings.NewReader("0123456789"), 10); err != nil {
			t.Fatal(err)
		}
		_ = read(t, c, at, 0, -1)
		if _, err := c.Get(ctx, object.URI{Bucket: "clary", Key: "none"}, 0, -1); err == nil {
			t.Fatal("what is not there was read")
		}
		deadline := time.Now().Add(30 * time.Second)
		for {
			counts, served := s.tally.Get()
			got := counts.Requests["GET"]
			if served && counts.Read >= 10*times && counts.Written >= 10*times && got[embedded.EndedOK] >= times && got[embedded.EndedRefused] >= times {
				if counts.Read > 1000*times || got[embedded.EndedFailed] > 0 {
					t.Errorf("it counts %+v", counts)
				}
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("it counts %+v, served: %v", counts, served)
			}
			time.Sleep(20 * time.Millisecond) // the store tells every second
		}
	}
	round(1)
	s.kill(t)
	s.waitReady(t)
	round(2)
}
