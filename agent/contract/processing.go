package contract

import (
	"cmp"
	_ "embed" // engines.py
	"path"

	"github.com/clary-ml/clary/cluster"
)

// What SageMaker tells a processing container of its job: the request that made it.

type processingInput struct {
	Name  string  `json:"InputName"`
	S3    s3Input `json:"S3Input"`
	Local bool    `json:"AppManaged"`
}

type s3Input struct {
	LocalPath    string `json:"LocalPath"`
	URI          string `json:"S3Uri"`
	Distribution string `json:"S3DataDistributionType"`
	DataType     string `json:"S3DataType"`
	Mode         string `json:"S3InputMode"`
	Compression  string `json:"S3CompressionType"`
}

type processingOutput struct {
	Name    string   `json:"OutputName"`
	S3      s3Output `json:"S3Output"`
	Managed bool     `json:"AppManaged"`
}

type s3Output struct {
	LocalPath  string `json:"LocalPath"`
	URI        string `json:"S3Uri"`
	UploadMode string `json:"S3UploadMode"`
}

type appSpecification struct {
	Image      string   `json:"ImageUri"`
	Entrypoint []string `json:"ContainerEntrypoint"`
	Arguments  []string `json:"ContainerArguments"`
}

type clusterConfig struct {
	Count  int    `json:"InstanceCount"`
	Type   string `json:"InstanceType"`
	Volume int64  `json:"VolumeSizeInGB"`
}

type processingConfig struct {
	ARN          string             `json:"ProcessingJobArn"`
	Name         string             `json:"ProcessingJobName"`
	App          appSpecification   `json:"AppSpecification"`
	Environment  map[string]string  `json:"Environment"`
	Inputs       []processingInput  `json:"ProcessingInputs"`
	OutputConfig processingOutputs  `json:"ProcessingOutputConfig"`
	Resources    processingResource `json:"ProcessingResources"`
	Role         string             `json:"RoleArn"`
	Stopping     map[string]int64   `json:"StoppingCondition"`
}

type processingOutputs struct {
	Outputs []processingOutput `json:"Outputs"`
	Key     *string            `json:"KmsKeyId"`
}

type processingResource struct {
	Cluster clusterConfig `json:"ClusterConfig"`
}

// JobFiles are those of the config folder of a task with the processing contract, by name;
// none of any other.
func (t Task) JobFiles() map[string][]byte {
	if t.Program.Contract != cluster.ContractProcessing {
		return nil
	}
	files := map[string][]byte{
		"processingjobconfig.json": encode(t.processing()),
		"resourceconfig.json":      encode(t.resources()),
	}
	if t.Program.Cluster != cluster.EngineNone {
		files[cluster.EngineStarter] = engines
	}
	return files
}

// engines starts an engine's cluster over the tasks of a gang; Python is where the engines are.
//
//go:embed engines.py
var engines []byte

// processing is the job as a request would make it. What no request of a local job has, a role
// and an instance type, stands for itself.
func (t Task) processing() processingConfig {
	names, _ := t.Hosts()
	config := processingConfig{
		ARN: t.arn("processing-job"), Name: t.Task.Job, Role: "arn:aws:iam::000000000000:role/local",
		App:         appSpecification{Image: t.Program.Image, Entrypoint: t.Program.Entrypoint, Arguments: t.Program.Command},
		Environment: t.Program.Env, Inputs: []processingInput{},
		OutputConfig: processingOutputs{Outputs: []processingOutput{}},
		Resources:    processingResource{clusterConfig{Count: len(names), Type: t.instanceType(), Volume: t.volume()}},
		Stopping:     map[string]int64{},
	}
	if config.Environment == nil {
		config.Environment = map[string]string{}
	}
	if most := t.MaxRuntime; most > 0 {
		config.Stopping["MaxRuntimeInSeconds"] = int64(most.Seconds())
	}
	for _, input := range t.Program.Inputs {
		s3 := s3Input{t.Folders.Of(input), input.URI, "FullyReplicated", "S3Prefix", "File", "None"}
		if input.Sharded {
			s3.Distribution = "ShardedByS3Key"
		}
		if input.Type == cluster.InputManifest {
			s3.DataType = "ManifestFile"
		}
		if input.Gzip {
			s3.Compression = "Gzip"
		}
		config.Inputs = append(config.Inputs, processingInput{Name: input.Channel, S3: s3})
	}
	for _, export := range t.Program.Exports {
		s3 := s3Output{path.Join(t.Folders.Base, export.Folder), export.To, "EndOfJob"}
		if export.Continuous {
			s3.UploadMode = "Continuous"
		}
		config.OutputConfig.Outputs = append(config.OutputConfig.Outputs, processingOutput{Name: export.Name, S3: s3})
	}
	return config
}

// volume is how many GB the task may write, at least one.
func (t Task) volume() int64 { return max(1, cmp.Or(t.Program.Disk>>30, 30)) }
