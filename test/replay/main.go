// Command replay replays published placement and prints our figures beside the published ones, as in
// docs/scheduling.md: replay FOLDER, where FOLDER holds fgd/.
package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/clary-ml/clary/scheduler/sim/fgd"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: replay FOLDER")
		os.Exit(2)
	}
	if err := placement(filepath.Join(os.Args[1], "fgd"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

// policies are the rows of a workload, in order: what we call them, by what they are published as.
var policies = []struct{ published, ours string }{
	{"01-Random", ""},
	{"02-DotProd", "dotprod"},
	{"03-GpuClustering", "clustering"},
	{"04-GpuPacking", "packing"},
	{"05-BestFit", "bestfit"},
	{"06-FGD", "fgd"},
}

// curves is what a policy gives out at each point, by seed.
type curves map[int64][]float64

func (c curves) mean(at int) float64 {
	sum := 0.0
	for _, points := range c {
		sum += points[at]
	}
	return sum / float64(len(c))
}

// placement replays the experiment of Weng et al. (USENIX ATC 2023) with every policy, workload and seed.
func placement(folder string, out io.Writer) error {
	workloads, published, err := readPublished(filepath.Join(folder, "published_allocation.csv"))
	if err != nil {
		return err
	}
	nodes, err := read(filepath.Join(folder, "openb_node_list_gpu_node.csv"), fgd.ReadNodes)
	if err != nil {
		return err
	}
	differ := 0
	for _, workload := range workloads {
		pods, err := read(filepath.Join(folder, workload+".csv"), fgd.ReadPods)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n%s: %d pods; %% of GPUs given out, mean of %d seeds\n", workload, len(pods), len(published[workload]["06-FGD"]))
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "POLICY\tPUBLISHED AT 100 %\tAT 130 %\tOURS AT 100 %\tAT 130 %\tPOINTS THAT ARE EQUAL\tTIME OF A RUN")
		for _, p := range policies {
			theirs := published[workload][p.published]
			fmt.Fprintf(w, "%s\t%.2f\t%.2f", p.published, theirs.mean(100), theirs.mean(130))
			if p.ours == "" {
				fmt.Fprint(w, "\t-\t-\tcannot be replayed\t-\n")
				continue
			}
			ours, each, err := replay(nodes, pods, p.ours, theirs)
			if err != nil {
				return err
			}
			same, all := equal(ours, theirs)
			differ += all - same
			fmt.Fprintf(w, "\t%.2f\t%.2f\t%d of %d\t%v\n", ours.mean(100), ours.mean(130), same, all, each)
		}
		ours, each, err := replay(nodes, pods, "clary", published[workload]["06-FGD"])
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "clary\t-\t-\t%.2f\t%.2f\t-\t%v\n", ours.mean(100), ours.mean(130), each)
		if err := w.Flush(); err != nil {
			return err
		}
		for _, at := range []int{100, 130} {
			best, ahead := compare(ours, published[workload], at)
			fmt.Fprintf(out, "at %d %%: clary %.2f, the best published mean %.2f; ahead of every published policy with %d of %d seeds\n", at, ours.mean(at), best, ahead, len(ours))
		}
	}
	if differ > 0 {
		return fmt.Errorf("%d points differ from the published ones by more than 0.01", differ)
	}
	return nil
}

// replay runs a policy with the seeds of a published one, and says how long a run took.
func replay(nodes []fgd.Node, pods []fgd.Pod, policy string, seeds curves) (curves, time.Duration, error) {
	ours, begun := curves{}, time.Now()
	for seed := range seeds {
		result, err := fgd.Run(nodes, pods, policy, seed)
		if err != nil {
			return nil, 0, err
		}
		ours[seed] = result.Allocation
	}
	return ours, (time.Since(begun) / time.Duration(max(1, len(seeds)))).Round(time.Millisecond), nil
}

func equal(ours, theirs curves) (same, all int) {
	for seed, points := range theirs {
		for at, want := range points {
			if all++; math.Abs(ours[seed][at]-want) <= 0.01+1e-9 {
				same++
			}
		}
	}
	return same, all
}

// compare is the best published mean at a point, and with how many seeds ours is ahead of all that were published.
func compare(ours curves, published map[string]curves, at int) (best float64, ahead int) {
	for _, theirs := range published {
		best = max(best, theirs.mean(at))
	}
	for seed, points := range ours {
		first := true
		for _, theirs := range published {
			first = first && points[at] > theirs[seed][at]
		}
		if first {
			ahead++
		}
	}
	return best, ahead
}

// readPublished reads the published table: for each workload, in order, and policy the curves by seed.
func readPublished(path string) (workloads []string, published map[string]map[string]curves, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	published = map[string]map[string]curves{}
	for _, row := range rows[1:] {
		workload, policy := row[0], row[1]
		if published[workload] == nil {
			workloads = append(workloads, workload)
			published[workload] = map[string]curves{}
		}
		if published[workload][policy] == nil {
			published[workload][policy] = curves{}
		}
		seed, err := strconv.ParseInt(row[3], 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		points := make([]float64, 0, fgd.Points)
		for _, cell := range row[5:] {
			x, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", path, err)
			}
			points = append(points, x)
		}
		published[workload][policy][seed] = points
	}
	return workloads, published, nil
}

func read[T any](path string, parse func(string, io.Reader) (T, error)) (T, error) {
	file, err := os.Open(path)
	if err != nil {
		var none T
		return none, err
	}
	defer file.Close()
	return parse(path, file)
}
