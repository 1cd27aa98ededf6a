package ops

import (
	"bufio"
	"context"
	"io"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// What Profile measures, and for how long at most.
const (
	CPU         = "cpu"
	Heap        = "heap"
	Goroutines  = "goroutine"
	MaxProfiled = 2 * time.Minute
)

// Profiles are the kinds of profile that there are.
func Profiles() []string { return []string{CPU, Heap, Goroutines} }

// CheckProfile refuses what Profile does not measure.
func CheckProfile(kind string, length time.Duration) error {
	if !slices.Contains(Profiles(), kind) {
		return fault.New(fault.Invalid, "profile: %q is unknown: %s", kind, strings.Join(Profiles(), ", "))
	}
	if kind == CPU && (length < time.Second || length > MaxProfiled) {
		return fault.New(fault.Invalid, "length: %s is out of range: from 1s to %s", length, MaxProfiled)
	}
	return nil
}

// Profile measures this process and writes what go tool pprof reads: where its CPU time goes during a length of time, what
// is on its heap, or what its goroutines do. A heap is collected first, so that it shows what lives.
func Profile(ctx context.Context, kind string, length time.Duration, to io.Writer) error {
	if err := CheckProfile(kind, length); err != nil {
		return err
	}
	if kind != CPU {
		if kind == Heap {
			runtime.GC()
		}
		return pprof.Lookup(kind).WriteTo(to, 0)
	}
	if err := pprof.StartCPUProfile(to); err != nil {
		return fault.New(fault.Conflict, "profile: somebody measures this process already: ask again when that is over: %w", err)
	}
	defer pprof.StopCPUProfile()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
		return nil
	}
}

// SendProfile is Profile to whoever takes it in parts, of 64 KiB or what is written at once.
func SendProfile(ctx context.Context, kind string, length time.Duration, send func([]byte) error) error {
	buffered := bufio.NewWriterSize(sender(send), 64<<10)
	if err := Profile(ctx, kind, length, buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// sender sends what is written.
type sender func([]byte) error

func (s sender) Write(data []byte) (int, error) { return len(data), s(data) }
