package cli_test

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// under finds a command below those of an App.
func under(t *testing.T, app *shell.App, path ...string) *cobra.Command {
	t.Helper()
	root := &cobra.Command{Use: "clary"}
	root.AddGroup(shell.Groups()...)
	root.AddCommand(cli.Commands(app)...)
	found, _, err := root.Find(path)
	if err != nil || found.Name() != path[len(path)-1] {
		t.Fatalf("there is no command %v: %v", path, err)
	}
	return found
}

func TestEveryRuleOfEvictionThatAQueueTakesIsToldOf(t *testing.T) {
	help := under(t, &shell.App{Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}, "queue", "set").Flag("preempt").Usage
	text, err := os.ReadFile("../../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, _ := strings.Cut(string(text), "\n| `preempt` |")
	row, _, _ = strings.Cut(row, "\n")
	within, _, _ := strings.Cut(help, "reclaim=")
	withinRow, _, _ := strings.Cut(row, "to `reclaim`")
	for _, rule := range []cluster.PreemptRule{cluster.PreemptNever, cluster.PreemptLower, cluster.PreemptLonger, cluster.PreemptAny} {
		queue := cluster.Queue{Name: "q", Weight: 1, Order: cluster.OrderShortest, Preempt: cluster.Preempt{Within: rule}}
		taken := queue.Validate().Err() == nil
		if told := strings.Contains(within, string(rule)); told != taken {
			t.Errorf("within=%s is taken: %v, and told of in the help: %v (%s)", rule, taken, told, help)
		}
		if told := strings.Contains(withinRow, "`"+string(rule)+"`"); told != taken {
			t.Errorf("within=%s is taken: %v, and told of in docs/queues.md: %v (%s)", rule, taken, told, row)
		}
	}
}
