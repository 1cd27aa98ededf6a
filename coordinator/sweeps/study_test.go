package sweeps_test

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

// cancel asks a job to end.
func (b *bench) cancel(name string) {
	b.Helper()
	for {
		var job cluster.Job
		b.read(func(s *state.Snapshot) { job, _ = s.Job(name) })
		job.Cancel = true
		if _, err := b.ledger.Propose(b.Context(), command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}}); err == nil {
			return
		}
	}
}
