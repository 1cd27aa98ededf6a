package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pythonClient installs sdk/python into a virtual environment and returns its interpreter.
func (m *machines) pythonClient() string {
	m.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	folder := m.Path("venv")
	if out, err := exec.CommandContext(ctx, "/usr/bin/python3", "-m", "venv", folder).CombinedOutput(); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	// Built from a copy: the build leaves its folders beside the source.
	source := m.Path("python")
	if out, err := exec.CommandContext(ctx, "cp", "-r", filepath.Join("..", "..", "sdk", "python"), source).CombinedOutput(); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	pip := exec.CommandContext(ctx, filepath.Join(folder, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", source)
	if out, err := pip.CombinedOutput(); err != nil {
		if text := string(out); strings.Contains(text, "No matching distribution") || strings.Contains(text, "connection") {
			m.T.Skipf("skipped: grpcio and protobuf cannot be had here: %s", out)
		}
		m.T.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(folder, "bin", "python")
}

func TestThePythonClientRunsJobsAndStudies(t *testing.T) {
	m := start(t, 1, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	tests := exec.CommandContext(ctx, m.pythonClient(), "-m", "unittest", "discover", "-v", "-s", "tests")
	tests.Dir = m.Path("python")
	tests.Env = slices.Clone(m.Env)
	out, err := tests.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "skipped") || !strings.Contains(string(out), "test_a_job_is_submitted_followed_and_waited_for") {
		t.Errorf("not all was tested:\n%s", out)
	}
	t.Logf("%s", out)
}
