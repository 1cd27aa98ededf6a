package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
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
touch /root-is-mine 2>/dev/null && echo "wrote the image's root"
echo "rows=$rows" >/opt/ml/model/model.txt
mkdir -p /opt/ml/output/data && echo done >/opt/ml/output/data/notes.txt
`

// trainImage writes the image as docker save would.
func trainImage(t *testing.T, path string) {
	t.Helper()
	var program bytes.Buffer
	archive := tar.NewWriter(&program)
	for _, header := range []tar.Header{
		{Name: "opt/program/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "opt/program/train", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(trainProgram))},
	} {
		if err := archive.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if header.Size > 0 {
			if _, err := archive.Write([]byte(trainProgram)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	root, err := io.ReadAll(enginetest.RootFS(t))
	if err != nil {
		t.Fatal(err)
	}
	image := empty.Image
	for _, layer := range [][]byte{root, program.Bytes()} {
		made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, made); err != nil {
			t.Fatal(err)
		}
	}
	image, err = mutate.Config(image, v1.Config{Env: []string{"PATH=/opt/program:/bin"}, WorkingDir: "/opt/program"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(path, name.MustParseReference("team/trainer:1"), image); err != nil {
		t.Fatal(err)
	}
}

func TestAHandMadeImageTrains(t *testing.T) {
	e := enginetest.Open(t, "docker")
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

func TestAnImageWithoutAnEngineSaysWhy(t *testing.T) {
	m := start(t, 1, 1)
	m.refuses(nil, []string{"run", "--image", "busybox", "--", "true"}, "has not the labels clary.containers=yes")
	m.refuses(nil, []string{"run", "--entrypoint", "sh", "--", "true"}, "--entrypoint is for a container")
}
