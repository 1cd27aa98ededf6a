package autoscale

import (
	"cmp"
	"strings"
	"time"
	_ "time/tzdata" // the same zones on every machine, and no file to read

	"github.com/robfig/cron/v3"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// entry is a Schedule whose expression and zone are understood.
type entry struct {
	Schedule
	times cron.Schedule
	zone  *time.Location
}

// Scaler is a Spec made ready to decide by. It holds nothing that changes.
type Scaler struct {
	spec    Spec
	entries []entry
}

// New reads a spec's schedule; the spec is one without mistakes.
func New(spec Spec) (Scaler, error) {
	if problems := spec.Validate(); len(problems) > 0 {
		return Scaler{}, fault.New(fault.Invalid, "scaling: %w", problems.Err())
	}
	s := Scaler{spec: spec}
	for _, schedule := range spec.Schedule {
		read, _ := schedule.read()
		s.entries = append(s.entries, read)
	}
	return s, nil
}

// Spec is what the scaler decides by.
func (s Scaler) Spec() Spec { return s.spec }

// Bounds are the fewest and the most replicas at an instant, and which entry of the schedule says
// so; -1 is the spec itself.
func (s Scaler) Bounds(now time.Time) (least, most, by int) {
	least, most, by = s.spec.Min, s.spec.most(), -1
	var since time.Time
	for i, e := range s.entries {
		at, ok := e.last(now)
		if !ok || e.For > 0 && !now.Before(at.Add(e.For.Std())) || at.Before(since) {
			continue
		}
		since, by = at, i
	}
	if by >= 0 {
		least, most = s.spec.Schedule[by].bounds(s.spec)
	}
	return least, most, by
}

// bounds are the spec's with those of the schedule in their place.
func (s Schedule) bounds(spec Spec) (least, most int) {
	least, most = spec.Min, spec.most()
	if s.Min != nil {
		least = *s.Min
	}
	if s.Max != nil {
		most = *s.Max
	}
	return least, most
}

// horizon is how far back a schedule's last time is looked for. Its next one is found five years
// ahead, so that one on the 29th of February counts.
const horizon = 5 * 366 * 24 * time.Hour

// last is the latest time at or before an instant. The times after t rise with t: so the last t with
// one that is not after now is found by halving.
func (e entry) last(now time.Time) (time.Time, bool) {
	now = now.In(e.zone).Truncate(time.Second)
	came := func(back int64) bool {
		next := e.times.Next(now.Add(-time.Duration(back) * time.Second))
		return !next.IsZero() && !next.After(now)
	}
	high := int64(1)
	for !came(high) {
		if high *= 2; high > int64(horizon/time.Second) {
			return time.Time{}, false
		}
	}
	low := high / 2 // has none; high has one
	for high-low > 1 {
		if middle := (low + high) / 2; came(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return e.times.Next(now.Add(-time.Duration(high) * time.Second)), true
}

var crontab = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

func (s Schedule) read() (entry, cluster.Problems) {
	var p cluster.Problems
	zone, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "Local" {
		p.Add("zone", "%q is no time zone: such as Europe/Berlin, or nothing for UTC", cluster.Clip(s.Zone))
		zone = time.UTC
	}
	// The library takes a zone and other words in front too; here they have fields of their own.
	if len(s.At) > 200 || strings.ContainsAny(s.At, "=@") {
		p.Add("at", "%q is not five fields as crontab(5) has them, such as \"0 8 * * mon-fri\"", cluster.Clip(s.At))
		return entry{}, p
	}
	times, err := crontab.Parse(s.At)
	if err != nil {
		p.Add("at", "%q is not five fields as crontab(5) has them, such as \"0 8 * * mon-fri\": %s", cluster.Clip(s.At), err)
		return entry{}, p
	}
	if spec, ok := times.(*cron.SpecSchedule); ok {
		spec.Location = zone
	}
	if times.Next(time.Unix(0, 0)).IsZero() {
		p.Add("at", "%q never comes", cluster.Clip(s.At))
	}
	return entry{Schedule: s, times: times, zone: zone}, p
}

func (s Schedule) validate(spec Spec) cluster.Problems {
	_, p := s.read()
	checkSpan(&p, "for", s.For, time.Minute, 366*24*time.Hour)
	if s.Min == nil && s.Max == nil {
		p.Add("", "needs min or max: what it sets")
		return p
	}
	for _, bound := range []struct {
		field string
		n     *int
	}{{"min", s.Min}, {"max", s.Max}} {
		if bound.n != nil {
			checkCount(&p, bound.field, *bound.n)
		}
	}
	if least, most := s.bounds(spec); least > most {
		p.Add("min", "%d would be more than max, which is %d then", least, most)
	}
	return p
}

func compare(a, b string) int { return cmp.Compare(a, b) }
