package submit

import (
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/placement"
)

// placementFlags say where tasks run.
type placementFlags struct {
	constraints, affinity, antiAffinity, tolerations []string
	topology, spread, pack                           string
	constraint                                       string // the flag
}

func (f *placementFlags) register(command *cobra.Command) {
	flags := command.Flags()
	f.constraint = "constraint"
	if flags.Lookup(f.constraint) != nil { // of a sweep it is one on its metrics
		f.constraint = "node-constraint"
	}
	flags.StringArrayVar(&f.constraints, f.constraint, nil, "what its nodes or GPUs must be like, as \"rack in (r1,r2)\", \"gpu.memory >= 40GiB\", \"exists nvme\"; with \"weight 50\" it is only preferred")
	flags.StringArrayVar(&f.affinity, "affinity", nil, "near another job's tasks, as \"job=loader per rack\" or \"team=vision\" for jobs with that label; perhaps with a weight")
	flags.StringArrayVar(&f.antiAffinity, "anti-affinity", nil, "not where another job's tasks run, written like --affinity")
	flags.StringArrayVar(&f.tolerations, "tolerate", nil, "a taint that keeps it off no node: KEY=VALUE, KEY for any value, * for all")
	flags.StringVar(&f.topology, "topology", "", "what must be close together: nvlink or numa (GPUs of a task), node, rack or zone (all tasks); \"rack,preferred\" does without")
	flags.StringVar(&f.spread, "spread", "", "over most places: node, rack or zone")
	flags.StringVar(&f.pack, "pack", "", "onto fewest places: node, rack or zone")
}

// apply writes the flags that were set over a spec.
func (f *placementFlags) apply(command *cobra.Command, s *placement.Spec) {
	changed := command.Flags().Changed
	for _, list := range []struct {
		flag  string
		given []string
		into  *[]string
	}{
		{f.constraint, f.constraints, &s.Constraints},
		{"affinity", f.affinity, &s.Affinity},
		{"anti-affinity", f.antiAffinity, &s.AntiAffinity},
		{"tolerate", f.tolerations, &s.Tolerations},
	} {
		if changed(list.flag) {
			*list.into = list.given
		}
	}
	if changed("topology") {
		s.Topology = f.topology
	}
	if changed("spread") {
		s.Spread, s.Pack = cluster.Level(f.spread), ""
	}
	if changed("pack") {
		s.Spread, s.Pack = "", cluster.Level(f.pack)
	}
}
