package sagemaker

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/training"
)

// Definition is a HyperParameterTrainingJobDefinition: what each training is.
type Definition struct {
	DefinitionName         string
	StaticHyperParameters  map[string]string
	AlgorithmSpecification struct {
		TrainingImage, AlgorithmName, TrainingInputMode string
		MetricDefinitions                               []struct{ Name, Regex string }
	}
	InputDataConfig  []Channel
	OutputDataConfig struct{ S3OutputPath, KmsKeyId, CompressionType string } //nolint:revive,staticcheck // the API's name
	ResourceConfig   Resources
	// HyperParameterTuningResourceConfig stands in for ResourceConfig.
	HyperParameterTuningResourceConfig Resources
	StoppingCondition                  struct{ MaxRuntimeInSeconds, MaxWaitTimeInSeconds, MaxPendingTimeInSeconds int64 }
	RetryStrategy                      struct{ MaximumRetryAttempts int32 }
	CheckpointConfig                   struct{ S3Uri, LocalPath string } //nolint:revive,staticcheck // the API's name
	Environment                        map[string]string
	RoleArn                            string
	VpcConfig                          any
	TuningObjective                    any
	HyperParameterRanges               any

	EnableNetworkIsolation, EnableInterContainerTrafficEncryption, EnableManagedSpotTraining bool
}

// Resources are a ResourceConfig.
type Resources struct {
	InstanceType, VolumeKmsKeyId, AllocationStrategy, TrainingPlanArn string //nolint:revive,staticcheck // the API's name
	InstanceCount                                                     int32
	VolumeSizeInGB, KeepAlivePeriodInSeconds                          int64
	InstanceGroups, InstanceConfigs                                   []any
}

// Channel is one of an InputDataConfig.
type Channel struct {
	ChannelName string
	DataSource  struct {
		S3DataSource struct {
			S3DataType, S3Uri, S3DataDistributionType string //nolint:revive,staticcheck // the API's name
			AttributeNames                            []string
		}
		FileSystemDataSource any
	}
	ContentType, CompressionType, RecordWrapperType, InputMode string
	ShuffleConfig                                              any
}

// defaultCheckpoints is where SageMaker's trainings keep theirs.
const defaultCheckpoints = "/opt/ml/checkpoints"

func (d Definition) runtime() quantity.Duration {
	return quantity.Duration(time.Duration(d.StoppingCondition.MaxRuntimeInSeconds) * time.Second)
}

// read makes the trial.
func (d Definition) read(j *Job, p *cluster.Problems) {
	algorithm := d.AlgorithmSpecification
	t := &training.Spec{Image: algorithm.TrainingImage, Output: d.OutputDataConfig.S3OutputPath, NetworkIsolation: d.EnableNetworkIsolation}
	j.Trial, j.Retries = t, d.RetryStrategy.MaximumRetryAttempts
	switch {
	case algorithm.AlgorithmName != "":
		p.Add("AlgorithmSpecification.AlgorithmName", "%q: algorithms of the marketplace are not to be had here: name an image with TrainingImage", cluster.Clip(algorithm.AlgorithmName))
	case t.Image == "":
		p.Add("AlgorithmSpecification.TrainingImage", "is missing: name the image of each training")
	}
	if len(d.Environment) > 0 {
		t.Program = &training.Program{Env: d.Environment}
	}
	for name, text := range d.StaticHyperParameters {
		if t.Hyperparameters == nil {
			t.Hyperparameters = map[string]json.RawMessage{}
		}
		t.Hyperparameters[name], _ = json.Marshal(text) // a text can always be written
	}
	for _, metric := range algorithm.MetricDefinitions {
		t.Metrics = append(t.Metrics, training.Metric{Name: metric.Name, Regex: metric.Regex})
	}
	for i, channel := range d.InputDataConfig {
		var found cluster.Problems
		input := channel.input(algorithm.TrainingInputMode, &found)
		p.Under(fmt.Sprintf("InputDataConfig[%d]", i), found)
		if t.Inputs == nil {
			t.Inputs = map[string]training.Input{}
		}
		if _, twice := t.Inputs[channel.ChannelName]; twice {
			p.Add(fmt.Sprintf("InputDataConfig[%d].ChannelName", i), "%q is there twice", cluster.Clip(channel.ChannelName))
		}
		t.Inputs[channel.ChannelName] = input
	}
	d.resources(j, p)
	d.foreign(j, p)
}

// told reports an objective that no definition finds, where there are definitions.
func (d Definition) told(objective string, p *cluster.Problems) {
	var names []string
	for _, metric := range d.AlgorithmSpecification.MetricDefinitions {
		if metric.Name == objective {
			return
		}
		names = append(names, metric.Name)
	}
	if names != nil {
		p.Add("AlgorithmSpecification.MetricDefinitions", "none is of the objective %q: there are %s", cluster.Clip(objective), cluster.Clip(strings.Join(names, ", ")))
	}
}

// resources are the machines of a training: how many, and how much disk each has. Types of
// Amazon's machines mean nothing here.
func (d Definition) resources(j *Job, p *cluster.Problems) {
	field, r := "ResourceConfig", d.ResourceConfig
	if other := d.HyperParameterTuningResourceConfig; other.InstanceType != "" || other.InstanceCount != 0 || len(other.InstanceConfigs) > 0 {
		field, r = "HyperParameterTuningResourceConfig", other
	}
	if len(r.InstanceGroups)+len(r.InstanceConfigs) > 0 {
		p.Add(field, "machines of several kinds in one training are not supported: give InstanceType and InstanceCount")
	}
	if r.InstanceCount > 1 {
		j.Trial.Instances = r.InstanceCount
	}
	j.Trial.Disk = quantity.Bytes(r.VolumeSizeInGB << 30)
	if r.InstanceType != "" {
		j.Notes = append(j.Notes, fmt.Sprintf("%s.InstanceType %s says nothing here: --cores, --memory and --gpus say what each training gets (default: 1 core, 1 GiB)", field, r.InstanceType))
	}
}

// foreign is what there is no counterpart for: refused if something would be missing without
// it, else noted.
func (d Definition) foreign(j *Job, p *cluster.Problems) {
	for _, one := range []struct {
		field string
		set   bool
		why   string
	}{
		{"TuningObjective", d.TuningObjective != nil, "is for several definitions: give HyperParameterTuningJobConfig.HyperParameterTuningJobObjective"},
		{"HyperParameterRanges", d.HyperParameterRanges != nil, "is for several definitions: give HyperParameterTuningJobConfig.ParameterRanges"},
		{"OutputDataConfig.KmsKeyId", d.OutputDataConfig.KmsKeyId != "", "there is no key service here: leave it out, or encrypt in the training"},
		{"EnableInterContainerTrafficEncryption", d.EnableInterContainerTrafficEncryption, "what a program's instances say to each other is not encrypted here: leave it out if that is all right"},
		{"CheckpointConfig.LocalPath", d.CheckpointConfig.LocalPath != "" && d.CheckpointConfig.LocalPath != defaultCheckpoints, "checkpoints are kept in " + defaultCheckpoints},
	} {
		if one.set {
			p.Add(one.field, "%s", one.why)
		}
	}
	for _, one := range []struct {
		set  bool
		note string
	}{
		{d.CheckpointConfig.S3Uri != "", "CheckpointConfig.S3Uri says nothing here: checkpoints are kept with each training's job"},
		{d.EnableManagedSpotTraining, "EnableManagedSpotTraining says nothing here: a training that loses its node begins again from its checkpoint"},
		{d.VpcConfig != nil, "VpcConfig says nothing here: EnableNetworkIsolation cuts trainings off from every network"},
		{d.StoppingCondition.MaxPendingTimeInSeconds > 0, "StoppingCondition.MaxPendingTimeInSeconds says nothing here: trainings wait until there is room"},
	} {
		if one.set {
			j.Notes = append(j.Notes, one.note)
		}
	}
}

// choose finds what a text stands for; an unknown one is a mistake.
func choose[T any](p *cluster.Problems, field, text string, known map[string]T, remedy string) T {
	value, ok := known[text]
	if !ok {
		p.Add(field, "%q: give %s", cluster.Clip(text), remedy)
	}
	return value
}

func (c Channel) input(mode string, p *cluster.Problems) training.Input {
	source := c.DataSource.S3DataSource
	if c.InputMode != "" {
		mode = c.InputMode
	}
	in := training.Input{
		URI: source.S3Uri, ContentType: c.ContentType, Attributes: source.AttributeNames,
		Mode: choose(p, "InputMode", mode, map[string]cluster.InputMode{
			"": "", "File": "", "FastFile": cluster.InputFastFile, "Pipe": cluster.InputPipe,
		}, "File, FastFile or Pipe"),
		Type: choose(p, "DataSource.S3DataSource.S3DataType", source.S3DataType, map[string]cluster.InputType{
			"": "", "S3Prefix": "", "ManifestFile": cluster.InputManifest, "AugmentedManifestFile": cluster.InputAugmentedManifest,
		}, "S3Prefix, ManifestFile or AugmentedManifestFile"),
		Sharded: choose(p, "DataSource.S3DataSource.S3DataDistributionType", source.S3DataDistributionType, map[string]bool{
			"": false, "FullyReplicated": false, "ShardedByS3Key": true,
		}, "FullyReplicated or ShardedByS3Key"),
		Gzip:     choose(p, "CompressionType", c.CompressionType, map[string]bool{"": false, "None": false, "Gzip": true}, "None or Gzip"),
		RecordIO: choose(p, "RecordWrapperType", c.RecordWrapperType, map[string]bool{"": false, "None": false, "RecordIO": true}, "None or RecordIO"),
	}
	if c.DataSource.FileSystemDataSource != nil {
		p.Add("DataSource.FileSystemDataSource", "shared file systems are not supported: copy the data to the object store, and give its S3DataSource")
	}
	if c.ShuffleConfig != nil {
		p.Add("ShuffleConfig", "is not supported: shuffle in the training")
	}
	return in
}
