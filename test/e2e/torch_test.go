package e2e

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// losses are those that examples/torch printed, by epoch.
func (m *machines) losses(job string) map[int]float64 {
	m.T.Helper()
	found := map[int]float64{}
	for _, match := range regexp.MustCompile(`epoch (\d+) loss ([0-9.]+)`).FindAllStringSubmatch(m.Exits(0, "logs", job, "worker-0"), -1) {
		epoch, err := strconv.Atoi(match[1])
		if err != nil {
			m.T.Fatal(err)
		}
		if found[epoch], err = strconv.ParseFloat(match[2], 64); err != nil {
			m.T.Fatal(err)
		}
	}
	return found
}

func TestTorchOverTwoMachinesIsOneProcessAndSurvivesALostOne(t *testing.T) {
	if out, err := exec.Command("/usr/bin/python3", "-c", "import torch.distributed").CombinedOutput(); err != nil {
		t.Skipf("skipped: Debian's python3-torch is not there, which `make e2e` installs: %v: %s", err, out)
	}
	m := none(t)
	m.Bridged()
	m.Server("s1")
	m.Login("s1")
	for _, name := range []string{"n1", "n2", "n3"} {
		m.Agent(name)
	}
	m.WaitFor("all agents to be ready", 30*time.Second, func() bool { return m.Ready() == 3 })
	example, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	const epochs = 150
	train := func(name string, flags ...string) {
		m.Exits(0, append([]string{
			"train", "--script", filepath.Join(example, "torch", "train.py"), "--python", "/usr/bin/python3", "--name", name,
			"--data", filepath.Join(example, "digits", "train.csv.gz"), "--hyperparameter", "epochs=" + strconv.Itoa(epochs),
		}, flags...)...)
	}
	gang := []string{"--framework", "torch", "--instances", "2", "--cores", "3", "--retries", "3", "--detach"}

	train("alone")
	alone := m.losses("alone") // now: the machine that has them may be lost
	train("pair", gang...)
	m.Exits(0, "wait", "pair")
	pair := m.losses("pair")
	launched := m.torchrun(t, example)
	train("wounded", gang...)
	saved := func() bool {
		out, _ := m.Try("ls", "-r", "s3://clary/jobs/wounded/checkpoints/")
		return strings.Contains(out, "last.pt")
	}
	m.WaitFor("a checkpoint in the store", 60*time.Second, saved)
	lost := m.Job("wounded").Tasks[0].Node
	m.Cut(lost)
	m.Exits(0, "wait", "wounded", "--timeout", "3m")
	m.Again(lost) // and tidies up

	view := m.Job("wounded")
	nodes := map[string]bool{}
	for _, task := range view.Tasks {
		if task.Attempt == view.Attempt {
			nodes[task.Node] = true
		}
	}
	if view.Attempt < 2 || nodes[lost] || len(nodes) != 2 {
		t.Errorf("attempt %d on %v, after %s was lost", view.Attempt, nodes, lost)
	}
	if out := m.Exits(0, "logs", "wounded", "worker-0"); !strings.Contains(out, "resumed after epoch") || strings.Contains(out, "epoch 0 ") {
		t.Errorf("it began anew: %s", out)
	}
	wounded := m.losses("wounded")
	if len(alone) != epochs || len(pair) != epochs || len(wounded) == 0 || len(wounded) >= epochs {
		t.Fatalf("epochs seen: %d alone, %d in a pair, %d after the loss", len(alone), len(pair), len(wounded))
	}
	for epoch, want := range alone {
		for name, found := range map[string]map[int]float64{"pair": pair, "torchrun": launched, "wounded": wounded} {
			if got, ok := found[epoch]; ok && math.Abs(got-want) > 1e-3*want+1e-5 {
				t.Errorf("%s: loss %g after epoch %d, and %g in one process", name, got, epoch, want)
			}
		}
	}
	t.Logf("last losses: %g alone, %g in a pair, %g after a loss in %d epochs", alone[epochs-1], pair[epochs-1], wounded[epochs-1], len(wounded))
}

// torchrun trains for a while with torch's own launcher, which finds all it needs in its
// environment. Debian's crashes unless it is told not to redirect.
func (m *machines) torchrun(t *testing.T, example string) map[int]float64 {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(example, "torch", "train.py"))
	if err != nil {
		t.Fatal(err)
	}
	source := m.tree("launched", map[string]string{
		"train.py":  string(program),
		"launch.sh": `exec /usr/bin/python3 -m torch.distributed.run --redirects 2 --tee 2 train.py "$@"`,
	})
	const epochs = 10
	m.Exits(0, "train", "--script", "launch.sh", "--source", source, "--name", "launched", "--framework", "torch", "--instances", "2", "--cores", "3",
		"--data", filepath.Join(example, "digits", "train.csv.gz"), "--hyperparameter", "epochs="+strconv.Itoa(epochs))
	found := m.losses("launched")
	if len(found) != epochs {
		t.Errorf("torchrun trained for %d epochs", len(found))
	}
	return found
}
