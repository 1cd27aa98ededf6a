package e2e

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"testing"
)

func TestTheSameSeedGivesTheSameModelToTheBit(t *testing.T) {
	m := start(t, 1, 1)
	digests := map[string]string{}
	for _, run := range []struct{ name, seed string }{{"once", "7"}, {"again", "7"}, {"other", "8"}} {
		m.digits(run.name, "--seed", run.seed, "--epochs", "5")
		m.Waits(0, run.name)
		digests[run.name] = m.weights(run.name)
	}
	if digests["once"] != digests["again"] {
		t.Errorf("two runs with seed 7: weights %s and %s", digests["once"], digests["again"])
	}
	if digests["once"] == digests["other"] {
		t.Error("seed 8 gives the same as 7")
	}

	// A later job of the same name must not find what an earlier one left.
	if left := m.Clary("ls", "-r", "s3://clary/jobs/once/"); !strings.Contains(left, "checkpoints") {
		t.Fatalf("the job left no checkpoints: %s", left)
	}
	m.Clary("delete", "once")
	if left, err := m.Try("ls", "-r", "s3://clary/jobs/once/", "-o", "json"); strings.Contains(left, "s3://clary/jobs/once/") {
		t.Errorf("a deleted job leaves %s (%v)", left, err)
	}
	if kept := m.Clary("ls", "-r", "s3://clary/jobs/again/"); !strings.Contains(kept, "model") {
		t.Errorf("another job's objects are gone: %s", kept)
	}
}

// weights is the digest of the weights in a job's model.
func (m *machines) weights(job string) string {
	m.T.Helper()
	packed := m.Path(job + ".tar.gz")
	m.Clary("cp", m.Job(job).Outputs[0].URI, packed)
	file, err := os.Open(packed)
	if err != nil {
		m.T.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		m.T.Fatal(err)
	}
	for entries := tar.NewReader(unzipped); ; {
		entry, err := entries.Next()
		if err != nil {
			m.T.Fatalf("no weights in the model of %s: %v", job, err)
		}
		if path.Base(entry.Name) != "weights.bin" {
			continue
		}
		digest := sha256.New()
		if size, err := io.Copy(digest, entries); err != nil || size < 4*17226 {
			m.T.Fatalf("%d bytes of weights: %v", size, err)
		}
		return fmt.Sprintf("%x", digest.Sum(nil))
	}
}
