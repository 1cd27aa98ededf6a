// Package contract is what a task finds when it starts: the files of input/config and the
// environment, as SageMaker gives them to training containers, so that programs made for
// it run unchanged, and Clary's own variables beside them.
//
// It is pure: from an assignment, where its folders are and facts of the node to texts.
// The formats are those of the public developer guide and of the training toolkit.
package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
)

// Base is where a task with a view of its own, or in a container, finds its folders.
const Base = "/opt/ml"

// ownChannels are those by which version 3 of SageMaker's SDK brings code: it marks scripts in
// them executable, and its drivers may write there.
var ownChannels = []string{"code", "sm_drivers"}

// Own reports whether a channel's files are the task's own, to change as it likes, and not
// shared with other tasks of the node.
func Own(channel string) bool { return slices.Contains(ownChannels, channel) }

// Names that stand for what a cloud would say.
const (
	Region        = "local"
	instanceGroup = "homogeneousCluster"
)

// Place is where a task runs.
type Place struct {
	Folders   staging.Folders // as the task sees them
	Home      string          // as the task sees it
	Temp      string          // as the task sees it
	Metrics   string          // file for JSON lines, as the task sees it
	Path      string          // of programs; "" is the image's own
	Listen    string          // host address to bind ports on
	Interface string          // network interface that has it
}

// Task is one task's part in its job.
type Task struct {
	ledger.Assignment
	Place
}

// Host is the name under which the tasks of a role know the one with an index.
func Host(index int32) string { return "algo-" + strconv.Itoa(int(index)+1) }

// Hosts are the names of all tasks of the role, and what each stands for: the host that
// was announced for it, without a port.
func (t Task) Hosts() (names []string, addresses map[string]string) {
	addresses = map[string]string{}
	for index, address := range t.peers() {
		name := Host(int32(index))
		names = append(names, name)
		addresses[name] = hostOf(address)
	}
	return names, addresses
}

// peers are the addresses of the role's tasks; a task is at least its own.
func (t Task) peers() []string {
	peers := t.Assignment.Hosts[t.Task.Role]
	if len(peers) <= int(t.Task.Index) {
		return append(slices.Repeat([]string{t.Listen}, int(t.Task.Index)), t.Listen)
	}
	return peers
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// gpus is how many GPUs the task sees: whole ones, slots, and one that it shares.
func (t Task) gpus() int {
	return len(t.Task.Allocation.Resources.Devices) + len(t.Task.Allocation.Resources.Shares)
}

// instanceType is what local mode of SageMaker's own tools says.
func (t Task) instanceType() string {
	if t.gpus() > 0 {
		return "local_gpu"
	}
	return "local"
}

type instanceGroupConfig struct {
	Name  string   `json:"instance_group_name"`
	Type  string   `json:"instance_type"`
	Hosts []string `json:"hosts"`
}

type resourceConfig struct {
	CurrentHost         string                `json:"current_host"`
	Hosts               []string              `json:"hosts"`
	NetworkInterface    string                `json:"network_interface_name"`
	CurrentInstanceType string                `json:"current_instance_type"`
	CurrentGroupName    string                `json:"current_group_name"`
	InstanceGroups      []instanceGroupConfig `json:"instance_groups"`
}

func (t Task) resources() resourceConfig {
	names, _ := t.Hosts()
	slices.Sort(names) // the toolkit's order
	return resourceConfig{
		CurrentHost: Host(t.Task.Index), Hosts: names, NetworkInterface: t.Interface,
		CurrentInstanceType: t.instanceType(), CurrentGroupName: instanceGroup,
		InstanceGroups: []instanceGroupConfig{{instanceGroup, t.instanceType(), names}},
	}
}

type inputConfig struct {
	ContentType       string `json:"ContentType,omitempty"`
	TrainingInputMode string `json:"TrainingInputMode"`
	Distribution      string `json:"S3DistributionType"`
	RecordWrapperType string `json:"RecordWrapperType"`
}

func (t Task) inputs() map[string]inputConfig {
	configs := map[string]inputConfig{}
	for _, input := range t.Program.Inputs {
		config := inputConfig{input.ContentType, "File", "FullyReplicated", "None"}
		switch input.Mode {
		case cluster.InputFastFile:
			config.TrainingInputMode = "FastFile"
		case cluster.InputPipe:
			config.TrainingInputMode = "Pipe"
		}
		if input.Sharded {
			config.Distribution = "ShardedByS3Key"
		}
		if input.RecordIO {
			config.RecordWrapperType = "RecordIO"
		}
		configs[input.Channel] = config
	}
	return configs
}

// Files are those of the config folder, by name.
func (t Task) Files() map[string][]byte {
	hyperparameters := t.Program.Hyperparameters
	if hyperparameters == nil {
		hyperparameters = map[string]string{}
	}
	files := map[string][]byte{
		"hyperparameters.json": encode(hyperparameters),
		"inputdataconfig.json": encode(t.inputs()),
		"resourceconfig.json":  encode(t.resources()),
	}
	if len(t.Program.Spec) > 0 {
		files["spec.json"] = t.Program.Spec
	}
	return files
}

// encode writes JSON; what it is given are texts, numbers, lists and maps of such.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("contract: " + err.Error())
	}
	return text
}

// Environment is the contract's variables, over them the program's own.
func (t Task) Environment() []string {
	env := t.base()
	maps.Copy(env, t.clary())
	if t.Program.Script != "" {
		maps.Copy(env, t.toolkit())
	}
	if rendezvous := rendezvous[t.Program.Framework]; rendezvous != nil {
		maps.Copy(env, rendezvous(t))
	}
	maps.Copy(env, t.Program.Env)
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// base is what any program expects, and SageMaker's.
func (t Task) base() map[string]string {
	env := map[string]string{
		"HOME": t.Home, "TMPDIR": t.Temp, "LANG": "C.UTF-8",
		"AWS_REGION":         Region,
		"SAGEMAKER_BASE_DIR": t.Folders.Base, // Base too: so a script need not ask where it runs
	}
	if t.Program.Contract == cluster.ContractTraining {
		env["TRAINING_JOB_NAME"], env["TRAINING_JOB_ARN"] = t.Task.Job, t.arn("training-job")
	}
	if t.Path != "" {
		env["PATH"] = t.Path
	}
	if ports := t.Task.Allocation.Resources.Ports; t.Program.Contract == cluster.ContractServing && len(ports) > 0 {
		env["SAGEMAKER_BIND_TO_PORT"] = number(ports[0])
	}
	return env
}

// arn is the name that a cloud would give the job.
func (t Task) arn(kind string) string {
	return fmt.Sprintf("arn:aws:sagemaker:%s:000000000000:%s/%s", Region, kind, t.Task.Job)
}

// clary are Clary's own. CLARY_HOSTS_ROLE lists where each task of a role is: host:port
// with its first port, or the host alone.
func (t Task) clary() map[string]string {
	env := map[string]string{
		"CLARY_JOB": t.Task.Job, "CLARY_TASK": t.Task.ID, "CLARY_ROLE": t.Task.Role,
		"CLARY_INDEX": number(t.Task.Index), "CLARY_ATTEMPT": number(t.Task.Attempt),
		"CLARY_METRICS": t.Metrics, "CLARY_LISTEN": t.Listen,
		"CLARY_PREEMPT_AT": t.Folders.PreemptAt(),
		"CLARY_CORES":      strconv.FormatFloat(float64(t.Task.Allocation.Resources.MilliCPU)/1000, 'f', -1, 64),
		"CLARY_MEMORY":     strconv.FormatInt(t.Task.Allocation.Resources.Memory, 10),
	}
	for role, hosts := range t.Assignment.Hosts {
		env["CLARY_HOSTS_"+variable(role)] = strings.Join(hosts, ",")
	}
	if ports := t.Task.Allocation.Resources.Ports; len(ports) > 0 {
		var texts []string
		for _, port := range ports {
			texts = append(texts, number(port))
		}
		env["CLARY_PORTS"] = strings.Join(texts, ",")
	}
	for _, share := range t.Task.Allocation.Resources.Shares { // of shares there is one; slots have the same memory
		env["CLARY_GPU_MEMORY"] = strconv.FormatInt(share.Memory, 10)
		if share.Profile == "" {
			env["CLARY_GPU_SHARE"] = strconv.FormatFloat(float64(share.Milli)/cluster.WholeGPU, 'f', -1, 64)
		}
	}
	if len(t.Program.Spec) > 0 {
		env["CLARY_SPEC"] = t.Folders.Config() + "/spec.json"
	}
	return env
}

func number(n int32) string { return strconv.Itoa(int(n)) }

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

// cores is how many cores the task was promised, at least one.
func (t Task) cores() int {
	return max(1, int(math.Ceil(float64(t.Task.Allocation.Resources.MilliCPU)/1000)))
}
