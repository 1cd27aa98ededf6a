package runtime_test

import (
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/agent/runtime"
)

func TestEveryAcceptedIDIsOneFolderNameAndComesBack(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(r *rapid.T) {
		id := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z0-9./~-]{1,20}`)).Draw(r, "id")
		name, err := runtime.FolderName(id)
		if err != nil {
			return
		}
		accepted++
		if filepath.Base(name) != name || name == "." || name == ".." || runtime.TaskID(name) != id {
			r.Fatalf("%q becomes %q", id, name)
		}
	})
	if accepted == 0 {
		t.Error("no ID was accepted")
	}
}
