package bubble_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/coordinator/registry/registrytest"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/storage/object"
)

// The coordinator removes checkpoints, and agents restore them. Whatever attempts have left, and however few are kept: each task of
// the attempt that runs, and of the one after it, begins with what it would if nothing had been removed.
func TestATaskBeginsWithTheSameCheckpointsWhetherOldOnesWereRemovedOrNot(t *testing.T) {
	const newest = 9
	removed, restored := int64(0), 0
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "checkpoints")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // the system's
		store := registrytest.New()
		for attempt := range newest {
			for index := range 3 {
				for _, file := range []string{"model", "state", "old"} {
					if content := rapid.IntRange(-3, 2).Draw(t, "content"); content >= 0 { // often the same as before
						store.Write(fmt.Sprintf("s3://clary/jobs/digits/checkpoints/%d/worker-%d/%s", attempt+1, index, file), fmt.Sprint(content), time.Now().Add(-2*time.Hour))
					}
				}
			}
		}
		begins := func() (all []map[string]string) {
			for attempt := range int32(2) {
				for index := range int32(3) {
					for _, elastic := range []bool{false, true} {
						all = append(all, restore(t, store, filepath.Join(dir, "folder"), cluster.Task{Role: "worker", Index: index, Attempt: newest + attempt}, elastic))
					}
				}
			}
			return all
		}
		before := begins()
		removed += prune(t, store, filepath.Join(dir, "state.db"), newest)
		for i, after := range begins() {
			if restored += len(after); !maps.Equal(before[i], after) {
				t.Fatalf("%d: with %v it would have begun, and begins with %v", i, before[i], after)
			}
		}
	})
	if removed == 0 || restored == 0 {
		t.Errorf("%d were removed and %d files restored: not all was tried", removed, restored)
	}
}

// prune has a janitor keep as little as can be set of a job's checkpoints, and says how many folders went.
func prune(t *rapid.T, store *registrytest.Store, path string, attempt int32) int64 {
	ledger, err := solo.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	job := cluster.Job{Name: "digits", Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: attempt, Submitted: 1}
	settings := cluster.DefaultSettings()
	least, _ := cluster.FindSetting("retention.checkpoints")
	settings.Retention.Checkpoints = least.Least
	if _, err := ledger.Propose(t.Context(), command.Record{Changes: []command.Change{{Job: &job}, {Settings: &settings}}}); err != nil {
		t.Fatal(err)
	}
	cleaning := janitor.New(janitor.Config{
		Ledger: ledger, Jobs: disposal.New(ledger, func() (disposal.Store, error) { return store, nil }), Now: time.Now,
		Store: func() (janitor.Store, error) { return store, nil }, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cleaning.Run(ctx) }()
	_, err = cleaning.Sweep(ctx, true)
	cancel()
	if end := <-ended; err != nil || !errors.Is(end, context.Canceled) {
		t.Fatal(err, end)
	}
	if err := ledger.Close(); err != nil {
		t.Fatal(err)
	}
	return cleaning.Counts().Removed[janitor.GoneCheckpoints]
}

// restore says what a task finds in its folder, by name.
func restore(t *rapid.T, store *registrytest.Store, folder string, task cluster.Task, elastic bool) map[string]string {
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := staging.Restore(t.Context(), shelf{store}, cluster.CheckpointsOf("digits"), task, elastic, folder); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	items, err := os.ReadDir(folder)
	for _, item := range items {
		text, failed := os.ReadFile(filepath.Join(folder, item.Name()))
		found[item.Name()], err = string(text), errors.Join(err, failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// shelf is a store as an agent reads it.
type shelf struct{ store *registrytest.Store }

func (s shelf) List(ctx context.Context, bucket, prefix string) (all []staging.Object, err error) {
	found, err := s.store.List(ctx, object.URI{Bucket: bucket, Key: prefix})
	for _, info := range found {
		all = append(all, staging.Object{Key: info.URI.Key, ETag: info.ETag, Size: info.Size})
	}
	return all, err
}

func (s shelf) Stat(ctx context.Context, bucket, key string) (staging.Object, error) {
	info, err := s.store.Stat(ctx, object.URI{Bucket: bucket, Key: key})
	return staging.Object{Key: key, ETag: info.ETag, Size: info.Size}, err
}

func (s shelf) Open(ctx context.Context, bucket, key string) (io.ReadCloser, staging.Object, error) {
	info, err := s.Stat(ctx, bucket, key)
	if err != nil {
		return nil, info, err
	}
	body, err := s.OpenRange(ctx, bucket, info, 0, info.Size)
	return body, info, err
}

func (s shelf) OpenRange(ctx context.Context, bucket string, o staging.Object, offset, length int64) (io.ReadCloser, error) {
	return s.store.Get(ctx, object.URI{Bucket: bucket, Key: o.Key}, offset, length)
}
