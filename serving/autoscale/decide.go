package autoscale

import (
	"fmt"
	"time"
)

// State is what Decide remembers from one time to the next. What has a JSON name outlives a leader; the
// rest a new one gathers anew, and takes nothing away until it has.
type State struct {
	// Out and In are when replicas were last added and taken away.
	Out time.Time `json:"out,omitzero"`
	In  time.Time `json:"in,omitzero"`

	at     time.Time // of the last decision
	since  time.Time // decided without a gap
	active time.Time // somebody asked last
	burst  time.Time // the short window last wanted much more
	wishes []wish    // of the stabilization windows, in order of time
	last   Decision
}

// wish is how many replicas were wanted from an instant until the next wish.
type wish struct {
	at       time.Time
	replicas int
}

// Decision is how many replicas a fleet shall have.
type Decision struct {
	Replicas int `json:"replicas"`
	// Why says it in words: what was measured, and what held it back.
	Why string `json:"why"`
	// Min and Max are the bounds that held.
	Min int `json:"min"`
	Max int `json:"max"`
	// Findings are what the policies want, in their order.
	Findings []Finding `json:"findings,omitempty"`
}

// gap is how long there may be between two decisions: what happened in a longer one nobody saw.
const gap = 30 * time.Second

// asked is one question on its way to a decision.
type asked struct {
	Scaler
	now         time.Time
	wanted      int
	least, most int
	series      []Measurement
	state       State
	findings    []Finding
}

// Decide says how many replicas there shall be, of a fleet that shall have so many now, whose
// measurements are in order of time. Asked again at the same instant it decides the same.
func (s Scaler) Decide(now time.Time, wanted int, series []Measurement, state State) (Decision, State) {
	if late := state.at.Sub(now); late >= 0 && late < gap && wanted == state.last.Replicas {
		return state.last, state
	}
	a := asked{Scaler: s, now: now, wanted: wanted, series: within(series, now, s.spec.window()), state: state}
	a.least, a.most, _ = s.Bounds(now)
	a.remember()
	for _, p := range s.spec.Policies {
		a.findings = append(a.findings, s.spec.find(p, a.series, now, wanted))
	}
	replicas, why := a.decide()
	if bounded := min(max(replicas, a.least), a.most); bounded != replicas {
		why = fmt.Sprintf("there are from %d to %d replicas at this time", a.least, a.most)
		if replicas > bounded && bounded >= wanted {
			why = fmt.Sprintf("%d replicas are the most; without a bound there would be %d", bounded, replicas)
		}
		replicas = bounded
	}
	if replicas > wanted {
		a.state.Out = now
	} else if replicas < wanted {
		a.state.In = now
	}
	a.state.last = Decision{Replicas: replicas, Why: why, Min: a.least, Max: a.most, Findings: a.findings}
	return a.state.last, a.state
}

// remember takes note of whether somebody asked, and of a gap.
func (a *asked) remember() {
	if a.state.at.IsZero() || a.now.Sub(a.state.at) > gap || a.now.Before(a.state.at) {
		a.state = State{Out: a.state.Out, In: a.state.In, since: a.now, active: a.now}
	}
	switch last := a.state.last.Replicas; { // somebody else changed it: that is a change like any other
	case a.state.at.IsZero() || a.wanted == last:
	case a.wanted > last:
		a.state.Out, a.state.since, a.state.active = a.now, a.now, a.now
	default:
		a.state.In, a.state.since = a.now, a.now
	}
	for _, m := range a.series {
		if m.At.After(a.state.active) && m.active() {
			a.state.active = m.At
		}
	}
	if len(a.series) == 0 || a.now.Sub(a.series[len(a.series)-1].At) > slack(a.spec.window()) {
		a.state.active = a.now // who does not see must not think that nobody asks
	}
	a.state.at = a.now
}

// decide is the number before the bounds.
func (a *asked) decide() (int, string) {
	want, why := a.combine()
	if a.wanted == 0 {
		a.record(want)
		return a.wake(want)
	}
	if idle := a.now.Sub(a.state.active); a.least == 0 && idle >= a.spec.idle() {
		a.record(0)
		return 0, fmt.Sprintf("nothing was asked for %s", brief(a.spec.idle()))
	}
	want = max(want, 1) // the last one is taken only when nobody asks
	if n := len(a.series); n > 0 && a.series[n-1].Ready == 0 && a.series[n-1].Waiting > 0 {
		if cold, text := a.wake(want); cold > a.wanted { // the first replica starts, and more than it can serve wait
			a.record(cold)
			return a.pace(cold, text)
		}
	}
	burst, text := a.burst()
	a.record(max(want, burst))
	steady, held := a.stabilize(want)
	switch {
	case burst > steady || burst == a.wanted && burst >= want:
		return a.pace(burst, text)
	case steady == a.wanted && want != a.wanted:
		return steady, fmt.Sprintf("%s: %d wanted, %s", why, want, held)
	}
	return a.pace(steady, why)
}

// wake starts replicas of a fleet that has none when something waits for them.
func (a *asked) wake(want int) (int, string) {
	if len(a.series) == 0 {
		return 0, "nobody has asked"
	}
	last := a.series[len(a.series)-1]
	backlog, _ := last.value(Backlog)
	what := "somebody asks"
	switch {
	case !last.active():
		return 0, "nobody has asked"
	case last.Waiting > 0:
		what = fmt.Sprintf("requests wait for the first replica: %s", number(last.Waiting))
	case backlog > 0:
		what = fmt.Sprintf("asynchronous requests wait for the first replica: %s", number(backlog))
	}
	for _, p := range a.spec.Policies { // a mean over a window would make little of what came just now
		waits := map[Metric]float64{Concurrency: last.Waiting, Backlog: backlog}[p.Metric]
		if len(p.Steps) == 0 && waits > 0 {
			want = max(want, share(waits, p.Target))
		}
	}
	return max(want, 1), what
}

// combine is what the policies want together: the most that any wants, and fewer than there are only
// if all of them do.
func (a *asked) combine() (want int, why string) {
	want, why = a.wanted, "no policy changes the number of replicas"
	fewer, fewerWhy, silent := -1, "", 0
	for _, f := range a.findings {
		switch {
		case f.Wish > want:
			want, why = f.Wish, f.Why
		case f.Silent:
			silent++
		case f.Wish > fewer:
			fewer, fewerWhy = f.Wish, f.Why
		}
	}
	if want > a.wanted || len(a.findings) == silent {
		return want, why
	}
	return fewer, fewerWhy
}

// burst is what the short window wants while it, or one less than a window ago, wanted several times
// the replicas that are ready, and nothing else. Nothing is taken away in that time.
func (a *asked) burst() (want int, why string) {
	if a.spec.Burst.Off || len(a.series) == 0 {
		return 0, ""
	}
	wish, by := a.spec.burst(a.series, a.now)
	if ready := max(a.series[len(a.series)-1].Ready, 1); float64(wish) >= a.spec.Burst.threshold()*float64(ready) {
		a.state.burst = a.now
	}
	if a.state.burst.IsZero() || a.now.Sub(a.state.burst) >= a.spec.window() {
		return 0, ""
	}
	span := brief(a.spec.Burst.window(a.spec.window()))
	if wish <= a.wanted {
		return a.wanted, "a burst was less than " + brief(a.spec.window()) + " ago"
	}
	return wish, fmt.Sprintf("a burst: %s of the last %s wants %d replicas", by.Metric, span, wish)
}

// record remembers what was wanted, as far back as it counts.
func (a *asked) record(want int) {
	keep := max(orPointer(a.spec.ScaleOut.Stabilization, 0), orPointer(a.spec.ScaleIn.Stabilization, defaultStabilization))
	old := a.state.wishes
	for len(old) > 1 && a.now.Sub(old[1].at) >= keep {
		old = old[1:] // what followed it holds since before the window
	}
	kept := append(make([]wish, 0, len(old)+1), old...) // the state that was given stays as it is
	if len(kept) == 0 || kept[len(kept)-1].replicas != want {
		kept = append(kept, wish{a.now, want})
	}
	a.state.wishes = kept
}

// stabilize is the number nearest to what there is among those that were wanted in a window.
func (a *asked) stabilize(want int) (steady int, held string) {
	span := orPointer(a.spec.ScaleIn.Stabilization, defaultStabilization)
	nearer := func(x, y int) int { return min(max(x, y), a.wanted) }
	if want > a.wanted {
		span = orPointer(a.spec.ScaleOut.Stabilization, 0)
		nearer = func(x, y int) int { return max(min(x, y), a.wanted) }
	}
	if span == 0 || want == a.wanted {
		return want, ""
	}
	held = fmt.Sprintf("but not for %s yet", brief(span))
	if a.now.Sub(a.state.since) < span {
		return a.wanted, held
	}
	steady = want
	for i, w := range a.state.wishes {
		if i+1 < len(a.state.wishes) && a.now.Sub(a.state.wishes[i+1].at) >= span {
			continue // over before the window
		}
		steady = nearer(steady, w.replicas)
	}
	return steady, held
}

// pace holds a change back by cooldown and greatest step.
func (a *asked) pace(want int, why string) (int, string) {
	if want == a.wanted {
		return want, why
	}
	pace, from, cooldown := a.spec.ScaleOut, a.state.Out, orPointer(a.spec.ScaleOut.Cooldown, 0)
	if want < a.wanted {
		pace, from, cooldown = a.spec.ScaleIn, a.state.In, orPointer(a.spec.ScaleIn.Cooldown, defaultInCooldown)
		if a.state.Out.After(from) {
			from = a.state.Out
		}
	}
	if since := a.now.Sub(from); !from.IsZero() && since < cooldown {
		return a.wanted, fmt.Sprintf("%s: %d wanted, but the last change was less than %s ago", why, want, brief(cooldown))
	}
	limit := pace.limit(a.wanted)
	if bounded := min(max(want, a.wanted-limit), a.wanted+limit); bounded != want {
		return bounded, fmt.Sprintf("%s: %d wanted, %d is the most of one step", why, want, limit)
	}
	return want, why
}
