package batch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/batch"
)

// bench is a queue whose runs take a second and answer a number with its double.
type bench struct {
	queue   *batch.Queue[int, int]
	batches [][]int
	mu      sync.Mutex
}

func start(t *testing.T, o batch.Options) (b *bench, stop func()) {
	b = &bench{}
	b.queue = batch.New(o, func(_ context.Context, in []int) []batch.Outcome[int] {
		b.mu.Lock()
		b.batches = append(b.batches, in)
		b.mu.Unlock()
		time.Sleep(time.Second)
		out := make([]batch.Outcome[int], len(in))
		for i, v := range in {
			if out[i].Value = 2 * v; v < 0 {
				out[i].Err = errors.New("negative")
			}
		}
		return out
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.queue.Run(ctx) }()
	return b, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// ask sends numbers one after another, each once the one before waits.
func (b *bench) ask(t *testing.T, wait *sync.WaitGroup, numbers ...int) {
	for _, n := range numbers {
		wait.Go(func() {
			if got, err := b.queue.Do(t.Context(), n, 1); err != nil || got != 2*n {
				t.Errorf("%d: %d, %v", n, got, err)
			}
		})
		synctest.Wait()
	}
}

func TestWhatComesWhileALaneIsBusySharesABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 3, MaxWaiting: 10, Lanes: 1})
		defer stop()
		var wait sync.WaitGroup
		began := time.Now()
		b.ask(t, &wait, 1, 2, 3, 4, 5, 6)
		wait.Wait()
		if got := fmt.Sprint(b.batches); got != "[[1] [2 3 4] [5 6]]" {
			t.Errorf("batches %s", got)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestADelayIsKeptAndNotExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 3, MaxDelay: 10 * time.Millisecond, MaxWaiting: 10, Lanes: 1})
		defer stop()
		var wait sync.WaitGroup
		began := time.Now()
		b.ask(t, &wait, 1)
		time.Sleep(4 * time.Millisecond)
		b.ask(t, &wait, 2)
		wait.Wait()
		if took := time.Since(began); took != time.Second+10*time.Millisecond {
			t.Errorf("two rows took %v: the first should wait for 10ms", took)
		}
		began = time.Now()
		b.ask(t, &wait, 3, 4, 5)
		wait.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("a full batch took %v: it need not wait", took)
		}
		if got := fmt.Sprint(b.batches); got != "[[1 2] [3 4 5]]" {
			t.Errorf("batches %s", got)
		}
	})
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 1, MaxWaiting: 2, Lanes: 1})
		defer stop()
		var wait sync.WaitGroup
		began := time.Now()
		b.ask(t, &wait, 1, 2, 3)
		if _, err := b.queue.Do(t.Context(), 4, 1); !fault.Is(err, fault.Exhausted) || time.Since(began) != 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		wait.Wait()
	})
}

func TestAnErrorIsItsOwnRequestsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 8, MaxDelay: time.Millisecond, MaxWaiting: 10, Lanes: 1})
		defer stop()
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := b.queue.Do(t.Context(), -1, 1); err == nil || err.Error() != "negative" {
				t.Errorf("%v", err)
			}
		})
		b.ask(t, &wait, 2, 3)
		wait.Wait()
		if len(b.batches) != 1 {
			t.Errorf("batches %v", b.batches)
		}
	})
}

func TestWhatNobodyWaitsForIsNotComputed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 1, MaxWaiting: 10, Lanes: 1})
		defer stop()
		var wait sync.WaitGroup
		b.ask(t, &wait, 1)
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := b.queue.Do(ctx, 2, 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
		synctest.Wait()
		b.ask(t, &wait, 3)
		wait.Wait()
		if got := fmt.Sprint(b.batches); got != "[[1] [3]]" {
			t.Errorf("batches %s", got)
		}
	})
}

// Whoever gives up makes room for another at once, not when a lane comes by.
func TestWhatNobodyWaitsForTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 1, MaxWaiting: 2, Lanes: 1})
		defer stop()
		var wait sync.WaitGroup
		b.ask(t, &wait, 1)
		for range 2 {
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				if _, err := b.queue.Do(ctx, 2, 1); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
			})
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		b.ask(t, &wait, 3, 4)
		wait.Wait()
		if got := fmt.Sprint(b.batches); got != "[[1] [3] [4]]" {
			t.Errorf("batches %s", got)
		}
	})
}

func TestARequestLargerThanABatchIsComputedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 4, MaxWaiting: 10, Lanes: 1})
		defer stop()
		var wait sync.WaitGroup
		b.ask(t, &wait, 1, 2)
		wait.Go(func() {
			if _, err := b.queue.Do(t.Context(), 100, 100); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		b.ask(t, &wait, 3)
		wait.Wait()
		if got := fmt.Sprint(b.batches); got != "[[1] [2] [100] [3]]" {
			t.Errorf("batches %s", got)
		}
	})
}

func TestTheEndRefusesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, batch.Options{MaxRows: 1, MaxWaiting: 10, Lanes: 1})
		var wait sync.WaitGroup
		b.ask(t, &wait, 1)
		wait.Go(func() {
			if _, err := b.queue.Do(t.Context(), 2, 1); !fault.Is(err, fault.Unready) {
				t.Errorf("waiting at the end: %v", err)
			}
		})
		synctest.Wait()
		stop()
		wait.Wait()
		if _, err := b.queue.Do(t.Context(), 3, 1); !fault.Is(err, fault.Unready) {
			t.Errorf("after the end: %v", err)
		}
	})
}
