package tune

import (
	"encoding/json"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/jobfile"
	"github.com/clary-ml/clary/workload/tuning/sagemaker"
)

// sageMakerJob is the tuning job that a request to SageMaker asks for, with the resources of
// the flags. It has no trial if the request does not say what a training is.
func (a app) sageMakerJob(command *cobra.Command, path string, t *templateFlags) (cluster.Job, error) {
	if t.train.File != "" {
		return cluster.Job{}, shell.Usage(command, "-f goes without --sagemaker: name one file")
	}
	data, err := a.readSmall(path)
	if err != nil {
		return cluster.Job{}, fault.New(fault.Invalid, "--sagemaker: %w", err)
	}
	read, problems := sagemaker.Read(data)
	if problems != nil {
		return cluster.Job{}, fault.New(fault.Invalid, "%s:\n%w", path, problems)
	}
	for _, note := range read.Notes {
		a.Note("%s", note)
	}
	j := cluster.Job{Kind: cluster.KindTuning, Name: read.Name, Labels: read.Labels, Retry: cluster.Retry{Limit: read.Retries}}
	var trial json.RawMessage
	if read.Trial != nil {
		if err := t.resources.Apply(command, read.Trial); err != nil {
			return j, err
		}
		training, err := submit.ProgramJob(*read.Trial)
		if err != nil {
			return j, err
		}
		trial = training.Spec
	}
	j.Spec, err = joinSpec(read.Search, trial)
	return j, err
}

// readSmall reads a file, or standard input for -, up to what a job file may hold.
func (a app) readSmall(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(a.In, jobfile.MaxSize+1))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, jobfile.MaxSize+1))
}
