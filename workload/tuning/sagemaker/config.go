package sagemaker

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/stop"
	"github.com/clary-ml/clary/workload/tuning"
)

// Config is a HyperParameterTuningJobConfig.
type Config struct {
	Strategy       string
	StrategyConfig struct {
		HyperbandStrategyConfig struct{ MinResource, MaxResource int }
	}
	HyperParameterTuningJobObjective struct{ Type, MetricName string }
	ResourceLimits                   struct {
		MaxNumberOfTrainingJobs int64
		MaxParallelTrainingJobs int32
		MaxRuntimeInSeconds     int64
	}
	ParameterRanges struct {
		IntegerParameterRanges, ContinuousParameterRanges []Range
		CategoricalParameterRanges                        []struct {
			Name   string
			Values []string
		}
		AutoParameters []any // refused
	}
	TrainingJobEarlyStoppingType string
	TuningJobCompletionCriteria  struct {
		TargetObjectiveMetricValue *float64
		BestObjectiveNotImproving  struct{ MaxNumberOfTrainingJobsNotImproving int }
		ConvergenceDetected        struct{ CompleteOnConvergence string }
	}
	RandomSeed uint64
}

// Range is one of whole or real numbers, whose bounds are texts there.
type Range struct {
	Name, MinValue, MaxValue, ScalingType string
}

// autoLog is from which ratio of its bounds a range with automatic scaling is taken for one
// of magnitudes. SageMaker does not say how it chooses.
const autoLog = 1000

// Spec is the sweep that the configuration asks for, still without its trial. The mistakes'
// fields are SageMaker's.
func (c Config) Spec() (tuning.Spec, cluster.Problems) {
	var p cluster.Problems
	s := tuning.Spec{
		Seed: c.RandomSeed, Parallel: c.ResourceLimits.MaxParallelTrainingJobs,
		Budget: tuning.Budget{
			Trials: c.ResourceLimits.MaxNumberOfTrainingJobs,
			Time:   quantity.Duration(time.Duration(c.ResourceLimits.MaxRuntimeInSeconds) * time.Second),
		},
		Target: c.TuningJobCompletionCriteria.TargetObjectiveMetricValue,
	}
	objective := tuner.Objective{Name: c.HyperParameterTuningJobObjective.MetricName}
	switch kind := c.HyperParameterTuningJobObjective.Type; kind {
	case "Minimize":
		objective.Direction = tuner.Minimize
	case "Maximize":
		objective.Direction = tuner.Maximize
	default:
		p.Add("HyperParameterTuningJobObjective.Type", "%q: give Minimize or Maximize", cluster.Clip(kind))
	}
	s.Objectives = []tuner.Objective{objective}
	c.ranges(&s, &p)
	c.strategy(&s, &p)
	c.endings(&s, &p)
	return s, p
}

func (c Config) ranges(s *tuning.Spec, p *cluster.Problems) {
	if len(c.ParameterRanges.AutoParameters) > 0 {
		p.Add("ParameterRanges.AutoParameters", "ranges are not chosen automatically here: give each as one of integers, continuous or categorical")
	}
	add := func(q space.Parameter) {
		s.Space.Parameters = append(s.Space.Parameters, tuning.Parameter{Parameter: q})
	}
	for _, part := range []struct {
		field  string
		kind   space.Type
		ranges []Range
	}{
		{"IntegerParameterRanges", space.Int, c.ParameterRanges.IntegerParameterRanges},
		{"ContinuousParameterRanges", space.Float, c.ParameterRanges.ContinuousParameterRanges},
	} {
		for i, r := range part.ranges {
			var found cluster.Problems
			add(r.parameter(part.kind, &found))
			p.Under(fmt.Sprintf("ParameterRanges.%s[%d]", part.field, i), found)
		}
	}
	for _, r := range c.ParameterRanges.CategoricalParameterRanges {
		q := space.Parameter{Name: r.Name, Type: space.Categorical}
		for _, value := range r.Values {
			q.Choices = append(q.Choices, expr.Str(value))
		}
		add(q)
	}
}

func (r Range) parameter(kind space.Type, p *cluster.Problems) space.Parameter {
	q := space.Parameter{Name: r.Name, Type: kind}
	bound := func(field, text string) *float64 {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || kind == space.Int && v != math.Trunc(v) {
			p.Add(field, "%q is no %s", cluster.Clip(text), map[space.Type]string{space.Int: "whole number", space.Float: "number"}[kind])
		}
		return &v
	}
	q.Low, q.High = bound("MinValue", r.MinValue), bound("MaxValue", r.MaxValue)
	switch r.ScalingType {
	case "", "Auto":
		if *q.Low > 0 && *q.High/(*q.Low) >= autoLog {
			q.Scale = space.Log
		}
	case "Linear":
		q.Scale = space.Linear
	case "Logarithmic":
		q.Scale = space.Log
	case "ReverseLogarithmic":
		q.Scale = space.ReverseLog
		if kind == space.Int {
			p.Add("ScalingType", "ReverseLogarithmic is for continuous ranges")
		}
	default:
		p.Add("ScalingType", "%q: give Auto, Linear, Logarithmic or ReverseLogarithmic", cluster.Clip(r.ScalingType))
	}
	return q
}

func (c Config) strategy(s *tuning.Spec, p *cluster.Problems) {
	switch c.Strategy {
	case "", "Bayesian":
		s.Sampler = "bayes"
	case "Random":
		s.Sampler = "random"
	case "Grid":
		s.Sampler = "grid"
		if len(c.ParameterRanges.IntegerParameterRanges)+len(c.ParameterRanges.ContinuousParameterRanges) > 0 {
			p.Add("ParameterRanges", "a grid is of categorical ranges only")
		}
	case "Hyperband":
		limits := c.StrategyConfig.HyperbandStrategyConfig
		s.Stopper = tuning.Stopper{Name: "hyperband", Halving: stop.Halving{Min: float64(limits.MinResource)}}
		s.Fidelity.Max = float64(limits.MaxResource)
		if limits.MaxResource <= 0 {
			p.Add("StrategyConfig.HyperbandStrategyConfig.MaxResource", "is missing: say after how many epochs a training is complete")
		}
		if c.TrainingJobEarlyStoppingType == "Auto" {
			p.Add("TrainingJobEarlyStoppingType", "Auto does not go with Hyperband, which stops trainings itself")
		}
	default:
		p.Add("Strategy", "%q: give Bayesian, Random, Hyperband or Grid", cluster.Clip(c.Strategy))
	}
}

func (c Config) endings(s *tuning.Spec, p *cluster.Problems) {
	switch kind := c.TrainingJobEarlyStoppingType; kind {
	case "", "Off":
	case "Auto":
		if s.Stopper.Name == "" {
			s.Stopper.Name = "median"
		}
	default:
		p.Add("TrainingJobEarlyStoppingType", "%q: give Off or Auto", cluster.Clip(kind))
	}
	criteria := c.TuningJobCompletionCriteria
	s.Patience = criteria.BestObjectiveNotImproving.MaxNumberOfTrainingJobsNotImproving
	switch kind := criteria.ConvergenceDetected.CompleteOnConvergence; kind {
	case "", "Disabled":
	case "Enabled":
		s.Convergence = &tuning.Convergence{}
	default:
		p.Add("TuningJobCompletionCriteria.ConvergenceDetected.CompleteOnConvergence", "%q: give Enabled or Disabled", cluster.Clip(kind))
	}
}
