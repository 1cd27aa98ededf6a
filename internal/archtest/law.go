package archtest

// Law is what the repository's shape must be.
type Law struct {
	Layers   []Layer
	Below    map[string][]string // folder → packages that it may import though their layer stands higher
	Bans     []Ban
	Names    []string // package names that say nothing
	MaxFile  int      // lines
	MaxFunc  int      // lines, of code that is not a test
	FreeFrom []string // folders that no layer binds
}

// Layer is a row of the Rooms table: folders of one height. An import arrow points to a
// later layer, or to the same folder.
type Layer struct {
	Folders []string
}

// Ban forbids imports or calls to the packages of a folder.
type Ban struct {
	Folder  string
	Except  []string // folders below it that are free
	Imports []string // a folder of this module ("coordinator"), or any import path, and all below
	Uses    []string // "time.Now"
	StdOnly bool     // nothing but the standard library
	Reach   bool     // nor through other packages of the module
	Why     string
}

const (
	whyPure     = "it decides from its arguments alone: time, seeds and ids are inputs, so that the same question gets the same answer"
	whyReplicas = "every replica applies the same entry: a clock or a random number there would make them differ"
	whyWire     = "only proto/wire converts between nouns and protobuf"
)

var (
	clock  = []string{"time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker", "time.Tick", "time.Sleep"}
	chance = []string{"math/rand", "math/rand/v2", "crypto/rand"}
)

// Clary is the law of this repository: DESIGN.md's table of rooms, and STYLE's limits.
func Clary() Law {
	return Law{
		Layers: []Layer{
			{[]string{"cmd"}},
			{[]string{"console", "sagemaker"}},
			{[]string{"coordinator"}},
			{[]string{"workload"}},
			{[]string{"agent"}},
			{[]string{"serving"}},
			{[]string{"trainer"}},
			{[]string{"tuner"}},
			{[]string{"scheduler"}},
			{[]string{"auth", "monitor", "metering", "labeling"}},
			{[]string{"client"}},
			{[]string{"proto"}},
			{[]string{"storage"}},
			{[]string{"internal"}},
			{[]string{"cluster"}},
		},
		Below:    map[string][]string{"client": {"auth/pki"}},
		Bans:     append(roomBans(), pureBans()...),
		Names:    []string{"util", "utils", "common", "helper", "helpers", "manager", "types", "misc"},
		MaxFile:  600,
		MaxFunc:  70,
		FreeFrom: []string{"test", "deploy", "docs", "examples"},
	}
}

func roomBans() []Ban {
	return []Ban{
		{
			Folder: ".", Except: []string{"trainer/network", "test"}, Imports: []string{"gorgonia.org/gorgonia", "gorgonia.org/tensor"},
			Why: "trainer/network is the only user of gorgonia, so that nothing else depends on its graphs",
		},
		{Folder: "agent", Imports: []string{"coordinator"}, Reach: true, Why: "an agent speaks to coordinators over proto, of any version"},
		{Folder: "agent", Imports: []string{"gorgonia.org", "trainer"}, Reach: true, Why: "an agent starts programs and knows none of them"},
		{Folder: "coordinator", Imports: []string{"gorgonia.org"}, Reach: true, Why: "a submission is checked by trainer/spec, without building a graph"},
		{Folder: "coordinator", Imports: []string{"agent"}, Why: "a coordinator speaks to agents over proto, of any version"},
		{Folder: "coordinator", Imports: []string{"html/template", "console"}, Why: "pages live in console, which talks through client"},
		{Folder: "console", Imports: []string{"coordinator", "agent"}, Why: "pages talk through client, like any other program"},
		{Folder: "sagemaker", Imports: []string{"coordinator", "agent"}, Why: "the AWS face talks through client, like any other program"},
		{Folder: "workload", Imports: []string{"net", "os", "io/fs", "storage"}, Why: "a reconcile step is a function of nouns: no network, no disk"},
		{Folder: "trainer", Imports: []string{"cluster", "proto", "client", "storage"}, Why: "a trainer sees files, environment and addresses, not the cluster"},
		{Folder: "trainer/spec", Imports: []string{"gorgonia.org"}, Reach: true, Why: "a coordinator checks a network without gorgonia"},
		{Folder: "storage", Imports: []string{"cluster", "proto"}, Why: "storage holds bytes; codecs are passed in"},
		{
			Folder: "storage/journal", Except: []string{"storage/journal/archive"}, StdOnly: true,
			Why: "the shim writes journals, and starts with every task",
		},
		{Folder: "auth", Imports: []string{"monitor", "metering", "labeling"}, Why: "auth, monitor, metering and labeling do not know one another"},
		{Folder: "monitor", Imports: []string{"auth", "metering", "labeling"}, Why: "auth, monitor, metering and labeling do not know one another"},
		{Folder: "metering", Imports: []string{"auth", "monitor", "labeling"}, Why: "auth, monitor, metering and labeling do not know one another"},
		{Folder: "labeling", Imports: []string{"auth", "monitor", "metering"}, Why: "auth, monitor, metering and labeling do not know one another"},
		{
			Folder: "cmd/clary-shim", Imports: []string{"net/http", "google.golang.org", "github.com", "go.etcd.io", "gorgonia.org"}, Reach: true,
			Why: "a shim starts with every task: it stays small and static",
		},
	}
}

func pureBans() []Ban {
	bans := []Ban{{Folder: "cluster", StdOnly: true, Why: "everything imports the nouns, so the nouns import nothing"}}
	for _, folder := range []string{"scheduler", "workload", "tuner", "cluster", "serving/autoscale", "serving/experiment"} {
		bans = append(
			bans,
			Ban{Folder: folder, Imports: []string{"proto", "google.golang.org/protobuf", "google.golang.org/grpc"}, Reach: true, Why: whyWire},
			Ban{Folder: folder, Except: []string{"tuner/chance", "scheduler/sim/fgd", "serving/autoscale/sim", "serving/experiment/sim"}, Imports: chance, Uses: clock, Why: whyPure},
		)
	}
	for _, folder := range []string{"coordinator/command", "coordinator/fsm"} {
		bans = append(bans, Ban{Folder: folder, Imports: chance, Uses: clock, Why: whyReplicas})
	}
	return append(bans, Ban{Folder: "scheduler", Imports: []string{"github.com/hashicorp/raft"}, Reach: true, Why: "the simulator runs the same code without a log"})
}
