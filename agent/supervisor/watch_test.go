package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/monitor/metric"
	"github.com/clary-ml/clary/storage/journal"
)

// collected are the series that the node has of the task.
func (b *bench) collected() map[string]cluster.Series {
	b.Helper()
	var c metric.Collection
	err := b.agent.Metrics(b.Context(), worker, journal.Query{}, func(batch []journal.Entry) error {
		for _, entry := range batch {
			row, ok := metric.ParseRow(entry.Text)
			if !ok {
				b.Errorf("the journal has %q", entry.Text)
			}
			c.Add(entry.Stream, entry.Time, row)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	series := map[string]cluster.Series{}
	for _, s := range c.Series() {
		series[s.Name] = s
	}
	return series
}

func TestMetricsSaidFoundAndMeasuredAreKept(t *testing.T) {
	b := newBench(t, func(c *supervisor.Config) {
		c.Gauge = func(uuid string) map[string]float64 {
			return map[string]float64{"utilization": map[string]float64{"GPU-a": 0.5, "GPU-b": 0.25}[uuid]}
		}
	})
	b.run(script(`for i in 1 2 3; do echo "step=$i said=$i" >> $CLARY_METRICS; echo "epoch $i: loss $i.5"; done; sleep 1.3; printf 'last=1' >> $CLARY_METRICS; printf 'epoch 4: loss 9' >&2`, func(a *ledger.Assignment) {
		a.Program.Metrics = []cluster.MetricDefinition{{Name: "loss", Regex: `loss (\S+)`}, {Name: "epoch", Regex: `epoch (\d+)`}}
		a.Task.Allocation.Resources.Devices = []string{"GPU-a", "GPU-b"}
	}))
	status := b.ended(worker)
	if p := status.Progress; p.Step != 3 || p.Epoch != 4 || p.Metrics["said"] != 3 || p.Metrics["loss"] != 9 || p.Metrics["last"] != 1 {
		t.Errorf("its progress is %+v", p)
	}
	series := b.collected()
	for name, want := range map[string]string{"said": "0/1=1 0/2=2 0/3=3", "loss": "1/0=1.5 2/0=2.5 3/0=3.5 4/0=9", "last": "0/3=1"} {
		var got []string
		for _, p := range series[name].Points {
			got = append(got, fmt.Sprintf("%d/%d=%g", p.Epoch, p.Step, p.Value))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
	if s := series["usage/gpu1_utilization"]; s.Count == 0 || s.Max != 0.25 {
		t.Errorf("the second GPU's utilization is %+v", s)
	}
	if s := series["usage/memory_bytes"]; len(b.host.Lacks()) == 0 && s.Max < 100_000 {
		t.Errorf("its memory is %+v", s)
	}
	if s := series["usage/cpu_seconds"]; s.Count != 1 || s.Max <= 0 || s.Max > 10 {
		t.Errorf("its CPU time is %+v", s)
	}
}

func TestEachMetricIsKeptOnceThroughKillsOfTheAgent(t *testing.T) {
	b := newBench(t, nil)
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	said, goOn := filepath.Join(dir, "said"), filepath.Join(dir, "go")
	child := b.spawn(script(
		"for i in 1 2 3 4 5 6; do echo step=$i a=$i >> $CLARY_METRICS; echo found $i; [ $i = 3 ] && { echo $$ > "+said+"; while [ ! -e "+goOn+" ]; do sleep 0.01; done; }; done; exit 0",
		func(a *ledger.Assignment) {
			a.Program.Metrics = []cluster.MetricDefinition{{Name: "b", Regex: `found (\d+)`}}
			a.Program.Track = &cluster.Tracking{Metric: "a", ByStep: true}
		},
	))
	awaitFile(t, said)
	// The first agent has written down some of it, or all, or nothing, when it is killed.
	log := filepath.Join(b.dir, "tasks", strings.ReplaceAll(worker, "/", "~"), "metrics.log")
	awaitFile(t, log)
	kill(t, child)
	b.open(nil)
	b.becomes(worker, cluster.TaskRunning)
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status := b.ended(worker)
	if status.Progress.Step != 6 || status.Progress.Metrics["b"] != 6 || len(status.Progress.Curve) != 6 {
		t.Errorf("its progress is %+v", status.Progress)
	}
	for i, p := range status.Progress.Curve {
		if want := float64(i + 1); p.Step != want || p.Value != want {
			t.Errorf("point %d of the curve is %+v", i, p)
		}
	}
	series := b.collected()
	for _, name := range []string{"a", "b"} {
		var values []float64
		for _, p := range series[name].Points {
			values = append(values, p.Value)
		}
		if fmt.Sprint(values) != "[1 2 3 4 5 6]" {
			t.Errorf("%s is %v", name, values)
		}
	}
}

func TestATaskThatFloodsItsMetricsIsThinnedToTheNewest(t *testing.T) {
	b := newBench(t, nil)
	b.run(script(`i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo "step=$i x=$i"; done >> $CLARY_METRICS`))
	status := b.ended(worker)
	if status.Progress.Step != 5000 || status.Progress.Metrics["x"] != 5000 {
		t.Errorf("its progress is %+v", status.Progress)
	}
	x := b.collected()["x"]
	if n := len(x.Points); n < 2000 || n > 2500 || x.Points[n-1].Value != 5000 || x.Points[n-1].Step != 5000 {
		t.Errorf("%d points are kept, the last is %+v", n, x.Points[n-1])
	}
}

func TestATaskThatIsNotKnownHasNoMetrics(t *testing.T) {
	b := newBench(t, nil)
	for _, id := range []string{"nobody/main/worker-0.1", "../x", ""} {
		err := b.agent.Metrics(t.Context(), id, journal.Query{}, func([]journal.Entry) error { return nil })
		if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
