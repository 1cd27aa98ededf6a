package measure

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/scheduler/sim/fgd"
)

func (a app) simFGDCommand() *cobra.Command {
	var nodes, pods, policy string
	var seed int64
	command := &cobra.Command{
		Use:   "fgd",
		Short: "Replay the placement of pods on GPU nodes until nothing fits any more",
		Long: "Replay the experiment of Weng et al., \"Beware of Fragmentation\" (USENIX ATC 2023): pods arrive in a drawn order at GPU nodes\n" +
			"and stay, until 130 % of all GPUs were asked for. What counts is the share of the GPUs that is given out by then.\n" +
			"The nodes' file has the columns sn, cpu_milli, memory_mib, gpu and model; the pods' file name, cpu_milli, memory_mib,\n" +
			"num_gpu and gpu_milli, and perhaps gpu_spec, the models that will do, as in V100M16|V100M32.",
		Example: "  clary sim fgd --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv --policy fgd --seed 42\n" +
			"  clary sim fgd --nodes nodes.csv --pods pods.csv --policy bestfit -o json",
		Args: shell.Takes(),
		RunE: func(command *cobra.Command, _ []string) error {
			if nodes == "" || pods == "" {
				return shell.Usage(command, "--nodes FILE and --pods FILE are needed")
			}
			if err := a.CheckFormat(); err != nil {
				return err
			}
			return a.simFGD(nodes, pods, policy, seed)
		},
	}
	flags := command.Flags()
	flags.StringVar(&nodes, "nodes", "", "CSV file of the nodes")
	flags.StringVar(&pods, "pods", "", "CSV file of the pods")
	flags.StringVar(&policy, "policy", "fgd", "one of "+strings.Join(fgd.Policies(), ", "))
	flags.Int64Var(&seed, "seed", 42, "draws the order of the pods and of the nodes")
	_ = command.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(fgd.Policies(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

func (a app) simFGD(nodesPath, podsPath, policy string, seed int64) error {
	nodes, err := readFile(nodesPath, fgd.ReadNodes)
	if err != nil {
		return err
	}
	pods, err := readFile(podsPath, fgd.ReadPods)
	if err != nil {
		return err
	}
	result, err := fgd.Run(nodes, pods, policy, seed)
	if err != nil {
		return err
	}
	return a.Print(result, func(out io.Writer) error {
		heading, row := []string{"asked for"}, []string{"given out"}
		for _, at := range []int{85, 90, 95, 100, 110, 130} {
			heading = append(heading, strconv.Itoa(at)+" %")
			row = append(row, fmt.Sprintf("%.2f %%", result.Allocation[at]))
		}
		if err := shell.Table(out, heading, [][]string{row}); err != nil {
			return err
		}
		idle := 100 - result.Allocation[100]
		_, err := fmt.Fprintf(out, "When as much was asked for as there is, %.2f %% of %d GPUs are idle: %.0f.\n", idle, result.GPUs, idle/100*float64(result.GPUs))
		return err
	})
}
