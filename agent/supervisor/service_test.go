package supervisor_test

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/cluster"
)

func serves(a *ledger.Assignment) {
	a.Program.Contract, a.Program.Service = cluster.ContractServing, true
}

func TestAServiceIsToldOfByTheEndOfItsLog(t *testing.T) {
	for claim, test := range map[string]struct {
		script  string
		state   cluster.TaskState
		message string
	}{
		"all there is":    {`echo loading; echo no model; exit 3`, cluster.TaskFailed, "loading\nno model"},
		"the last lines":  {`for i in 1 2 3 4 5 6 7; do echo $i; done; exit 1`, cluster.TaskFailed, "3\n4\n5\n6\n7"},
		"a long line":     {`echo x; echo '` + strings.Repeat("é", 600) + `'; exit 1`, cluster.TaskFailed, strings.Repeat("é", 511)},
		"nothing":         {`exit 1`, cluster.TaskFailed, ""},
		"an end too soon": {`echo bye`, cluster.TaskSucceeded, "bye"},
		"not its message": {`mkdir -p $SAGEMAKER_BASE_DIR/output; echo mine >$SAGEMAKER_BASE_DIR/output/message; exit 1`, cluster.TaskFailed, ""},
	} {
		t.Run(claim, func(t *testing.T) {
			b := newBench(t, nil)
			b.run(script(test.script, serves))
			if status := b.ended(worker); status.State != test.state || status.Message != test.message {
				t.Errorf("it ended as %+v", status)
			}
		})
	}
}
