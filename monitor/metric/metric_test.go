package metric_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/monitor/metric"
)

func ptr[T any](v T) *T { return &v }

func same(a, b metric.Row) bool { return string(a.Text()) == string(b.Text()) }

func TestALineIsAnObjectOrWordsAndRubbishIsRefusedWhole(t *testing.T) {
	whole := metric.Row{Epoch: ptr(int32(3)), Step: ptr(int64(1200)), Total: ptr(int64(4000)), Values: map[string]float64{"loss": 0.31, "val/acc": 0.9}}
	for line, want := range map[string]*metric.Row{
		`{"epoch":3,"step":1200,"total":4000,"metrics":{"loss":0.31,"val/acc":0.9}}`: &whole,
		" epoch=3  step=1200 total=4000\tloss=0.31 val/acc=9e-1\n":                   &whole,
		`{"metrics":{"loss":NaN,"acc":1,"far":-Infinity}}`:                           {Values: map[string]float64{"acc": 1}, Lost: []string{"far", "loss"}},
		"loss=nan acc=1 far=-inf huge=1e999":                                         {Values: map[string]float64{"acc": 1}, Lost: []string{"far", "huge", "loss"}},
		`{"metrics":{"loss":1},"lost":["loss","acc"]}`:                               {Values: map[string]float64{"loss": 1}, Lost: []string{"acc"}},
		`{"step":7}`:                         {Step: ptr(int64(7))},
		"":                                   nil,
		"{}":                                 nil,
		"training has begun":                 nil,
		"loss=0.3 done":                      nil,
		"loss=":                              nil,
		"=1":                                 nil,
		"step=1.5 loss=2":                    nil,
		"epoch=99999999999 loss=2":           nil,
		`{"metrics":{"loss":"low"}}`:         nil,
		`{"epoch":"two"}`:                    nil,
		`[1,2]`:                              nil,
		"x=1 " + strings.Repeat("y=2 ", 2e4): nil,
		strings.Repeat("n", 257) + "=1":      nil,
	} {
		row, ok := metric.ParseRow([]byte(line))
		if ok != (want != nil) || ok && !same(row, *want) {
			t.Errorf("%.60q is %s, %v", line, row.Text(), ok)
		}
	}
}

func TestARowSurvivesItsOwnText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := metric.Row{
			Step: ptr(rapid.Int64Range(-1<<53, 1<<53).Draw(t, "step")), Cursor: rapid.Int64Min(0).Draw(t, "cursor"),
		}
		for name, value := range rapid.MapOfN(rapid.StringN(1, 20, 80), rapid.Float64(), 1, 5).Draw(t, "values") {
			row.Merge(metric.Row{Values: map[string]float64{name: value}})
		}
		again, ok := metric.ParseRow(row.Text())
		if !ok || !same(again, row) {
			t.Fatalf("%s becomes %s", row.Text(), again.Text())
		}
	})
}

func FuzzParseRow(f *testing.F) {
	f.Add([]byte("epoch=3 step=1200 loss=0.31"))
	f.Add([]byte(`{"epoch":3,"metrics":{"loss":NaN}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		row, ok := metric.ParseRow(line)
		if len(row.Values) > metric.MaxNames {
			t.Error("more names than a task may have")
		}
		for name, value := range row.Values {
			if math.IsNaN(value) || math.IsInf(value, 0) || len(name) > metric.MaxName {
				t.Errorf("%q is %v", name, value)
			}
		}
		if again, still := metric.ParseRow(row.Text()); ok && (!still || !same(again, row)) && len(row.Text()) <= metric.MaxLine {
			t.Errorf("%s becomes %s", row.Text(), again.Text())
		}
	})
}

func TestPatternsFindMetricsInWhatATaskWrites(t *testing.T) {
	m, err := metric.NewMatcher([]cluster.MetricDefinition{
		{Name: "loss", Regex: `loss[=:]\s*([-+0-9.eE]+|nan)`}, {Name: "step", Regex: `step (\d+)`}, {Name: "accuracy", Regex: `acc=(\S+)`},
	})
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]*metric.Row{
		"step 40 loss: 1.5e-2":              {Step: ptr(int64(40)), Values: map[string]float64{"loss": 0.015}},
		" 1% loss=3\r 2% loss=2\r3% loss=1": {Values: map[string]float64{"loss": 1}},
		"loss=nan acc=high":                 {Lost: []string{"loss"}},
		"nothing here":                      nil,
	} {
		row, ok := m.Match([]byte(line))
		if ok != (want != nil) || ok && !same(row, *want) {
			t.Errorf("%q is %s, %v", line, row.Text(), ok)
		}
	}
	if _, err := metric.NewMatcher([]cluster.MetricDefinition{{Name: "x", Regex: "x"}}); err == nil {
		t.Error("a pattern without a group is taken")
	}
}

func TestProgressIsBoundedAndWhatWasToldIsNotChanged(t *testing.T) {
	var p cluster.Progress
	first := metric.Row{Epoch: ptr(int32(1)), Values: map[string]float64{"m0": 1}}
	first.Advance(&p)
	told := p
	for i := range 3 * metric.MaxNames {
		row := metric.Row{Values: map[string]float64{strings.Repeat("n", i%200+1) + string(rune('a'+i%26)): float64(i), "m0": float64(i)}}
		row.Advance(&p)
	}
	if len(told.Metrics) != 1 || told.Metrics["m0"] != 1 {
		t.Errorf("what was told has become %v", told)
	}
	if len(p.Metrics) > metric.MaxNames || p.Metrics["m0"] != 3*metric.MaxNames-1 || p.Epoch != 1 {
		t.Errorf("%d metrics, m0 is %v, epoch %d", len(p.Metrics), p.Metrics["m0"], p.Epoch)
	}
}

func TestAMetricThatIsNoNumberAnyMoreIsNotKnownAnyMore(t *testing.T) {
	var p cluster.Progress
	var held metric.Row
	for _, line := range []string{"epoch=1 loss=2 acc=0.5", "epoch=2 loss=nan acc=0.6", "epoch=3 acc=0.1"} {
		row, ok := metric.ParseRow([]byte(line))
		if !ok {
			t.Fatal(line)
		}
		row.Advance(&p)
		held.Merge(row)
	}
	var merged cluster.Progress
	merged.Metrics = map[string]float64{"loss": 7}
	held.Advance(&merged)
	for _, got := range []cluster.Progress{p, merged} {
		if _, known := got.Metrics["loss"]; known || got.Metrics["acc"] != 0.1 || got.Epoch != 3 {
			t.Errorf("%+v", got)
		}
	}
	row, _ := metric.ParseRow([]byte("loss=1"))
	if row.Advance(&p); p.Metrics["loss"] != 1 {
		t.Errorf("%+v", p)
	}
}

func TestARowWithoutAStepGoesOnWithItsSourcesLast(t *testing.T) {
	var c metric.Collection
	c.Add("file", 1, metric.Row{Step: ptr(int64(10)), Values: map[string]float64{"loss": 3}})
	c.Add("log", 2, metric.Row{Values: map[string]float64{"acc": 0.5}})
	c.Add("file", 3, metric.Row{Values: map[string]float64{"loss": 1}})
	all := c.Series()
	want := []cluster.Point{{Time: 1, Step: 10, Value: 3}, {Time: 3, Step: 10, Value: 1}}
	if len(all) != 2 || all[0].Name != "acc" || all[0].Points[0].Step != 0 || !slices.Equal(all[1].Points, want) || all[1].Min != 1 || all[1].Max != 3 || all[1].Count != 2 {
		t.Errorf("series %+v", all)
	}
}

func points(from, to int64) (all []cluster.Point) {
	for step := from; step < to; step++ {
		all = append(all, cluster.Point{Step: step, Value: float64(step)})
	}
	return all
}

func TestAnAttemptThatGoesOnFromACheckpointReplacesWhatWasLost(t *testing.T) {
	first := []cluster.Series{{Task: "worker-0", Name: "loss", Attempt: 1, Points: points(1, 10)}, {Task: "worker-0", Name: "old", Points: points(1, 3)}}
	second := []cluster.Series{{Task: "worker-0", Name: "loss", Attempt: 2, Points: points(6, 12)}, {Task: "worker-1", Name: "loss", Points: points(1, 2)}}
	joined := metric.Join(first, second)
	if len(joined) != 3 || joined[0].Name != "loss" || joined[1].Name != "old" || joined[2].Task != "worker-1" {
		t.Fatalf("series %+v", joined)
	}
	if s := joined[0]; !slices.Equal(s.Points, points(1, 12)) || s.Attempt != 2 || s.Count != 11 || s.Min != 1 || s.Max != 11 {
		t.Errorf("joined to %+v", s)
	}
	if !slices.Equal(first[0].Points, points(1, 10)) {
		t.Error("the earlier series was changed")
	}
}

func TestThinningKeepsEndsOrderAndPeaks(t *testing.T) {
	peaks := 0
	rapid.Check(t, func(t *rapid.T) {
		n, most := rapid.IntRange(3, 3000).Draw(t, "n"), rapid.IntRange(3, 200).Draw(t, "most")
		all := points(0, int64(n))
		for i := range all {
			all[i].Value = math.Sin(float64(i) / 50)
		}
		peak := rapid.IntRange(0, n-1).Draw(t, "peak")
		all[peak].Value = 100
		thin := metric.Thin(all, most)
		if len(thin) != min(n, most) || thin[0] != all[0] || thin[len(thin)-1] != all[n-1] {
			t.Fatalf("%d points of %d, asked for %d", len(thin), n, most)
		}
		if !slices.IsSortedFunc(thin, func(a, b cluster.Point) int { return int(a.Step - b.Step) }) {
			t.Fatal("points are out of order")
		}
		if n > most {
			peaks++
		}
		if !slices.Contains(thin, all[peak]) {
			t.Fatalf("the peak at %d of %d is gone among %d", peak, n, most)
		}
	})
	if peaks < 20 {
		t.Errorf("thinned in %d draws only", peaks)
	}
}

func TestACollectionIsBounded(t *testing.T) {
	c := metric.Collection{Wants: func(name string) bool { return name != "no" }}
	for i := range 2 * metric.MaxSeries {
		c.Add("", int64(i), metric.Row{Values: map[string]float64{strings.Repeat("m", i%250+1) + string(rune('a'+i/250)): 1, "no": 1}})
	}
	names := map[string]bool{}
	for _, s := range c.Series() {
		names[s.Name] = true
	}
	if len(names) != metric.MaxSeries || names["no"] {
		t.Errorf("%d series are held: %v", len(names), slices.Sorted(maps.Keys(names))[0])
	}
}

// tracked is the curve that is kept of lines.
func tracked(t *testing.T, track cluster.Tracking, lines ...string) []cluster.CurvePoint {
	t.Helper()
	var p cluster.Progress
	for _, line := range lines {
		row, ok := metric.ParseRow([]byte(line))
		if !ok {
			t.Fatal(line)
		}
		row.Advance(&p)
		row.Track(&p, track)
	}
	return p.Curve
}

func TestOfACurveWhatIsWantedIsKeptAndTheNewest(t *testing.T) {
	var lines []string
	for epoch := 2; epoch <= 200; epoch += 2 {
		lines = append(lines, fmt.Sprintf("epoch=%d loss=%d acc=1", epoch, 1000-epoch), fmt.Sprintf("epoch=%d loss=7", epoch)) // and in the middle of the next
	}
	var steps []float64
	for _, p := range tracked(t, cluster.Tracking{Metric: "loss", Steps: []float64{1, 3, 9, 27, 81}}, lines...) {
		steps = append(steps, p.Step)
		if p.Value != 1000-p.Step {
			t.Errorf("%+v", p)
		}
	}
	want := []float64{2, 4, 10, 28, 82}
	for epoch := 170.0; epoch <= 200; epoch += 2 {
		want = append(want, epoch)
	}
	if !slices.Equal(steps, want) {
		t.Errorf("%v\nwant\n%v", steps, want)
	}
}

func TestACurveCountsWhatTheProgramCounts(t *testing.T) {
	for name, c := range map[string]struct {
		track cluster.Tracking
		lines []string
		want  []cluster.CurvePoint
	}{
		"no epochs":   {cluster.Tracking{Metric: "loss"}, []string{"loss=3", "acc=1", "loss=2"}, []cluster.CurvePoint{{Step: 1, Value: 3}, {Step: 2, Value: 2}}},
		"steps":       {cluster.Tracking{Metric: "loss", ByStep: true}, []string{"step=100 loss=3", "epoch=1 step=250 loss=2"}, []cluster.CurvePoint{{Step: 100, Value: 3}, {Step: 250, Value: 2}}},
		"first epoch": {cluster.Tracking{Metric: "loss"}, []string{"epoch=0 loss=9", "epoch=0 loss=8", "epoch=1 loss=3"}, []cluster.CurvePoint{{Step: 1, Value: 3}}},
		"going back":  {cluster.Tracking{Metric: "loss"}, []string{"epoch=3 loss=9", "epoch=2 loss=8", "epoch=4 loss=3"}, []cluster.CurvePoint{{Step: 3, Value: 9}, {Step: 4, Value: 3}}},
		"another":     {cluster.Tracking{Metric: "loss"}, []string{"epoch=3 acc=9"}, nil},
	} {
		if got := tracked(t, c.track, c.lines...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
