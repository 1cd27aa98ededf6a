package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
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

func (a *App) taintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "taint NODE TAINT...",
		Short: "Keep tasks off a node that do not tolerate it, or take that back",
		Long: "Put taints on a node, or take them back. KEY=VALUE:no-place keeps off what does not tolerate it with --tolerate,\n" +
			"KEY=VALUE:prefer-not has it placed there last; no-place is meant where no effect is said. KEY- takes back all\n" +
			"taints of that key. What runs on the node stays.",
		Example: "  clary nodes taint gpu-1 team=vision\n  clary nodes taint gpu-1 flaky:prefer-not\n  clary nodes taint gpu-1 team-",
		Args: func(command *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(command, "name a node, and at least one taint")
			}
			return nil
		},
		ValidArgsFunction: a.completeNodes(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			var put []cluster.Taint
			var remove []string
			for _, text := range args[1:] {
				if key, back := strings.CutSuffix(text, "-"); back && !strings.ContainsAny(key, "=:") {
					remove = append(remove, key)
					continue
				}
				taint, err := placement.ParseTaint(text)
				if err != nil {
					return err
				}
				put = append(put, taint)
			}
			node, err := c.Taint(ctx, args[0], put, remove)
			if err != nil {
				return err
			}
			return a.print(nodeToJSON(client.NodeView{Node: node}), func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s has %s\n", args[0], orNone(taintText(node.Taints), "no taints"))
				return err
			})
		}),
	}
}

func orNone(text, none string) string {
	if text == "" {
		return none
	}
	return text
}

func taintText(taints []cluster.Taint) string {
	texts := make([]string, len(taints))
	for i, taint := range taints {
		texts[i] = taint.String()
	}
	return strings.Join(texts, ", ")
}

// usedGPUs is how many of a node's GPUs are held: shares count as their fraction, slots as their part of
// the slices that their device has.
func usedGPUs(view client.NodeView) string {
	return fmt.Sprintf("%.3g", view.Used.GPUs())
}

// deviceText says what of a device is in use.
func deviceText(device cluster.Device, used cluster.Resources) string {
	var parts []string
	for _, part := range partsToJSON(used.Shares, device.UUID) {
		parts = append(parts, part.text()+" in use")
	}
	for _, uuid := range used.Devices {
		if uuid == device.UUID {
			parts = append(parts, "in use")
		}
	}
	return orNone(strings.Join(parts, ", "), "free")
}

func devicesText(view client.NodeView) string {
	var lines []string
	for _, d := range view.Node.Devices {
		line := d.UUID + "  " + d.Model + ", " + deviceText(d, view.Used)
		if d.Partitioned {
			line += ", partitioned"
		}
		if !d.Healthy {
			line += ", unhealthy"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// partJSON is a part of a device that is in use: all shares together, or one slot.
type partJSON struct {
	UUID     string  `json:"uuid"`
	Fraction float64 `json:"fraction,omitempty"`
	Memory   int64   `json:"memory,omitempty"`
	Profile  string  `json:"profile,omitempty"`
	Start    *int32  `json:"start,omitempty"`
}

// text reads like "0.25 and 10 GiB" or "1g.10gb at 2".
func (p partJSON) text() string {
	if p.Profile != "" {
		return fmt.Sprintf("%s at %d", p.Profile, *p.Start)
	}
	return fmt.Sprintf("%g and %s", p.Fraction, cluster.FormatBytes(p.Memory))
}

func partsToJSON(shares []cluster.DeviceShare, uuid string) []partJSON {
	var out []partJSON
	for _, s := range shares {
		if uuid != "" && s.UUID != uuid {
			continue
		}
		share := partJSON{UUID: s.UUID, Fraction: float64(s.Milli) / cluster.WholeGPU, Memory: s.Memory, Profile: s.Profile}
		if s.Profile != "" {
			share.Start = &s.Start
		}
		out = append(out, share)
	}
	return out
}

func deviceToJSON(d cluster.Device, used cluster.Resources) deviceJSON {
	out := deviceJSON{
		UUID: d.UUID, Model: d.Model, Memory: d.Memory, Healthy: d.Healthy, Simulated: d.Simulated,
		Used: slices.Contains(used.Devices, d.UUID), NUMA: d.NUMA, Link: d.Link, PCI: d.PCI, Speed: float64(d.Speed) / 1000,
		Shares: partsToJSON(used.Shares, d.UUID),
	}
	for _, profile := range d.Profiles {
		out.Profiles = append(out.Profiles, profile.Name)
	}
	return out
}
