package device_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/device"
)

// metered is a source whose usage is scripted: each read takes the next answer, and one
// that is nil hangs until the test lets go.
type metered struct {
	device.None
	answers []map[string]map[string]float64
	hang    chan struct{}
}

func (m *metered) Usage(context.Context) (map[string]map[string]float64, error) {
	if len(m.answers) == 0 {
		<-m.hang
		return nil, errors.New("hung")
	}
	answer := m.answers[0]
	m.answers = m.answers[1:]
	return answer, nil
}

func TestALibraryThatHangsKeepsNobodyAndItsOldWordIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &metered{hang: make(chan struct{}), answers: []map[string]map[string]float64{
			{"GPU-1": {device.Utilization: 0.25}}, {"GPU-1": {device.Utilization: 0.75}},
		}}
		gauge := device.NewGauge(source, time.Second, slog.New(slog.DiscardHandler))
		if gauge.Latest("GPU-1") != nil {
			t.Error("it tells what it never read")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- gauge.Run(ctx) }()
		synctest.Wait()
		if got := gauge.Latest("GPU-1"); got[device.Utilization] != 0.25 || gauge.Latest("GPU-2") != nil {
			t.Errorf("first read %v", got)
		}
		time.Sleep(1500 * time.Millisecond)
		if got := gauge.Latest("GPU-1"); got[device.Utilization] != 0.75 {
			t.Errorf("second read %v", got)
		}
		time.Sleep(5 * time.Second) // the third hangs
		if got := gauge.Latest("GPU-1"); got != nil {
			t.Errorf("long after its last word it tells %v", got)
		}
		cancel()
		close(source.hang)
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestASourceThatMeasuresNothingIsNotAsked(t *testing.T) {
	gauge := device.NewGauge(device.None{}, time.Second, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := gauge.Run(ctx); !errors.Is(err, context.Canceled) || gauge.Latest("GPU-1") != nil {
		t.Error(err)
	}
}

var _ device.Source = (*metered)(nil)
