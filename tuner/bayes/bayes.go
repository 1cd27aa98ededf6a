// Package bayes proposes trials by Bayesian optimization with Gaussian processes: package
// gp says what to expect of a configuration, package acquisition which is worth most.
package bayes

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/acquisition"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/gp"
	"github.com/clary-ml/clary/tuner/sobol"
	"github.com/clary-ml/clary/tuner/space"
)

// Options are what can be chosen; Defaults are what measured best (see DESIGN.md).
type Options struct {
	Start      int            // trials spread evenly before the model is asked
	Transforms []gp.Transform // to choose from
	Prior      func(dimensions int) gp.Prior

	FitEvals     int     // evaluations of a fit at an anchor
	RefitEvals   int     // and of one between
	RefitAll     int     // observations up to which each is an anchor
	AnchorGrowth float64 // then, the share of new ones until the next
	RefitGrowth  float64 // and until the next fit

	Candidates  int // spread evenly
	Perturbed   int // around the best results
	Starts      int // of local searches
	Evaluations int // of each descent
	Draws       int // of pending results
}

// Defaults are the options of New.
func Defaults() Options {
	return Options{
		Transforms: []gp.Transform{gp.Standardize, gp.YeoJohnson, gp.LogGap}, Prior: gp.DefaultPrior,
		FitEvals: 40, RefitEvals: 15, RefitAll: 20, AnchorGrowth: 0.5, RefitGrowth: 0.1,
		Candidates: 768, Perturbed: 128, Starts: 8, Evaluations: 40, Draws: 64, Start: 4,
	}
}

const (
	leastResults = 3   // observations before the model is asked
	pendingMost  = 128 // pending trials that a model knows of, the newest
)

// New makes the sampler.
func New(p tuner.Problem) (tuner.Sampler, error) { return Defaults().New(p) }

// New makes a sampler with these options.
func (o Options) New(p tuner.Problem) (tuner.Sampler, error) {
	s := &sampler{Options: o, encoding: newEncoding(p), metrics: len(p.Objectives) + len(p.Limits)}
	s.sequence = sobol.New(len(s.dims), p.Seed)
	return s, nil
}

type sampler struct {
	Options
	*encoding
	metrics  int
	sequence *sobol.Sequence
	record   record
	anchor   fits
	fits     fits
}

// Suggest implements tuner.Sampler.
func (s *sampler) Suggest(h *tuner.History) (space.Config, error) {
	s.catchUp(h)
	r := chance.New(h.Problem().Seed, 'b', 'a', 'y', 'e', 's', uint64(h.Len()))
	if len(s.dims) == 0 {
		return h.Draw(r)
	}
	if h.Len()+s.record.prior < s.Start || s.record.count < leastResults {
		return s.spread(h, r)
	}
	x, ok := s.search(h, r)
	if !ok {
		return h.Draw(r)
	}
	return s.space.Decode(x), nil
}

// spread goes along the sequence, after the defaults.
func (s *sampler) spread(h *tuner.History, r *chance.Rand) (space.Config, error) {
	if h.Len() == 0 {
		if c := s.space.Start(); h.Fresh(c) {
			return c, nil
		}
	}
	c := make(space.Config, len(s.config))
	for try := range 8 {
		s.sequence.At(uint32(h.Len()+try<<16), s.coords)
		if s.space.DecodeTo(s.coords, c); h.Fresh(c) {
			return c, nil
		}
	}
	return h.Draw(r)
}

// search finds the coordinates that are worth most.
func (s *sampler) search(h *tuner.History, r *chance.Rand) ([]float64, bool) {
	v := s.view(h)
	candidates := s.candidates(h, r, v)
	options := acquisition.Options{Starts: s.Starts, Evaluations: s.Evaluations, Lengths: s.fits.metrics[0].hyper.Length}
	domain, objective := s.domain(h), s.objective(h, r, v)
	if s.record.region.length > 0 {
		inside, confined := options, clones(candidates)
		inside.Lower, inside.Upper = s.record.region.box(s.encoding, options.Lengths)
		even := len(candidates) - s.Perturbed
		s.confine(confined[:even], confined[even:], inside.Lower, inside.Upper)
		if x, _, ok := acquisition.Maximize(domain, objective, confined, r.Float64, inside); ok {
			return x, ok
		}
	}
	x, _, ok := acquisition.Maximize(domain, objective, candidates, r.Float64, options)
	return x, ok
}

func clones(points [][]float64) [][]float64 {
	out := make([][]float64, len(points))
	for i, x := range points {
		out[i] = slices.Clone(x)
	}
	return out
}

// candidates are spread evenly, and perturbations of the best.
func (s *sampler) candidates(h *tuner.History, r *chance.Rand, v view) [][]float64 {
	d := len(s.dims)
	even := s.Candidates
	if n := len(v.points) + len(v.pending); n > crowd {
		even = even * crowd / n
	}
	flat := make([]float64, (even+s.Perturbed)*d)
	out := make([][]float64, even+s.Perturbed)
	for i := range out {
		out[i] = flat[i*d : (i+1)*d : (i+1)*d]
	}
	from := uint32(1<<31) + uint32(h.Len()*s.Candidates)
	for i, x := range out[:even] {
		s.sequence.At(from+uint32(i), x)
		for j, u := range x {
			x[j] = s.snap(j, u)
		}
	}
	for i, x := range out[even:] {
		s.perturb(x, v.points[v.top[i%len(v.top)]], r)
	}
	return out
}

// crowd is the number of points from which on fewer candidates are tried.
const crowd = 200

// perturb writes a neighbour of a point to x.
func (s *sampler) perturb(x, from []float64, r *chance.Rand) {
	share := math.Min(1, math.Max(1.5/float64(len(x)), 0.2))
	for j := range x {
		switch v := from[j]; {
		case v != v:
			x[j] = s.snap(j, r.Float64())
		case r.Float64() >= share:
			x[j] = v
		case s.axes[j].Nominal:
			x[j] = s.snap(j, r.Float64())
		default:
			x[j] = s.snap(j, v+r.NormFloat64()*0.1*math.Exp(-2*r.Float64()))
		}
	}
}
