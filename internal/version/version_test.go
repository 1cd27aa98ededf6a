package version

import (
	"runtime/debug"
	"testing"
)

func TestABuildSaysWhatItIs(t *testing.T) {
	commit := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}}
	for _, row := range []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"the commit comes first", debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}, Settings: commit}, "0123456789ab"},
		{"then the module's version", debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}}, "v1.0.0"},
		{"else it says that it is nobody's release", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "dev"},
	} {
		if got := fromBuild(&row.info); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	if String() == "" {
		t.Error("a version is never empty")
	}
}
