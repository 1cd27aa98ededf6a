package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
)

// trainProgram is the /opt/program/train of a hand-made training image, as people make
// them for SageMaker: it knows /opt/ml and nothing of Clary.
const trainProgram = `#!/bin/sh
set -e
echo "job $TRAINING_JOB_NAME as $(id -u) on $(cat /opt/ml/input/config/resourceconfig.json)"
rows=$(wc -l </opt/ml/input/data/train/rows.csv)
if grep -q '"fail":"yes"' /opt/ml/input/config/hyperparameters.json; then
	echo "AlgorithmError: $rows rows are too few" >/opt/ml/output/failure
	exit 1
fi
eta=$(sed -n 's/.*"eta":"\([0-9.]*\)".*/\1/p' /opt/ml/input/config/hyperparameters.json)
test -z "$eta" || echo "[0] validation-auc:$eta"
touch /root-is-mine 2>/dev/null && echo "wrote the image's root"
echo "rows=$rows" >/opt/ml/model/model.txt
mkdir -p /opt/ml/output/data && echo done >/opt/ml/output/data/notes.txt
`

// trainImage writes the image as docker save would, made a little different if change says so.
func trainImage(t *testing.T, path string, change ...func(*v1.Config)) {
	t.Helper()
	image(t, path, map[string]string{"train": trainProgram}, change...)
}

// image writes an image with programs in /opt/program.
func image(t *testing.T, path string, programs map[string]string, change ...func(*v1.Config)) {
	t.Helper()
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	headers := []tar.Header{{Name: "opt/program/", Typeflag: tar.TypeDir, Mode: 0o755}}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		headers = append(headers, tar.Header{Name: "opt/program/" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(programs[name]))})
	}
	for _, header := range headers {
		if err := archive.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(archive, programs[strings.TrimPrefix(header.Name, "opt/program/")]); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	root, err := io.ReadAll(enginetest.RootFS(t))
	if err != nil {
		t.Fatal(err)
	}
	built := empty.Image
	for _, content := range [][]byte{root, layer.Bytes()} {
		made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if built, err = mutate.AppendLayers(built, made); err != nil {
			t.Fatal(err)
		}
	}
	config := v1.Config{Env: []string{"PATH=/opt/program:/bin"}, WorkingDir: "/opt/program"}
	for _, c := range change {
		c(&config)
	}
	built, err = mutate.Config(built, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(path, name.MustParseReference("team/trainer:1"), built); err != nil {
		t.Fatal(err)
	}
}

func TestAHandMadeImageTrains(t *testing.T) {
	e := engine(t)
	m := start(t, 1, 1) // n1 has no engine
	m.Agent("n2", "--container-engine", e.Socket)
	m.WaitFor("both agents to be ready", 30*time.Second, func() bool { return m.Ready() == 2 })
	image := m.Path("trainer.tar")
	trainImage(t, image)
	data := m.tree("data", map[string]string{"rows.csv": "1,2\n3,4\n"})
	train := func(name string, extra ...string) []string {
		return append([]string{"train", "--image", image, "--data", data, "--name", name}, extra...)
	}

	m.Exits(0, train("hand-made")...)
	said := m.Exits(0, "logs", "hand-made")
	if !strings.Contains(said, "job hand-made as 2") || !strings.Contains(said, `"current_host":"algo-1"`) || strings.Contains(said, "wrote") {
		t.Errorf("it said %s", said)
	}
	view := m.Job("hand-made")
	if len(view.Outputs) != 2 || len(view.Tasks) != 1 || view.Tasks[0].Node != "n2" {
		t.Errorf("outputs %+v of tasks %+v", view.Outputs, view.Tasks)
	}
	m.Exits(0, "cp", "s3://clary/jobs/hand-made/attempts/1/worker-0/model.tar.gz", m.Path("model.tar.gz"))
	if info, err := os.Stat(m.Path("model.tar.gz")); err != nil || info.Size() == 0 {
		t.Errorf("the model: %v", err)
	}

	// Its failure file is the job's reason.
	if out := m.Exits(1, train("fails", "--hyperparameter", "fail=yes")...); !strings.Contains(out, "AlgorithmError: 2 rows are too few") {
		t.Errorf("it failed with %s", out)
	}
	// Any program in an image, and an agent that is gone meanwhile.
	m.Exits(0, "run", "--image", image, "--name", "long", "--detach", "--", "sh", "-c", "echo here; sleep 3; exit 7")
	m.WaitFor("the container to run", 30*time.Second, func() bool { out, _ := m.Try("logs", "long"); return strings.Contains(out, "here") })
	m.Kill("n2")
	m.Again("n2")
	m.Exits(7, "wait", "long")
	// A stop is a stop.
	m.Exits(0, "run", "--image", image, "--name", "stopped", "--detach", "--", "sh", "-c", "echo here; sleep 60")
	m.WaitFor("the container to run", 30*time.Second, func() bool { out, _ := m.Try("logs", "stopped"); return strings.Contains(out, "here") })
	m.Exits(0, "cancel", "stopped")
	m.Exits(1, "wait", "stopped")
	// An engine that goes takes its containers with it; that costs no retry.
	m.Exits(0, "run", "--image", image, "--name", "orphaned", "--detach", "--", "sh", "-c", "echo here; sleep 4")
	m.WaitFor("the container to run", 30*time.Second, func() bool { out, _ := m.Try("logs", "orphaned"); return strings.Contains(out, "here") })
	e.Crash()
	e.Run()
	m.Exits(0, "wait", "orphaned", "--timeout", "90s")
	if view := m.Job("orphaned"); view.Attempt != 2 {
		t.Errorf("it needed %d attempts", view.Attempt)
	}
	m.Exits(0, "delete", "hand-made", "fails", "long", "stopped", "orphaned")
}

// What SageMaker promises of entry points and arguments, of several hosts, of a stop and of
// checkpoints holds in a container as it does in a process.
func TestTheContractHoldsInContainers(t *testing.T) {
	e := engine(t)
	m := none(t)
	m.Server("s1")
	m.Login("s1")
	m.Agent("n1", "--container-engine", e.Socket)
	m.Agent("n2", "--container-engine", e.Socket)
	m.WaitFor("both agents to be ready", 30*time.Second, func() bool { return m.Ready() == 2 })
	image := m.Path("trainer.tar")
	trainImage(t, image, func(c *v1.Config) { c.Entrypoint, c.Cmd = []string{"echo", "entry"}, []string{"by itself"} })
	train := func(args ...string) string {
		return m.Exits(0, append([]string{"train", "--image", image}, args...)...)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"plain":      {nil, "entry train\n"},                               // SageMaker's argument in place of the image's own
		"argued":     {[]string{"--", "a", "b c"}, "entry a b c\n"},        // arguments in its place
		"entered":    {[]string{"--entrypoint", "pwd"}, "/opt/program\n"},  // an entry point, and no argument
		"both-given": {[]string{"--entrypoint", "echo", "--", "x"}, "x\n"}, // both
	} {
		train(append([]string{"--name", name}, c.args...)...)
		if said := m.Clary("logs", name); said != c.want {
			t.Errorf("%s: it said %q, want %q", name, said, c.want)
		}
	}

	// A container may have an address of its own, and knows itself there.
	train("--name", "bridged", "--container-network", "bridge", "--entrypoint", "sh", "--", "-c",
		`ls /sys/class/net; grep network_interface_name /opt/ml/input/config/resourceconfig.json; grep algo-1 /etc/hosts`)
	if said := m.Clary("logs", "bridged"); !strings.HasPrefix(said, "eth0\nlo\n") || !strings.Contains(said, `"network_interface_name":"eth0"`) || !strings.Contains(said, "127.0.0.1") {
		t.Errorf("behind a bridge it said %q", said)
	}

	// Two hosts know one another by name; what both leave becomes one model, and what both
	// name differently is told.
	train("--name", "pair", "--instances", "2", "--cores", "3", "--to", "s3://models/pair/", "--entrypoint", "sh", "--", "-c",
		`grep -E "algo-[12]$" /etc/hosts; hostname; cd /opt/ml/model; echo $CLARY_INDEX >who; echo same >same; echo x >only-$CLARY_INDEX`)
	if said := m.Clary("logs", "pair", "worker-0"); strings.Count(said, "127.0.0.1") != 2 || !strings.HasSuffix(strings.TrimSpace(said), "algo-1") {
		t.Errorf("the first host said %q", said)
	}
	if view := m.Job("pair"); !strings.Contains(view.Reason, "who of worker-1") || strings.Contains(view.Reason, "same") || len(view.Outputs) != 2 {
		t.Errorf("the pair's reason is %q, its outputs %v", view.Reason, view.Outputs)
	}
	m.Clary("cp", "s3://models/pair/model.tar.gz", m.Path("merged.tar.gz"))
	if merged := untar(t, m.Path("merged.tar.gz")); merged["who"] != "0\n" || merged["same"] != "same\n" || len(merged) != 4 {
		t.Errorf("merged is %v", merged)
	}

	// Whoever is stopped has its grace, and what it leaves is kept.
	train("--name", "stopped", "--detach", "--entrypoint", "sh", "--", "-c",
		`trap "sleep 1; cat /opt/ml/input/config/PREEMPT_AT >/opt/ml/model/late; exit 0" TERM; echo here; while :; do sleep 0.1; done`)
	m.WaitFor("the container to run", 30*time.Second, func() bool { out, _ := m.Try("logs", "stopped"); return strings.Contains(out, "here") })
	m.Clary("cancel", "stopped")
	m.Waits(1, "stopped")
	m.Clary("cp", "s3://clary/jobs/stopped/attempts/1/worker-0/model.tar.gz", m.Path("late.tar.gz"))
	if late := untar(t, m.Path("late.tar.gz")); !strings.HasPrefix(late["late"], "20") {
		t.Errorf("the stopped one left %v", late)
	}

	// Its checkpoints outlive the engine that took it away.
	train("--name", "resumes", "--detach", "--entrypoint", "sh", "--", "-c",
		`cd /opt/ml/checkpoints; if [ -e last ]; then echo resumed from $(cat last); exit 0; fi; echo 7 >last; echo saved; while :; do sleep 0.1; done`)
	m.WaitFor("a checkpoint in the store", 30*time.Second, func() bool {
		out, _ := m.Try("ls", "-r", "s3://clary/jobs/resumes/checkpoints/")
		return strings.Contains(out, "last")
	})
	e.Crash()
	e.Run()
	m.Waits(0, "resumes")
	if said := m.Clary("logs", "resumes"); !strings.Contains(said, "resumed from 7") {
		t.Errorf("the next attempt said %q", said)
	}
}

// untar reads a .tar.gz's files by name.
func untar(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(text)
	}
}

func TestAnImageWithoutAnEngineSaysWhy(t *testing.T) {
	m := start(t, 1, 1)
	m.refuses(nil, []string{"run", "--image", "busybox", "--", "true"}, "has not the labels clary.containers=yes")
	m.refuses(nil, []string{"run", "--entrypoint", "sh", "--", "true"}, "--entrypoint is for a container")
}

// serveProgram and answerProgram are a hand-made serving image: a shell that speaks as much HTTP as
// SageMaker's contract takes, one connection a request.
const (
	serveProgram  = "#!/bin/sh\nexec nc -ll -p ${SAGEMAKER_BIND_TO_PORT:-8080} -e answer\n"
	answerProgram = `#!/bin/sh
cr=$(printf '\r')
read -r method path rest
size=0
while read -r field value && test "$field" != "$cr"; do
	case $field in
	[Cc]ontent-[Ll]ength:) size=${value%"$cr"} ;;
	esac
done
body=
test "$path" = /ping || body="VERSION has $(cat /opt/ml/model/weight.txt) and got $(head -c "$size")"
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "${#body}" "$body"
`
)

func TestAHandMadeImageServes(t *testing.T) {
	e := engine(t)
	m := none(t)
	m.Bridged()
	m.Server("s1")
	m.Login("s1")
	m.Agent("n1", "--container-engine", e.Socket)
	m.WaitFor("the agent to be ready", 30*time.Second, func() bool { return m.Ready() == 1 })
	images := map[string]string{}
	for _, version := range []string{"first", "second"} {
		images[version] = m.Path(version + ".tar")
		image(t, images[version], map[string]string{"serve": serveProgram, "answer": strings.ReplaceAll(answerProgram, "VERSION", version)})
	}
	model := m.tree("model", map[string]string{"weight.txt": "7"})
	answers := func(want string) {
		t.Helper()
		m.WaitFor("the answer "+want, time.Minute, func() bool {
			said, _ := m.Try("invoke", "hand", "--data", "rows")
			return strings.Contains(said, want)
		})
	}

	m.Exits(0, "deploy", model, "--name", "hand", "--image", images["first"], "--replicas", "2", "--cores", "0.2", "--memory", "64MiB", "--timeout", "2m")
	answers("first has 7 and got rows")
	// With an address of its own, a container has a port that is always the same.
	m.Exits(0, "deploy", model, "--name", "apart", "--image", images["second"], "--port", "8080", "--replicas", "2", "--cores", "0.2", "--memory", "64MiB", "--timeout", "2m")
	if said := m.Exits(0, "invoke", "apart", "--data", "x"); !strings.Contains(said, "second has 7 and got x") {
		t.Errorf("the answer is %s", said)
	}
	m.Exits(0, "endpoint", "update", "hand", "--image", images["second"], "--timeout", "2m")
	answers("second has 7 and got rows")
	m.Exits(0, "endpoint", "delete", "hand")
	m.Exits(0, "endpoint", "delete", "apart")
}
