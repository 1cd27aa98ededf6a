package chaos_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/test/chaos"
	"github.com/clary-ml/clary/test/testbed"
)

func TestTheSameSeedIsTheSamePlanWithEveryKindOfFault(t *testing.T) {
	kinds := chaos.Kinds()
	one, two := chaos.Draw(7, 20, 30, kinds), chaos.Draw(7, 20, 30, kinds)
	if fmt.Sprint(one) != fmt.Sprint(two) || fmt.Sprint(one) == fmt.Sprint(chaos.Draw(8, 20, 30, kinds)) {
		t.Error("the plan does not follow from the seed")
	}
	seen, contained, paired := map[chaos.Kind]int{}, 0, 0
	for _, fault := range one.Faults {
		seen[fault.Kind]++
	}
	for _, job := range one.Jobs {
		if job.Contained {
			contained++
		}
		if job.Paired {
			paired++
		}
	}
	if len(one.Faults) != 20 || len(one.Jobs) != 30 || len(seen) != len(kinds) || contained == 0 || contained == 30 || paired == 0 {
		t.Errorf("%d faults of %d kinds, %d jobs, %d of them in containers and %d in pairs", len(one.Faults), len(seen), len(one.Jobs), contained, paired)
	}
	for _, job := range chaos.Draw(7, 20, 30, chaos.Engineless()).Jobs {
		if job.Contained {
			t.Errorf("%s is in a container, and there is no engine", job.Name)
		}
	}
}

// number reads a size of the run from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is no number", name, text)
	}
	return n
}

// drill is one run.
type drill struct {
	*testbed.Machines
	t      *testing.T
	hang   string             // while this file is there, NVML does not answer
	engine *enginetest.Engine // nil if none is asked for

	excused map[string]string // why nobody can know how a task ended, by its id
	full    bool              // a disk was full: tasks may fail for that
	cutOff  map[string]bool   // nodes that were away for so long that they may have counted as lost
	counts  map[chaos.Kind]int
	judged  struct{ tasks, lost, contained int }
}

// begin starts a cluster of one coordinator and two nodes with small disks.
func begin(t *testing.T) *drill {
	t.Helper()
	d := &drill{t: t, excused: map[string]string{}, cutOff: map[string]bool{}, counts: map[chaos.Kind]int{}}
	if os.Getenv("CLARY_TEST_ENGINES") != "" {
		d.engine = enginetest.Open(t, "docker")
	}
	d.Machines = testbed.None(t)
	d.pretendNVML()
	d.Server("s1")
	d.Login("s1")
	for _, node := range nodes {
		d.disk(node, 256)
		if d.engine != nil {
			d.Agent(node, "--container-engine", d.engine.Socket)
			continue
		}
		d.Agent(node, "--container-engine", "none")
	}
	d.WaitFor("both nodes", 30*time.Second, func() bool { return d.Ready() == len(nodes) })
	return d
}

func TestNoExitIsLostAndNothingIsLeftOver(t *testing.T) {
	t.Parallel() // beside the cluster of several coordinators: most of both is waiting
	seed := number(t, "CLARY_CHAOS_SEED", 1)
	d := begin(t)
	plan := chaos.Draw(uint64(seed), number(t, "CLARY_CHAOS_FAULTS", len(d.kinds())), number(t, "CLARY_CHAOS_JOBS", 24), d.kinds())
	t.Logf("seed %d: run it again with SEED=%d make chaos", seed, seed)
	var working sync.WaitGroup
	working.Go(func() { d.submit(plan.Jobs) })
	for _, fault := range plan.Faults {
		time.Sleep(fault.After) // the drill's own time passes: nothing is waited for
		t.Log(fault)
		began := time.Now()
		d.strike(fault)
		if away := time.Since(began); slices.Contains(takesAgent, fault.Kind) && away > cluster.LeaseTime/2 { // its last beat may have been some time before
			d.cutOff[d.target(fault)] = true
		}
	}
	working.Wait()
	names := []string{"delete"}
	for _, job := range plan.Jobs {
		d.judge(job)
		names = append(names, job.Name)
	}
	d.gone("tasks' processes, ports, namespaces and control groups", d.traces)
	d.Clary(names...)
	d.gone("what was kept of the tasks", d.kept)
	for _, kind := range d.kinds() {
		t.Logf("%3d times: %s", d.counts[kind], kind)
	}
	t.Logf("%d tasks, %d of them in containers; of %d nobody could know how they ended", d.judged.tasks, d.judged.contained, d.judged.lost)
}

// gone waits until a census counts nothing.
func (d *drill) gone(what string, census func() []string) {
	d.t.Helper()
	var left []string
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if left = census(); len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			d.Logs()
			d.t.Fatalf("%s do not go:\n%s", what, strings.Join(left, "\n"))
		}
	}
}

var nodes = []string{"n1", "n2"}

// kinds are the faults that can be had here.
func (d *drill) kinds() []chaos.Kind {
	if d.engine == nil {
		return chaos.Engineless()
	}
	return chaos.Kinds()
}

// pretendNVML builds an NVML library that can be made to hang, for the agents to load.
func (d *drill) pretendNVML() {
	d.t.Helper()
	folder := d.Path("nvml")
	if err := os.Mkdir(folder, 0o755); err != nil {
		d.t.Fatal(err)
	}
	build := exec.Command("gcc", "-shared", "-fPIC", "-o", filepath.Join(folder, "libnvidia-ml.so.1"), "fakenvml/nvml.c")
	if out, err := build.CombinedOutput(); err != nil {
		d.t.Fatalf("build an NVML library: %v\n%s", err, out)
	}
	d.hang = d.Path("nvml-hangs")
	d.Env = append(d.Env, "LD_LIBRARY_PATH="+folder, "CLARY_TEST_NVML_HANG="+d.hang)
}

// disk gives a machine a small disk of its own, of so many MiB, which can be filled.
func (d *drill) disk(node string, size int) {
	d.t.Helper()
	data := d.Path(node)
	if err := os.Mkdir(data, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		d.t.Skipf("skipped: a disk that can be filled needs root: %v", err)
	}
	d.Allow(data)
	d.t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
}

// program is what a job runs. Perl is on every Debian, and busybox all there is in the image.
func program(job chaos.Job) string {
	listen := ""
	if job.Paired {
		listen = `perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => $ENV{CLARY_PORTS}) or die; sleep 99' & `
		if job.Contained {
			listen = `nc -l -p $CLARY_PORTS & `
		}
	}
	return listen + fmt.Sprintf("echo begins; sleep %.3f; echo ends; exit %d", job.Sleep.Seconds(), job.Code)
}

// submit hands in the jobs, one after the other, whatever happens meanwhile.
func (d *drill) submit(jobs []chaos.Job) {
	for _, job := range jobs {
		time.Sleep(job.After)
		args := []string{"run", "--detach", "--name", job.Name, "--cores", "0.2", "--memory", "32MiB"}
		if job.Paired {
			args = append(args, "--instances", "2")
		}
		if job.Contained {
			args = append(args, "--image", enginetest.Image)
		}
		args = append(args, "--", "sh", "-c", program(job))
		deadline := time.Now().Add(time.Minute)
		for {
			out, err := d.Try(args...)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				d.t.Errorf("%s could not be submitted within a minute: %v\n%s", job.Name, err, out)
				return
			}
		}
	}
}

// takesAgent are the faults while which a node's agent says nothing: for as long as a busy machine makes of them.
var takesAgent = []chaos.Kind{chaos.KillAgent, chaos.FreezeAgent, chaos.CutNode, chaos.CutEngine}

// target is the node that a fault strikes.
func (d *drill) target(fault chaos.Fault) string { return nodes[fault.Pick%uint64(len(nodes))] }

// strike lets one fault happen and undoes it.
func (d *drill) strike(fault chaos.Fault) {
	d.counts[fault.Kind]++
	node := d.target(fault)
	switch fault.Kind {
	case chaos.KillAgent:
		d.Kill(node)
		time.Sleep(fault.Length)
		d.Again(node)
	case chaos.FreezeAgent:
		d.Stop(node)
		time.Sleep(fault.Length)
		d.Resume(node)
	case chaos.KillShim:
		if shims := d.shims(""); len(shims) > 0 {
			d.killShim(shims[fault.Pick%uint64(len(shims))])
		}
	case chaos.CutNode:
		d.Kill(node)
		for _, shim := range d.shims(d.Path(node) + "/") {
			d.killShim(shim)
		}
		time.Sleep(fault.Length)
		d.Again(node)
	case chaos.KillServer:
		d.Kill("s1")
		time.Sleep(fault.Length)
		d.Again("s1")
	case chaos.FillDisk:
		d.fill(d.Path(node), fault.Length)
	case chaos.HangNVML:
		d.hangNVML(fault.Length)
	case chaos.RestartEngine:
		d.loseEngine(fault, func() {})
	case chaos.CutEngine:
		d.loseEngine(fault, func() { d.Kill(node) })
		d.Again(node)
	default:
		d.t.Fatalf("nothing does %q", fault.Kind)
	}
}

// shims are the processes that watch over a task below a folder.
func (d *drill) shims(below string) []int {
	return slices.DeleteFunc(d.PIDs(below), func(pid int) bool { return taskOf(pid) == "" })
}

// taskOf is the task that a shim has, "" for another process.
func taskOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	words := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	if len(words) != 2 || words[0] != "clary-shim" {
		return ""
	}
	return strings.ReplaceAll(filepath.Base(words[1]), "~", "/")
}

func (d *drill) killShim(pid int) {
	if task := taskOf(pid); task != "" {
		d.excused[task] = "its shim was killed"
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// fill leaves no byte free in a folder's file system for a while.
func (d *drill) fill(folder string, length time.Duration) {
	d.full = true
	path := filepath.Join(folder, "filler")
	file, err := os.Create(path)
	if err != nil {
		d.t.Fatal(err)
	}
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := file.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	_ = file.Close()
	time.Sleep(length)
	if err := os.Remove(path); err != nil {
		d.t.Fatal(err)
	}
}

// hangNVML sees that the nodes stay in the cluster while NVML does not answer.
func (d *drill) hangNVML(length time.Duration) {
	if err := os.WriteFile(d.hang, nil, 0o600); err != nil {
		d.t.Fatal(err)
	}
	time.Sleep(length)
	if err := os.Remove(d.hang); err != nil {
		d.t.Fatal(err)
	}
}

// judge waits for a job's end and compares it with what its program did.
func (d *drill) judge(job chaos.Job) {
	d.t.Helper()
	_, _ = d.Try("wait", job.Name, "--timeout", "2m")
	view := d.Job(job.Name)
	if len(view.Tasks) == 0 {
		d.t.Errorf("%s is %s and has no task: %s", job.Name, view.State, view.Reason)
	}
	broken := map[int]bool{} // attempts in which a task ended badly: its peer may have been stopped for that
	for _, task := range view.Tasks {
		broken[task.Attempt] = broken[task.Attempt] || task.State == "lost" || task.State == "failed"
	}
	for _, task := range view.Tasks {
		d.judged.tasks++
		if job.Contained {
			d.judged.contained++
		}
		if task.State == "lost" {
			d.judged.lost++
		}
		code := 0
		if task.ExitCode != nil {
			code = *task.ExitCode
		}
		switch {
		case task.State == "succeeded" && job.Code == 0:
		case task.State == "failed" && job.Code != 0 && code == job.Code:
		case task.State == "lost" && d.excused[task.ID] != "":
		case task.State == "lost" && job.Contained && (job.Code == 137 || job.Code == 255) && strings.Contains(task.Reason, "while no agent was there"):
		case task.State == "lost" && d.cutOff[task.Node] && strings.Contains(task.Reason, "no word from its agent"):
		case task.State == "lost" && d.full && strings.Contains(task.Reason, "no space left"): // it was not taken in
		case task.State == "stopped" && job.Paired && broken[task.Attempt]:
		case task.State == "failed" && d.full && strings.Contains(task.Reason, "no space left"):
		default:
			d.t.Errorf("%s ended as %s with %d (%s), its program with %d", task.ID, task.State, code, task.Reason, job.Code)
		}
	}
	if view.State != "succeeded" && view.State != "failed" {
		d.t.Errorf("%s is %s: %s", job.Name, view.State, view.Reason)
	}
}
