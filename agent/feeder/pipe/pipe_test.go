package pipe_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/agent/feeder/pipe"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const patience = 20 * time.Second

// bench is a channel that is being served.
type bench struct {
	testing.TB
	folder string
	store  stagingtest.Store
	ended  chan error // what Run returned
	end    context.CancelFunc
}

func put(t testing.TB, store stagingtest.Store, objects map[string]string) {
	t.Helper()
	for key, text := range objects {
		if err := store.Put(context.Background(), "data", key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
}

func serve(t testing.TB, objects map[string]string, input cluster.Input, around func(staging.Reader) staging.Reader) *bench {
	t.Helper()
	b := &bench{TB: t, folder: t.TempDir(), store: stagingtest.Store{Dir: t.TempDir()}, ended: make(chan error, 1)}
	put(t, b.store, objects)
	input.Channel, input.Mode = "train", cluster.InputPipe
	if input.URI == "" {
		input.URI = "s3://data/set"
	}
	config := pipe.Config{Store: b.store, Input: input, Scratch: t.TempDir()}
	if around != nil {
		config.Store = around(b.store)
	}
	if input.Type != cluster.InputAugmentedManifest {
		var err error
		if config.Items, err = staging.Resolve(t.Context(), b.store, input, staging.Share{}); err != nil {
			t.Fatal(err)
		}
	}
	channel, err := pipe.Open(b.folder, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.end = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.ended <- channel.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("it does not end when it is told to")
			return
		}
		if err := channel.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) path(epoch int) string {
	return filepath.Join(b.folder, fmt.Sprintf("train_%d", epoch))
}

func (b *bench) open(epoch int) *os.File {
	b.Helper()
	file, err := os.Open(b.path(epoch))
	if err != nil {
		b.Fatal(err)
	}
	return file
}

// epoch reads one to its end. The next pipe must be there by then.
func (b *bench) epoch(n int) string {
	b.Helper()
	file := b.open(n)
	_ = file.SetReadDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(file)
	if err != nil {
		b.Fatalf("epoch %d after %d bytes: %v", n, len(text), err)
	}
	if _, err := os.Lstat(b.path(n + 1)); err != nil {
		b.Errorf("at the end of epoch %d the next is not there: %v", n, err)
	}
	_ = file.Close()
	return string(text)
}

func TestEachEpochHasAPipeWithAllObjectsInOrder(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 200_000)
	b := serve(t, map[string]string{"set/a": "first,", "set/b/c": large, "set/d": "", "set/e": ",last"}, cluster.Input{}, nil)
	for n := range 5 {
		if got := b.epoch(n); got != "first,"+large+",last" {
			t.Fatalf("epoch %d has %d bytes", n, len(got))
		}
	}
	if _, err := os.Lstat(b.path(0)); !os.IsNotExist(err) {
		t.Errorf("the first pipe is still there: %v", err)
	}
	if info, err := os.Lstat(b.path(5)); err != nil || info.Mode() != os.ModeNamedPipe|0o444 {
		t.Errorf("the next is %v, %v", info, err)
	}
}

func TestWhoClosesEarlyGetsTheNextEpochFromItsBeginning(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 500_000)
	b := serve(t, map[string]string{"set/a": large}, cluster.Input{}, nil)
	for n := range 3 {
		file := b.open(n)
		some := make([]byte, 100)
		if _, err := io.ReadFull(file, some); err != nil || string(some) != large[:100] {
			t.Fatalf("epoch %d begins with %q, %v", n, some, err)
		}
		if n == 1 { // opened before the last was closed
			if got := b.epoch(2); got != large {
				t.Errorf("the next has %d bytes", len(got))
			}
			_ = file.Close()
			break
		}
		_ = file.Close()
	}
	if got := b.epoch(3); got != large {
		t.Errorf("epoch 3 has %d bytes", len(got))
	}
}

func TestAnotherUserReadsThePipe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: becoming another user needs root")
	}
	b := serve(t, map[string]string{"set/a": "hello"}, cluster.Input{}, nil)
	for folder := b.folder; folder != os.TempDir(); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cat := exec.Command("timeout", "20", "cat", b.path(0))
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if text, err := cat.CombinedOutput(); err != nil || string(text) != "hello" {
		t.Errorf("it reads %q, %v", text, err)
	}
	write := exec.Command("timeout", "5", "sh", "-c", "echo x > "+b.path(1))
	write.SysProcAttr = cat.SysProcAttr
	if err := write.Run(); err == nil {
		t.Error("it may write")
	}
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var out bytes.Buffer
	to := gzip.NewWriter(&out)
	if _, err := io.WriteString(to, text); err != nil || to.Close() != nil {
		t.Fatal(err)
	}
	return out.String()
}

// records reads RecordIO as SageMaker's own reader does, by magic, length and padding.
func records(t testing.TB, text string) []string {
	t.Helper()
	var all []string
	for len(text) > 0 {
		if len(text) < 8 || binary.LittleEndian.Uint32([]byte(text)) != 0xced7230a {
			t.Fatalf("no record begins at %q", text[:min(len(text), 20)])
		}
		size := int(binary.LittleEndian.Uint32([]byte(text[4:])))
		padded := (size + 3) / 4 * 4
		if len(text) < 8+padded || strings.Trim(text[8+size:8+padded], "\x00") != "" {
			t.Fatalf("a record of %d bytes is cut or padded wrongly", size)
		}
		all = append(all, text[8:8+size])
		text = text[8+padded:]
	}
	return all
}

func TestObjectsAndAttributesCanBeRecordsAndGzip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		texts := rapid.SliceOfN(rapid.String(), 1, 6).Draw(r, "texts")
		input := cluster.Input{RecordIO: rapid.Bool().Draw(r, "records"), Gzip: rapid.Bool().Draw(r, "gzip")}
		objects := map[string]string{}
		for i, text := range texts {
			if input.Gzip {
				text = zipped(t, text)
			}
			objects[fmt.Sprintf("set/%d", i)] = text
		}
		b := serve(t, objects, input, nil)
		defer b.end()
		got := b.epoch(0)
		if input.RecordIO && !slices.Equal(records(t, got), texts) || !input.RecordIO && got != strings.Join(texts, "") {
			r.Errorf("%q became %q", texts, got)
		}
	})
}

func TestAnAugmentedManifestIsReadAttributeByAttribute(t *testing.T) {
	objects := map[string]string{
		"m.json": `{"image-ref": "s3://data/1.jpg", "label": 3}` + "\n" + `{"image-ref": "s3://data/2.jpg", "label": "cat"}` + "\n",
		"1.jpg":  "JPEG one", "2.jpg": strings.Repeat("JPEG two", 100_000),
	}
	input := cluster.Input{URI: "s3://data/m.json", Type: cluster.InputAugmentedManifest, Attributes: []string{"image-ref", "label"}, RecordIO: true}
	b := serve(t, objects, input, nil)
	for n := range 2 {
		if got := records(t, b.epoch(n)); !slices.Equal(got, []string{"JPEG one", "3", objects["2.jpg"], "cat"}) {
			t.Errorf("epoch %d has %d records, beginning with %.40q", n, len(got), got)
		}
	}
	input.RecordIO, input.Attributes = false, []string{"label"}
	if got := serve(t, objects, input, nil).epoch(0); got != "3\ncat\n" {
		t.Errorf("without records it is %q", got)
	}
}

// breaking is a store of which one object cannot be read any more.
type breaking struct {
	staging.Reader
	key    string
	broken *atomic.Bool
}

func (b breaking) OpenRange(ctx context.Context, bucket string, o staging.Object, offset, length int64) (io.ReadCloser, error) {
	if b.broken.Load() && o.Key == b.key {
		return nil, fault.New(fault.Conflict, "it was overwritten")
	}
	return b.Reader.OpenRange(ctx, bucket, o, offset, length)
}

func TestDataThatCannotBeHadIsSaidAndNeverLooksLikeTheEnd(t *testing.T) {
	var broken atomic.Bool
	b := serve(t, map[string]string{"set/a": "aaa", "set/b": "bbb", "set/c": "ccc"}, cluster.Input{}, func(r staging.Reader) staging.Reader {
		return breaking{r, "set/b", &broken}
	})
	if got := b.epoch(0); got != "aaabbbccc" {
		t.Fatalf("it is %q", got)
	}
	broken.Store(true)
	file := b.open(1)
	defer file.Close() //nolint:errcheck // only read
	got := make([]byte, 100)
	if n, err := io.ReadAtLeast(file, got, 3); err != nil || string(got[:n]) != "aaa" {
		t.Fatalf("before the trouble come %q, %v", got[:n], err)
	}
	select {
	case err := <-b.ended:
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "input train: s3://data/set/b") {
			t.Errorf("it says %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it says nothing")
	}
	_ = file.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := file.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the pipe ends, with %d bytes and %v", n, err)
	}
}

func TestATaskThatNeverReadsKeepsNobodyFromEnding(t *testing.T) {
	b := serve(t, map[string]string{"set/a": strings.Repeat("x", 4<<20)}, cluster.Input{}, nil)
	file := b.open(0)  // and reads nothing
	defer file.Close() //nolint:errcheck // only read
	b.end()
	select {
	case err := <-b.ended:
		if err != nil {
			t.Errorf("it says %v", err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
}

func TestPipesOfAnEarlierRunAreReplacedAndAllElseStays(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"train_0", "train_7", "train_x", "trainer_0", "train"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	channel, err := pipe.Open(folder, pipe.Config{Input: cluster.Input{Channel: "train"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := channel.Close(); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(folder, "*"))
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if !slices.Equal(left, []string{"train", "train_0", "train_x", "trainer_0"}) {
		t.Errorf("there are %v", left)
	}
	if info, _ := os.Lstat(filepath.Join(folder, "train_0")); info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("train_0 is %v", info.Mode())
	}
}
