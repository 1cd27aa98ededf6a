package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/worker"
)

const digits = "../../examples/digits/"

// options are of a run on the digits, smaller than the example.
func options(t testing.TB, servers, workers, epochs int) worker.Options {
	t.Helper()
	text, err := os.ReadFile(digits + "training.json")
	if err != nil {
		t.Fatal(err)
	}
	o := worker.Options{Job: "digits", Train: digits + "train.csv.gz", Plain: true, Out: io.Discard}
	if err := json.Unmarshal(text, &o.Run); err != nil {
		t.Fatal(err)
	}
	o.Servers, o.Workers, o.Epochs = servers, workers, epochs
	dir := t.TempDir()
	o.Checkpoints, o.Model, o.Metrics, o.Failure = dir+"/checkpoints", dir+"/model", dir+"/metrics", dir+"/failure"
	return o
}

// run is a whole gang in this process. It returns what worker 0 ended with; the servers
// and the other workers must end like it.
func run(ctx context.Context, t testing.TB, o worker.Options) error {
	t.Helper()
	o.Addresses = nil
	for range o.Servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.Addresses = append(o.Addresses, l.Addr().String())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var servers, workers errgroup.Group
	for i := range o.Servers {
		s := o
		s.Index, s.Listen = i, o.Addresses[i]
		servers.Go(func() error { return worker.RunServer(context.WithoutCancel(ctx), s) })
	}
	ends := make([]error, o.Workers)
	for i := range o.Workers {
		w := o
		w.Index = i
		workers.Go(func() error { ends[i] = worker.RunWorker(ctx, w); return nil })
	}
	_ = workers.Wait()
	for i, err := range ends {
		if fmt.Sprint(err) != fmt.Sprint(ends[0]) {
			t.Errorf("worker %d ended with %v, worker 0 with %v", i, err, ends[0])
		}
	}
	if err := servers.Wait(); err != nil && ends[0] == nil {
		t.Errorf("servers: %v", err)
	}
	return ends[0]
}

func weights(t testing.TB, o worker.Options) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(o.Model, "weights.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The example reaches 97 % on rows that it has never seen, with gonum's matrices.
func TestDigitsExampleLearns(t *testing.T) {
	o := options(t, 2, 2, 30)
	var log bytes.Buffer
	var mu sync.Mutex
	o.Out = writer(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return log.Write(p) })
	if err := run(t.Context(), t, o); err != nil {
		t.Fatal(err)
	}
	r, err := inference.Evaluate(t.Context(), o.Model, digits+"test.csv.gz", inference.RowsUnsaid, network.Gonum())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("held out: %d rows, accuracy %.4f, loss %.4f\n%s", r.Rows, r.Accuracy, r.Loss, log.String())
	if r.Accuracy < 0.97 {
		t.Errorf("accuracy %v", r.Accuracy)
	}
	if got := strings.Count(log.String(), "validation loss"); got != 30 {
		t.Errorf("%d lines for 30 epochs", got)
	}
	lines, err := os.ReadFile(o.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(lines, []byte(`"validation_accuracy"`)); n != 30 {
		t.Errorf("%d metrics lines for 30 epochs", n)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// The same seed and number of workers give the same model to the bit, whatever the
// number of servers; another seed gives another. It holds for OpenBLAS, where there is one,
// as for gonum.
func TestSameSeedSameModel(t *testing.T) {
	for _, plain := range []bool{true, false} {
		t.Run(fmt.Sprint("plain ", plain), func(t *testing.T) { sameSeed(t, plain) })
	}
}

func sameSeed(t *testing.T, plain bool) {
	var models [][]byte
	for _, servers := range []int{1, 1, 3} {
		o := options(t, servers, 2, 3)
		o.Plain = plain
		if err := run(t.Context(), t, o); err != nil {
			t.Fatal(err)
		}
		models = append(models, weights(t, o))
	}
	if !bytes.Equal(models[0], models[1]) || !bytes.Equal(models[0], models[2]) {
		t.Error("three runs of one seed differ")
	}
	o := options(t, 1, 2, 3)
	o.Plain = plain
	o.Seed++
	if err := run(t.Context(), t, o); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(models[0], weights(t, o)) {
		t.Error("another seed gave the same model")
	}
}

// A run that is told to stop in the middle of an epoch, and goes on from its checkpoint,
// ends with the model and the history of one that was left in peace.
func TestInterruptedRunEndsWithTheSameModel(t *testing.T) {
	peace := options(t, 2, 2, 5)
	if err := run(t.Context(), t, peace); err != nil {
		t.Fatal(err)
	}
	o := options(t, 2, 2, 5)
	interrupts := 0
	for {
		ctx, stop := context.WithCancel(t.Context())
		epochs := 0
		var mu sync.Mutex
		o.Out = writer(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(string(p), "epoch ") {
				if epochs++; epochs == 2 {
					stop()
				}
			}
			return len(p), nil
		})
		err := run(ctx, t, o)
		stop()
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "told to stop") {
			t.Fatal(err)
		}
		if interrupts++; interrupts > 5 {
			t.Fatal("it does not get on")
		}
	}
	if interrupts == 0 {
		t.Error("nothing was interrupted")
	}
	if !bytes.Equal(weights(t, o), weights(t, peace)) {
		t.Error("the models differ")
	}
	a, b := manifest(t, o), manifest(t, peace)
	if fmt.Sprint(a.Metrics) != fmt.Sprint(b.Metrics) || a.Epochs != 5 {
		t.Errorf("metrics %v of %d epochs, undisturbed %v", a.Metrics, a.Epochs, b.Metrics)
	}
}

// A run that is interrupted goes on with another number of workers, from the middle of the epoch that
// it was in.
// Whoever did the last epoch may have been heard by nobody: a sweep takes a trial's value from what its attempts have said.
func TestARunThatGoesOnSaysAgainWhatItsLastEpochCameTo(t *testing.T) {
	o := options(t, 1, 1, 2)
	said := func(name string) []string {
		t.Helper()
		o.Metrics = filepath.Join(t.TempDir(), name)
		if err := run(t.Context(), t, o); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(o.Metrics)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	first := said("first")
	if again := said("again"); len(again) != 1 || again[0] != first[len(first)-1] {
		t.Errorf("with all epochs done it says %q; the last word of the first attempt was %q", again, first[len(first)-1])
	}
	o.Epochs = 3
	more := said("more")
	if whole := slices.DeleteFunc(more, func(line string) bool { return !strings.Contains(line, "validation_accuracy") }); len(whole) != 2 || !strings.Contains(whole[0], `"epoch":2`) || !strings.Contains(whole[1], `"epoch":3`) {
		t.Errorf("with one epoch left it says %q", whole)
	}
}

func TestAnElasticRunGoesOnWithAnotherNumberOfWorkers(t *testing.T) {
	o := options(t, 2, 4, 6)
	o.Elastic = true
	counts, told, middles := []int{4, 3, 1, 5}, "", 0
	for i, workers := range counts {
		o.Workers = workers
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		o.Out = writer(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			told += string(p)
			if strings.HasPrefix(string(p), "epoch ") && i < len(counts)-1 {
				stop() // which is heard some steps later, in the middle of the next epoch
			}
			return len(p), nil
		})
		err := run(ctx, t, o)
		stop()
		if last := i == len(counts)-1; last && err != nil || !last && (err == nil || !strings.Contains(err.Error(), "told to stop")) {
			t.Fatalf("with %d workers it ended with %v", workers, err)
		}
		c, found, _, err := checkpoint.Latest(o.Checkpoints, func(checkpoint.Header) bool { return true })
		if err != nil || !found {
			t.Fatal(found, err)
		}
		if c.EpochStep > 0 || len(c.Parts) > 0 {
			middles++
		}
		if c.Workers != workers {
			t.Errorf("the checkpoint is of %d workers", c.Workers)
		}
	}
	if !strings.Contains(told, "going on with 3 workers: there were 4") || !strings.Contains(told, "going on with 5 workers: there were 1") || middles == 0 {
		t.Errorf("%d of its checkpoints are of the middle of an epoch; it said\n%s", middles, told)
	}
	if m := manifest(t, o); m.Epochs != 6 || m.Metrics["validation_accuracy"] < 0.85 {
		t.Errorf("it ended after %d epochs with %v", m.Epochs, m.Metrics)
	}
	o.Elastic, o.Workers, o.Epochs, told = false, 2, 7, ""
	if err := run(t.Context(), t, o); err != nil || !strings.Contains(told, "number of workers differ") {
		t.Errorf("one that is not elastic took the checkpoint of another number of workers: %v\n%s", err, told)
	}
}

func manifest(t *testing.T, o worker.Options) checkpoint.Manifest {
	t.Helper()
	m, err := checkpoint.LoadModel(o.Model)
	if err != nil {
		t.Fatal(err)
	}
	return m.Manifest
}

// Killed without warning, a run goes on from its last checkpoint, and from the one before
// if that one is damaged.
func TestDamagedCheckpointFallsBack(t *testing.T) {
	peace := options(t, 1, 1, 4)
	if err := run(t.Context(), t, peace); err != nil {
		t.Fatal(err)
	}
	o := options(t, 1, 1, 2)
	if err := run(t.Context(), t, o); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(o.Checkpoints + "/*.ckpt")
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[1], 5000); err != nil {
		t.Fatal(err)
	}
	o.Epochs = 4 // more epochs than before: the finished run goes on
	var log bytes.Buffer
	o.Out = &log
	o.Servers = 1
	if err := run(t.Context(), t, o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), filepath.Base(files[1])+" is damaged") || !strings.Contains(log.String(), "checkpoint of epoch 1") {
		t.Errorf("the log does not say what happened:\n%s", log.String())
	}
	if !bytes.Equal(weights(t, o), weights(t, peace)) {
		t.Error("the models differ")
	}
}

// The target ends the run early, for every worker, and the model is of that epoch.
func TestTargetAccuracyEndsTheRun(t *testing.T) {
	o := options(t, 1, 2, 30)
	o.TargetAccuracy = 0.9
	if err := run(t.Context(), t, o); err != nil {
		t.Fatal(err)
	}
	m := manifest(t, o)
	if m.Epochs >= 30 || m.Metrics["validation_accuracy"] < 0.9 {
		t.Errorf("%d epochs, %v", m.Epochs, m.Metrics)
	}
	before := weights(t, o)
	if err := run(t.Context(), t, o); err != nil { // started again, there is nothing left to do
		t.Fatal(err)
	}
	if !bytes.Equal(before, weights(t, o)) {
		t.Error("starting a finished run again changed its model")
	}
}

// One worker's bad data ends the run for all, and the reason says whose and where.
func TestBadDataEndsTheRunWithItsReason(t *testing.T) {
	o := options(t, 1, 2, 2)
	o.Train = filepath.Join(t.TempDir(), "train.csv")
	if err := os.WriteFile(o.Train, []byte(strings.Repeat("1,", 64)+"3\n1,2,x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Workers = 1
	err := run(t.Context(), t, o)
	if err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("ended with %v", err)
	}
	reason, err := os.ReadFile(o.Failure)
	if err != nil || !strings.Contains(string(reason), "line 2") {
		t.Errorf("failure file: %q, %v", reason, err)
	}
}
