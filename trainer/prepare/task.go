package prepare

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/steps"
)

// Task is one task of a job that does ready-made steps.
type Task struct {
	steps.Task
	Base    string    // folder that all others are below
	Metrics string    // file for lines of JSON that say how far it is; "" for none
	Out     io.Writer // for people
	Tell    func(reading int, rows int64)
}

// TaskFromEnv reads what the agent tells a task.
func TaskFromEnv(getenv func(string) string) (Task, error) {
	t := Task{Base: getenv("SAGEMAKER_BASE_DIR"), Metrics: getenv("CLARY_METRICS"), Out: os.Stdout}
	if t.Base == "" {
		t.Base = "/opt/ml"
	}
	text, err := os.ReadFile(getenv("CLARY_SPEC"))
	if err == nil {
		err = json.Unmarshal(text, &t.Task)
	}
	if err != nil {
		return t, fault.New(fault.Invalid, "CLARY_SPEC=%q: %w: give the path of what is to be done", getenv("CLARY_SPEC"), err)
	}
	return t, nil
}

// Input is the folder of an input.
func (t Task) Input(name string) string { return filepath.Join(t.Base, t.Inputs[name]) }

// OutputFolder is where what it makes goes.
func (t Task) OutputFolder() string { return filepath.Join(t.Base, t.Output) }

// Prepare does the plan, if there is one, and tells how far it is.
func (t Task) Prepare(ctx context.Context) (Report, error) {
	if t.Plan == nil {
		return Report{}, nil
	}
	inputs := map[string]string{}
	for name := range t.Inputs {
		inputs[name] = t.Input(name)
	}
	return Run{Plan: *t.Plan, Inputs: inputs, Output: t.OutputFolder(), Workers: t.Workers, Tell: t.Tell}.Do(ctx)
}

// Leave writes one of the files by which a task tells of its end: message or failure.
func (t Task) Leave(name, text string) {
	folder := filepath.Join(t.Base, "output")
	if os.MkdirAll(folder, 0o755) == nil {
		_ = os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644) // it is in the log too
	}
}

// String says in one line what was done.
func (r Report) String() string {
	var parts []string
	for _, part := range slices.Sorted(maps.Keys(r.Parts)) {
		parts = append(parts, fmt.Sprintf("%s %d", part, r.Parts[part]))
	}
	text := fmt.Sprintf("%d rows: %s", r.Rows, strings.Join(parts, ", "))
	if r.Left > 0 {
		text += fmt.Sprintf(", left out %d", r.Left)
	}
	if r.Broken > 0 {
		text += fmt.Sprintf(", broken %d", r.Broken)
	}
	return text
}

const tellEvery = time.Second

// Teller tells once a second how far the readings are, a reading's number as epoch and its rows as
// steps: people by a line, programs by one of JSON.
func (t Task) Teller() (tell func(reading int, rows int64), done func() error, err error) {
	var metrics io.WriteCloser
	if t.Metrics != "" {
		if metrics, err = os.OpenFile(t.Metrics, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
			return nil, nil, fault.New(fault.Internal, "open the metrics file: %w", err)
		}
	}
	last, at, told := time.Now(), 0, int64(0)
	tell = func(reading int, rows int64) {
		passed := time.Since(last)
		if passed < tellEvery {
			return
		}
		if reading != at {
			at, told = reading, 0
		}
		rate := float64(rows-told) / passed.Seconds()
		last, told = time.Now(), rows
		_, _ = fmt.Fprintf(t.Out, "reading %d: %d rows\n", reading, rows) // that nobody reads it ends nothing
		if metrics != nil {
			_, _ = fmt.Fprintf(metrics, "{\"epoch\": %d, \"step\": %d, \"metrics\": {\"rows_per_second\": %.0f}}\n", reading, rows, rate)
		}
	}
	done = func() error {
		if metrics == nil {
			return nil
		}
		return metrics.Close()
	}
	return tell, done, nil
}
