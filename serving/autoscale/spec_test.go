package autoscale_test

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/serving/autoscale"
)

func TestMistakesNameTheirField(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	policy := func(p autoscale.Policy) autoscale.Spec {
		return autoscale.Spec{Min: 1, Max: 5, Policies: []autoscale.Policy{p}}
	}
	steps := func(steps ...autoscale.Step) autoscale.Spec {
		return policy(autoscale.Policy{Metric: autoscale.GPU, Steps: steps})
	}
	at := func(s autoscale.Schedule) autoscale.Spec {
		return autoscale.Spec{Min: 1, Max: 5, Schedule: []autoscale.Schedule{s}}
	}
	for field, specs := range map[string][]autoscale.Spec{
		"min":             {{Min: -1, Max: 5}, {Min: 6, Max: 5}, {Min: 10_001}},
		"max":             {{}, {Max: -1}, {Max: math.MaxInt}},
		"initial":         {{Min: 1, Max: 5, Initial: p(0)}, {Max: 5, Initial: p(-1)}, {Max: 5, Initial: p(6)}},
		"idle":            {{Max: 5, Idle: -1}, {Max: 5, Idle: 1}, {Max: 5, Idle: quantity.Duration(31 * 24 * time.Hour)}},
		"window":          {{Max: 5, Window: -1}, {Max: 5, Window: quantity.Duration(time.Second)}, {Max: 5, Window: quantity.Duration(2 * time.Hour)}},
		"burst.window":    {{Max: 5, Burst: autoscale.Burst{Window: quantity.Duration(2 * time.Minute)}}, {Max: 5, Burst: autoscale.Burst{Window: -1}}},
		"burst.threshold": {{Max: 5, Burst: autoscale.Burst{Threshold: 1}}, {Max: 5, Burst: autoscale.Burst{Threshold: nan}}, {Max: 5, Burst: autoscale.Burst{Threshold: inf}}},
		"tolerance":       {{Max: 5, Tolerance: p(-0.1)}, {Max: 5, Tolerance: &nan}, {Max: 5, Tolerance: p(1.0)}},

		"scale_out.cooldown":     {{Max: 5, ScaleOut: autoscale.Pace{Cooldown: span(-1)}}},
		"scale_in.stabilization": {{Max: 5, ScaleIn: autoscale.Pace{Stabilization: span(25 * time.Hour)}}},
		"scale_in.max_step":      {{Max: 5, ScaleIn: autoscale.Pace{MaxStep: -1}}},
		"scale_in.max_percent":   {{Max: 5, ScaleIn: autoscale.Pace{MaxPercent: nan}}, {Max: 5, ScaleIn: autoscale.Pace{MaxPercent: -1}}},

		"policies":             {{Max: 5, Policies: make([]autoscale.Policy, 17)}},
		"policies[0].metric":   {policy(track("", 1)), policy(track("p99 latency", 1)), policy(track("9", 1)), policy(track(autoscale.Metric(strings.Repeat("x", 129)), 1))},
		"policies[1].metric":   {{Max: 5, Policies: []autoscale.Policy{track(autoscale.GPU, 1), track(autoscale.GPU, 2)}}},
		"policies[0].target":   {policy(track("x", 0)), policy(track("x", -1)), policy(track("x", nan)), policy(track("x", inf)), policy(track(autoscale.GPU, 101)), policy(autoscale.Policy{Metric: "x", Target: 1, Steps: []autoscale.Step{{}}})},
		"policies[0].quantile": {policy(autoscale.Policy{Metric: autoscale.Latency, Target: 1, Quantile: 1}), policy(autoscale.Policy{Metric: autoscale.Latency, Target: 1, Quantile: nan}), policy(autoscale.Policy{Metric: autoscale.GPU, Target: 1, Quantile: 0.5})},
		"policies[0].total":    {policy(autoscale.Policy{Metric: autoscale.GPU, Target: 1, Total: true})},

		"policies[0].steps":            {steps(make([]autoscale.Step, 33)...)},
		"policies[0].steps[0]":         {steps(autoscale.Step{Add: 1}), steps(autoscale.Step{Above: p(1.0)}), steps(autoscale.Step{Above: p(1.0), Add: 1, Percent: 1}), steps(autoscale.Step{Above: p(2.0), Below: p(1.0), Add: 1}), steps(autoscale.Step{Above: &nan, Add: 1}), steps(autoscale.Step{Above: p(math.Inf(-1)), Add: 1})},
		"policies[0].steps[1]":         {steps(autoscale.Step{Above: p(1.0), Add: 1}, autoscale.Step{Above: p(2.0), Add: 2})},
		"policies[0].steps[0].add":     {steps(autoscale.Step{Above: p(1.0), Add: math.MinInt})},
		"policies[0].steps[0].percent": {steps(autoscale.Step{Above: p(1.0), Percent: nan}), steps(autoscale.Step{Above: p(1.0), Percent: -101})},

		"schedule": {{Max: 5, Schedule: make([]autoscale.Schedule, 65)}},
		"schedule[0].at": {
			at(autoscale.Schedule{Min: p(2)}), at(autoscale.Schedule{At: "61 * * * *", Min: p(2)}), at(autoscale.Schedule{At: "0 8 * *", Min: p(2)}),
			at(autoscale.Schedule{At: "TZ=", Min: p(2)}), at(autoscale.Schedule{At: "@every 1s", Min: p(2)}), at(autoscale.Schedule{At: "0 0 30 2 *", Min: p(2)}),
			at(autoscale.Schedule{At: strings.Repeat("1,", 200) + "1 * * * *", Min: p(2)}), at(autoscale.Schedule{At: "* * * * * *", Min: p(2)}),
		},
		"schedule[0].zone": {at(autoscale.Schedule{At: "* * * * *", Zone: "Mars/Olympus", Min: p(2)}), at(autoscale.Schedule{At: "* * * * *", Zone: "Local", Min: p(2)}), at(autoscale.Schedule{At: "* * * * *", Zone: "../../etc/passwd", Min: p(2)})},
		"schedule[0].for":  {at(autoscale.Schedule{At: "* * * * *", For: -1, Min: p(2)})},
		"schedule[0]":      {at(autoscale.Schedule{At: "* * * * *"})},
		"schedule[0].min":  {at(autoscale.Schedule{At: "* * * * *", Min: p(6)}), at(autoscale.Schedule{At: "* * * * *", Min: p(-1)}), at(autoscale.Schedule{At: "* * * * *", Min: p(3), Max: p(2)})},
		"schedule[0].max":  {at(autoscale.Schedule{At: "* * * * *", Max: p(10_001)})},
	} {
		for i, spec := range specs {
			if field != "min" && field != "max" && spec.Max == 0 {
				spec.Max = 5
			}
			problems, found := spec.Validate(), false
			for _, problem := range problems {
				found = found || problem.Field == field && problem.Text != ""
			}
			if !found {
				t.Errorf("%s, case %d: problems are %q", field, i, problems)
			}
			if _, err := autoscale.New(spec); err == nil {
				t.Errorf("%s, case %d: a scaler was made of it", field, i)
			}
		}
	}
}

func TestASpecIsReadAsItIsWritten(t *testing.T) {
	const text = `{
		"min": 0, "max": 20, "initial": 2, "idle": "15m",
		"policies": [
			{"metric": "concurrency", "target": 8},
			{"metric": "latency", "target": 0.2, "quantile": 0.99},
			{"metric": "gpu", "steps": [{"above": 80, "add": 2}, {"below": 20, "percent": -50}]}
		],
		"schedule": [{"at": "0 8 * * mon-fri", "zone": "Europe/Berlin", "for": "10h", "min": 4}],
		"scale_in": {"cooldown": 0, "stabilization": "10m", "max_percent": 50}
	}`
	var spec autoscale.Spec
	if problems := strictjson.Decode([]byte(text), &spec); len(problems) > 0 {
		t.Fatal(problems)
	}
	if problems := spec.Validate(); len(problems) > 0 {
		t.Fatal(problems)
	}
	want := autoscale.Spec{
		Max: 20, Initial: p(2), Idle: quantity.Duration(15 * time.Minute),
		Policies: []autoscale.Policy{
			{Metric: autoscale.Concurrency, Target: 8},
			{Metric: autoscale.Latency, Target: 0.2, Quantile: 0.99},
			{Metric: autoscale.GPU, Steps: []autoscale.Step{{Above: p(80.0), Add: 2}, {Below: p(20.0), Percent: -50}}},
		},
		Schedule: []autoscale.Schedule{{At: "0 8 * * mon-fri", Zone: "Europe/Berlin", For: quantity.Duration(10 * time.Hour), Min: p(4)}},
		ScaleIn:  autoscale.Pace{Cooldown: span(0), Stabilization: span(10 * time.Minute), MaxPercent: 50},
	}
	if !reflect.DeepEqual(spec, want) {
		t.Errorf("it was read as %+v", spec)
	}
}

func TestAScheduleSetsTheBoundsAtItsTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	s := scaler(t, autoscale.Spec{Min: 1, Max: 10, Schedule: []autoscale.Schedule{
		{At: "0 8 * * mon-fri", Zone: "Europe/Berlin", For: quantity.Duration(10 * time.Hour), Min: p(4), Max: p(20)},
		{At: "30 12 * * *", Zone: "Europe/Berlin", For: quantity.Duration(time.Hour), Min: p(8)},
		{At: "0 0 29 2 *", Max: p(3)},
	}})
	for _, c := range []struct {
		at              string
		least, most, by int
	}{
		{"2026-03-02 07:59:59", 1, 3, 2}, // since the last 29th of February, two years before
		{"2026-03-02 08:00:00", 4, 20, 0},
		{"2026-03-02 12:29:59", 4, 20, 0},
		{"2026-03-02 12:30:00", 8, 10, 1},
		{"2026-03-02 13:30:00", 4, 20, 0}, // the one before still lasts
		{"2026-03-02 18:00:00", 1, 3, 2},
		{"2026-03-07 12:00:00", 1, 3, 2}, // a Saturday
		{"2026-03-07 12:45:00", 8, 10, 1},
		{"2026-03-29 12:45:00", 8, 10, 1}, // the day the clocks change
		{"2026-03-30 08:00:00", 4, 20, 0},
	} {
		at, err := time.ParseInLocation(time.DateTime, c.at, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if least, most, by := s.Bounds(at.UTC()); least != c.least || most != c.most || by != c.by {
			t.Errorf("at %s from %d to %d by %d; want %d to %d by %d", c.at, least, most, by, c.least, c.most, c.by)
		}
	}
}

func TestTheBoundsOfTheTimeHoldAtOnce(t *testing.T) {
	spec := autoscale.Spec{Min: 1, Max: 10, Policies: []autoscale.Policy{track(autoscale.Concurrency, 1)}, Schedule: []autoscale.Schedule{
		{At: "5 12 * * *", For: quantity.Duration(5 * time.Minute), Min: p(6)},
		{At: "20 12 * * *", For: quantity.Duration(time.Hour), Min: p(0), Max: p(0)},
	}}
	f := newFleet(t, 2, spec).run(5*time.Minute-time.Second, total(autoscale.Concurrency, 2))
	f.want(t, 2, "")
	f.run(time.Second, total(autoscale.Concurrency, 2)).want(t, 6, "from 6 to 10 replicas at this time")
	f.run(14*time.Minute, total(autoscale.Concurrency, 2)).want(t, 2, "")
	f.run(time.Minute, total(autoscale.Concurrency, 2)).want(t, 0, "from 0 to 0 replicas")
}

// A schedule's last time is the one that walking forward finds.
func TestTheLastTimeIsTheOneThatWasPassed(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		one := func(name, most string, values ...string) string {
			return rapid.SampledFrom(append(values, "*", "*", "*", "*", most)).Draw(t, name)
		}
		at := strings.Join([]string{
			one("minute", "59", "0", "*/7", "13,47"), one("hour", "23", "0", "2", "3", "8-18/2"),
			one("day", "31", "1", "*/10"), one("month", "12", "1", "3", "feb,oct"), one("weekday", "6", "mon-fri", "0"),
		}, " ")
		zone := rapid.SampledFrom([]string{"", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia"}).Draw(t, "zone")
		spec := autoscale.Spec{Min: 1, Max: 9, Schedule: []autoscale.Schedule{{At: at, Zone: zone, For: quantity.Duration(time.Minute), Min: p(2)}}}
		if len(spec.Validate()) > 0 {
			t.Skip() // such as the 31st of February
		}
		s, err := autoscale.New(spec)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(rapid.Int64Range(1.7e9, 1.9e9).Draw(t, "now"), 0)
		location, _ := time.LoadLocation(zone)
		// It lasts a minute: so it counts exactly if the minute before now has its time.
		want := matches(at, now.In(location))
		if _, _, by := s.Bounds(now); (by == 0) != want {
			t.Fatalf("%q in %q: at %s it counts: %v", at, zone, now.In(location), by == 0)
		}
		if want {
			found++
		}
	})
	if found == 0 {
		t.Error("no drawn time was one of a schedule")
	}
}

// matches says that an instant's minute is one of an expression's, by reading it as crontab(5) says.
func matches(at string, now time.Time) bool {
	fields := strings.Fields(at)
	in := func(field, value int) bool {
		for _, part := range strings.Split(fields[field], ",") {
			part, step, _ := strings.Cut(part, "/")
			low, high := part, part
			if from, to, ok := strings.Cut(part, "-"); ok {
				low, high = from, to
			}
			if part == "*" {
				low, high = []string{"0", "0", "1", "1", "0"}[field], "99"
			}
			from, to, by := word(low), word(high), max(word(step), 1)
			if value >= from && value <= to && (value-from)%by == 0 {
				return true
			}
		}
		return false
	}
	day, weekday := in(2, now.Day()), in(4, int(now.Weekday()))
	either := day && weekday
	if fields[2] != "*" && fields[4] != "*" {
		either = day || weekday
	}
	return in(0, now.Minute()) && in(1, now.Hour()) && either && in(3, int(now.Month()))
}

func word(text string) int {
	if n, ok := map[string]int{"mon": 1, "fri": 5, "feb": 2, "oct": 10}[text]; ok {
		return n
	}
	n, _ := strconv.Atoi(text)
	return n
}
