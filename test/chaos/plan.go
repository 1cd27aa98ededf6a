// Package chaos breaks real Clary processes in ways drawn from a seed, and sees that no
// exit is lost and nothing is left over. `make chaos` runs it.
package chaos

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is a sort of fault.
type Kind string

// The faults. Each is undone after its Length, if there is something to undo.
const (
	KillAgent     Kind = "the agent is killed, and started again"
	FreezeAgent   Kind = "the agent is frozen"
	KillShim      Kind = "a task's shim is killed"
	CutNode       Kind = "the agent and all shims are killed at once"
	KillServer    Kind = "the coordinator is killed, and started again"
	FillDisk      Kind = "the node's disk is full"
	HangNVML      Kind = "NVML does not answer"
	RestartEngine Kind = "the container engine is killed, and started again"
	CutEngine     Kind = "the agent is killed while the container engine is away"
)

// The faults of a cluster of several coordinators.
const (
	KillMember   Kind = "a coordinator is killed, and started again"
	KillLeader   Kind = "the leader is killed, and started again"
	FreezeMember Kind = "a coordinator is frozen"
	FreezeLeader Kind = "the leader is frozen"
	LoseMajority Kind = "two of three coordinators are killed, and started again"
	Isolate      Kind = "a coordinator hears nobody, and nobody hears it"
	IsolateLead  Kind = "the leader hears nobody, and nobody hears it"
	Deafen       Kind = "a machine hears nobody, and is heard by all"
	Mute         Kind = "a machine is heard by nobody, and hears all"
	PartAgent    Kind = "a node hears nobody, and nobody hears it"
	PartTwo      Kind = "two machines do not hear each other"
	PartOneWay   Kind = "a machine does not hear another one, which hears it"
	SplitLead    Kind = "the leader and a node are on one side, all others on the other"
	FillMember   Kind = "a coordinator's disk is full"
	StepClock    Kind = "a machine's clock is wrong"
	StepLead     Kind = "the leader's clock is wrong"
)

// Clustered are the kinds for a cluster of several coordinators with networks, disks and clocks of their own.
func Clustered() []Kind {
	return []Kind{
		KillMember, KillLeader, FreezeMember, FreezeLeader, LoseMajority, Isolate, IsolateLead, Deafen, Mute, PartAgent, PartTwo, PartOneWay, SplitLead, FillMember, StepClock, StepLead,
		KillAgent, FreezeAgent, KillShim, CutNode, FillDisk, HangNVML,
	}
}

// Kinds lists those of one coordinator and its nodes.
func Kinds() []Kind {
	return append(Engineless(), RestartEngine, CutEngine)
}

// Engineless are those that need no container engine.
func Engineless() []Kind {
	return []Kind{KillAgent, FreezeAgent, KillShim, CutNode, KillServer, FillDisk, HangNVML}
}

// Fault is one thing that goes wrong.
type Fault struct {
	After  time.Duration // from the end of the fault before
	Kind   Kind
	Length time.Duration
	Pick   uint64 // chooses among what there is then: a task, a node
}

func (f Fault) String() string { return fmt.Sprintf("%s, for %s", f.Kind, f.Length) }

// Step is how far a clock is off: seconds to an hour, to either side.
func (f Fault) Step() time.Duration {
	by := []time.Duration{2 * time.Second, 30 * time.Second, 10 * time.Minute, time.Hour}[f.Pick/2%4]
	if f.Pick%2 == 0 {
		return -by
	}
	return by
}

// Job is one piece of work whose end is known before it starts.
type Job struct {
	Name  string
	After time.Duration // from the submission of the job before
	Sleep time.Duration
	Code  int
	// Contained runs it in a container.
	Contained bool
	// Paired runs two of it, each with a port on which it listens.
	Paired bool
}

// Plan is what happens in one run.
type Plan struct {
	Faults []Fault
	Jobs   []Job
}

// Draw makes a plan: the same seed and sizes, the same plan. Each kind of fault is there
// before any is there again.
func Draw(seed uint64, faults, jobs int, kinds []Kind) Plan {
	random := rand.New(rand.NewPCG(seed, 0))
	var plan Plan
	for fault := range deal(random, kinds) {
		if len(plan.Faults) == faults {
			break
		}
		plan.Faults = append(plan.Faults, fault)
	}
	codes := []int{0, 0, 1, 3, 17, 137, 255}
	for i := range jobs {
		plan.Jobs = append(plan.Jobs, Job{
			Name: fmt.Sprintf("job-%d", i), After: between(random, 0, 1000), Sleep: between(random, 0, 6000),
			Code: codes[random.IntN(len(codes))], Contained: slices.Contains(kinds, RestartEngine) && random.IntN(3) == 0, Paired: random.IntN(6) == 0,
		})
	}
	return plan
}

// Faults are drawn without an end: the same seed, the same faults. Every so often one lasts long enough for a
// node to count as lost.
func Faults(seed uint64, kinds []Kind, long int) iter.Seq[Fault] {
	random := rand.New(rand.NewPCG(seed, 1))
	return func(yield func(Fault) bool) {
		for fault := range deal(random, kinds) {
			if random.IntN(long) == 0 {
				fault.Length += between(random, 10_000, 16_000)
			}
			if !yield(fault) {
				return
			}
		}
	}
}

// Round draws one fault of each kind, for a run of about a minute. One that cuts a node off is long enough for it to count
// as lost, all others are short.
func Round(seed uint64, kinds []Kind) []Fault {
	random := rand.New(rand.NewPCG(seed, 1))
	cutOff := []Kind{PartAgent, SplitLead, FreezeAgent}
	long := cutOff[random.IntN(len(cutOff))]
	var round []Fault
	for fault := range deal(random, kinds) {
		fault.After, fault.Length = fault.After/4, min(fault.Length, between(random, 800, 1600))
		if fault.Kind == long {
			fault.Length = between(random, 16_000, 18_000)
		}
		if round = append(round, fault); len(round) == len(kinds) {
			break
		}
	}
	return round
}

// deal draws faults round by round: each kind comes before any comes again.
func deal(random *rand.Rand, kinds []Kind) iter.Seq[Fault] {
	return func(yield func(Fault) bool) {
		for {
			round := slices.Clone(kinds)
			random.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
			for _, kind := range round {
				if !yield(Fault{After: between(random, 100, 1000), Kind: kind, Length: between(random, 200, 2500), Pick: random.Uint64()}) {
					return
				}
			}
		}
	}
}

func between(random *rand.Rand, least, most int64) time.Duration {
	return time.Duration(least+random.Int64N(most-least+1)) * time.Millisecond
}
