package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/internal/fault"
)

// getFromTask copies a file or folder of a running task to this machine.
func (a *App) getFromTask(ctx context.Context, c *client.Client, job, task, from, to string) error {
	if from == "" {
		return fault.New(fault.Invalid, "name a file of the task: JOB:PATH")
	}
	folder, name := path.Split(path.Clean(from))
	if name == "." || name == "/" || name == ".." {
		folder, name = from, "."
	}
	if info, err := os.Stat(to); err == nil && info.IsDir() && name != "." {
		to = filepath.Join(to, name)
	}
	parent := filepath.Dir(filepath.Clean(to))
	scratch, err := os.MkdirTemp(parent, ".clary-cp-*")
	if err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	defer os.RemoveAll(scratch)
	archive, written := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := staging.Unpack(archive, scratch)
		_, drained := io.Copy(io.Discard, archive) // tar ends with blocks of zeros
		unpacked <- errors.Join(err, drained)
	}()
	argv := []string{"tar", "-czf", "-"}
	if folder != "" {
		argv = append(argv, "-C", folder)
	}
	err = a.execTar(ctx, c, job, task, append(argv, "--", name), nil, written)
	_ = written.CloseWithError(err)
	if failed := <-unpacked; err == nil && failed != nil {
		err = fault.New(fault.Invalid, "what came from the task cannot be unpacked: %w", failed)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(scratch, name), to); err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	return nil
}

// putIntoTask copies a file or folder of this machine into a folder of a running task.
func (a *App) putIntoTask(ctx context.Context, c *client.Client, from, job, task, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", from, err)
	}
	folder, only := from, ""
	if !info.IsDir() {
		folder, only = filepath.Dir(from), filepath.Base(from)
	}
	archive, written := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := staging.Pack(ctx, folder, written, func(name string, _ bool) bool { return only != "" && name != only })
		packed <- errors.Join(err, written.CloseWithError(err))
	}()
	argv := []string{"tar", "-xzf", "-"}
	if to != "" {
		argv = append(argv, "-C", to)
	}
	err = a.execTar(ctx, c, job, task, argv, archive, nil)
	_ = archive.Close()
	if failed := <-packed; err == nil && failed != nil {
		err = fault.New(fault.Invalid, "read %s: %w", from, failed)
	}
	return err
}
