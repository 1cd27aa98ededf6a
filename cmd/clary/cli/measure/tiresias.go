package measure

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/scheduler/sim/tiresias"
)

// simTiresiasJSON is a replay of a Pollux workload, times in seconds.
type simTiresiasJSON struct {
	JCT     map[string]int64 `json:"jct"`
	Average float64          `json:"average"`
	simJobs
}

func (a app) simTiresiasCommand() *cobra.Command {
	var path, folder, policy string
	command := &cobra.Command{
		Use:   "tiresias",
		Short: "Replay a workload of the Pollux artifact at rigid job sizes",
		Long: "Replay a workload of the Pollux artifact (OSDI 2021) at rigid job sizes on 16 nodes of 4 GPUs, 30 s without progress at\n" +
			"every start. Policy tiresias gives the published completion time of every job.",
		Example: "  clary sim tiresias --workload workloads/workload-6.csv --traces pollux\n  clary sim tiresias --workload workload-6.csv --traces pollux --policy tiresias -o json",
		Args:    shell.Takes(),
	}
	flags := command.Flags()
	flags.StringVar(&path, "workload", "", "CSV file of the jobs: name, time, application, num_replicas, batch_size")
	flags.StringVar(&folder, "traces", "", "folder with throughput_table.csv and traces/APPLICATION")
	flags.StringVar(&policy, "policy", string(tiresias.Tiresias), "one of "+listed(tiresias.Policies()))
	_ = command.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(texts(tiresias.Policies()), cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, _ []string) error {
		if path == "" || folder == "" {
			return shell.Usage(command, "--workload FILE and --traces DIR are needed")
		}
		if err := a.CheckFormat(); err != nil {
			return err
		}
		profiles, err := tiresias.ReadProfiles(os.DirFS(folder))
		if err != nil {
			return err
		}
		jobs, err := readFile(path, func(name string, in io.Reader) ([]tiresias.Job, error) { return tiresias.Read(name, in, profiles) })
		if err != nil {
			return err
		}
		result, err := tiresias.Run(jobs, profiles, tiresias.Policy(policy))
		if err != nil {
			return err
		}
		return a.showTiresias(policy, jobs, result)
	}
	return command
}

func (a app) showTiresias(policy string, jobs []tiresias.Job, result tiresias.Result) error {
	s := result.Summary
	answer := simTiresiasJSON{JCT: map[string]int64{}, Average: s.Average, simJobs: simJobs{s.P50, s.P99, s.Makespan, result.Restarts}}
	for i, jct := range result.JCT {
		answer.JCT[jobs[i].Name] = jct
	}
	return a.Print(answer, func(out io.Writer) error {
		return shell.Table(out, []string{"policy", "jobs", "average jct", "p50", "p99", "makespan", "restarts"}, [][]string{{
			policy, fmt.Sprint(len(jobs)), seconds(s.Average), seconds(s.P50), seconds(s.P99), seconds(float64(s.Makespan)), fmt.Sprint(result.Restarts),
		}})
	})
}
