// Package staging moves a task's data: inputs in, through a cache that all tasks of
// a node share; outputs and checkpoints out.
//
// It knows folders and a store of objects, and nothing of tasks' lives.
package staging

import (
	"context"
	"io"
	"path"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Reader is where inputs come from: an S3 in production.
type Reader interface {
	// List returns all objects whose key begins with prefix, in order.
	List(ctx context.Context, bucket, prefix string) ([]Object, error)
	// Stat describes one object; NotFound if there is none.
	Stat(ctx context.Context, bucket, key string) (Object, error)
	// Open reads one object from its beginning; NotFound if there is none.
	Open(ctx context.Context, bucket, key string) (io.ReadCloser, Object, error)
	// OpenRange reads length bytes of an object, at least one, from offset on; Conflict if
	// it is no longer the one described.
	OpenRange(ctx context.Context, bucket string, object Object, offset, length int64) (io.ReadCloser, error)
}

// Store is where outputs go too.
type Store interface {
	Reader
	// Put writes one object of size bytes; all of it or nothing is seen by others.
	Put(ctx context.Context, bucket, key string, from io.Reader, size int64) error
	// Copy copies an object inside the store; NotFound if there is none.
	Copy(ctx context.Context, bucket, key, toBucket, toKey string) error
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, bucket, key string) error
}

// Object is what a store says of an object. ETag changes when the content does.
type Object struct {
	Key  string
	ETag string
	Size int64
}

// ParseURI splits s3://bucket/key; the key may be empty or end with '/'.
func ParseURI(uri string) (bucket, key string, err error) {
	rest, ok := strings.CutPrefix(uri, "s3://")
	bucket, key, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return "", "", fault.New(fault.Invalid, "%q is not s3://bucket/key", cluster.Clip(uri))
	}
	return bucket, key, nil
}

// Folders are the places of the task contract below a base folder: what /opt/ml is
// in a SageMaker container.
type Folders struct{ Base string }

// Input is where a channel's files are.
func (f Folders) Input(channel string) string { return path.Join(f.Base, "input", "data", channel) }

// Of is where an input's files are: in the folder that it names, in that of models, or in its
// channel's.
func (f Folders) Of(input cluster.Input) string {
	switch {
	case input.Folder != "":
		return path.Join(f.Base, input.Folder)
	case input.Model:
		return f.Model()
	}
	return f.Input(input.Channel)
}

// Processing holds the inputs and outputs of a task with the processing contract.
func (f Folders) Processing() string { return path.Join(f.Base, cluster.ProcessingFolder) }

// JobConfig holds the JSON files that describe the run to a task with the processing contract.
func (f Folders) JobConfig() string { return path.Join(f.Base, "config") }

// Message is the file whose first bytes are a task's exit message.
func (f Folders) Message() string { return path.Join(f.Base, "output", "message") }

// Data holds all channels.
func (f Folders) Data() string { return path.Join(f.Base, "input", "data") }

// Config holds the JSON files that describe the run.
func (f Folders) Config() string { return path.Join(f.Base, "input", "config") }

// Model is where a task leaves its model.
func (f Folders) Model() string { return path.Join(f.Base, "model") }

// OutputData is where a task leaves other results.
func (f Folders) OutputData() string { return path.Join(f.Base, "output", "data") }

// OutputIntermediate is copied to the store while the task runs.
func (f Folders) OutputIntermediate() string { return path.Join(f.Base, "output", "intermediate") }

// Metrics is a file to which the task may append what it wants to be known of its work.
func (f Folders) Metrics() string { return path.Join(f.Base, "output", "metrics.jsonl") }

// Code is where a script's source is unpacked.
func (f Folders) Code() string { return path.Join(f.Base, "code") }

// PreemptAt is a file that appears when the task is asked to end: until when it may run.
func (f Folders) PreemptAt() string { return path.Join(f.Config(), "PREEMPT_AT") }

// Failure is the file whose first 1024 characters tell why a task failed.
func (f Folders) Failure() string { return path.Join(f.Base, "output", "failure") }

// Checkpoints is mirrored to the store while the task runs.
func (f Folders) Checkpoints() string { return path.Join(f.Base, "checkpoints") }

// All lists the folders that exist before a task starts.
func (f Folders) All(program cluster.Program) []string {
	if program.Contract == cluster.ContractProcessing {
		all := []string{f.Data(), f.Config(), f.JobConfig(), f.Processing(), path.Dir(f.Message())}
		if program.Source != "" {
			all = append(all, f.Code())
		}
		if program.Checkpoints {
			all = append(all, f.Checkpoints())
		}
		for _, export := range program.Exports {
			all = append(all, path.Join(f.Base, export.Folder))
		}
		return all
	}
	return []string{f.Data(), f.Config(), f.Model(), f.OutputData(), f.OutputIntermediate(), f.Code(), f.Checkpoints()}
}

// relative is the part of a key after its prefix, as a path below a folder. A key
// that would lead out of the folder is refused.
func relative(key, prefix string) (string, error) {
	name := strings.TrimPrefix(key, prefix)
	if name == "" || strings.ContainsRune(name, 0) || path.IsAbs(name) || path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../") {
		return "", fault.New(fault.Invalid, "object %q cannot become a file: its name has empty, '.' or '..' parts", cluster.Clip(key))
	}
	return name, nil
}
