package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/steps"
)

// An attempt that repeats a killed one makes the same bytes, whatever the time is.
func TestAProfileOfAJobTellsNoTime(t *testing.T) {
	task := prepare.Task{Base: t.TempDir(), Out: io.Discard}
	task.Inputs, task.Output, task.Profile = map[string]string{steps.MainInput: "in"}, "out", true
	for _, folder := range []string{"in", "out"} {
		if err := os.Mkdir(filepath.Join(task.Base, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(task.Base, "in", "rows.csv"), []byte("a,b\n1,x\n2,y\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := doSteps(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(task.OutputFolder(), profilePage))
	if err != nil || !strings.Contains(string(page), "rows.csv") {
		t.Fatalf("%d bytes, %v", len(page), err)
	}
	if told := regexp.MustCompile(`\d+:\d\d UTC|20\d\d`).FindString(string(page)); told != "" {
		t.Errorf("it tells %q", told)
	}
}
