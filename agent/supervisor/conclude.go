package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
	"github.com/clary-ml/clary/storage/journal"
)

const uploadPause = 5 * time.Second

// conclude turns an exit into the task's last state, after saving what it made. A
// stopped task's outputs are saved too; a failed one's checkpoints only.
func (t *task) conclude(ctx context.Context, exit runtime.Exit) {
	assignment := t.assignment()
	state, reason := verdict(exit, assignment, t.failure())
	if why := t.starved(state); why != nil {
		state, reason = cluster.TaskFailed, why.Error()
	} else if why := t.sentence(state); why != "" {
		state, reason = cluster.TaskFailed, why
	} else if state == cluster.TaskStopped {
		reason = t.stopReason()
		if exit.Signal == int(syscall.SIGKILL) && isClosed(t.stop) {
			reason += fmt.Sprintf("; it did not end within its grace of %s and was killed", grace(assignment.Program))
		}
	}
	t.become(func(s *cluster.TaskStatus) {
		s.ExitCode, s.Healthy = exitCode(exit), 0
		if !exit.Started.IsZero() {
			s.Started = exit.Started.UnixNano()
		}
		s.Ended = exit.Ended.UnixNano()
		if t.saves(assignment, state) {
			s.State = cluster.TaskUploading
		}
	})
	t.unfeed()
	outputs, err := t.save(ctx, assignment, state)
	switch {
	case ctx.Err() != nil:
		return // the next agent saves again: to the same names, the same bytes
	case err != nil && state == cluster.TaskSucceeded:
		state, reason = cluster.TaskFailed, err.Error()
	case err != nil:
		reason += "; what it made could not be saved: " + err.Error()
	}
	message := t.message(ctx, assignment.Program)
	t.become(func(s *cluster.TaskStatus) {
		s.State, s.Reason, s.Outputs, s.Message = state, reason, outputs, message
		s.Progress.Checkpoint = t.checkpoint.Load()
	})
}

// verdict says what an exit means. failure is what the task left in output/failure.
func verdict(exit runtime.Exit, assignment ledger.Assignment, failure string) (cluster.TaskState, string) {
	limit := cluster.FormatBytes(assignment.Task.Allocation.Resources.Memory)
	switch {
	case exit.Unknown && exit.Error != "":
		return cluster.TaskLost, exit.Error
	case exit.Unknown:
		return cluster.TaskLost, "its shim was killed: nobody knows how it ended"
	case exit.Cause == runtime.CauseStopped:
		return cluster.TaskStopped, ""
	case exit.Cause == runtime.CauseMaxRuntime:
		return cluster.TaskFailed, fmt.Sprintf("ran longer than its maximum run time %s", assignment.MaxRuntime) + crowded(exit)
	case exit.Cause == runtime.CauseLease:
		return cluster.TaskLost, "the node lost its coordinators for longer than its lease, and the task is exclusive"
	case exit.Error != "":
		return cluster.TaskFailed, exit.Error
	case exit.OutOfMemory:
		return cluster.TaskFailed, fmt.Sprintf("killed: out of memory (limit %s)", limit)
	case exit.Code == 0 && exit.Signal == 0:
		return cluster.TaskSucceeded, ""
	case failure != "":
		return cluster.TaskFailed, failure + crowded(exit)
	case exit.Signal != 0:
		return cluster.TaskFailed, fmt.Sprintf("signal %d (%s)", exit.Signal, syscall.Signal(exit.Signal)) + crowded(exit)
	default:
		return cluster.TaskFailed, "exit code " + strconv.Itoa(exit.Code) + crowded(exit)
	}
}

// crowded says that a task came to its limit of processes, which it may have failed of.
func crowded(exit runtime.Exit) string {
	if exit.Usage.Refused == 0 {
		return ""
	}
	return fmt.Sprintf("; it had as many processes and threads as it may (limit %d)", defaultPids)
}

func exitCode(exit runtime.Exit) int32 {
	if exit.Signal != 0 {
		return int32(128 + exit.Signal)
	}
	return int32(exit.Code)
}

// failure reads the first 1024 characters of what the task says went wrong.
func (t *task) failure() string {
	file, err := staging.OpenIn(t.folders.Base, t.folders.Failure())
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // only read
	text, _ := io.ReadAll(io.LimitReader(file, 4*1024))
	said := []rune(string(bytes.ToValidUTF8(text, []byte("\uFFFD"))))
	return strings.TrimSpace(string(said[:min(len(said), 1024)]))
}

// message is what the task left to be told of its end, as much of it as is kept, in whole
// characters. Of a service that is how its log ends.
func (t *task) message(ctx context.Context, program cluster.Program) string {
	var text []byte
	switch {
	case program.Service || program.Probe != nil:
		text = t.lastLines(ctx)
		text = text[max(0, len(text)-cluster.MaxMessage):]
	case program.Contract == cluster.ContractProcessing:
		file, err := staging.OpenIn(t.folders.Base, t.folders.Message())
		if err != nil {
			return ""
		}
		defer file.Close() //nolint:errcheck // only read
		text, _ = io.ReadAll(io.LimitReader(file, cluster.MaxMessage))
	}
	for len(text) > 0 && !utf8.RuneStart(text[0]) { // the first one may be cut
		text = text[1:]
	}
	for cut := 1; len(text) == cluster.MaxMessage && cut < utf8.UTFMax; cut++ { // or the last
		if start := len(text) - cut; utf8.RuneStart(text[start]) {
			if !utf8.FullRune(text[start:]) {
				text = text[:start]
			}
			break
		}
	}
	return strings.TrimSpace(strings.ToValidUTF8(strings.ReplaceAll(string(text), "\x00", " "), "?"))
}

// lastWords is how many lines of a service's log its message is.
const lastWords = 5

// lastLines are the end of the task's log; none where it cannot be read.
func (t *task) lastLines(ctx context.Context) []byte {
	var text []byte
	err := t.s.config.Driver.Logs(ctx, t.id(), journal.Query{Tail: lastWords}, func(batch []journal.Entry) error {
		for _, entry := range batch {
			if text = append(text, entry.Text...); !entry.Partial {
				text = append(text, '\n')
			}
		}
		return nil
	})
	if err != nil {
		t.s.config.Log.Warn("the end of a service's log cannot be told", "task", t.id(), "error", err)
	}
	return text
}

func (t *task) saves(assignment ledger.Assignment, state cluster.TaskState) bool {
	if len(assignment.Program.Exports) > 0 && state == cluster.TaskSucceeded {
		return true
	}
	return assignment.Program.Outputs && (state == cluster.TaskSucceeded || state == cluster.TaskStopped)
}

// save sends the last checkpoints and the outputs. While the store cannot be
// reached it tries again, until the task is no longer wanted.
func (t *task) save(ctx context.Context, assignment ledger.Assignment, state cluster.TaskState) ([]cluster.Output, error) {
	ctx, stop := t.whileWanted(ctx)
	defer stop()
	for {
		outputs, err := t.saveOnce(ctx, assignment, state)
		if !fault.Is(err, fault.Unready) {
			return outputs, err
		}
		t.s.config.Log.Warn("the object store cannot be reached; trying again", "task", t.id(), "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(uploadPause):
		}
	}
}

func (t *task) saveOnce(ctx context.Context, assignment ledger.Assignment, state cluster.TaskState) ([]cluster.Output, error) {
	for _, mirror := range t.mirrors() {
		if mirror.Sent != nil && (state != cluster.TaskSucceeded || isClosed(t.stop)) {
			continue // nobody knows what is whole; and what is published is copied to its address then
		}
		if err := mirror.Finish(ctx); err != nil {
			return nil, err
		}
		t.checkpointed(mirror)
	}
	if !t.saves(assignment, state) {
		return nil, nil
	}
	if t.s.config.Store == nil {
		return nil, fault.New(fault.Invalid, "the task has outputs, but this node knows no object store")
	}
	prefix := "s3://" + t.s.config.Bucket + "/" + attemptPrefix(assignment.Task)
	var outputs []cluster.Output
	for _, export := range assignment.Program.Exports {
		folder := t.folders.Below(filepath.Join(t.folders.Base, export.Folder))
		output, some, err := staging.Export(ctx, t.s.config.Store, export.Name, folder, prefix+"/outputs/"+export.Name, t.scratch(), t.continuous[export.Name])
		if err != nil {
			return nil, err
		}
		if some {
			outputs = append(outputs, output)
		}
	}
	if !assignment.Program.Outputs {
		return outputs, nil
	}
	for _, part := range []struct{ name, folder string }{{"model", t.folders.Model()}, {"output", t.folders.OutputData()}} {
		output, some, err := staging.Upload(ctx, t.s.config.Store, part.name, t.folders.Below(part.folder), prefix+"/"+part.name+".tar.gz", t.scratch())
		if err != nil {
			return nil, err
		}
		if some {
			outputs = append(outputs, output)
		}
	}
	return outputs, nil
}

// tidy frees the room of what nobody reads any more once a task has ended, what it made
// included, which is in the store or was never asked for; its log stays until it is in
// the store too.
func (t *task) tidy() {
	t.unfeed()
	errs := []error{t.dropSecrets()}
	for _, folder := range []string{t.folders.Base, t.temp(), t.scratch(), t.tlsDir()} {
		errs = append(errs, tree.RemoveAll(folder))
	}
	for _, err := range errs {
		if err != nil {
			t.s.config.Log.Warn("free a task's folder", "task", t.id(), "error", err)
		}
	}
}
