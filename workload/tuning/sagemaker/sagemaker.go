// Package sagemaker reads hyperparameter tuning jobs as Amazon SageMaker's API describes
// them, the request of CreateHyperParameterTuningJob, as sweeps. Strategies, ranges,
// scalings, early stopping and the criteria of completion map one to one. What has no
// counterpart is refused where it would change what is found, and noted where it would not.
//
// Source: Amazon SageMaker API Reference, CreateHyperParameterTuningJob.
package sagemaker

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/workload/training"
	"github.com/clary-ml/clary/workload/tuning"
)

// request is that of CreateHyperParameterTuningJob.
type request struct {
	HyperParameterTuningJobName   string
	HyperParameterTuningJobConfig Config
	TrainingJobDefinition         *Definition
	TrainingJobDefinitions        []any
	WarmStartConfig               struct {
		ParentHyperParameterTuningJobs []struct{ HyperParameterTuningJobName string }
		WarmStartType                  string
	}
	Autotune struct{ Mode string }
	Tags     []struct{ Key, Value string }
}

// Job is what a request asks for.
type Job struct {
	Name   string
	Labels map[string]string
	// Retries are of each trial.
	Retries int32
	// Search is the sweep, still without its trial.
	Search tuning.Spec
	// Trial is what each training is; nil if the request does not say.
	Trial *training.Spec
	// Notes say what of the request means nothing here.
	Notes []string
}

// Read reads a request. The mistakes' fields are the request's.
func Read(data []byte) (Job, cluster.Problems) {
	var r request
	if p := strictjson.Decode(data, &r); len(p) > 0 {
		return Job{}, p
	}
	var p cluster.Problems
	j := Job{Name: r.HyperParameterTuningJobName}
	search, found := r.HyperParameterTuningJobConfig.Spec()
	p.Under(configField, found)
	j.Search = search
	r.warmStart(&j, &p)
	r.rest(&j, &p)
	if d := r.TrainingJobDefinition; d != nil {
		var found cluster.Problems
		d.read(&j, &found)
		d.told(r.HyperParameterTuningJobConfig.HyperParameterTuningJobObjective.MetricName, &found)
		p.Under(definitionField, found)
		j.Search.TrialRuntime = d.runtime()
	}
	if len(p) > 0 {
		return j, p
	}
	whole := j.Search
	if whole.Trial = j.Trial; whole.Trial == nil {
		whole.Stopper.Promote = false
	}
	return j, r.inItsWords(whole.Validate())
}

func (r request) warmStart(j *Job, p *cluster.Problems) {
	for _, parent := range r.WarmStartConfig.ParentHyperParameterTuningJobs {
		j.Search.WarmStart = append(j.Search.WarmStart, parent.HyperParameterTuningJobName)
	}
	switch kind := r.WarmStartConfig.WarmStartType; kind {
	case "", "IdenticalDataAndAlgorithm", "TransferLearning":
	default:
		p.Add("WarmStartConfig.WarmStartType", "%q: give IdenticalDataAndAlgorithm or TransferLearning", cluster.Clip(kind))
	}
}

func (r request) rest(j *Job, p *cluster.Problems) {
	if len(r.TrainingJobDefinitions) > 0 {
		p.Add("TrainingJobDefinitions", "several definitions in one tuning job are not supported: make a sweep of each, with TrainingJobDefinition")
	}
	if mode := r.Autotune.Mode; mode != "" && mode != "Disabled" {
		p.Add("Autotune.Mode", "%q is not supported: give the ranges in ParameterRanges", cluster.Clip(mode))
	}
	for _, tag := range r.Tags {
		if j.Labels == nil {
			j.Labels = map[string]string{}
		}
		j.Labels[tag.Key] = tag.Value
	}
}

// The parts of a request.
const (
	configField     = "HyperParameterTuningJobConfig"
	definitionField = "TrainingJobDefinition"
)

// words are the request's names of a sweep's fields.
var words = map[string]string{
	"sampler":            configField + ".Strategy",
	"objectives[0].name": configField + ".HyperParameterTuningJobObjective.MetricName",
	"budget.trials":      configField + ".ResourceLimits.MaxNumberOfTrainingJobs",
	"budget.time":        configField + ".ResourceLimits.MaxRuntimeInSeconds",
	"parallel":           configField + ".ResourceLimits.MaxParallelTrainingJobs",
	"stopper.min":        configField + ".StrategyConfig.HyperbandStrategyConfig.MinResource",
	"stopper.max":        configField + ".StrategyConfig.HyperbandStrategyConfig.MaxResource",
	"fidelity.max":       configField + ".StrategyConfig.HyperbandStrategyConfig.MaxResource",
	"patience":           configField + ".TuningJobCompletionCriteria.BestObjectiveNotImproving.MaxNumberOfTrainingJobsNotImproving",
	"target":             configField + ".TuningJobCompletionCriteria.TargetObjectiveMetricValue",
	"space.parameters":   configField + ".ParameterRanges",
	"trial_runtime":      definitionField + ".StoppingCondition.MaxRuntimeInSeconds",
	"trial.image":        definitionField + ".AlgorithmSpecification.TrainingImage",
	"trial.output":       definitionField + ".OutputDataConfig.S3OutputPath",
	"trial.instances":    definitionField + ".ResourceConfig.InstanceCount",
	"trial.disk":         definitionField + ".ResourceConfig.VolumeSizeInGB",
}

var (
	ofParameter = regexp.MustCompile(`^space\.parameters\[(\d+)\](.*)$`)
	ofMetric    = regexp.MustCompile(`^trial\..*metrics\[(\d+)\](.*)$`)
	ofParent    = regexp.MustCompile(`^warm_start\[(\d+)\]$`)
)

// inItsWords names the request's fields in place of a sweep's.
func (r request) inItsWords(problems cluster.Problems) cluster.Problems {
	var out cluster.Problems
	for _, found := range problems {
		field := found.Field
		switch match := ofParameter.FindStringSubmatch(field); {
		case match != nil:
			index, _ := strconv.Atoi(match[1]) // it is digits
			field = configField + "." + r.HyperParameterTuningJobConfig.fieldOf(index) + rangeFields[match[2]]
		case words[field] != "":
			field = words[field]
		case ofMetric.MatchString(field):
			field = ofMetric.ReplaceAllString(field, definitionField+".AlgorithmSpecification.MetricDefinitions[$1]$2")
		case ofParent.MatchString(field):
			field = ofParent.ReplaceAllString(field, "WarmStartConfig.ParentHyperParameterTuningJobs[$1]")
		case strings.HasPrefix(field, "trial.inputs."):
			field = definitionField + ".InputDataConfig of " + strings.TrimPrefix(field, "trial.inputs.")
		case strings.HasPrefix(field, "trial.hyperparameters"):
			field = definitionField + ".StaticHyperParameters"
		}
		out.Add(field, "%s", found.Text)
	}
	return out
}

// rangeFields are the API's names of a parameter's fields.
var rangeFields = map[string]string{
	".name": ".Name", ".low": ".MinValue", ".high": ".MaxValue", ".scale": ".ScalingType", ".choices": ".Values",
}

// fieldOf is where the parameter of an index stands.
func (c Config) fieldOf(index int) string {
	ranges := c.ParameterRanges
	for _, part := range []struct {
		name string
		many int
	}{
		{"IntegerParameterRanges", len(ranges.IntegerParameterRanges)},
		{"ContinuousParameterRanges", len(ranges.ContinuousParameterRanges)},
		{"CategoricalParameterRanges", len(ranges.CategoricalParameterRanges)},
	} {
		if index < part.many {
			return fmt.Sprintf("ParameterRanges.%s[%d]", part.name, index)
		}
		index -= part.many
	}
	return "ParameterRanges"
}
