package sagemaker_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/workload/tuning"
	"github.com/clary-ml/clary/workload/tuning/sagemaker"
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
	var c sagemaker.Config
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
			"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}}`)
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
		s.Budget.Trials != 50 || s.Budget.Time.Std().Hours() != 1 || s.Parallel != 5 || s.Seed != 7 || *s.Target != 0.95 || s.Patience != 10 || s.Convergence == nil {
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
		"TuningJobCompletionCriteria": {"ConvergenceDetected": {"CompleteOnConvergence": "Perhaps"}}}`)
	for _, want := range []string{
		`HyperParameterTuningJobObjective.Type: "Best"`, `Strategy: "Guess"`, `TrainingJobEarlyStoppingType: "Maybe"`,
		`ParameterRanges.IntegerParameterRanges[0].MinValue: "1.5" is no whole number`, `ParameterRanges.IntegerParameterRanges[0].MaxValue: "many" is no whole number`,
		`ParameterRanges.IntegerParameterRanges[0].ScalingType`, `ParameterRanges.ContinuousParameterRanges[0].ScalingType: "Cubic"`,
		`CompleteOnConvergence: "Perhaps"`,
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

// request is the example of the API's developer guide in its whole shape: XGBoost on CSV.
const request = `{
  "HyperParameterTuningJobName": "xgboost-tuning",
  "HyperParameterTuningJobConfig": {
    "Strategy": "Bayesian",
    "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:auc"},
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 3},
    "ParameterRanges": {
      "ContinuousParameterRanges": [
        {"Name": "eta", "MinValue": "0", "MaxValue": "1", "ScalingType": "Linear"},
        {"Name": "alpha", "MinValue": "0.01", "MaxValue": "1000", "ScalingType": "Auto"}],
      "IntegerParameterRanges": [{"Name": "max_depth", "MinValue": "1", "MaxValue": "10", "ScalingType": "Auto"}],
      "CategoricalParameterRanges": [{"Name": "booster", "Values": ["gbtree", "dart"]}]},
    "TrainingJobEarlyStoppingType": "Auto"
  },
  "TrainingJobDefinition": {
    "StaticHyperParameters": {"eval_metric": "auc", "num_round": "100"},
    "AlgorithmSpecification": {
      "TrainingImage": "registry.local/xgboost:1.7", "TrainingInputMode": "File",
      "MetricDefinitions": [{"Name": "validation:auc", "Regex": "validation-auc:([0-9.]+)"}]},
    "RoleArn": "arn:aws:iam::123456789012:role/tuner",
    "InputDataConfig": [
      {"ChannelName": "train", "ContentType": "text/csv", "CompressionType": "None", "RecordWrapperType": "None",
       "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/train", "S3DataDistributionType": "ShardedByS3Key"}}},
      {"ChannelName": "validation", "ContentType": "text/csv", "InputMode": "FastFile",
       "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/validation", "S3DataDistributionType": "FullyReplicated"}}}],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceCount": 2, "InstanceType": "ml.m4.xlarge", "VolumeSizeInGB": 10},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    "RetryStrategy": {"MaximumRetryAttempts": 2},
    "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"},
    "EnableNetworkIsolation": false, "EnableManagedSpotTraining": true,
    "Environment": {"LOG": "debug"}
  },
  "WarmStartConfig": {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "before"}], "WarmStartType": "IdenticalDataAndAlgorithm"},
  "Tags": [{"Key": "team", "Value": "vision"}]
}`

func TestARequestIsAWholeSweep(t *testing.T) {
	j, problems := sagemaker.Read([]byte(request))
	if problems != nil {
		t.Fatal(problems)
	}
	if j.Name != "xgboost-tuning" || j.Labels["team"] != "vision" || j.Retries != 2 || !slices.Equal(j.Search.WarmStart, []string{"before"}) ||
		j.Search.TrialRuntime.Std().Hours() != 1 || j.Search.Stopper.Name != "median" || j.Search.Budget.Trials != 20 || j.Search.Parallel != 3 {
		t.Errorf("%+v", j)
	}
	trial, err := json.Marshal(j.Trial)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(trial, &got); err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(`{
		"image": "registry.local/xgboost:1.7", "instances": 2, "program": {"command": null, "env": {"LOG": "debug"}}, "disk": "10GiB", "output": "s3://bucket/out",
		"hyperparameters": {"eval_metric": "auc", "num_round": "100"}, "metrics": [{"name": "validation:auc", "regex": "validation-auc:([0-9.]+)"}],
		"inputs": {"train": {"uri": "s3://bucket/train", "content_type": "text/csv", "sharded": true},
			"validation": {"uri": "s3://bucket/validation", "mode": "fast_file", "content_type": "text/csv"}}}`), &want); err != nil {
		t.Fatal(err)
	}
	for field, value := range want {
		x, _ := json.Marshal(value)
		y, _ := json.Marshal(got[field])
		if string(x) != string(y) {
			t.Errorf("%s is %s, want %s", field, y, x)
		}
	}
	for _, note := range []string{"InstanceType ml.m4.xlarge says nothing here", "CheckpointConfig.S3Uri", "EnableManagedSpotTraining"} {
		if !strings.Contains(strings.Join(j.Notes, "\n"), note) {
			t.Errorf("no note of %s: %q", note, j.Notes)
		}
	}
}

func TestWhatARequestAsksInVainIsRefusedInItsWords(t *testing.T) {
	for _, c := range []struct{ instead, of, want string }{
		{`"Strategy": "Bayes"`, `"Strategy": "Bayesian"`, `HyperParameterTuningJobConfig.Strategy: "Bayes": give Bayesian, Random`},
		{`"MinValue": "10", "MaxValue": "1"`, `"MinValue": "1", "MaxValue": "10"`, `HyperParameterTuningJobConfig.ParameterRanges.IntegerParameterRanges[0].MaxValue: 1 is below low 10`},
		{`"MinValue": "0", "MaxValue": "1", "ScalingType": "Logarithmic"`, `"MinValue": "0", "MaxValue": "1", "ScalingType": "Linear"`, `ContinuousParameterRanges[0].MinValue: 0: on the scale log`},
		{`"Values": []`, `"Values": ["gbtree", "dart"]`, `CategoricalParameterRanges[0].Values: `},
		{`"MaxParallelTrainingJobs": -3`, `"MaxParallelTrainingJobs": 3`, `ResourceLimits.MaxParallelTrainingJobs: -3`},
		{`"ParameterRange": {`, `"ParameterRanges": {`, `HyperParameterTuningJobConfig.ParameterRange: unknown field`},
		{`"AlgorithmName": "x", "TrainingInputMode": "File"`, `"TrainingInputMode": "File"`, `TrainingJobDefinition.AlgorithmSpecification.AlgorithmName: "x"`},
		{`"TrainingInputMode": "Stream"`, `"TrainingInputMode": "File"`, `TrainingJobDefinition.InputDataConfig[0].InputMode: "Stream": give File, FastFile or Pipe`},
		{`"S3Uri": "/data/train"`, `"S3Uri": "s3://bucket/train"`, `TrainingJobDefinition.InputDataConfig of train: "/data/train" is not s3://bucket/key`},
		{`"FileSystemDataSource": {"FileSystemId": "fs-1"}, "S3DataSource"`, `"S3DataSource"`, `FileSystemDataSource: shared file systems are not supported`},
		{`"S3OutputPath": "s3://bucket/out", "KmsKeyId": "k"`, `"S3OutputPath": "s3://bucket/out"`, `OutputDataConfig.KmsKeyId: there is no key service`},
		{`"InstanceGroups": [{}], "InstanceCount": 2`, `"InstanceCount": 2`, `ResourceConfig: machines of several kinds`},
		{`"WarmStartType": "Hot"`, `"WarmStartType": "IdenticalDataAndAlgorithm"`, `WarmStartConfig.WarmStartType: "Hot"`},
		{`"Autotune": {"Mode": "Enabled"}, "Tags"`, `"Tags"`, `Autotune.Mode: "Enabled" is not supported`},
		{`"TrainingJobDefinitions": [{}], "Tags"`, `"Tags"`, `TrainingJobDefinitions: several definitions`},
		{`"ParameterRanges": { "AutoParameters": [{"Name": "x", "ValueHint": "1"}],`, `"ParameterRanges": {`, `ParameterRanges.AutoParameters: ranges are not chosen`},
		{`"Regex": "("`, `"Regex": "validation-auc:([0-9.]+)"`, `AlgorithmSpecification.MetricDefinitions[0].regex: `},
		{`"MetricName": "auc"`, `"MetricName": "validation:auc"`, `AlgorithmSpecification.MetricDefinitions: none is of the objective "auc": there are validation:auc`},
	} {
		text := strings.Replace(request, c.of, c.instead, 1)
		if text == request {
			t.Fatalf("%s is not in the request", c.of)
		}
		if _, problems := sagemaker.Read([]byte(text)); !strings.Contains(problems.Error(), c.want) {
			t.Errorf("%s: %q, want %s", c.instead, problems.Error(), c.want)
		}
	}
}

func TestASearchAloneNeedsNoDefinition(t *testing.T) {
	text := `{"HyperParameterTuningJobConfig": {"Strategy": "Random", "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}, ` + ranges + `}}`
	j, problems := sagemaker.Read([]byte(text))
	if problems != nil || j.Trial != nil || j.Search.Sampler != "random" {
		t.Errorf("%+v: %v", j, problems)
	}
}
