package tuning_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/workload/tuning"
)

const ranges = `"ParameterRanges": {
	"IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "12", "ScalingType": "Auto"}, {"Name": "units", "MinValue": "1", "MaxValue": "4096"}],
	"ContinuousParameterRanges": [
		{"Name": "rate", "MinValue": "1e-5", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
		{"Name": "momentum", "MinValue": "0.5", "MaxValue": "0.999", "ScalingType": "ReverseLogarithmic"},
		{"Name": "dropout", "MinValue": "0", "MaxValue": "0.5", "ScalingType": "Linear"}],
	"CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam"]}]}`

func fromSageMaker(t *testing.T, text string) (tuning.Spec, string) {
	t.Helper()
	var c tuning.SageMaker
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	s, problems := c.Spec()
	return s, problems.Error()
}

func TestStrategiesAndRangesOfSageMakerMapOneToOne(t *testing.T) {
	s, problems := fromSageMaker(t, `{"Strategy": "Bayesian", "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:auc"},
		"ResourceLimits": {"MaxNumberOfTrainingJobs": 50, "MaxParallelTrainingJobs": 5, "MaxRuntimeInSeconds": 3600}, `+ranges+`,
		"TrainingJobEarlyStoppingType": "Auto", "RandomSeed": 7,
		"TuningJobCompletionCriteria": {"TargetObjectiveMetricValue": 0.95, "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 10},
			"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}},
		"WarmStartConfig": {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "before"}], "WarmStartType": "TransferLearning"}}`)
	if problems != "" {
		t.Fatal(problems)
	}
	if found := s.Validate(); found != nil {
		t.Fatal(found)
	}
	var got []string
	for _, p := range s.Space.Parameters {
		bounds := ""
		if p.Low != nil {
			raw, _ := json.Marshal([]float64{*p.Low, *p.High})
			bounds = string(raw)
		}
		got = append(got, strings.Join([]string{p.Name, string(p.Type), string(p.Scale), bounds}, " "))
	}
	want := []string{
		"depth int  [1,12]", "units int log [1,4096]", "rate float log [0.00001,0.1]", "momentum float reverse_log [0.5,0.999]",
		"dropout float linear [0,0.5]", "optimizer categorical  ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	if s.Objectives[0] != (tuner.Objective{Name: "validation:auc", Direction: tuner.Maximize}) || s.Sampler != "bayes" || s.Stopper.Name != "median" ||
		s.Budget.Trials != 50 || s.Budget.Time.Std().Hours() != 1 || s.Parallel != 5 || s.Seed != 7 || *s.Target != 0.95 || s.Patience != 10 || s.Convergence == nil ||
		!slices.Equal(s.WarmStart, []string{"before"}) {
		t.Errorf("%+v", s)
	}
	if choices := s.Space.Parameters[5].Choices; len(choices) != 2 || choices[1].String() != "adam" {
		t.Errorf("%v", choices)
	}
	for strategy, sampler := range map[string]string{"Random": "random", "Bayesian": "bayes"} {
		if s, problems := fromSageMaker(t, `{"Strategy": "`+strategy+`", "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}, `+ranges+`}`); problems != "" || s.Sampler != sampler {
			t.Errorf("%s is %q: %s", strategy, s.Sampler, problems)
		}
	}
	s, problems = fromSageMaker(t, `{"Strategy": "Grid", "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
		"ParameterRanges": {"CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam"]}]}}`)
	if problems != "" || s.Sampler != "grid" || s.Validate() != nil {
		t.Errorf("a grid is %+v: %s, %v", s, problems, s.Validate())
	}
	s, problems = fromSageMaker(t, `{"Strategy": "Hyperband", "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 81}},
		"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}, `+ranges+`}`)
	if problems != "" || s.Stopper.Name != "hyperband" || s.Stopper.Min != 2 || s.Fidelity.Max != 81 || s.Validate() != nil {
		t.Errorf("Hyperband is %+v: %s, %v", s, problems, s.Validate())
	}
	if s.Space.Parameters[0].Type != space.Int {
		t.Errorf("%+v", s.Space)
	}
}

func TestWhatSageMakerRefusesIsRefusedInItsWords(t *testing.T) {
	_, problems := fromSageMaker(t, `{"Strategy": "Guess", "HyperParameterTuningJobObjective": {"Type": "Best", "MetricName": "loss"}, "TrainingJobEarlyStoppingType": "Maybe",
		"ParameterRanges": {"IntegerParameterRanges": [{"Name": "depth", "MinValue": "1.5", "MaxValue": "many", "ScalingType": "ReverseLogarithmic"}],
			"ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0", "MaxValue": "1", "ScalingType": "Cubic"}]},
		"TuningJobCompletionCriteria": {"ConvergenceDetected": {"CompleteOnConvergence": "Perhaps"}}, "WarmStartConfig": {"WarmStartType": "Hot"}}`)
	for _, want := range []string{
		`HyperParameterTuningJobObjective.Type: "Best"`, `Strategy: "Guess"`, `TrainingJobEarlyStoppingType: "Maybe"`,
		`ParameterRanges.IntegerParameterRanges[0].MinValue: "1.5" is no whole number`, `ParameterRanges.IntegerParameterRanges[0].MaxValue: "many" is no whole number`,
		`ParameterRanges.IntegerParameterRanges[0].ScalingType`, `ParameterRanges.ContinuousParameterRanges[0].ScalingType: "Cubic"`,
		`CompleteOnConvergence: "Perhaps"`, `WarmStartConfig.WarmStartType: "Hot"`,
	} {
		if !strings.Contains(problems, want) {
			t.Errorf("want %s in\n%s", want, problems)
		}
	}
	_, grid := fromSageMaker(t, `{"Strategy": "Grid", "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}, `+ranges+`}`)
	_, band := fromSageMaker(t, `{"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto", "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}, `+ranges+`}`)
	if !strings.Contains(grid, "categorical ranges only") || !strings.Contains(band, "MaxResource: is missing") || !strings.Contains(band, "does not go with Hyperband") {
		t.Errorf("%s\n%s", grid, band)
	}
}
