package sweep_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/console/report/sweep"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/space"
)

var began = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// sweep makes up a search of so many trials whose objectives the first parameters decide.
func found(t testing.TB, trials int, problem tuner.Problem, params ...string) sweep.Found {
	t.Helper()
	var spec space.Spec
	for _, text := range params {
		p, err := space.ParseShort(text)
		if err != nil {
			t.Fatal(err)
		}
		spec.Parameters = append(spec.Parameters, p)
	}
	var err error
	if problem.Space, err = spec.Compile(); err != nil {
		t.Fatal(err)
	}
	problem.Seed = 1
	h, err := tuner.NewHistory(problem)
	if err != nil {
		t.Fatal(err)
	}
	sampler, err := plain.Random(problem)
	if err != nil {
		t.Fatal(err)
	}
	s := sweep.Found{
		Job:     cluster.Job{Name: "digits", State: cluster.JobRunning, Owner: "ada"},
		Sweep:   cluster.Sweep{Started: began.UnixNano(), Budget: cluster.Budget{Trials: int64(trials)}, Cost: 12.34},
		Sampler: "bayes", Stopper: "asha", History: h, Made: began.Add(time.Hour),
	}
	for range trials {
		number, err := tuner.Ask(sampler, h)
		if err != nil {
			t.Fatal(err)
		}
		s.Trials = append(s.Trials, play(t, h, number))
		*s.Sweep.Counts.Of(s.Trials[number].State)++
	}
	for _, o := range problem.Objectives {
		one := sweep.Importance{Objective: o.Name}
		for i, name := range problem.Space.Names() {
			one.Shares = append(one.Shares, sweep.Share{Parameter: name, Share: math.Pow(0.5, float64(i+1)), Error: 0.02})
		}
		s.Importance = append(s.Importance, one)
	}
	s.Method = "Shares of variance by fANOVA"
	return s
}

// play runs a trial: its curve falls to a value that its first parameters decide. Every
// seventh fails, every fifth is stopped, the last two are live.
func play(t testing.TB, h *tuner.History, number int) cluster.Trial {
	trial := cluster.Trial{Number: int64(number), Config: h.Config(number), State: cluster.TrialComplete, Started: began.Add(time.Duration(number) * time.Second).UnixNano()}
	dims := h.Problem().Space.Dims()
	x, active := make([]float64, len(dims)), make([]bool, len(dims))
	h.Problem().Space.Encode(h.Config(number), x, active)
	loss := 0.08
	for i, v := range x {
		loss += math.Pow(0.45, float64(i)) * (v - 0.6) * (v - 0.6)
	}
	last := 0.5
	if len(x) > 0 {
		last = x[len(x)-1]
	}
	loss *= 1 + 0.15*math.Sin(float64(number))
	end := tuner.Result{State: tuner.Complete}
	for i := range h.Problem().Objectives {
		end.Values = append(end.Values, []float64{loss, 40 + 900*last*last - 20*loss, -loss * loss}[i])
	}
	for range h.Problem().Limits {
		end.Limits = append(end.Limits, 900*last)
	}
	epochs := 20
	switch {
	case number%7 == 3:
		end, epochs, trial.State, trial.Reason = tuner.Result{State: tuner.Failed}, 2, cluster.TrialFailed, `exit code 1: </script><b>"out of memory"`
	case number%5 == 4:
		end, epochs, trial.State, trial.Reason = tuner.Result{State: tuner.Stopped}, 5, cluster.TrialStopped, "asha: rung 5"
	}
	if h.Problem().Fidelity.Max > 0 {
		for epoch := 1; epoch <= epochs; epoch++ {
			if err := h.Report(number, float64(epoch), loss+2.2*math.Exp(-float64(epoch)/4)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, point := range h.Curve(number) {
		trial.Curve = append(trial.Curve, cluster.CurvePoint(point))
	}
	if number > 10 && number%100 >= 98 {
		trial.State, trial.Values = cluster.TrialRunning, []float64{loss}
		return trial
	}
	if err := h.End(number, end); err != nil {
		t.Fatal(err)
	}
	trial.Order, trial.Ended = h.Trial(number).Order, trial.Started+int64(90*time.Second)
	return trial
}

var params = []string{
	"lr=log:1e-4..1e-1", "optimizer=adam,sgd,lamb", "momentum=reverse_log:0.5..0.999 if optimizer=sgd,lamb", "depth=1..8",
	"units=32..512:32", "dropout=0.0..0.6", "augment=true,false", "batch=ordered:16,32,64,128,256", "epochs=20",
}

func one() tuner.Problem {
	return tuner.Problem{Objectives: []tuner.Objective{{Name: "validation_loss"}}, Fidelity: tuner.Fidelity{Name: "epoch", Max: 20}}
}

func write(t testing.TB, s sweep.Found, name string) string {
	t.Helper()
	var b bytes.Buffer
	if err := sweep.Write(&b, s); err != nil {
		t.Fatal(err)
	}
	if folder := os.Getenv("CLARY_REPORT_DIR"); folder != "" { // to look at
		if err := os.WriteFile(filepath.Join(folder, name+".html"), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestTheReportIsWholeAndAlone(t *testing.T) {
	text := write(t, found(t, 200, one(), params...), "one")
	for _, want := range []string{"digits", "Optimization history", "Parameter importance", "Parallel coordinates", "Slices", "Learning curves", "by fANOVA", "clary train --best-of digits"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if found := regexp.MustCompile(`(?i)(src|href)="?(?:[a-z]+:)?//|url\(|@import|fetch\(|XMLHttp`).FindString(text); found != "" {
		t.Errorf("it asks for something else: %s", found)
	}
	if got := strings.Count(text, "<svg"); got != 1+1+1+8+1 {
		t.Errorf("%d plots", got)
	}
	if strings.Contains(text, "</script><b>") {
		t.Error("a stranger's text is not escaped")
	}
	var data struct {
		State  string
		Values [][]*float64
		Shades []string
		Params []struct{ Values []*float64 }
	}
	island := regexp.MustCompile(`(?s)id="data">(.*?)</script>`).FindStringSubmatch(text)
	if err := json.Unmarshal([]byte(island[1]), &data); err != nil {
		t.Fatal(err)
	}
	if len(data.State) != 200 || len(data.Values[0]) != 200 || len(data.Params) != 9 || len(data.Params[8].Values) != 200 || len(data.Shades[0]) != 200 {
		t.Error("the data do not hold all trials")
	}
	if strings.Count(data.State, "c") != 200-strings.Count(data.Shades[0], ".") {
		t.Error("not all complete trials have a shade")
	}
}

func TestEachCompleteTrialIsOnePointOfTheHistory(t *testing.T) {
	s := found(t, 200, one(), params...)
	text := write(t, s, "one")
	history := regexp.MustCompile(`(?s)<svg[^>]*history of.*?</svg>`).FindString(text)
	points := 0
	for _, path := range regexp.MustCompile(`<path class="dot s\d" d="([^"]*)"`).FindAllStringSubmatch(history, -1) {
		points += strings.Count(path[1], "M")
	}
	if int64(points) != s.Sweep.Counts.Complete {
		t.Errorf("%d points of %d complete trials", points, s.Sweep.Counts.Complete)
	}
}

func TestSeveralObjectivesHaveAFrontAndAPanelEach(t *testing.T) {
	problem := one()
	low := 800.0
	problem.Objectives = append(problem.Objectives, tuner.Objective{Name: "latency_ms"}, tuner.Objective{Name: "score", Direction: tuner.Maximize})
	problem.Limits = []tuner.Limit{{Name: "memory", Max: &low}}
	text := write(t, found(t, 200, problem, params...), "three")
	for _, want := range []string{"Pareto front", `class="panel o2"`, "latency_ms by validation_loss"} {
		if !strings.Contains(strings.ReplaceAll(text, "latency_ms (less is better)", "latency_ms"), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	problem.Objectives = problem.Objectives[:2]
	write(t, found(t, 200, problem, params...), "two")
}

// finite checks that no plot has a coordinate that is none.
func finite(t *testing.T, text string) {
	t.Helper()
	for _, plot := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1) {
		if found := regexp.MustCompile(`"[^"]*(NaN|Inf|92233720)[^"]*"`).FindString(plot); found != "" {
			t.Error(found)
		}
	}
}

func TestASweepWithNothingToShowHasAReportAllTheSame(t *testing.T) {
	for _, trials := range []int{0, 1, 2, 4} {
		text := write(t, found(t, trials, one(), params...), fmt.Sprint("few", trials))
		if trials == 0 && !strings.Contains(text, "no trial has completed") {
			t.Error("it does not say that there is nothing")
		}
		finite(t, text)
	}
	text := write(t, found(t, 2, one(), "seed=3", "x=1..2"), "constant")
	finite(t, text)
}

func TestExtremeValuesAreDrawn(t *testing.T) {
	for _, values := range [][]float64{{1e300, -1e300, 3}, {1e-300, 2e-300}, {5, 5, 5}, {math.MaxFloat64, -math.MaxFloat64}, {1e-9, 1e9, 1, 2, 3, 4, 5, 6, 7, 8}} {
		s := found(t, 0, one(), "lr=log:1e-300..1e300", "n=-9007199254740..9007199254740")
		for i, v := range values {
			number, err := s.History.Add(space.Config{math.Pow(10, float64(i)), float64(i)})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.History.End(number, tuner.Result{State: tuner.Complete, Values: []float64{v}}); err != nil {
				t.Fatal(err)
			}
			s.Trials = append(s.Trials, cluster.Trial{Number: int64(i), State: cluster.TrialComplete, Config: s.History.Config(number)})
		}
		text := write(t, s, "extreme")
		finite(t, text)
	}
}

func TestTenThousandTrialsFitInAPage(t *testing.T) {
	s := found(t, 10_000, one(), params...)
	began := time.Now()
	text := write(t, s, "many")
	t.Logf("%d bytes in %s", len(text), time.Since(began))
	if len(text) > 6<<20 {
		t.Errorf("%d bytes", len(text))
	}
}
