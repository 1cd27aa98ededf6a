package steward

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/serving/route"
)

const (
	silence = 4 * time.Second  // after which a router counts as one that does not tell
	missing = time.Minute      // after which one that nobody sees either is believed to be gone
	listen  = 3 * time.Second  // that a leader hears reports before it believes to have heard of all routers
	keep    = 30 * time.Minute // of samples
	fine    = 2 * time.Minute  // of them one a second; before that as long as coarse
	coarse  = 15 * time.Second
	late    = 10 * time.Second // by which a report may have been overtaken by the next; more is a clock that was set
	most    = 4096             // routers that are listened to
)

// heard is what routers have told.
type heard struct {
	began   time.Time
	routers map[string]*router  // by name
	tracks  map[fleetKey]*track // fleets that somebody has told of
}

// router is the newest of one router.
type router struct {
	report route.Report
	at     time.Time // when it came
	fleets map[fleetKey]route.FleetReport
}

// track is what all routers together told of a fleet over time.
type track struct {
	open    Sample // since the last sample
	samples []Sample
	merged  int       // of samples, how many are coarse already
	at      time.Time // when somebody last told of it
}

func newHeard(now time.Time) *heard {
	return &heard{began: now, routers: map[string]*router{}, tracks: map[fleetKey]*track{}}
}

// take takes in a report, and says whether somebody waits at a router. What a router did before it was
// first heard of is its past: counts begin there. One that comes late is left out.
func (h *heard) take(report route.Report, now time.Time) (held bool) {
	last := h.routers[report.Router]
	if last == nil && len(h.routers) >= most {
		return false
	}
	if last != nil && last.report.Boot == report.Boot {
		if behind := time.Duration(last.report.At - report.At); behind > 0 && behind < late {
			return false
		}
	}
	next := &router{report: report, at: now, fleets: make(map[fleetKey]route.FleetReport, len(report.Fleets))}
	for _, fleet := range report.Fleets {
		key := fleetKey{fleet.Endpoint, fleet.Variant, fleet.Generation}
		next.fleets[key] = fleet
		held = held || fleet.Waiting > 0
		t := h.tracks[key]
		if t == nil {
			t = &track{}
			h.tracks[key] = t
		}
		t.at = now
		if last == nil || last.report.Boot != report.Boot {
			continue
		}
		before := last.fleets[key] // a fleet that is new to this life of the router began with nothing
		t.open.add(fleet, before)
	}
	h.routers[report.Router] = next
	return held
}

// sample closes what was heard since the last one, and forgets what is old.
func (h *heard) sample(now time.Time, ready map[fleetKey]int, values map[fleetKey]map[string]float64) {
	for key, t := range h.tracks {
		s := t.open
		s.At, s.Span, s.Ready, s.Values = now, Every, ready[key], values[key]
		for _, r := range h.routers {
			if now.Sub(r.at) < silence {
				s.InFlight += r.fleets[key].InFlight
				s.Waiting += r.fleets[key].Waiting
			}
		}
		t.open = Sample{}
		t.push(s)
		if now.Sub(t.at) > keep {
			delete(h.tracks, key)
		}
	}
	for name, r := range h.routers {
		if now.Sub(r.at) > missing {
			delete(h.routers, name)
		}
	}
}

// push appends a sample, makes older ones coarse and drops those that are too old.
func (t *track) push(s Sample) {
	t.samples = append(t.samples, s)
	for next := t.merged; next < len(t.samples) && s.At.Sub(t.samples[next].At) > fine; next = t.merged {
		if next > 0 && t.samples[next-1].Span+t.samples[next].Span <= coarse {
			t.samples[next-1].join(t.samples[next])
			t.samples = slices.Delete(t.samples, next, next+1)
			continue
		}
		t.merged++
	}
	old := 0
	for old < len(t.samples) && s.At.Sub(t.samples[old].At) > keep {
		old++
	}
	t.samples, t.merged = slices.Delete(t.samples, 0, old), max(t.merged-old, 0)
}

// seen is what is known of an endpoint now.
//
// Samples are shared with the next calls of sample: whoever outlives the next needs a copy.
func (h *heard) seen(endpoint string, now time.Time, live []string) Seen {
	s := Seen{At: now, Since: h.began, fleets: map[fleetKey]Fleet{}, Known: now.Sub(h.began) >= listen, endpoint: endpoint}
	for _, name := range live {
		r := h.routers[name]
		s.Known = s.Known && r != nil && now.Sub(r.at) < silence
	}
	for name, r := range h.routers {
		if now.Sub(r.at) >= silence && !slices.Contains(live, name) {
			s.lost = true // it may route on, where nobody sees it
		}
	}
	s.version = ^uint64(0)
	for _, r := range h.routers {
		if now.Sub(r.at) < silence {
			s.version = min(s.version, r.report.Version)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(h.tracks), fleetKey.compare) {
		if key.endpoint == endpoint {
			s.fleets[key] = h.fleet(key, now)
		}
	}
	return s
}

// fleet is what is known of one fleet now.
func (h *heard) fleet(key fleetKey, now time.Time) Fleet {
	f := Fleet{Variant: key.variant, Generation: key.generation, Samples: h.tracks[key].samples, Replicas: map[string]Replica{}}
	for _, r := range h.routers {
		report, told := r.fleets[key]
		if !told {
			continue
		}
		f.Total += report.Requests
		f.TotalErrors += report.Errors
		if now.Sub(r.at) >= silence {
			continue
		}
		f.InFlight += report.InFlight
		f.Waiting += report.Waiting
		if report.Waiting > 0 && r.at.After(f.Asked) {
			f.Asked = r.at
		}
		for _, replica := range report.Replicas {
			all := f.Replicas[replica.ID]
			all.InFlight += replica.InFlight
			if replica.Ejected {
				all.Ejected, all.Why = true, replica.Why
			}
			f.Replicas[replica.ID] = all
		}
	}
	return f
}

// Seen is what all routers together know of an endpoint.
type Seen struct {
	At time.Time
	// Since is when this leader began to listen.
	Since time.Time
	// Known says that all routers that there are have told lately, and that this leader has listened for
	// a while: what is not there is nothing.
	Known bool

	endpoint string
	fleets   map[fleetKey]Fleet
	version  uint64 // of the oldest table among routers that tell
	lost     bool   // a router is silent, and not known to be gone
}

// Fleet is what is known of a fleet.
func (s Seen) Fleet(variant string, generation int64) Fleet {
	f, known := s.fleets[fleetKey{s.endpoint, variant, generation}]
	if !known {
		return Fleet{Variant: variant, Generation: generation}
	}
	return f
}

// Fleets are all that somebody has told of, in order.
func (s Seen) Fleets() []Fleet {
	var all []Fleet
	for _, key := range slices.SortedFunc(maps.Keys(s.fleets), fleetKey.compare) {
		all = append(all, s.fleets[key])
	}
	return all
}

// idle reports whether no router has a request at a replica, by its gang's ID, nor will: all know a table
// that is as new as a revision.
func (s Seen) idle(gang string, revision uint64) bool {
	if !s.Known || s.lost || s.version < revision {
		return false
	}
	for _, f := range s.fleets {
		for id, replica := range f.Replicas {
			if strings.HasPrefix(id, gang+"/") && replica.InFlight > 0 {
				return false
			}
		}
	}
	return true
}
