package container

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

func TestWhatMakesNamespacesIsTakenOutOfAFilterAndNothingElse(t *testing.T) {
	text, err := withoutNamespaces([]byte(`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
		{"names": ["read", "unshare", "clone", "clone3", "setns", "write"], "action": "SCMP_ACT_ALLOW", "args": []},
		{"names": ["setns"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
		{"names": ["setns"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}
	]}`))
	if err != nil {
		t.Fatal(err)
	}
	var filter struct {
		DefaultAction string
		Syscalls      []struct {
			Names  []string
			Action string
			Args   []struct{ Value, ValueTwo uint64 }
		}
	}
	if err := json.Unmarshal(text, &filter); err != nil {
		t.Fatal(err)
	}
	if filter.DefaultAction != "SCMP_ACT_ERRNO" || len(filter.Syscalls) != 4 || !slices.Equal(filter.Syscalls[0].Names, []string{"read", "write"}) || filter.Syscalls[1].Action != "SCMP_ACT_ERRNO" {
		t.Errorf("it became %s", text)
	}
	if clone := filter.Syscalls[2]; clone.Names[0] != "clone" || len(clone.Args) != 1 || clone.Args[0].Value != 0x7e020000 || clone.Args[0].ValueTwo != 0 {
		t.Errorf("clone is %+v", clone)
	}
	if _, err := withoutNamespaces([]byte("not JSON")); err == nil {
		t.Error("rubbish is a filter")
	}
	own, err := os.ReadFile("/usr/share/containers/seccomp.json")
	if err != nil {
		t.Skipf("skipped: Podman is not installed: %v", err)
	}
	if _, err := withoutNamespaces(own); err != nil {
		t.Error(err)
	}
}
