package tuning

import (
	"cmp"
	"iter"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
)

// Shower tells what a sweep's rows mean, without a search.
type Shower struct {
	Sampler string // with the one that auto has chosen, as in "auto (bayes)"
	Stopper string // "" for none

	spec  Spec
	space *space.Space
}

// NewShower reads the spec of a tuning job that was accepted.
func NewShower(spec []byte) (Shower, error) {
	s, err := read(spec)
	if err != nil {
		return Shower{}, err
	}
	compiled, err := s.Space.spec().Compile()
	if err != nil {
		return Shower{}, err
	}
	initial := s.Initial
	s.Initial = nil // they decide nothing here, and may be many
	problem, _ := s.problem(compiled)
	s.Initial = initial
	return Shower{Sampler: s.chosenName(problem), Stopper: s.Stopper.name(), spec: s, space: compiled}, nil
}

// Values are the active parameters of a trial.
func (s Shower) Values(t cluster.Trial) map[string]expr.Value {
	if len(t.Config) != len(s.space.Names()) {
		return nil
	}
	return s.space.Values(t.Config)
}

// TrialSpec is the training job that a trial is: the template with its parameters put in.
func (s Shower) TrialSpec(t cluster.Trial) ([]byte, error) {
	if s.spec.Trial == nil {
		return nil, fault.New(fault.Invalid, "the sweep is a study: it has no trial to fill in")
	}
	filling, err := newTemplate(s.spec)
	if err != nil {
		return nil, err
	}
	filled, problems := filling.fill(s.Values(t), "", "")
	if err := problems.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	return filled, nil
}

// Progress is what the tasks of a trial's job have said.
func (s Shower) Progress(tasks []cluster.Task) cluster.Progress {
	newest := cluster.Progress{}
	attempt := int32(-1)
	slices.SortFunc(tasks, func(a, b cluster.Task) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Index, b.Index))
	})
	for _, task := range tasks {
		if attempt >= 0 && task.Attempt != attempt {
			break
		}
		if p := task.Status.Progress; len(p.Metrics) > 0 || p.Epoch > 0 || p.Step > 0 {
			if attempt = task.Attempt; len(newest.Metrics) == 0 {
				newest = p
			}
		}
	}
	return newest
}

// excess is how far a complete trial lies outside all limits.
func (s Shower) excess(t cluster.Trial) float64 {
	total := 0.0
	for i, l := range s.spec.Limits {
		if i < len(t.Limits) {
			total += max(l.Excess(t.Limits[i]), 0)
		}
	}
	return total
}

// Merit is smaller for better trials: what is within the limits comes before what is not,
// and then the first objective counts. A trial without values has none.
func (s Shower) Merit(t cluster.Trial) (merit float64, has bool) {
	if t.State != cluster.TrialComplete || len(t.Values) == 0 {
		return 0, false
	}
	if excess := s.excess(t); excess > 0 {
		return math.MaxFloat64 * (1 - 1/(1+excess)), true
	}
	return s.spec.Objectives[0].Loss(t.Values[0]), true
}

// Front are the complete trials within the limits of which no other is better in all
// objectives, by the first of them.
func (s Shower) Front(trials iter.Seq[cluster.Trial]) []cluster.Trial {
	var front []cluster.Trial
	for t := range trials {
		if t.State != cluster.TrialComplete || s.excess(t) > 0 || slices.ContainsFunc(front, func(f cluster.Trial) bool { return s.beats(f, t) }) {
			continue
		}
		front = append(slices.DeleteFunc(front, func(f cluster.Trial) bool { return s.beats(t, f) }), t)
	}
	slices.SortStableFunc(front, func(a, b cluster.Trial) int {
		o := s.spec.Objectives[0]
		return cmp.Compare(o.Loss(a.Values[0]), o.Loss(b.Values[0]))
	})
	return front
}

// beats reports whether a is nowhere worse than b, and somewhere better.
func (s Shower) beats(a, b cluster.Trial) bool {
	better := false
	for i, o := range s.spec.Objectives {
		x, y := o.Loss(a.Values[i]), o.Loss(b.Values[i])
		if x > y {
			return false
		}
		better = better || x < y
	}
	return better
}

// Same reports whether a trial has ended as a worker tells.
func (s Shower) Same(t cluster.Trial, tell Tell) bool {
	state := cmp.Or(tell.State, cluster.TrialComplete)
	if t.State != state {
		return false
	}
	for i, value := range t.Values {
		if v, said := tell.Metrics[s.spec.Objectives[i].Name]; !said || v != value {
			return false
		}
	}
	return true
}
