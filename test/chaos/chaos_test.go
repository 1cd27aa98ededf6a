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

	"github.com/clary-ml/clary/test/chaos"
	"github.com/clary-ml/clary/test/testbed"
)

func TestTheSameSeedIsTheSamePlanWithEveryKindOfFault(t *testing.T) {
	kinds := chaos.Kinds()
	one, two := chaos.Draw(7, 20, 30, kinds), chaos.Draw(7, 20, 30, kinds)
	if fmt.Sprint(one) != fmt.Sprint(two) || fmt.Sprint(one) == fmt.Sprint(chaos.Draw(8, 20, 30, kinds)) {
		t.Error("the plan does not follow from the seed")
	}
	seen := map[chaos.Kind]int{}
	for _, fault := range one.Faults {
		seen[fault.Kind]++
	}
	if len(one.Faults) != 20 || len(one.Jobs) != 30 || len(seen) != len(kinds) {
		t.Errorf("%d faults of %d kinds, %d jobs", len(one.Faults), len(seen), len(one.Jobs))
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
	t    *testing.T
	hang string // while this file is there, NVML does not answer

	excused map[string]bool // ids of tasks of which nobody can know how they ended
	full    bool            // a disk was full: tasks may fail for that
	counts  map[chaos.Kind]int
}

func TestNoExitIsLostAndNothingIsLeftOver(t *testing.T) {
	seed := number(t, "CLARY_CHAOS_SEED", 1)
	plan := chaos.Draw(uint64(seed), number(t, "CLARY_CHAOS_FAULTS", 14), number(t, "CLARY_CHAOS_JOBS", 40), kinds())
	t.Logf("seed %d: run it again with CLARY_CHAOS_SEED=%d make chaos", seed, seed)
	d := &drill{Machines: testbed.None(t), t: t, excused: map[string]bool{}, counts: map[chaos.Kind]int{}}
	d.pretendNVML()
	d.Server("s1")
	d.Login("s1")
	for _, node := range nodes {
		d.disk(node)
		d.Agent(node)
	}
	d.WaitFor("both nodes", 30*time.Second, func() bool { return d.Ready() == len(nodes) })

	var working sync.WaitGroup
	working.Go(func() { d.submit(plan.Jobs) })
	for _, fault := range plan.Faults {
		time.Sleep(fault.After) // the drill's own time passes: nothing is waited for
		t.Log(fault)
		d.strike(fault)
	}
	working.Wait()
	for _, job := range plan.Jobs {
		d.judge(job)
	}
	d.WaitFor("tasks' processes, namespaces and control groups to go", 30*time.Second, func() bool { return len(d.traces()) == 0 })
	if left := d.traces(); len(left) > 0 {
		t.Errorf("left over of tasks that have ended:\n%s", strings.Join(left, "\n"))
	}
	for _, kind := range kinds() {
		t.Logf("%3d times: %s", d.counts[kind], kind)
	}
	t.Logf("%d tasks could not be known to have ended this way or that", len(d.excused))
}

var nodes = []string{"n1", "n2"}

// kinds are the faults that can be had on this machine.
func kinds() []chaos.Kind {
	return slices.DeleteFunc(chaos.Kinds(), func(kind chaos.Kind) bool { return kind == chaos.RestartEngine })
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

// disk gives a node a small disk of its own, which can be filled.
func (d *drill) disk(node string) {
	d.t.Helper()
	data := d.Path(node)
	if err := os.Mkdir(data, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=96m"); err != nil {
		d.t.Skipf("skipped: a disk that can be filled needs root: %v", err)
	}
	d.Allow(data)
	d.t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
}

// submit hands in the jobs, one after the other, whatever happens meanwhile.
func (d *drill) submit(jobs []chaos.Job) {
	for _, job := range jobs {
		time.Sleep(job.After)
		script := fmt.Sprintf("echo begins; sleep %.3f; echo ends; exit %d", job.Sleep.Seconds(), job.Code)
		deadline := time.Now().Add(time.Minute)
		for {
			out, err := d.Try("run", "--detach", "--name", job.Name, "--cores", "0.2", "--memory", "32MiB", "--", "sh", "-c", script)
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

// strike lets one fault happen and undoes it.
func (d *drill) strike(fault chaos.Fault) {
	d.counts[fault.Kind]++
	node := nodes[fault.Pick%uint64(len(nodes))]
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
		d.excused[task] = true
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
	for _, task := range view.Tasks {
		code := 0
		if task.ExitCode != nil {
			code = *task.ExitCode
		}
		switch {
		case task.State == "succeeded" && job.Code == 0:
		case task.State == "failed" && job.Code != 0 && code == job.Code:
		case task.State == "lost" && d.excused[task.ID]:
		case task.State == "failed" && d.full && strings.Contains(task.Reason, "no space left"):
		default:
			d.t.Errorf("%s ended as %s with %d (%s), its program with %d", task.ID, task.State, code, task.Reason, job.Code)
		}
	}
	if view.State != "succeeded" && view.State != "failed" {
		d.t.Errorf("%s is %s: %s", job.Name, view.State, view.Reason)
	}
}

// traces are what is there of tasks.
func (d *drill) traces() []string {
	var found []string
	for _, pid := range d.shims("") {
		found = append(found, "the shim of "+taskOf(pid))
	}
	for name, pid := range d.Namespaces() {
		found = append(found, fmt.Sprintf("namespace %s of process %d", name, pid))
	}
	for _, group := range d.Groups() {
		tasks, _ := filepath.Glob(filepath.Join(group, "*~*"))
		found = append(found, tasks...)
	}
	return append(found, d.Mounts()...)
}
