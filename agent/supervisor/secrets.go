package supervisor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
)

// insideSecrets is where a task with a view of its own finds files with secrets.
const insideSecrets = "/run/secrets"

// secretFolder has a task's secrets, in memory. It goes when the task has ended.
func (t *task) secretFolder() string {
	return filepath.Join(t.s.config.Memory, filepath.Base(t.folder))
}

func (t *task) dropSecrets() error {
	if t.s.config.Memory == "" {
		return nil
	}
	return os.RemoveAll(t.secretFolder())
}

// giveSecrets asks for the task's secrets and hands them on: as variables through the
// driver, which writes them nowhere, and as files in memory that only the task's user
// reads. Neither the ledger nor the task's folder ever has a value.
func (t *task) giveSecrets(ctx context.Context, assignment ledger.Assignment, v *view) error {
	references := assignment.Program.Secrets
	if len(references) == 0 {
		return nil
	}
	if t.s.config.Secrets == nil || t.s.config.Memory == "" {
		return fault.New(fault.Invalid, "the task asks for secrets, and this node gives none")
	}
	var values map[string][]byte
	err := patiently(ctx, func() (err error) {
		values, err = t.s.config.Secrets(ctx, assignment.Task.ID)
		return err
	})
	if err != nil {
		return err
	}
	files := false
	for _, reference := range references {
		value, given := values[reference.Name]
		if !given {
			return fault.New(fault.Invalid, "secret %q was not given", reference.Name)
		}
		if reference.Env != "" {
			if bytes.IndexByte(value, 0) >= 0 {
				return fault.New(fault.Invalid, "secret %q holds a NUL byte: it can be a file, not a variable", reference.Name)
			}
			v.secrets = append(v.secrets, reference.Env+"="+string(value))
		}
		if reference.File == "" && reference.Env != "" {
			continue
		}
		files = true
		name := reference.File
		if name == "" {
			name = reference.Name
		}
		if err := t.writeSecret(name, value, v.user); err != nil {
			return err
		}
	}
	if !files {
		return nil
	}
	where := t.secretFolder()
	if v.user != nil {
		if err := os.Lchown(where, int(v.user.UID), int(v.user.GID)); err != nil {
			return fault.New(fault.Internal, "keep the task's secrets: %w", err)
		}
	}
	if v.isolation != nil {
		where = insideSecrets
		v.isolation.Mounts = append(v.isolation.Mounts, runtime.Mount{Source: t.secretFolder(), Target: where, ReadOnly: true})
	}
	v.env = append(v.env, "CLARY_SECRETS="+where)
	return nil
}

// writeSecret writes a file that only the task's user may read, where no disk has it.
func (t *task) writeSecret(name string, value []byte, user *runtime.User) error {
	folder := t.secretFolder()
	if err := errors.Join(os.MkdirAll(t.s.config.Memory, 0o711), os.MkdirAll(folder, 0o700)); err != nil {
		return fault.New(fault.Internal, "keep the task's secrets: %w", err)
	}
	var where unix.Statfs_t
	if err := unix.Statfs(folder, &where); err != nil || where.Type != unix.TMPFS_MAGIC {
		return fault.New(fault.Invalid, "secrets as files: %s is not in memory on this node", t.s.config.Memory)
	}
	path := filepath.Join(folder, name)
	_ = os.Remove(path) // of a preparation that was cut short
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o400)
	if err != nil {
		return fault.New(fault.Internal, "keep the task's secrets: %w", err)
	}
	_, err = file.Write(value)
	if err == nil && user != nil {
		err = file.Chown(int(user.UID), int(user.GID))
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fault.New(fault.Internal, "keep the task's secrets: %w", err)
	}
	return nil
}

// sweepSecrets deletes those of tasks that are not the node's any more.
func (s *Supervisor) sweepSecrets(entries []ledger.Entry) {
	if s.config.Memory == "" {
		return
	}
	kept := map[string]bool{}
	for _, entry := range entries {
		if name, err := runtime.FolderName(entry.Assignment.Task.ID); err == nil && !entry.Status.State.Ended() {
			kept[name] = true
		}
	}
	items, _ := os.ReadDir(s.config.Memory)
	for _, item := range items {
		if !kept[item.Name()] {
			if err := os.RemoveAll(filepath.Join(s.config.Memory, item.Name())); err != nil {
				s.config.Log.Warn("delete the secrets of a task that is gone", "error", err)
			}
		}
	}
	_ = os.Remove(s.config.Memory) // if nothing is in it
}
