package fgd_test

import (
	"encoding/csv"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/fgd"
)

var update = flag.Bool("update", false, "write the golden file anew")

// reference are the published policies, by the names of the published table.
var reference = map[string]string{
	"02-DotProd": "dotprod", "03-GpuClustering": "clustering", "04-GpuPacking": "packing", "05-BestFit": "bestfit", "06-FGD": "fgd",
}

// load reads nodes and pods of a folder.
func load(t testing.TB, nodesPath, podsPath string) ([]fgd.Node, []fgd.Pod) {
	t.Helper()
	nodesFile, err := os.Open(nodesPath)
	if err != nil {
		t.Fatal(err)
	}
	defer nodesFile.Close()
	podsFile, err := os.Open(podsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer podsFile.Close()
	nodes, err := fgd.ReadNodes(nodesPath, nodesFile)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := fgd.ReadPods(podsPath, podsFile)
	if err != nil {
		t.Fatal(err)
	}
	return nodes, pods
}

// published is the folder of the paper's traces, or the test is skipped.
func published(t testing.TB) string {
	folder := os.Getenv("CLARY_TRACES")
	if folder == "" {
		t.Skip("skipped: CLARY_TRACES names no folder with the published traces")
	}
	return filepath.Join(folder, "fgd")
}

// curve is a row of the published table.
type curve struct {
	workload, policy string
	seed             int64
	points           []float64
}

func publishedCurves(t *testing.T, folder string) []curve {
	t.Helper()
	file, err := os.Open(filepath.Join(folder, "published_allocation.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var curves []curve
	for _, row := range rows[1:] {
		c := curve{workload: row[0], policy: row[1]}
		if c.seed, err = strconv.ParseInt(row[3], 10, 64); err != nil {
			t.Fatal(err)
		}
		for _, cell := range row[5:] {
			x, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Fatal(err)
			}
			c.points = append(c.points, x)
		}
		curves = append(curves, c)
	}
	return curves
}

func TestEqualsThePublishedAllocationAtEveryPoint(t *testing.T) {
	folder := published(t)
	compared := 0
	for _, c := range publishedCurves(t, folder) {
		policy := reference[c.policy]
		if policy == "" {
			continue // drawn while nodes are looked at at once: nobody can replay it
		}
		if testing.Short() && c.seed != 42 {
			continue
		}
		nodes, pods := load(t, filepath.Join(folder, "openb_node_list_gpu_node.csv"), filepath.Join(folder, c.workload+".csv"))
		got, err := fgd.Run(nodes, pods, policy, c.seed)
		if err != nil {
			t.Fatal(err)
		}
		for at, want := range c.points {
			if math.Abs(got.Allocation[at]-want) > 1e-9 {
				t.Errorf("%s, %s, seed %d: %.2f at %d %%, published is %.2f", c.workload, policy, c.seed, got.Allocation[at], at, want)
			}
			compared++
		}
	}
	if compared < 15*fgd.Points {
		t.Errorf("only %d points were compared", compared)
	}
}

// What production places with gives out more of the GPUs than any published policy does, in the mean over the
// published seeds, when as much was asked for as there is and when more was.
func TestClaryGivesOutMoreThanAnyPublishedPolicy(t *testing.T) {
	folder := published(t)
	curves := publishedCurves(t, folder)
	for _, at := range []int{100, 130} {
		means, seeds := map[string]map[string]float64{}, map[string]float64{}
		for _, c := range curves {
			if means[c.workload] == nil {
				means[c.workload] = map[string]float64{}
			}
			means[c.workload][c.policy] += c.points[at] / 10
			if c.policy != "06-FGD" {
				continue
			}
			seeds[c.workload]++
			nodes, pods := load(t, filepath.Join(folder, "openb_node_list_gpu_node.csv"), filepath.Join(folder, c.workload+".csv"))
			got, err := fgd.Run(nodes, pods, "clary", c.seed)
			if err != nil {
				t.Fatal(err)
			}
			means[c.workload]["clary"] += got.Allocation[at] / 10
		}
		for workload, of := range means {
			for policy, mean := range of {
				if policy != "clary" && mean >= of["clary"] || seeds[workload] != 10 {
					t.Errorf("%s at %d %%: %s gives out %.2f %%, clary %.2f", workload, at, policy, mean, of["clary"])
				}
			}
			t.Logf("%s at %d %%: FGD %.2f %%, clary %.2f", workload, at, of["06-FGD"], of["clary"])
		}
	}
}

// The golden file is of a small cluster with every kind of node and pod; it was written by code
// that equals the published results.
func TestASmallClusterComesOutAsBefore(t *testing.T) {
	nodes, pods := load(t, "testdata/nodes.csv", "testdata/pods.csv")
	var text strings.Builder
	for _, policy := range fgd.Policies() {
		for seed := range int64(3) {
			result, err := fgd.Run(nodes, pods, policy, seed)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&text, "%s %d", policy, seed)
			for _, at := range []int{0, 10, 50, 80, 90, 100, 115, 130} {
				fmt.Fprintf(&text, " %.2f", result.Allocation[at])
			}
			text.WriteByte('\n')
		}
	}
	const golden = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}
}

func pod(i, gpus int, milli int64, spec string) fgd.Pod {
	return fgd.Pod{Name: fmt.Sprintf("p%03d", i), CPU: 1000, Memory: 1, GPUs: gpus, Milli: milli, Spec: spec}
}

func TestAPointWithoutArrivalsCarriesTheLast(t *testing.T) {
	nodes := []fgd.Node{{Name: "n", CPU: 64000, Memory: 64, GPUs: 4, Model: "T4"}}
	result, err := fgd.Run(nodes, []fgd.Pod{pod(0, 1, 1000, "")}, "fgd", 1)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]float64{0: 0, 24: 0, 25: 25, 49: 25, 50: 50, 99: 75, 100: 100, 130: 100} {
		if got := result.Allocation[at]; got != want {
			t.Errorf("%v at %d %%, want %v", got, at, want)
		}
	}
	if len(result.Allocation) != fgd.Points || result.GPUs != 4 {
		t.Errorf("%d points, %d GPUs", len(result.Allocation), result.GPUs)
	}
}

func TestRoomIsKept(t *testing.T) {
	node := fgd.Node{Name: "n", CPU: 64000, Memory: 64, GPUs: 4, Model: "T4"}
	for _, test := range []struct {
		claim string
		node  fgd.Node
		pod   fgd.Pod
		want  float64 // at 130 %
	}{
		{"shares that do not fill a GPU leave the rest", node, pod(0, 1, 600, ""), 60},
		{"shares fill a GPU", node, pod(0, 1, 500, ""), 100},
		{"cores run out", fgd.Node{Name: "n", CPU: 2500, Memory: 64, GPUs: 4, Model: "T4"}, pod(0, 1, 1000, ""), 50},
		{"memory runs out", fgd.Node{Name: "n", CPU: 64000, Memory: 3, GPUs: 4, Model: "T4"}, pod(0, 1, 1000, ""), 75},
		{"another model does not do", node, pod(0, 1, 1000, "G2|P100"), 0},
		{"one of the models does", node, pod(0, 1, 1000, "G2|T4"), 100},
		{"a specification without a name is none", node, pod(0, 1, 1000, "|"), 100},
		{"three of four leave one", node, pod(0, 3, 1000, ""), 75},
		{"more GPUs than any node has", node, pod(0, 5, 1000, ""), 0},
	} {
		for _, policy := range fgd.Policies() {
			result, err := fgd.Run([]fgd.Node{test.node}, []fgd.Pod{test.pod}, policy, 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := result.Allocation[fgd.Points-1]; got != test.want {
				t.Errorf("%s, %s: %v %% given out, want %v", test.claim, policy, got, test.want)
			}
		}
	}
}

func TestRefusesWhatCannotBeReplayed(t *testing.T) {
	node := fgd.Node{Name: "n", CPU: 64000, Memory: 64, GPUs: 4, Model: "T4"}
	large := node
	large.GPUs = 1024
	for _, test := range []struct {
		nodes  []fgd.Node
		pod    fgd.Pod
		policy string
		want   string
	}{
		{[]fgd.Node{node}, pod(0, 1, 1000, ""), "random", `policy "random" is unknown: there are bestfit, `},
		{[]fgd.Node{{Name: "n", CPU: 1}}, pod(0, 1, 1000, ""), "fgd", "none of the nodes has a GPU"},
		{nil, pod(0, 1, 1000, ""), "fgd", "none of the nodes has a GPU"},
		{[]fgd.Node{node}, pod(0, 0, 0, ""), "fgd", "none of the pods asks for a GPU"},
		{slices.Repeat([]fgd.Node{large}, 8), pod(0, 1, 1, ""), "fgd", "ask for so little"},
	} {
		_, err := fgd.Run(test.nodes, []fgd.Pod{test.pod}, test.policy, 1)
		if err == nil || !strings.Contains(err.Error(), test.want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

const (
	nodesHead = "sn,cpu_milli,memory_mib,gpu,model\n"
	podsHead  = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
)

func TestABrokenLineIsNamed(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "nodes.csv: empty"},
		{nodesHead, "nodes.csv: no nodes"},
		{"sn,cpu_milli,memory_mib,gpu\na,1,1,1\n", `line 1: no column "model"`},
		{nodesHead + "a,1,1,1,T4\na,1,1,1,T4\n", `line 3: sn: "a" is on line 2 already`},
		{nodesHead + "a,1,1,1,T4\n,1,1,1,T4\n", "line 3: sn: empty"},
		{nodesHead + "a,1,1,1,T4\nb,-1,1,1,T4\n", "line 3: cpu_milli: -1 is out of range"},
		{nodesHead + "a,NaN,1,1,T4\n", `line 2: cpu_milli: "NaN" is not a whole number`},
		{nodesHead + "a,1,1e3,1,T4\n", `line 2: memory_mib: "1e3" is not a whole number`},
		{nodesHead + "a,1,1,99999999999999999999,T4\n", "line 2: gpu: 99999999999999999999 is out of range"},
		{nodesHead + "a,1,1,2,\n", "line 2: model: empty, though the node has 2 GPUs"},
		{nodesHead + "a,1,1,2,T4|G2\n", `line 2: model: "T4|G2" is no name of one model`},
		{nodesHead + "a,1,1,2\n", "line 2: 4 fields, the heading has 5"},
		{nodesHead + "a,1,1,\"2,T4\n", "line 2: "},
	} {
		_, err := fgd.ReadNodes("nodes.csv", strings.NewReader(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: error %v, want %q", test.text, err, test.want)
		}
	}
	for _, test := range []struct{ text, want string }{
		{podsHead, "pods.csv: no pods"},
		{podsHead + "a,1,1,1,1001,\n", "line 2: gpu_milli: 1001 is out of range"},
		{podsHead + "a,1,1,1,0.5,\n", `line 2: gpu_milli: "0.5" is not a whole number`},
		{podsHead + "a,1,1,1,,\n", "line 2: gpu_milli: empty"},
		{podsHead + "a,1,1,0,500,\n", "line 2: gpu_milli: 500, though num_gpu is 0"},
		{podsHead + "a,1,1,1,0,\n", "line 2: gpu_milli: 0, though num_gpu is 1"},
		{podsHead + "a,1,1,2,500,\n", "line 2: gpu_milli: 500 of each of 2 GPUs: a share is of one GPU"},
		{podsHead + "a,1,1,1,500,\"T4,G2\"\n", `line 2: gpu_spec: "T4,G2" has a comma`},
		{podsHead + "a,1,1,1,500,\n\nb,1,1,1,500,\na,1,1,1,1,\n", `line 5: name: "a" is on line 2 already`},
	} {
		_, err := fgd.ReadPods("pods.csv", strings.NewReader(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: error %v, want %q", test.text, err, test.want)
		}
	}
}

func TestColumnsStandInAnyOrderAndOthersAreLetBe(t *testing.T) {
	pods, err := fgd.ReadPods("pods.csv", strings.NewReader("\ufeffgpu_milli, qos,num_gpu,memory_mib,cpu_milli,name\r\n500,LS,1,2,3,b\r\n0,,0,5,6,\"a\"\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []fgd.Pod{{Name: "a", CPU: 6, Memory: 5}, {Name: "b", CPU: 3, Memory: 2, GPUs: 1, Milli: 500}}
	if !slices.Equal(pods, want) {
		t.Errorf("read %v, want %v", pods, want)
	}
}

func FuzzReaders(f *testing.F) {
	f.Add(nodesHead+"a,1,1,1,T4\n", podsHead+"p,1,1,1,500,T4|G2\nq,1,1,1,1000,\nr,1,1,0,0,\n")
	f.Add(nodesHead+"a,64000,64,8,T4\nb,1,1,0,\n", podsHead+"p,1099511627776,1,1024,1000,\n")
	f.Add("sn,sn\n", "\"\n")
	f.Fuzz(func(t *testing.T, nodesText, podsText string) {
		nodes, err := fgd.ReadNodes("nodes.csv", strings.NewReader(nodesText))
		refused(t, err)
		pods, podsErr := fgd.ReadPods("pods.csv", strings.NewReader(podsText))
		refused(t, podsErr)
		if err != nil || podsErr != nil || len(nodes) > 8 || len(pods) > 50 {
			return
		}
		for _, n := range nodes {
			if n.GPUs > 4 {
				return // would take long
			}
		}
		for _, policy := range fgd.Policies() {
			result, err := fgd.Run(nodes, pods, policy, 1)
			refused(t, err)
			for at, x := range result.Allocation {
				if !(x >= 0 && x <= 100) || at > 0 && x < result.Allocation[at-1] {
					t.Fatalf("%s: %v at %d %%, before it %v", policy, x, at, result.Allocation[max(0, at-1)])
				}
			}
		}
	})
}

// refused fails unless an error, if there is one, blames the file.
func refused(t *testing.T, err error) {
	t.Helper()
	if err != nil && !fault.Is(err, fault.Invalid) {
		t.Fatalf("%v is of kind %v", err, fault.KindOf(err))
	}
}

func BenchmarkRun(b *testing.B) {
	folder := published(b)
	nodes, pods := load(b, filepath.Join(folder, "openb_node_list_gpu_node.csv"), filepath.Join(folder, "openb_pod_list_default.csv"))
	for _, policy := range fgd.Policies() {
		b.Run(policy, func(b *testing.B) {
			for b.Loop() {
				if _, err := fgd.Run(nodes, pods, policy, 42); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
