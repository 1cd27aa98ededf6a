// Package feeder serves the inputs of a task that are not files of its own: folders whose
// files are fetched when they are read, and pipes. Each task with such inputs has a
// process for them, which like the task outlives the agent.
//
// Agent and feeder speak through the task's folder:
//
//	feeder.json    agent → feeder   what to serve (Instructions)
//	feeder.alive   a pipe that the feeder alone has open to write, from its first instant on:
//	               it ends when the feeder does, and carries a letter when it is ready ('r')
//	               and when it has failed ('f')
//	feeder.pid     feeder → agent   whom to signal, once it is known to be alive
//	feeder.failed  feeder → agent   why it cannot serve, or the agent's note that it died
//	feeder.log     what it has to complain about
//	feed/CHANNEL   where a channel in fast_file mode is mounted
package feeder

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// The files in a task's folder.
const (
	instructionsFile = "feeder.json"
	aliveFile        = "feeder.alive"
	pidFile          = "feeder.pid"
	failedFile       = "feeder.failed"
	logFile          = "feeder.log"
	shownFolder      = "feed"
)

// What a feeder says in its pipe.
const (
	ready  = 'r'
	failed = 'f'
)

// Argument is the first of a feeder's program; the task's folder follows.
const Argument = "feeder"

// AliveDescriptor is where a feeder finds its pipe.
const AliveDescriptor = 3

// Instructions are what a feeder serves.
type Instructions struct {
	Inputs  []cluster.Input `json:"inputs"`  // in the modes fast_file and pipe
	Share   staging.Share   `json:"share"`   // of those that are sharded
	Data    string          `json:"data"`    // folder for pipes, which nobody else may write
	Scratch string          `json:"scratch"` // folder for what must be put down
	Access  string          `json:"access"`  // file that says where the store is: see WriteAccess
	Cache   string          `json:"cache"`   // folder for blocks of files, shared by all feeders; "" keeps none
	Limit   int64           `json:"limit"`   // bytes that the cache may hold
	Until   string          `json:"until"`   // file of the task's folder that appears when the task has ended
}

// Shown is where a channel in fast_file mode is seen, below the task's folder: outside of
// what the task may rename.
func Shown(dir, channel string) string { return filepath.Join(dir, shownFolder, channel) }

// failure is what feeder.failed holds.
type failure struct {
	Kind fault.Kind `json:"kind"`
	Text string     `json:"text"`
}

func writeFailure(dir string, err error) error {
	return writeJSON(dir, failedFile, failure{fault.KindOf(err), err.Error()})
}

// Failure is why a task's feeder could not go on, nil if nothing is known of that. It
// stays when the feeder has ended.
func Failure(dir string) error {
	var f failure
	text, err := os.ReadFile(filepath.Join(dir, failedFile))
	if err != nil || json.Unmarshal(text, &f) != nil {
		return nil
	}
	return fault.New(f.Kind, "%s", f.Text)
}

func writeJSON(dir, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, name), text)
}

// replace writes a file at once, for the agent's user alone.
func replace(path string, text []byte) error {
	temp := path + ".tmp"
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func remove(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
