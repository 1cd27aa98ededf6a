package device

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Meter is implemented by sources that can tell what devices are doing.
type Meter interface {
	// Usage is what each device measures of itself now, by UUID: of the names below those
	// that it can tell. An error may stand beside what others told.
	Usage(ctx context.Context) (map[string]map[string]float64, error)
}

// What a device measures.
const (
	Utilization = "utilization"         // share of the last moments in which it worked, 0 to 1
	Memory      = "memory_bytes"        // in use
	Power       = "power_watts"         // drawn
	Temperature = "temperature_celsius" // of the chip
)

// Gauge reads a meter every now and then, for all who want to know: however many tasks
// share a node, its library is asked once, and one that hangs keeps none of them.
type Gauge struct {
	meter Meter
	every time.Duration
	log   *slog.Logger

	mu     sync.Mutex
	latest map[string]map[string]float64
	read   time.Time
}

// NewGauge reads a source that is a Meter; of another it knows nothing.
func NewGauge(source Source, every time.Duration, log *slog.Logger) *Gauge {
	meter, _ := source.(Meter)
	return &Gauge{meter: meter, every: every, log: log}
}

// Run reads until ctx ends.
func (g *Gauge) Run(ctx context.Context) error {
	if g.meter == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(g.every)
	defer tick.Stop()
	complained := false
	for {
		usage, err := g.meter.Usage(ctx)
		if err != nil && !complained {
			g.log.Warn("what GPUs use", "error", err)
		}
		complained = err != nil
		g.mu.Lock()
		g.latest, g.read = usage, time.Now()
		g.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Latest is what a device measured of itself lately; nothing if that is long ago.
func (g *Gauge) Latest(uuid string) map[string]float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.read) > 3*g.every {
		return nil
	}
	return maps.Clone(g.latest[uuid])
}
