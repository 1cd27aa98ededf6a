package cluster

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Endpoint is what changes of an endpoint's job: the job's spec is only what it began with.
type Endpoint struct {
	Job        string // its name is the endpoint's
	Generation int64  // of Spec, from 1
	Last       int64  // the newest generation that there was: none is given twice
	Spec       []byte // JSON of the spec in force: workload/endpoint.Spec
	Fleets     []Fleet
	Rollout    *Rollout // an update in progress
	// Previous is the spec that a rollback goes back to once no rollout is in progress, empty if there
	// is none, and PreviousModels what its references to models meant.
	Previous       []byte
	PreviousModels []ModelPin
	Experiment     *Experiment    // an A/B test in progress, or the last one that ended
	Notes          []EndpointNote // what happened and why, the newest last
	Revision       uint64
}

// Fleet is the replicas of one variant as one generation of the spec has it. Each replica is a gang of
// one task, so that each starts anew alone.
type Fleet struct {
	Variant    string
	Generation int64
	Spec       []byte     // JSON of its variant
	Role       Role       // what a replica is, made once; references to models are pinned in it
	Models     []ModelPin // what those references meant: it keeps the versions from being deleted
	// Weight is as its owner set it, and counts beside the others of its generation. Share is how much
	// of the endpoint its generation has now, from 0 to 1, the same for all of a generation; together
	// they make 1. What a router is told is Traffic.
	Weight   float64
	Share    float64
	Replicas int32             // wanted
	Next     int32             // number of the next replica
	Draining []DrainingReplica // still there, and on their way out
	Scaled   int64             // when Replicas last changed by itself
	Scaler   []byte            // state of serving/autoscale
	Retired  bool              // all its replicas are to go, and then it is gone
	Silent   int64             // during its update: since when none answers, though some are wanted
}

// DrainingReplica gets nothing new. It is stopped when it is idle, or has had its time.
type DrainingReplica struct {
	Gang  string // name, "blue-2-7"
	Since int64
	Idle  bool // no router has a request there any more
}

// RolloutPhase is where an update stands.
//
//	starting ──▶ baking ──▶ retiring ──▶ (done: the old fleets are retired)
//	    │           │           │
//	    └───────────┴───────────┴──▶ rolling_back ──▶ (done: the new fleets are)
type RolloutPhase string

// The phases of a rollout.
const (
	RolloutStarting    RolloutPhase = "starting"     // new replicas start, and get nothing
	RolloutBaking      RolloutPhase = "baking"       // they have a share, and are watched
	RolloutRetiring    RolloutPhase = "retiring"     // they have all, the old ones are there in case
	RolloutRollingBack RolloutPhase = "rolling_back" // the old ones have all again
)

var rolloutEdges = edges[RolloutPhase]{
	RolloutStarting:    {RolloutBaking, RolloutRollingBack},
	RolloutBaking:      {RolloutRetiring, RolloutRollingBack},
	RolloutRetiring:    {RolloutRollingBack},
	RolloutRollingBack: {},
}

// CanBecome reports whether a rollout may go from one phase to the other.
func (s RolloutPhase) CanBecome(next RolloutPhase) bool { return rolloutEdges.has(s, next) }

// Rollout is an update in progress: from one generation to the next.
type Rollout struct {
	From, To int64
	Spec     []byte // that is in force when it is done
	Phase    RolloutPhase
	// Steps are the shares that the new fleets have one after the other while it bakes, the last is 1;
	// Step is the one that it is at, Bake how long each lasts.
	Steps []float64
	Step  int32
	Bake  time.Duration
	// Startup is how long the new replicas may take until all are healthy, Wait how long the old ones
	// stay after the last step.
	Startup time.Duration
	Wait    time.Duration
	Started int64
	Since   int64  // when its phase or step began
	By      string // who asked for it
	Alarm   string // what whoever watches it has found: with any it is rolled back
	Watched int64  // until when whoever watches it has found nothing, told at the end of each step
	Reason  string // why it is rolled back
}

// Experiment is an A/B test. What is in it is known to serving/experiment.
type Experiment struct {
	Spec    []byte // JSON
	State   []byte // JSON
	By      string
	Started int64
	Ended   int64  // 0 while it goes on
	Verdict string // in words
}

// EndpointNote is something that happened to an endpoint, and why.
type EndpointNote struct {
	At   int64
	What string // a word: updated, scaled, …
	Text string
	By   string // who did it; "" for what happened by itself
}

// Limits on endpoints.
const (
	MaxVariantName   = 32 // bytes, so that its replicas' gangs have names
	MaxFleets        = 256
	MaxReplicas      = 1000      // of one fleet
	MaxGeneration    = 999999999 // digits are counted in the names of gangs
	MaxReplicaNumber = 999999999
	MaxWeight        = 1e6
	MaxRolloutSteps  = 100
	MaxRolloutTime   = 30 * 24 * time.Hour // of one step or wait
	MaxEndpointSpec  = 256 << 10           // bytes
	MaxScaler        = 64 << 10            // bytes
	MaxExperiment    = 128 << 10           // bytes of its spec, and of its state
	MaxEndpointNotes = 64
	MaxEndpointText  = 1024 // bytes of a note, a reason or a verdict
)

// FleetID is "blue-2": the fleet's name within its endpoint.
func FleetID(variant string, generation int64) string {
	return variant + "-" + strconv.FormatInt(generation, 10)
}

// ID is the fleet's name within its endpoint.
func (f Fleet) ID() string { return FleetID(f.Variant, f.Generation) }

// GangName is that of a replica: "blue-2-7".
func (f Fleet) GangName(number int32) string { return fmt.Sprintf("%s-%d", f.ID(), number) }

// ReplicaOf splits a replica's gang name into its fleet's name and its number.
func ReplicaOf(gang string) (fleet string, number int32, ok bool) {
	at := strings.LastIndexByte(gang, '-')
	if at <= 0 {
		return "", 0, false
	}
	n, err := strconv.ParseInt(gang[at+1:], 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != gang[at+1:] {
		return "", 0, false
	}
	return gang[:at], int32(n), true
}

// Drains reports whether a replica, by its gang's name, is on its way out.
func (f Fleet) Drains(gang string) bool {
	return slices.ContainsFunc(f.Draining, func(d DrainingReplica) bool { return d.Gang == gang })
}

// Fleet finds a fleet by its name, "blue-2"; -1 if there is none.
func (e Endpoint) Fleet(id string) int {
	return slices.IndexFunc(e.Fleets, func(f Fleet) bool { return f.ID() == id })
}

// Traffic is each fleet's share of the endpoint's requests, in the order of Fleets: its weight in its
// generation, times its generation's share.
func (e Endpoint) Traffic() []float64 {
	sums := map[int64]float64{}
	for _, f := range e.Fleets {
		sums[f.Generation] += f.Weight
	}
	traffic := make([]float64, len(e.Fleets))
	for i, f := range e.Fleets {
		if sum := sums[f.Generation]; sum > 0 {
			traffic[i] = f.Weight / sum * f.Share
		}
	}
	return traffic
}

// Note adds a note, and forgets the oldest when there are too many.
func (e *Endpoint) Note(n EndpointNote) {
	if len(n.Text) > MaxEndpointText {
		n.Text = strings.ToValidUTF8(n.Text[:MaxEndpointText], "")
	}
	notes := append(slices.Clone(e.Notes), n)
	e.Notes = notes[max(0, len(notes)-MaxEndpointNotes):]
}

// Validate reports every mistake in the endpoint but those in its specs.
func (e Endpoint) Validate() Problems {
	var p Problems
	CheckName(&p, "job", e.Job)
	checkRange(&p, "last", e.Last, 1, MaxGeneration)
	checkRange(&p, "generation", e.Generation, 1, max(e.Last, 1))
	for field, spec := range map[string][]byte{"spec": e.Spec, "previous": e.Previous} {
		checkBytes(&p, field, spec, MaxEndpointSpec)
	}
	p.Under("previous_models", checkPins(e.PreviousModels))
	if len(e.Fleets) > MaxFleets {
		p.Add("fleets", "%d: at most %d: wait until old ones have drained", len(e.Fleets), MaxFleets)
	}
	seen := map[string]bool{}
	for i, f := range e.Fleets {
		field := fmt.Sprintf("fleets[%d]", i)
		if seen[f.ID()] {
			p.Add(field+".variant", "%q of generation %d is there twice", Clip(f.Variant), f.Generation)
		}
		seen[f.ID()] = true
		checkRange(&p, field+".generation", f.Generation, 1, e.Last)
		p.Under(field, f.Validate())
	}
	p.Under("fleets", e.checkShares())
	if e.Rollout != nil {
		p.Under("rollout", e.Rollout.validate(e))
	}
	if x := e.Experiment; x != nil {
		checkBytes(&p, "experiment.spec", x.Spec, MaxExperiment)
		checkBytes(&p, "experiment.state", x.State, MaxExperiment)
		checkText(&p, "experiment.verdict", x.Verdict, MaxEndpointText)
		checkText(&p, "experiment.by", x.By, 128)
	}
	if len(e.Notes) > MaxEndpointNotes {
		p.Add("notes", "%d: at most %d are kept", len(e.Notes), MaxEndpointNotes)
	}
	for i, note := range e.Notes {
		field := fmt.Sprintf("notes[%d]", i)
		CheckName(&p, field+".what", note.What)
		checkText(&p, field+".text", note.Text, MaxEndpointText)
		checkText(&p, field+".by", note.By, 128)
	}
	return p
}

// checkShares demands that every request goes to exactly one fleet: the generations' shares make 1, and
// each that has a share has a weight. An endpoint that ends has no fleets that stay.
func (e Endpoint) checkShares() Problems {
	var p Problems
	shares, weights := map[int64]float64{}, map[int64]float64{}
	var generations []int64
	for _, f := range e.Fleets {
		if f.Retired {
			continue
		}
		if share, known := shares[f.Generation]; !known {
			generations = append(generations, f.Generation)
		} else if share != f.Share {
			p.Add("", "share %v of %s: the others of its generation have %v", f.Share, f.ID(), share)
		}
		shares[f.Generation] = f.Share
		weights[f.Generation] += f.Weight
	}
	sum := 0.0
	for _, generation := range generations {
		if sum += shares[generation]; !(weights[generation] > 0) {
			p.Add("", "the weights of generation %d are all 0: nothing would answer", generation)
		}
	}
	if len(generations) > 0 && !(math.Abs(sum-1) < 1e-9) {
		p.Add("", "the shares of the generations make %v, not 1", sum)
	}
	return p
}

// Validate reports every mistake in the fleet.
func (f Fleet) Validate() Problems {
	var p Problems
	CheckVariant(&p, "variant", f.Variant)
	checkBytes(&p, "spec", f.Spec, MaxEndpointSpec)
	p.Under("role", f.Role.Validate())
	if f.Role.Count != 1 {
		p.Add("role.count", "%d: a replica is one task", f.Role.Count)
	}
	p.Under("models", checkPins(f.Models))
	if !(f.Weight >= 0 && f.Weight <= MaxWeight) {
		p.Add("weight", "%v is out of range: from 0 to %v", f.Weight, float64(MaxWeight))
	}
	if !(f.Share >= 0 && f.Share <= 1) || f.Retired && f.Share != 0 {
		p.Add("share", "%v is out of range: from 0 to 1, and 0 for a fleet that goes", f.Share)
	}
	checkRange(&p, "replicas", int64(f.Replicas), 0, MaxReplicas)
	checkRange(&p, "next", int64(f.Next), 0, MaxReplicaNumber)
	checkBytes(&p, "scaler", f.Scaler, MaxScaler)
	seen := map[string]bool{}
	for i, d := range f.Draining {
		field := fmt.Sprintf("draining[%d].gang", i)
		if fleet, number, ok := ReplicaOf(d.Gang); !ok || fleet != f.ID() || number >= f.Next {
			p.Add(field, "%q is none of its replicas", Clip(d.Gang))
		}
		if seen[d.Gang] {
			p.Add(field, "%q is there twice", Clip(d.Gang))
		}
		seen[d.Gang] = true
	}
	return p
}

func (r Rollout) validate(e Endpoint) Problems {
	var p Problems
	if r.From != e.Generation {
		p.Add("from", "%d is not the endpoint's generation %d", r.From, e.Generation)
	}
	if r.To != e.Last || r.To <= r.From {
		p.Add("to", "%d is not the newest generation %d, or not after %d", r.To, e.Last, r.From)
	}
	checkBytes(&p, "spec", r.Spec, MaxEndpointSpec)
	if _, known := rolloutEdges[r.Phase]; !known {
		p.Add("phase", "%q is unknown", Clip(string(r.Phase)))
	}
	if len(r.Steps) == 0 || len(r.Steps) > MaxRolloutSteps {
		p.Add("steps", "%d: from 1 to %d", len(r.Steps), MaxRolloutSteps)
	}
	last := 0.0
	for i, share := range r.Steps {
		if !(share > last && share <= 1) || i == len(r.Steps)-1 && share != 1 {
			p.Add(fmt.Sprintf("steps[%d]", i), "%v: shares rise from above 0, and the last is 1", share)
		}
		last = share
	}
	checkRange(&p, "step", int64(r.Step), 0, int64(max(len(r.Steps)-1, 0)))
	checkDuration(&p, "bake", r.Bake, 0, MaxRolloutTime)
	checkDuration(&p, "startup", r.Startup, 0, MaxRolloutTime)
	checkDuration(&p, "wait", r.Wait, 0, MaxRolloutTime)
	for field, text := range map[string]string{"alarm": r.Alarm, "reason": r.Reason} {
		checkText(&p, field, text, MaxEndpointText)
	}
	checkText(&p, "by", r.By, 128)
	return p
}

// CheckVariant reports what is no name of a variant.
func CheckVariant(p *Problems, field, name string) {
	CheckName(p, field, name)
	if len(name) > MaxVariantName {
		p.Add(field, "%q has %d bytes: at most %d, since its replicas' names begin with it", Clip(name), len(name), MaxVariantName)
	}
}

func checkBytes(p *Problems, field string, data []byte, most int) {
	if len(data) > most {
		p.Add(field, "%d bytes: at most %d", len(data), most)
	}
}
