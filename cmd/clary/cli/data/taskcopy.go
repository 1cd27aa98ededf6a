package data

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
)

// taskFile splits JOB:PATH or JOB/TASK:PATH; false if the text is a file of this machine.
func taskFile(text string) (job, task, path string, ok bool) {
	where, path, found := strings.Cut(text, ":")
	if !found || strings.HasPrefix(text, ".") || strings.HasPrefix(text, "/") || strings.HasPrefix(path, "//") || where == "" {
		return "", "", "", false
	}
	job, task, _ = strings.Cut(where, "/")
	return job, task, path, true
}

var errNoTar = errors.New("the task has no tar, or no sh, which copy files: use clary exec with a program that it has")

// execTar runs tar beside a task.
func (a app) execTar(ctx context.Context, c *client.Client, job, task string, argv []string, stdin io.Reader, stdout io.Writer) error {
	var said strings.Builder
	code, err := c.Exec(ctx, client.ExecRequest{Job: job, Task: task, Argv: argv, Action: "cp", Stdin: stdin, Stdout: stdout, Stderr: &said})
	switch {
	case fault.Is(err, fault.Invalid) && strings.Contains(err.Error(), argv[0]):
		return fault.New(fault.Invalid, "%w: %w", errNoTar, err)
	case err != nil:
		return err
	case code != 0:
		return fault.New(fault.Invalid, "tar in the task: exit code %d: %s", code, strings.TrimSpace(said.String()))
	}
	return nil
}

// getFromTask copies a file or folder of a running task to this machine, or a file to
// standard output.
func (a app) getFromTask(ctx context.Context, c *client.Client, job, task, from, to string) error {
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
	if to == "-" {
		parent = ""
	}
	scratch, err := os.MkdirTemp(parent, ".clary-cp-*")
	if err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	defer os.RemoveAll(scratch)
	if err := a.fetchFromTask(ctx, c, job, task, folder, name, scratch); err != nil {
		return err
	}
	if to == "-" {
		return a.show(filepath.Join(scratch, name), from)
	}
	if err := os.Rename(filepath.Join(scratch, name), to); err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	return nil
}

// fetchFromTask unpacks a file or folder of a running task into a folder here. What leads
// out of it, or is no file, is left out: a task could mean harm.
func (a app) fetchFromTask(ctx context.Context, c *client.Client, job, task, folder, name, scratch string) error {
	archive, written := io.Pipe()
	unpacked := make(chan error, 1)
	within := name
	if name == "." {
		within = ""
	}
	go func() {
		err := staging.UnpackBelow(archive, scratch, within, func(name string, why error) {
			a.Note("clary: %s is left out: %s", shell.OneLine(name), shell.OneLine(why.Error()))
		})
		_, drained := io.Copy(io.Discard, archive) // tar ends with blocks of zeros
		unpacked <- errors.Join(err, drained)
	}()
	argv := []string{"tar", "-czf", "-"}
	if folder != "" {
		argv = append(argv, "-C", folder)
	}
	err := a.execTar(ctx, c, job, task, append(argv, "--", name), nil, written)
	_ = written.CloseWithError(err)
	if failed := <-unpacked; err == nil && failed != nil {
		err = fault.New(fault.Invalid, "what came from the task cannot be unpacked: %w", failed)
	}
	return err
}

// show writes a file to standard output.
func (a app) show(file, from string) error {
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, "%s is no file: name a folder to copy it into instead of -", from)
	}
	content, err := os.Open(file)
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = io.Copy(a.Out, content)
	return err
}

// receive is what a task does with an archive: it comes to be at $1, or in $1 if that is a
// folder, as $2, by way of the new folder $3 beside it.
const receive = `to=${1:-$2}; [ -d "$to" ] && to=$to/$2
by=$(dirname -- "$to")/$3; mkdir -- "$by" && tar -xzf - -C "$by" && {
	if [ "$4" = file ]; then mv -f -- "$by/$2" "$to"
	elif [ -d "$to" ]; then cp -R -- "$by/." "$to"
	else mv -- "$by" "$to"; fi
}; said=$?; rm -rf -- "$by"; exit $said`

// putIntoTask copies a file or folder of this machine into a running task: into a folder
// that is there, or to a new name.
func (a app) putIntoTask(ctx context.Context, c *client.Client, from, job, task, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", from, err)
	}
	absolute, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	folder, only, kind := from, "", "folder"
	if !info.IsDir() {
		folder, only, kind = filepath.Dir(from), filepath.Base(from), "file"
	}
	archive, written := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := staging.Pack(ctx, folder, written, func(name string, _ bool) bool { return only != "" && name != only })
		packed <- errors.Join(err, written.CloseWithError(err))
	}()
	argv := []string{"sh", "-c", receive, "sh", to, filepath.Base(absolute), submit.FreshName(".clary-cp"), kind}
	err = a.execTar(ctx, c, job, task, argv, archive, nil)
	_ = archive.Close()
	if failed := <-packed; failed != nil && !errors.Is(failed, io.ErrClosedPipe) {
		err = fault.New(fault.Invalid, "read %s: %w", from, failed)
	}
	return err
}
