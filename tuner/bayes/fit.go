package bayes

import (
	"math"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/gp"
)

// fit is what was learned of a metric.
type fit struct {
	transform gp.Transform
	hyper     gp.Hyper
}

// fits are those of all metrics, learned from the first count observations.
type fits struct {
	count   int
	metrics []fit
}

// Fits are made at fixed counts of observations, from those alone: at anchors from nothing,
// all transforms tried; between anchors from the last anchor's, its transforms kept. So
// they are the same whoever asks when, and a restart makes two.
//
// anchors returns the count whose anchor serves n observations, and that whose fit does.
// Earlier sweeps are known from the beginning.
func (s *sampler) anchors(n int) (anchor, count int) {
	anchor = max(s.record.prior, last(n, s.RefitAll, s.AnchorGrowth))
	return anchor, max(anchor, last(n, s.RefitAll, s.RefitGrowth))
}

// last of the counts that go up in ones to all and then by a share, that is at most n.
func last(n, all int, growth float64) int {
	m := min(n, all)
	for m >= all {
		next := m + max(1, int(float64(m)*growth))
		if next > n {
			break
		}
		m = next
	}
	return m
}

// catchUp reads what ended since, and makes the fits that serve the observations there are.
func (s *sampler) catchUp(h *tuner.History) {
	if s.record.of != h {
		s.record.begin(h, s.encoding)
		s.anchor, s.fits = fits{}, fits{}
		s.learnIfDue(s.record.count + s.record.news(h, s.encoding))
	}
	final := s.record.count + s.record.news(h, s.encoding)
	for s.record.count < final {
		s.record.next(h, s.encoding)
		s.learnIfDue(final)
	}
}

// learnIfDue makes the fits that are due at the count of observations read, if they serve
// final ones.
func (s *sampler) learnIfDue(final int) {
	n := s.record.count
	anchor, count := s.anchors(final)
	if n == 0 || n != anchor && n != count || n < leastResults {
		return
	}
	points := choose(compared(s.record.pool), fitMost*2/5, fitMost*3/10, fitMost, uint64(n))
	data := newSample(points, s.metrics)
	if n == anchor && s.anchor.count != n {
		s.anchor = fits{count: n}
		for _, y := range data.metrics {
			s.anchor.metrics = append(s.anchor.metrics, s.learn(data.points, y))
		}
	}
	if n == count && s.fits.count != n {
		s.fits = fits{count: n}
		for i, y := range data.metrics {
			f := s.anchor.metrics[i]
			if n != anchor {
				f = s.relearn(data.points, y, f)
			}
			s.fits.metrics = append(s.fits.metrics, f)
		}
	}
}

// learn fits each transform, and takes the one under which results are predicted best from
// the others.
func (s *sampler) learn(x [][]float64, y []float64) fit {
	var chosen fit
	top := math.Inf(-1)
	for i, transform := range s.Transforms {
		out, slopes := transform.Apply(y)
		l := gp.NewLikelihood(s.kinds, s.Prior(len(s.kinds)), x, out)
		hyper, _ := l.Fit(gp.DefaultHyper(len(s.kinds)), s.FitEvals)
		if len(s.Transforms) == 1 {
			return fit{transform, hyper}
		}
		mean, variance := gp.Condition(s.kinds, hyper, x, out, 0).LeaveOneOut(out)
		score := slopes
		for k, v := range out {
			t := v - mean[k]
			score -= 0.5 * (t*t/variance[k] + math.Log(variance[k]))
		}
		if i == 0 || score > top {
			chosen, top = fit{transform, hyper}, score
		}
	}
	return chosen
}

// relearn starts from an anchor.
func (s *sampler) relearn(x [][]float64, y []float64, from fit) fit {
	out, _ := from.transform.Apply(y)
	l := gp.NewLikelihood(s.kinds, s.Prior(len(s.kinds)), x, out)
	hyper, _ := l.Fit(from.hyper, s.RefitEvals)
	return fit{from.transform, hyper}
}
