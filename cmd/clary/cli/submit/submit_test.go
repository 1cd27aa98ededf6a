package submit

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
)

func TestFreshNamesAreNames(t *testing.T) {
	seen := map[string]bool{}
	for _, word := range []string{"train.py", "./A B", "", "---", strings.Repeat("x", 100), "über", "a"} {
		name := FreshName(word)
		var problems cluster.Problems
		if cluster.CheckName(&problems, "name", name); problems != nil || seen[name] {
			t.Errorf("%q becomes %q: %v", word, name, problems)
		}
		seen[name] = true
	}
}
