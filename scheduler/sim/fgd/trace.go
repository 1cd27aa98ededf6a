package fgd

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/sheet"
)

// Milli is a whole GPU.
const Milli = 1000

// What a row may hold: beyond these a figure is a mistake, and sums could overflow.
const (
	maxCPU    = 1 << 28 // thousandths of a core
	maxMemory = 1 << 30 // MiB
	maxGPUs   = 1024    // of a node, and of a pod
	maxNodes  = 200_000
)

// Node is a machine of the experiment. All its GPUs are of one model.
type Node struct {
	Name   string
	CPU    int64 // thousandths of a core
	Memory int64 // MiB
	GPUs   int
	Model  string
}

// Pod is what arrives and stays.
type Pod struct {
	Name   string
	CPU    int64 // thousandths of a core
	Memory int64 // MiB
	GPUs   int
	Milli  int64  // of each of its GPUs
	Spec   string // the models that will do, as in "V100M16|V100M32"; "" for any
}

// ReadNodes reads a list of nodes, sorted by name: the columns sn, cpu_milli, memory_mib, gpu and
// model. Errors name the file, the line and the column.
func ReadNodes(file string, in io.Reader) ([]Node, error) {
	var nodes []Node
	lines := map[string]int{}
	err := sheet.Read(file, in, []string{"sn", "cpu_milli", "memory_mib", "gpu", "model"}, func(row *sheet.Row) error {
		n := Node{
			Name: row.Text("sn"), CPU: row.Int("cpu_milli", 0, maxCPU), Memory: row.Int("memory_mib", 0, maxMemory),
			GPUs: int(row.Int("gpu", 0, maxGPUs)), Model: row.Maybe("model"),
		}
		switch before, twice := lines[n.Name]; {
		case row.Err() != nil:
			return row.Err()
		case twice:
			return row.Wrong("sn", "%q is on line %d already", n.Name, before)
		case strings.ContainsAny(n.Model, ",|"):
			return row.Wrong("model", "%q is no name of one model", n.Model)
		case n.GPUs > 0 && n.Model == "":
			return row.Wrong("model", "empty, though the node has %d GPUs", n.GPUs)
		case len(nodes) == maxNodes:
			return row.Wrong("", "more than %d nodes", maxNodes)
		}
		lines[n.Name] = row.Line()
		nodes = append(nodes, n)
		return nil
	})
	if err == nil && len(nodes) == 0 {
		err = fault.New(fault.Invalid, "%s: no nodes", file)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes, nil
}

// ReadPods reads a workload, sorted by name: the columns name, cpu_milli, memory_mib, num_gpu and
// gpu_milli, and gpu_spec if some pods need certain models. Errors name the file, the line and the column.
func ReadPods(file string, in io.Reader) ([]Pod, error) {
	var pods []Pod
	lines := map[string]int{}
	err := sheet.Read(file, in, []string{"name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}, func(row *sheet.Row) error {
		p := Pod{
			Name: row.Text("name"), CPU: row.Int("cpu_milli", 0, maxCPU), Memory: row.Int("memory_mib", 0, maxMemory),
			GPUs: int(row.Int("num_gpu", 0, maxGPUs)), Milli: row.Int("gpu_milli", 0, Milli), Spec: row.Maybe("gpu_spec"),
		}
		switch before, twice := lines[p.Name]; {
		case row.Err() != nil:
			return row.Err()
		case twice:
			return row.Wrong("name", "%q is on line %d already", p.Name, before)
		case p.GPUs == 0 && p.Milli > 0:
			return row.Wrong("gpu_milli", "%d, though num_gpu is 0", p.Milli)
		case p.GPUs > 0 && p.Milli == 0:
			return row.Wrong("gpu_milli", "0, though num_gpu is %d", p.GPUs)
		case p.GPUs > 1 && p.Milli < Milli:
			return row.Wrong("gpu_milli", "%d of each of %d GPUs: a share is of one GPU, several are whole", p.Milli, p.GPUs)
		case strings.Contains(p.Spec, ","):
			return row.Wrong("gpu_spec", "%q has a comma: several models are separated by |", p.Spec)
		}
		lines[p.Name] = row.Line()
		pods = append(pods, p)
		return nil
	})
	if err == nil && len(pods) == 0 {
		err = fault.New(fault.Invalid, "%s: no pods", file)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(pods, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods, nil
}

// gpuMilli is what a pod takes of GPUs in all.
func (p Pod) gpuMilli() int64 { return int64(p.GPUs) * p.Milli }

// admits reports whether a pod may run on GPUs of a model.
func admits(spec, model string) bool {
	named := models(spec)
	return len(named) == 0 || slices.Contains(named, model)
}

// models are those that a specification names.
func models(spec string) []string {
	return slices.DeleteFunc(strings.Split(spec, "|"), func(one string) bool { return one == "" })
}
