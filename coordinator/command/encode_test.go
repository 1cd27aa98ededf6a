package command_test

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func samples() []command.Command {
	r := submission("one")
	return []command.Command{
		record(
			command.Change{Expect: 3, Job: r.Changes[0].Job}, command.Change{Gang: r.Changes[1].Gang},
			command.Change{Queue: &cluster.Queue{Name: "q", Weight: 2}}, command.Change{Token: &cluster.Token{ID: "t"}},
			command.Change{Expect: 9, Delete: &command.Key{Kind: state.KindJob, ID: "two"}},
			command.Change{Expect: 4, Check: &command.Key{Kind: state.KindJob, ID: "three"}},
			command.Change{Expect: 5, Sweep: &cluster.Sweep{Job: "three", Parallel: 2, Next: 1, Counts: cluster.TrialCounts{Running: 1}}},
			command.Change{Expect: 6, Model: &cluster.Model{Name: "digits", Owner: "ann", Next: 2, Count: 1, Aliases: map[string]int64{"champion": 1}}},
			command.Change{Version: &cluster.ModelVersion{Model: "digits", Number: 1, Evaluations: []cluster.Evaluation{{Name: "held-out", Metrics: map[string]float64{"auc": 0.9}}}}},
			command.Change{Expect: 7, Endpoint: &cluster.Endpoint{Job: "four", Generation: 1, Last: 2, Fleets: []cluster.Fleet{{Variant: "main", Generation: 1, Weight: 0.5}}}},
			command.Change{Trial: &cluster.Trial{Sweep: "three", Config: []float64{1}, State: cluster.TrialRunning}},
		),
		command.CommitPlan{Placements: []cluster.Placement{{
			Gang: "one/main", Attempt: 1, Revision: 4,
			Allocations: []cluster.Allocation{{Node: "a", Resources: cluster.Resources{MilliCPU: 5, Ports: []int32{1}}}},
		}}},
		command.ReportTasks{Node: "a", Reports: []command.TaskReport{{Task: "x", Status: cluster.TaskStatus{State: cluster.TaskLost}}}},
		command.PutNode{Node: machine("a")},
		command.SetNodeState{Node: "a", State: cluster.NodeLost, Reason: "why", Expect: 7},
		command.SetNodeCached{Node: "a", Cached: []uint32{3, 9}},
		command.RemoveNode{Node: "a"},
		command.Publish{Job: "one", Gang: "one/main", Attempt: 2, Outputs: []cluster.Output{{Name: "model"}}},
	}
}

func TestCommandsComeOutOfTheLogAsTheyWentIn(t *testing.T) {
	raw, err := command.Encode(42, samples()...)
	if err != nil {
		t.Fatal(err)
	}
	stamped, err := command.Decode(append(raw, raw...)) // two batches, one after the other, are one
	if err != nil || len(stamped) != 2*len(samples()) {
		t.Fatalf("%d commands, %v", len(stamped), err)
	}
	for i, got := range stamped {
		if want := samples()[i%len(samples())]; !reflect.DeepEqual(got.Command, want) || got.Now != 42 {
			t.Errorf("went in as %+v\ncame out as %+v", want, got)
		}
	}
}

func TestResultsKeepTheirKindsOverTheWire(t *testing.T) {
	want := []command.Result{
		{Revision: 7, Refused: []command.Refusal{{ID: "one/main", Reason: "no\troom"}}},
		{Err: fault.New(fault.Conflict, "read it again")},
		{Err: fmt.Errorf("odd \xff")},
	}
	raw, err := command.EncodeResults(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := command.DecodeResults(raw)
	if err != nil || len(got) != 3 {
		t.Fatal(got, err)
	}
	if !reflect.DeepEqual(got[0], want[0]) || !fault.Is(got[1].Err, fault.Conflict) || got[1].Err.Error() != "read it again" ||
		!fault.Is(got[2].Err, fault.Internal) {
		t.Errorf("got %+v", got)
	}
	if _, err := command.DecodeResults([]byte("rubbish")); err == nil {
		t.Error("rubbish was decoded")
	}
}

func TestWhatCannotBeReadAgainIsNotWritten(t *testing.T) {
	for _, bad := range []command.Command{
		nil,
		record(command.Change{}),
		record(command.Change{Job: &cluster.Job{}, Queue: &cluster.Queue{}}),
		command.RemoveNode{Node: "\xff"},
	} {
		if _, err := command.Encode(0, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range samples() {
		raw, err := command.Encode(math.MaxInt64, c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		stamped, err := command.Decode(raw)
		if err != nil {
			return
		}
		for _, s := range stamped {
			once, err := command.Encode(s.Now, s.Command)
			if err != nil {
				t.Fatalf("decoded, but cannot be encoded: %v", err)
			}
			again, err := command.Decode(once)
			if err != nil || len(again) != 1 {
				t.Fatalf("%d commands, %v", len(again), err)
			}
			if twice, err := command.Encode(again[0].Now, again[0].Command); err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%x, then %x (%v)", once, twice, err)
			}
		}
	})
}
