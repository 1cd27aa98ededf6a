// Package sim plays load against a fleet in simulated time, driven by the very code that scales real
// ones.
//
// The model: requests arrive at random at a rate that changes from second to second (Poisson), wait in
// one line, and are served by the replicas that are ready, each with a number of requests at a time and
// a random time for each (log-normal). A replica that is added is ready after a while; one that
// is taken away takes nothing new. Once a second the fleet is measured and asked how many it shall be.
package sim

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"

	"github.com/clary-ml/clary/serving/autoscale"
)

// Model is how replicas serve.
type Model struct {
	Service time.Duration // of a request, in the mean
	Spread  float64       // standard deviation of its logarithm
	Slots   int           // requests at a time in a replica
	Start   time.Duration // until a new replica is ready
	Late    time.Duration // a request that waits longer is late
	Lost    time.Duration // and one that waits even longer gives up
	Target  float64       // concurrency of a replica that is right
}

// Fleet says how many replicas there shall be.
type Fleet interface {
	Decide(now time.Time, wanted int, series []autoscale.Measurement) int
}

// Fixed is a fleet that never changes.
type Fixed int

// Decide says the same number every time.
func (f Fixed) Decide(time.Time, int, []autoscale.Measurement) int { return int(f) }

// Scaled is a fleet that a scaler decides of.
type Scaled struct {
	Scaler autoscale.Scaler
	state  autoscale.State
}

// Decide asks the scaler.
func (s *Scaled) Decide(now time.Time, wanted int, series []autoscale.Measurement) int {
	var d autoscale.Decision
	d, s.state = s.Scaler.Decide(now, wanted, series, s.state)
	return d.Replicas
}

// Result is how it went.
type Result struct {
	Requests, Late, Lost int
	// Spent are the replica-seconds that were paid for; Over those beyond what was needed at the time,
	// Under those that were needed and not ready.
	Spent, Over, Under float64
	// Changes are how often the number of replicas did, Peak is the most there were.
	Changes, Peak int
}

// Missed is the share of requests that were late or lost.
func (r Result) Missed() float64 { return float64(r.Late+r.Lost) / float64(max(r.Requests, 1)) }

// Plus is both together.
func (r Result) Plus(o Result) Result {
	return Result{
		r.Requests + o.Requests, r.Late + o.Late, r.Lost + o.Lost,
		r.Spent + o.Spent, r.Over + o.Over, r.Under + o.Under, r.Changes + o.Changes, max(r.Peak, o.Peak),
	}
}

// Needed is how many replicas a rate of requests takes.
func (m Model) Needed(rate float64) int {
	return int(math.Ceil(rate*m.Service.Seconds()/m.Target - 1e-9))
}

// Play serves a load, which is a rate of requests for each second, by a fleet that begins with so
// many replicas, all ready.
func (m Model) Play(load []float64, seed uint64, begin int, fleet Fleet) Result {
	p := &play{Model: m, random: rand.New(rand.NewPCG(seed, 0)), wanted: begin, ready: begin}
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for second, rate := range load {
		p.second(float64(second), rate)
		p.series = append(p.series, p.measure(start.Add(time.Duration(second+1)*time.Second)))
		if len(p.series) > 2*kept {
			p.series = append(p.series[:0], p.series[kept:]...)
		}
		p.account(rate)
		p.scale(float64(second+1), fleet.Decide(p.series[len(p.series)-1].At, p.wanted, p.series))
	}
	return p.result
}

// kept is for how many seconds measurements are kept.
const kept = 3600

// play is a simulation that goes on.
type play struct {
	Model
	random *rand.Rand

	wanted, ready int
	starting      []float64 // when the replicas that start are ready, in order
	line          []float64 // when those arrived that wait, in order
	busy          ends      // when requests that are served end

	clock       float64
	concurrency float64 // of this second, as are the next ones
	arrived     int
	now         autoscale.Measurement
	series      []autoscale.Measurement
	result      Result
}

// second lets one pass.
func (p *play) second(from, rate float64) {
	p.concurrency, p.arrived, p.now = 0, p.poisson(rate), autoscale.Measurement{}
	gaps := make([]float64, p.arrived+1) // arrivals within a second are evenly spread at random
	sum := 0.0
	for i := range gaps {
		gaps[i] = p.random.ExpFloat64()
		sum += gaps[i]
	}
	for len(p.starting) > 0 && p.starting[0] <= from {
		p.starting, p.ready = p.starting[1:], p.ready+1
	}
	p.pull(from)
	at := from
	for _, gap := range gaps[:p.arrived] {
		at += gap / sum
		p.until(at)
		p.result.Requests++
		p.line = append(p.line, at)
		p.pull(at)
	}
	p.until(from + 1)
}

// until ends what ends by an instant.
func (p *play) until(at float64) {
	for len(p.busy) > 0 && p.busy[0].at <= at {
		end := heap.Pop(&p.busy).(end)
		p.pass(end.at, 1)
		p.now.Latency.Add(time.Duration((end.at - end.arrived) * float64(time.Second)))
		p.pull(end.at)
	}
	p.pass(at, 0)
}

// pass adds up the concurrency until an instant at which so many ended.
func (p *play) pass(at float64, ended int) {
	p.concurrency += (at - p.clock) * float64(len(p.busy)+ended)
	p.clock = at
}

// pull serves those that wait while there is room.
func (p *play) pull(at float64) {
	mu := math.Log(p.Service.Seconds()) - p.Spread*p.Spread/2
	for len(p.line) > 0 {
		waited := time.Duration((at - p.line[0]) * float64(time.Second))
		if waited > p.Lost {
			p.result.Lost++
			p.line = p.line[1:]
			continue
		}
		if len(p.busy) >= p.ready*p.Slots {
			return
		}
		if waited > p.Late {
			p.result.Late++
		}
		heap.Push(&p.busy, end{at + math.Exp(mu+p.Spread*p.random.NormFloat64()), p.line[0]})
		p.line = p.line[1:]
	}
}

// poisson draws a number of arrivals.
func (p *play) poisson(rate float64) int {
	n := 0
	for left := rate; left > 0; {
		if left -= p.random.ExpFloat64(); left > 0 {
			n++
		}
	}
	return n
}

func (p *play) measure(at time.Time) autoscale.Measurement {
	m := p.now
	m.At, m.Ready, m.Waiting = at, p.ready, float64(len(p.line))
	m.Values = map[autoscale.Metric]float64{autoscale.Concurrency: p.concurrency, autoscale.Requests: float64(p.arrived)}
	if p.ready > 0 {
		m.Values[autoscale.GPU] = 100 * min(p.concurrency/float64(p.ready*p.Slots), 1)
	}
	return m
}

func (p *play) account(rate float64) {
	needed := p.Needed(rate)
	p.result.Spent += float64(p.wanted)
	p.result.Over += float64(max(p.wanted-needed, 0))
	p.result.Under += float64(max(needed-p.ready, 0))
	p.result.Peak = max(p.result.Peak, p.wanted)
}

// scale makes the replicas as many as are wanted: first those go that are not ready yet.
func (p *play) scale(at float64, wanted int) {
	if wanted != p.wanted {
		p.result.Changes++
	}
	for ; p.wanted < wanted; p.wanted++ {
		p.starting = append(p.starting, at+p.Start.Seconds())
	}
	for ; p.wanted > wanted; p.wanted-- {
		if n := len(p.starting); n > 0 {
			p.starting = p.starting[:n-1]
		} else {
			p.ready--
		}
	}
}

// end is when a request that is served ends, and when it arrived.
type end struct{ at, arrived float64 }

// ends are in the order of a heap.
type ends []end

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].at < e[j].at }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push adds one.
func (e *ends) Push(x any) { *e = append(*e, x.(end)) }

// Pop takes the last away.
func (e *ends) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
