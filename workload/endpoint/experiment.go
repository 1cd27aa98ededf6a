package endpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/serving/experiment"
	"github.com/clary-ml/clary/serving/route"
)

// Experiment compares two variants of an endpoint until there is an answer.
type Experiment struct {
	// A is the variant that stays unless B is better. Without names they are the endpoint's two
	// variants that have requests, in the order of its spec, or the one that has and its shadow.
	A string `json:"a,omitempty"`
	B string `json:"b,omitempty"`
	experiment.Plan
	// Promote has B take A's requests when it is better.
	Promote bool `json:"promote,omitempty"`
}

// Trial is what was counted of an experiment, and what it has come to.
type Trial struct {
	Generation int64 `json:"generation"`
	// Mirrored says that B gets copies of requests.
	Mirrored bool `json:"mirrored,omitempty"`
	// Through is until when it was counted, in Unix nanoseconds, and Traffic are the shares of A and B then:
	// when they change, counts begin anew.
	Through int64      `json:"through"`
	Traffic [2]float64 `json:"traffic"`
	A       Tally      `json:"a"`
	B       Tally      `json:"b"`
	// Call is the final one; Promoting says that B becomes large enough for A's requests.
	Call      experiment.Call `json:"call,omitempty"`
	Promoting bool            `json:"promoting,omitempty"`
}

// Tally is what was counted of one variant.
type Tally struct {
	Requests int64         `json:"requests,omitempty"`
	Errors   int64         `json:"errors,omitempty"`
	Logs     route.Moments `json:"logs,omitzero"`
	Rewards  route.Moments `json:"rewards,omitzero"`
}

// Arm is a tally as it is judged.
func (t Tally) Arm(name string) experiment.Arm {
	return experiment.Arm{Name: name, Requests: t.Requests, Errors: t.Errors, Logs: t.Logs, Rewards: t.Rewards}
}

// ParseExperiment reads an experiment and reports every mistake in it.
func ParseExperiment(text []byte) (Experiment, cluster.Problems) {
	var x Experiment
	if problems := strictjson.Decode(text, &x); len(problems) > 0 {
		return x, problems
	}
	return x, x.Validate()
}

// Testing is an endpoint's experiment with what was counted, and whether there is or was one.
func Testing(e cluster.Endpoint) (Experiment, Trial, bool, error) {
	var x Experiment
	var t Trial
	if e.Experiment == nil {
		return x, t, false, nil
	}
	if err := json.Unmarshal(e.Experiment.Spec, &x); err != nil {
		return x, t, true, fault.New(fault.Invalid, "the experiment of endpoint %q cannot be read: %w", e.Job, err)
	}
	if err := json.Unmarshal(e.Experiment.State, &t); err != nil {
		return x, t, true, fault.New(fault.Invalid, "the counts of the experiment of endpoint %q cannot be read: %w", e.Job, err)
	}
	return x, t, true, nil
}

// StartExperiment begins to compare two variants. Counts begin now.
func StartExperiment(job cluster.Job, e cluster.Endpoint, x Experiment, who Asked) (cluster.Endpoint, error) {
	if err := open(job); err != nil {
		return e, err
	}
	if problems := x.Validate(); len(problems) > 0 {
		return e, fault.New(fault.Invalid, "experiment: %w", problems)
	}
	switch now := e.Experiment; {
	case now != nil && now.Ended == 0:
		return e, fault.New(fault.Conflict, "endpoint %q: an experiment is in progress: wait for its answer, or stop it", e.Job)
	case e.Rollout != nil:
		return e, fault.New(fault.Conflict, "endpoint %q: an update to generation %d is in progress (%s): begin the experiment after it", e.Job, e.Rollout.To, e.Rollout.Phase)
	}
	s, err := read(e.Spec)
	if err != nil {
		return e, err
	}
	t := Trial{Generation: e.Generation, Through: who.Now}
	if err := s.choose(&x, &t); err != nil {
		return e, err
	}
	t.Traffic = Shares(e, x)
	e = clone(e)
	e.Experiment = &cluster.Experiment{By: who.By, Started: who.Now}
	if e.Experiment.Spec, err = json.Marshal(x); err != nil {
		return e, fault.New(fault.Internal, "write the experiment: %w", err)
	}
	if err := Count(&e, t); err != nil {
		return e, err
	}
	e.Note(cluster.EndpointNote{At: who.Now, What: "experiment", Text: fmt.Sprintf("%s against %s by %s begins", x.B, x.A, x.Metric), By: who.By})
	return settled(e, nil)
}

// again is how long a request that was made already is taken for the same one, whose answer was lost.
const again = time.Minute

// Comparing says that an endpoint compares already what is asked for, since the same person asked just now.
func Comparing(e cluster.Endpoint, x Experiment, who Asked) bool {
	now := e.Experiment
	if now == nil || now.Ended != 0 || now.By != who.By || who.Now-now.Started > int64(again) {
		return false
	}
	s, err := read(e.Spec)
	if err != nil || s.choose(&x, &Trial{}) != nil {
		return false
	}
	text, err := json.Marshal(x)
	return err == nil && bytes.Equal(text, now.Spec)
}

// Stopped says that an endpoint's experiment has just ended with a verdict.
func Stopped(e cluster.Endpoint, verdict string, who Asked) bool {
	now := e.Experiment
	return now != nil && now.Ended != 0 && now.Verdict == cut(verdict, cluster.MaxEndpointText) && who.Now-now.Ended <= int64(again)
}

// choose fills in which variants are compared, and refuses those that cannot be.
func (s Spec) choose(x *Experiment, t *Trial) error {
	if x.A == "" && x.B == "" {
		var names []string
		for _, v := range s.Variants {
			if v.weight() > 0 {
				names = append(names, v.ID())
			}
		}
		if len(names) == 1 && s.Shadow != nil {
			names = append(names, s.Shadow.Variant)
		}
		if len(names) != 2 {
			return fault.New(fault.Invalid, "between: say which two variants are compared: there is %s", s.names())
		}
		x.A, x.B = names[0], names[1]
	}
	for field, name := range map[string]string{"a": x.A, "b": x.B} {
		if _, known := s.variant(name); !known {
			return fault.New(fault.Invalid, "%s: %q is no variant: there is %s", field, cluster.Clip(name), s.names())
		}
	}
	atA, _ := s.variant(x.A)
	atB, _ := s.variant(x.B)
	t.Mirrored = s.Shadow != nil && s.Shadow.Variant == x.B && s.Variants[atB].weight() == 0
	switch {
	case x.A == x.B:
		return fault.New(fault.Invalid, "b: %q is a too: two variants are compared", x.A)
	case s.Variants[atA].weight() == 0:
		return fault.New(fault.Invalid, "a: %q has a weight of 0, and gets no requests to compare: give it one, or compare another", x.A)
	case s.Variants[atB].weight() == 0 && !t.Mirrored:
		return fault.New(fault.Invalid, "b: %q has a weight of 0, and gets no requests to compare: give it one, or mirror requests to it", x.B)
	case t.Mirrored && x.Metric == experiment.Reward:
		return fault.New(fault.Invalid, "metric: nobody sees the answers of %q, which gets copies, and rewards them: compare latency or errors", x.B)
	case t.Mirrored && x.Promote:
		return fault.New(fault.Invalid, "promote: %q gets copies of requests only: promote it by clary endpoint weights when there is an answer", x.B)
	}
	return nil
}

// Shares are the parts of an endpoint's requests that an experiment's variants get, copies included.
func Shares(e cluster.Endpoint, x Experiment) [2]float64 {
	var shares [2]float64
	for i, traffic := range e.Traffic() {
		for at, name := range []string{x.A, x.B} {
			if e.Fleets[i].Variant == name && e.Fleets[i].Generation == e.Generation {
				shares[at] = traffic
			}
		}
	}
	if s, err := read(e.Spec); err == nil && s.Shadow != nil && s.Shadow.Variant == x.B && shares[1] == 0 {
		shares[1] = float64(s.Shadow.Share)
	}
	return shares
}

// Count keeps what was counted of an experiment.
func Count(e *cluster.Endpoint, t Trial) error {
	state, err := json.Marshal(t)
	if err != nil {
		return fault.New(fault.Internal, "write the experiment's counts: %w", err)
	}
	x := *e.Experiment
	x.State = state
	e.Experiment = &x
	return nil
}

// EndExperiment ends the experiment in progress with what it has come to, in words.
func EndExperiment(e cluster.Endpoint, verdict string, who Asked) (cluster.Endpoint, error) {
	if e.Experiment == nil || e.Experiment.Ended != 0 {
		return e, fault.New(fault.Conflict, "endpoint %q: no experiment is in progress", e.Job)
	}
	e = clone(e)
	x := *e.Experiment
	x.Ended, x.Verdict = who.Now, cut(verdict, cluster.MaxEndpointText)
	e.Experiment = &x
	e.Note(cluster.EndpointNote{At: who.Now, What: "experiment", Text: cut("ended: "+verdict, cluster.MaxEndpointText), By: who.By})
	return settled(e, nil)
}
