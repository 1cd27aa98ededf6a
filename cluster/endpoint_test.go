package cluster

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func goodFleet(variant string, generation int64, share float64) Fleet {
	return Fleet{
		Variant: variant, Generation: generation, Weight: 1, Share: share, Replicas: 2, Next: 3,
		Role: Role{Name: "server", Count: 1, Program: Program{Command: []string{"serve"}}},
	}
}

func goodEndpoint() Endpoint {
	return Endpoint{
		Job: "churn", Generation: 1, Last: 2, Fleets: []Fleet{goodFleet("blue", 1, 0.75), goodFleet("green", 1, 0.75), goodFleet("blue", 2, 0.25)},
		Rollout: &Rollout{From: 1, To: 2, Phase: RolloutBaking, Steps: []float64{0.25, 1}},
		Notes:   []EndpointNote{{What: "updated", Text: "to generation 2"}},
	}
}

func TestEveryMistakeOfAnEndpointIsNamed(t *testing.T) {
	if err := goodEndpoint().Validate().Err(); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(*Endpoint){
		"job":                        func(e *Endpoint) { e.Job = "A" },
		"generation":                 func(e *Endpoint) { e.Generation = 3 },
		"last":                       func(e *Endpoint) { e.Last = MaxGeneration + 1 },
		"spec":                       func(e *Endpoint) { e.Spec = make([]byte, MaxEndpointSpec+1) },
		"previous":                   func(e *Endpoint) { e.Previous = make([]byte, MaxEndpointSpec+1) },
		"previous_models[0]":         func(e *Endpoint) { e.PreviousModels = []ModelPin{{Model: "m", Number: 1}} },
		"fleets[1].variant":          func(e *Endpoint) { e.Fleets[1].Variant = "blue" },
		"fleets[0].variant":          func(e *Endpoint) { e.Fleets[0].Variant = strings.Repeat("b", MaxVariantName+1) },
		"fleets[2].generation":       func(e *Endpoint) { e.Fleets[2].Generation = 3 },
		"fleets[0].weight":           func(e *Endpoint) { e.Fleets[0].Weight = math.NaN() },
		"fleets[0].share":            func(e *Endpoint) { e.Fleets[0].Share = math.Inf(1) },
		"fleets[0].replicas":         func(e *Endpoint) { e.Fleets[0].Replicas = -1 },
		"fleets[0].next":             func(e *Endpoint) { e.Fleets[0].Next = -1 },
		"fleets[0].role.count":       func(e *Endpoint) { e.Fleets[0].Role.Count = 2 },
		"fleets[0].scaler":           func(e *Endpoint) { e.Fleets[0].Scaler = make([]byte, MaxScaler+1) },
		"fleets[0].draining[0].gang": func(e *Endpoint) { e.Fleets[0].Draining = []DrainingReplica{{Gang: "blue-1-3"}} },
		"fleets[0].draining[1].gang": func(e *Endpoint) { e.Fleets[0].Draining = []DrainingReplica{{Gang: "blue-1-1"}, {Gang: "blue-1-1"}} },
		"fleets":                     func(e *Endpoint) { e.Fleets[1].Share = 0.5 },
		"rollout.from":               func(e *Endpoint) { e.Rollout.From = 2 },
		"rollout.to":                 func(e *Endpoint) { e.Rollout.To = 3 },
		"rollout.phase":              func(e *Endpoint) { e.Rollout.Phase = "asleep" },
		"rollout.steps":              func(e *Endpoint) { e.Rollout.Steps = nil },
		"rollout.steps[1]":           func(e *Endpoint) { e.Rollout.Steps[1] = 0.9 },
		"rollout.step":               func(e *Endpoint) { e.Rollout.Step = 2 },
		"rollout.bake":               func(e *Endpoint) { e.Rollout.Bake = -time.Second },
		"rollout.alarm":              func(e *Endpoint) { e.Rollout.Alarm = strings.Repeat("x", MaxEndpointText+1) },
		"experiment.state":           func(e *Endpoint) { e.Experiment = &Experiment{State: make([]byte, MaxExperiment+1)} },
		"notes[0].what":              func(e *Endpoint) { e.Notes[0].What = "" },
	} {
		e := goodEndpoint()
		spoil(&e)
		found := e.Validate()
		if !slices.ContainsFunc(found, func(p Problem) bool { return p.Field == field }) {
			t.Errorf("nothing is said of %s: %v", field, found)
		}
	}
}

// Every request goes to exactly one fleet.
func TestSharesOfGenerationsMakeOne(t *testing.T) {
	for claim, spoil := range map[string]func(*Endpoint){
		"make 1.25, not 1":   func(e *Endpoint) { e.Fleets[2].Share = 0.5 },
		"make 0.75, not 1":   func(e *Endpoint) { e.Fleets[2].Share, e.Fleets[2].Retired = 0, true },
		"are all 0":          func(e *Endpoint) { e.Fleets[2].Weight = 0 },
		"0 for a fleet that": func(e *Endpoint) { e.Fleets[2].Retired = true },
	} {
		e := goodEndpoint()
		spoil(&e)
		if got := e.Validate().Error(); !strings.Contains(got, claim) {
			t.Errorf("said %q, want %q", got, claim)
		}
	}
	e := goodEndpoint()
	e.Fleets[0].Weight, e.Fleets[1].Weight, e.Fleets[2].Weight = 30, 10, 0.5
	if got, want := e.Traffic(), []float64{0.5625, 0.1875, 0.25}; !slices.Equal(got, want) {
		t.Errorf("traffic %v, want %v", got, want)
	}
}

func TestAReplicasNameSaysItsFleetAndNumber(t *testing.T) {
	f := goodFleet("a-1", 2, 1)
	if fleet, number, ok := ReplicaOf(f.GangName(7)); !ok || fleet != f.ID() || fleet != "a-1-2" || number != 7 {
		t.Errorf("%q %d %v", fleet, number, ok)
	}
	for _, name := range []string{"main", "a-1-", "a-1-07", "a-1-+7", "-7", "a-1-99999999999", "a--1"} {
		if fleet, number, ok := ReplicaOf(name); ok && fleet+"-"+"x" != "a--x" {
			t.Errorf("%q is replica %d of %q", name, number, fleet)
		}
	}
}

func TestAnEndpointForgetsItsOldestNotes(t *testing.T) {
	var e Endpoint
	for i := range MaxEndpointNotes + 5 {
		before := e.Notes
		e.Note(EndpointNote{At: int64(i), What: "scaled", Text: strings.Repeat("ä", MaxEndpointText)})
		if len(before) > 0 && before[len(before)-1].At != int64(i-1) {
			t.Fatal("a note was written over")
		}
	}
	if len(e.Notes) != MaxEndpointNotes || e.Notes[0].At != 5 || len(e.Notes[0].Text) > MaxEndpointText {
		t.Errorf("%d notes from %d, %d bytes", len(e.Notes), e.Notes[0].At, len(e.Notes[0].Text))
	}
}
