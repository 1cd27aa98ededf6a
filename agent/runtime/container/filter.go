package container

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/internal/atomicfile"
)

// filterOption names the file with a container's filter of system calls.
const filterOption = "seccomp="

// namespaces are clone's flags for new ones: in a user namespace a program has all privileges
// over what it makes, and so a larger part of the kernel to attack.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// podmanFilter is a file with Podman's own filter without the system calls that make or enter
// namespaces, which dockerd's does not have either; "" where it cannot be had.
func (d *Driver) podmanFilter(ctx context.Context) string {
	d.filter.Lock()
	defer d.filter.Unlock()
	if d.filterFile != "" {
		return d.filterFile
	}
	var told struct {
		Host struct {
			Security struct {
				Path string `json:"seccompProfilePath"`
			} `json:"security"`
		} `json:"host"`
	}
	err := d.libpod(ctx, http.MethodGet, "/info", nil, &told)
	if err == nil && told.Host.Security.Path != "" {
		var text []byte
		if text, err = os.ReadFile(told.Host.Security.Path); err == nil {
			text, err = withoutNamespaces(text)
		}
		if path := filepath.Join(filepath.Dir(d.config.Root), "podman-filter.json"); err == nil {
			if err = atomicfile.Write(path, text, 0o644); err == nil {
				d.filterFile = path
			}
		}
	}
	if err != nil {
		d.config.Log.Warn("containers of Podman may make user namespaces: its filter of system calls cannot be read", "error", err)
	}
	return d.filterFile
}

// withoutNamespaces takes what makes namespaces out of a filter, in the format that Docker
// and Podman share.
func withoutNamespaces(text []byte) ([]byte, error) {
	var filter map[string]any
	if err := json.Unmarshal(text, &filter); err != nil {
		return nil, err
	}
	rules, _ := filter["syscalls"].([]any)
	for _, item := range rules {
		rule, _ := item.(map[string]any)
		names, _ := rule["names"].([]any)
		if rule["action"] == "SCMP_ACT_ALLOW" {
			rule["names"] = slices.DeleteFunc(names, func(name any) bool {
				return name == "unshare" || name == "setns" || name == "clone" || name == "clone3"
			})
		}
	}
	rules = slices.DeleteFunc(rules, func(item any) bool {
		rule, _ := item.(map[string]any)
		names, _ := rule["names"].([]any)
		return len(names) == 0
	})
	filter["syscalls"] = append(
		rules,
		map[string]any{
			"names": []string{"clone"}, "action": "SCMP_ACT_ALLOW",
			"args": []any{map[string]any{"index": 0, "value": namespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}},
		},
		// Its flags cannot be seen; C libraries fall back to clone.
		map[string]any{"names": []string{"clone3"}, "action": "SCMP_ACT_ERRNO", "errnoRet": int(unix.ENOSYS)},
	)
	return json.Marshal(filter)
}
