package command_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/fsm"
	"github.com/clary-ml/clary/coordinator/state"
)

// BenchmarkApply measures one submission (a job and its gang, about 1 KiB) from log entry
// to state, 64 to an entry, as every replica pays for it.
func BenchmarkApply(b *testing.B) {
	store, err := state.Open(filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	machine := fsm.New(store, nil, func(err error) { b.Fatal(err) })
	const each = 64
	var entries []*raft.Log
	bytes := 0
	for i := 0; i < b.N; i += each {
		var commands []command.Command
		for j := range each {
			commands = append(commands, submission(fmt.Sprintf("job-%08d", (i+j)*7919%100_000_007)))
		}
		raw, err := command.Encode(1, commands...)
		if err != nil {
			b.Fatal(err)
		}
		bytes += len(raw)
		entries = append(entries, &raft.Log{Type: raft.LogCommand, Index: uint64(i + 1), Data: raw})
	}
	size := float64(bytes) / float64(len(entries)*each)
	b.ReportAllocs()
	b.ResetTimer()
	for len(entries) > 0 {
		n := min(4, len(entries))
		for _, answer := range machine.ApplyBatch(entries[:n]) {
			if results := answer.([]command.Result); results[0].Err != nil {
				b.Fatal(results[0].Err)
			}
		}
		entries = entries[n:]
	}
	b.ReportMetric(size, "bytes/job")
}

func submission(name string) command.Record {
	job := cluster.Job{
		Name: name, Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue,
		State: cluster.JobQueued, Attempt: 1, Spec: make([]byte, 300),
	}
	gang := cluster.Gang{
		Job: name, Name: "main", Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1,
		Roles: []cluster.Role{{
			Name: "worker", Count: 1, Ask: cluster.Ask{MilliCPU: 1000, Memory: 1 << 30},
			Program: cluster.Program{Command: []string{"python3", "train.py"}, Spec: make([]byte, 300)},
		}},
	}
	return command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}}
}
