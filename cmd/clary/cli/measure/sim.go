package measure

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

func (a app) simCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "sim",
		Short: "Replay published scheduling experiments, and Clary's scheduler on the same input",
		Long: "Replay published scheduling experiments in virtual time: with the policies that were published, whose results come out\n" +
			"equal, and with Clary's own scheduler on the same input. No cluster is needed.",
		Example: "  clary sim fgd --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv --policy fgd --seed 42\n" +
			"  clary sim queue --jobs ef06_job.csv --gpus 128 --policy srtf\n  clary sim tiresias --workload workload-6.csv --traces pollux -o json",
		Args: shell.Takes(),
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.simFGDCommand(), a.simQueueCommand(), a.simTiresiasCommand())
	return command
}

// simJobs are the figures that simulations of jobs share, times in seconds.
type simJobs struct {
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	Makespan int64   `json:"makespan"`
	Restarts int     `json:"restarts"`
}

// readFile lets read parse a file under its name.
func readFile[T any](path string, read func(name string, in io.Reader) (T, error)) (T, error) {
	file, err := os.Open(path)
	if err != nil {
		var none T
		return none, err
	}
	defer file.Close()
	return read(path, file)
}
