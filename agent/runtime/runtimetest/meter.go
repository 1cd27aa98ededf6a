package runtimetest

import (
	"os"
	"path/filepath"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
)

// meterClaims hold for what a driver tells of the use of a node.
var meterClaims = []claim{
	{UsageClaim, used},
	{CoresClaim, cores},
}

// cores has two processes compute with a tenth of a core for both. That they get no more shows in a
// second; that they may get less on a busy machine is no matter.
func cores(b *bench) {
	const (
		allowed = 0.1
		slack   = 1.5 // the kernel counts in periods of a tenth of a second
	)
	id := b.start(`while :; do :; done & echo busy; while :; do :; done`, func(s *runtime.Spec) {
		s.Limits.MilliCPU, s.Limits.HardCPU = 1000*allowed, true
	})
	b.until(id, "busy")
	began, before := time.Now(), b.usage(id, func(u runtime.Usage) bool { return u.CPU > 0 })
	after := b.usage(id, func(runtime.Usage) bool { return time.Since(began) > time.Second })
	if used, most := after.CPU-before.CPU, time.Duration(allowed*slack*float64(time.Since(began))); used > most {
		b.Errorf("it computed for %s in %s, with %g cores", used, time.Since(began), allowed)
	}
	b.stop(id)
}

// used has a task hold some memory and compute until it is told to go. 16 bytes are doubled
// 20 times: a shell has nothing simpler.
func used(b *bench) {
	const (
		holds = 16 << 20
		limit = 256 << 20
	)
	id := b.start(`x=aaaaaaaaaaaaaaaa; i=0; while [ $i -lt 20 ]; do x="$x$x"; i=$((i+1)); done; echo full; while [ ! -e go ]; do :; done`, func(s *runtime.Spec) {
		s.Limits.Memory = limit
	})
	b.until(id, "full")
	first := b.usage(id, func(u runtime.Usage) bool { return u.CPU > 0 && u.Memory >= holds })
	if first.Memory > limit || first.PeakMemory < first.Memory {
		b.Errorf("with %d bytes held, and %d allowed, it uses %+v", holds, limit, first)
	}
	more := b.usage(id, func(u runtime.Usage) bool { return u.CPU >= first.CPU+20*time.Millisecond })
	b.restartAgent(func() {})
	more = b.usage(id, func(u runtime.Usage) bool { return u.CPU > more.CPU && u.Memory >= holds })
	b.must(os.WriteFile(filepath.Join(b.work(), "go"), nil, 0o600))
	exit := b.wait(id)
	meter := can[runtime.Meter](b, "measures")
	last, err := meter.Usage(id)
	b.must(err)
	if exit.Usage != last || last.CPU < more.CPU || last.PeakMemory < more.PeakMemory {
		b.Errorf("it used %+v, is told as %+v, and had used %+v before", exit.Usage, last, more)
	}
	b.must(b.driver.Remove(b.ctx, id))
	_, err = meter.Usage(id)
	b.wantKind(err, fault.NotFound)
}

// usage asks until what is told is as it should become.
func (b *bench) usage(id string, enough func(runtime.Usage) bool) runtime.Usage {
	b.Helper()
	meter := can[runtime.Meter](b, "measures")
	for {
		u, err := meter.Usage(id)
		b.must(err)
		if enough(u) {
			return u
		}
		if b.ctx.Err() != nil {
			b.Fatalf("it is told to use %+v, after %s", u, patience)
		}
		time.Sleep(time.Millisecond) // the kernel tells of no change
	}
}
