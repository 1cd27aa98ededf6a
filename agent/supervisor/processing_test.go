package supervisor_test

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/cluster"
)

// processes makes an assignment one of a processing job with an output.
func processes(a *ledger.Assignment) {
	a.Program.Contract = cluster.ContractProcessing
	a.Program.Exports = []cluster.Export{{Name: "data", Folder: "processing/output", To: "s3://made/data/"}}
}

func TestAProcessingTaskEndsWithItsFilesAndItsMessage(t *testing.T) {
	long := strings.Repeat("é", 600)
	for claim, test := range map[string]struct {
		script  string
		state   cluster.TaskState
		message string
		files   int64
	}{
		"all of it":         {`echo x >$P/output/x; mkdir $P/output/y; echo y >$P/output/y/z; echo ' two files ' >$P/../output/message`, cluster.TaskSucceeded, "two files", 2},
		"nothing":           {`true`, cluster.TaskSucceeded, "", 0},
		"a long message":    {`printf 'x` + long + `' >$P/../output/message`, cluster.TaskSucceeded, "x" + strings.Repeat("é", 511), 0},
		"a binary message":  {`printf 'a\000\377b' >$P/../output/message`, cluster.TaskSucceeded, "a ?b", 0},
		"a failure":         {`echo x >$P/output/x; echo half >$P/../output/message; exit 4`, cluster.TaskFailed, "half", 0},
		"a link for output": {`rm -r $P/output; ln -s /etc $P/output`, cluster.TaskFailed, "", 0},
		"a link as message": {`ln -s /etc/hostname $P/../output/message`, cluster.TaskSucceeded, "", 0},
		"a pipe as message": {`mkfifo $P/../output/message`, cluster.TaskSucceeded, "", 0},
	} {
		t.Run(claim, func(t *testing.T) {
			b := newBench(t, nil)
			b.run(script("P=$SAGEMAKER_BASE_DIR/processing; "+test.script, processes))
			status := b.ended(worker)
			if status.State != test.state || status.Message != test.message {
				t.Errorf("it ended as %+v", status)
			}
			files := int64(0)
			for _, output := range status.Outputs {
				files += output.Files
			}
			if files != test.files {
				t.Errorf("its outputs are %+v", status.Outputs)
			}
		})
	}
}
