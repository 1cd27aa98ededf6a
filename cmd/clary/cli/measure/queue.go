package measure

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/scheduler/sim/queue"
)

// simQueueJSON is a replay of rigid jobs, times in seconds.
type simQueueJSON struct {
	Jobs       []simSpanJSON `json:"jobs"`
	AverageJCT float64       `json:"average_jct"`
	simJobs
}

type simSpanJSON struct {
	ID    string `json:"id"`
	Start int64  `json:"start"` // first
	End   int64  `json:"end"`
}

func (a app) simQueueCommand() *cobra.Command {
	var path, policy string
	var gpus, restart int64
	command := &cobra.Command{
		Use:   "queue",
		Short: "Replay rigid jobs on a number of equal GPUs",
		Long: "Replay rigid jobs on a number of equal GPUs, as the simulator of Tiresias does: preemption costs nothing, times are whole\n" +
			"seconds. The jobs' file has the columns job_id, num_gpu, submit_time and duration, and perhaps model_name.\n" +
			"srtf and srsf are told how long each job will take; no other policy is.",
		Example: "  clary sim queue --jobs ef06_job.csv --gpus 128 --policy fifo-skip\n  clary sim queue --jobs ef06_job.csv --gpus 128 --policy srtf -o json",
		Args:    shell.Takes(),
	}
	flags := command.Flags()
	flags.StringVar(&path, "jobs", "", "CSV file of the jobs")
	flags.Int64Var(&gpus, "gpus", 0, "how many GPUs there are")
	flags.Int64Var(&restart, "restart", 0, "what each start of a job costs, in seconds")
	flags.StringVar(&policy, "policy", string(queue.FIFOSkip), "one of "+listed(queue.Policies()))
	_ = command.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(texts(queue.Policies()), cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, _ []string) error {
		if path == "" || gpus == 0 {
			return shell.Usage(command, "--jobs FILE and --gpus N are needed")
		}
		if err := a.CheckFormat(); err != nil {
			return err
		}
		jobs, err := readFile(path, func(name string, in io.Reader) ([]queue.Job, error) { return queue.Read(name, in, gpus) })
		if err != nil {
			return err
		}
		result, err := queue.Run(jobs, gpus, queue.Policy(policy), restart)
		if err != nil {
			return err
		}
		return a.showQueue(policy, gpus, jobs, result)
	}
	return command
}

func (a app) showQueue(policy string, gpus int64, jobs []queue.Job, result queue.Result) error {
	s := result.Summary
	answer := simQueueJSON{AverageJCT: s.Average, simJobs: simJobs{s.P50, s.P99, s.Makespan, result.Restarts}}
	for i, span := range result.Spans {
		answer.Jobs = append(answer.Jobs, simSpanJSON{jobs[i].ID, span.Start, span.End})
	}
	return a.Print(answer, func(out io.Writer) error {
		return shell.Table(out, []string{"policy", "gpus", "jobs", "average jct", "p50", "p99", "makespan", "restarts"}, [][]string{{
			policy, fmt.Sprint(gpus), fmt.Sprint(len(jobs)), seconds(s.Average), seconds(s.P50), seconds(s.P99), seconds(float64(s.Makespan)), fmt.Sprint(result.Restarts),
		}})
	})
}

// seconds reads like "29500.9 s".
func seconds(s float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", s), ".0") + " s" }

// texts are values of a named string type as strings.
func texts[T ~string](values []T) []string {
	var plain []string
	for _, value := range values {
		plain = append(plain, string(value))
	}
	return plain
}

// listed reads like "fifo, srtf".
func listed[T ~string](values []T) string { return strings.Join(texts(values), ", ") }
