package operate

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// What a machine or a task says of itself must not move the cursor of who looks at it.
func TestAStrangersTextIsSafeForATerminal(t *testing.T) {
	var out strings.Builder
	evil := "a\x1b[2J\u009b2Jb\tc"
	if err := shell.Fields(&out, "reason", evil+"\nsecond", "none", ""); err != nil {
		t.Fatal(err)
	}
	if err := shell.Table(&out, []string{"reason"}, [][]string{{evil}}); err != nil {
		t.Fatal(err)
	}
	out.WriteString(deedLine(cluster.Deed{User: evil, Object: evil, Result: evil}))
	if strings.ContainsAny(out.String(), "\x1b\u009b\t") || !strings.HasPrefix(out.String(), "reason  a [2J 2Jb c\n        second\n") {
		t.Errorf("%q", out.String())
	}
}
