package tuning

import (
	"iter"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
)

// HistoryOf is what the trials of a sweep say, for whoever shows them. They are all of its
// trials, in the order of their numbers; of those that live, any state will do.
func HistoryOf(spec []byte, trials iter.Seq[cluster.Trial]) (*tuner.History, error) {
	s, err := read(spec)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the sweep's spec cannot be read: %w", err)
	}
	compiled, err := s.Space.spec().Compile()
	if err != nil {
		return nil, fault.New(fault.Invalid, "the sweep's space: %w", err)
	}
	problem, problems := s.problem(compiled)
	if err := problems.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "the sweep's spec: %w", err)
	}
	return tuner.Restore(problem, func(yield func(tuner.Trial) bool) {
		for row := range trials {
			if !yield(trialOf(row)) {
				return
			}
		}
	})
}

// Preview is what a sweep would try first, before any result is known: up to so many
// configurations. Earlier sweeps are not known here.
func Preview(spec []byte, count int) ([]map[string]expr.Value, error) {
	h, err := HistoryOf(spec, slices.Values([]cluster.Trial(nil)))
	if err != nil {
		return nil, err
	}
	s, err := read(spec)
	if err != nil {
		return nil, err
	}
	sampler, err := s.newSampler(h.Problem())
	if err != nil {
		return nil, err
	}
	var first []map[string]expr.Value
	for range count {
		number, err := tuner.Ask(sampler, h)
		if fault.Is(err, fault.Exhausted) {
			break
		}
		if err != nil {
			return nil, err
		}
		first = append(first, h.Problem().Space.Values(h.Config(number)))
	}
	return first, nil
}

// TrainingOf is the spec of the training job that a configuration of a sweep is.
func TrainingOf(spec []byte, values map[string]expr.Value) ([]byte, error) {
	s, err := read(spec)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the sweep's spec cannot be read: %w", err)
	}
	if s.Trial == nil {
		return nil, fault.New(fault.Invalid, "the sweep is a study: its trials are run by whoever asks for them, and there is no job to run again")
	}
	t, err := newTemplate(s)
	if err != nil {
		return nil, err
	}
	filled, problems := t.fill(values, "", "")
	return filled, problems.Err()
}
