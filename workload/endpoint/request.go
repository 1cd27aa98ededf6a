package endpoint

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Asked is who asks for a change of an endpoint, and when.
type Asked struct {
	By  string
	Now int64
}

// Options are how an update may be asked for.
type Options struct {
	// Replace gives up an update in progress.
	Replace bool
	// Anew starts new replicas though nothing of them is different, as for a secret that has changed.
	Anew bool
}

// open refuses what is to change an endpoint that ends.
func open(job cluster.Job) error {
	if job.Cancel || job.State.Ended() || job.State == cluster.JobStopping {
		return fault.New(fault.Conflict, "endpoint %q is to end, or has: it does not change any more", job.Name)
	}
	return nil
}

// Update makes the spec be in force: where replicas stay what they are, at once, else by an update that
// starts new ones. What its references to models mean is given as pins.
func Update(job cluster.Job, e cluster.Endpoint, s Spec, pins []cluster.ModelPin, o Options, who Asked) (cluster.Endpoint, error) {
	if problems := s.Validate(); len(problems) > 0 {
		return e, fault.New(fault.Invalid, "spec: %w", problems)
	}
	if err := open(job); err != nil {
		return e, err
	}
	e = clone(e)
	if r := e.Rollout; r != nil {
		if !o.Replace {
			return e, fault.New(fault.Conflict, "endpoint %q: an update to generation %d is in progress (%s, since %s): wait for it, roll it back, or have this one replace it",
				e.Job, r.To, r.Phase, time.Unix(0, r.Started).UTC().Format(time.RFC3339))
		}
		rollBack(&e, "replaced by another update", who.Now)
		finishBack(&e, who.Now)
	}
	same, err := sameReplicas(e, s, pins)
	if err != nil {
		return e, err
	}
	if same && !o.Anew {
		return settled(inPlace(e, s, who))
	}
	return settled(start(e, s, pins, who))
}

// clone is a copy whose fleets and rollout may be changed.
func clone(e cluster.Endpoint) cluster.Endpoint {
	e.Fleets = slices.Clone(e.Fleets)
	if e.Rollout != nil {
		rollout := *e.Rollout
		e.Rollout = &rollout
	}
	return e
}

// settled checks what a change has made.
func settled(e cluster.Endpoint, err error) (cluster.Endpoint, error) {
	if err != nil {
		return e, err
	}
	if problems := e.Validate(); len(problems) > 0 {
		return e, fault.New(fault.Invalid, "endpoint %q: %w", e.Job, problems)
	}
	return e, nil
}

// sameReplicas reports whether the spec needs no other replicas than those in force.
func sameReplicas(e cluster.Endpoint, s Spec, pins []cluster.ModelPin) (bool, error) {
	old, err := read(e.Spec)
	if err != nil || old.Models != s.Models || len(old.Variants) != len(s.Variants) {
		return false, nil //nolint:nilerr // what cannot be read is replaced
	}
	for _, v := range s.Variants {
		at, known := old.variant(v.ID())
		if !known {
			return false, nil
		}
		was, err := old.Variants[at].serves()
		if err != nil {
			return false, fault.New(fault.Internal, "write variant %s: %w", v.ID(), err)
		}
		is, err := v.serves()
		if err != nil {
			return false, fault.New(fault.Invalid, "variant %s: %w", v.ID(), err)
		}
		fleet := e.Fleet(cluster.FleetID(v.ID(), e.Generation))
		if !bytes.Equal(was, is) || fleet < 0 || !pinned(e.Fleets[fleet], v.Model, pins) {
			return false, nil
		}
	}
	return true, nil
}

// pinned reports whether a fleet serves what a reference means now.
func pinned(f cluster.Fleet, ref string, pins []cluster.ModelPin) bool {
	for _, pin := range pins {
		if pin.Ref == ref {
			return slices.Contains(f.Models, pin)
		}
	}
	return true
}

// inPlace puts the spec in force without new replicas.
func inPlace(e cluster.Endpoint, s Spec, who Asked) (cluster.Endpoint, error) {
	old, err := read(e.Spec)
	if err != nil {
		return e, err
	}
	text, err := encode(s)
	if err != nil {
		return e, err
	}
	if bytes.Equal(text, e.Spec) {
		return e, nil
	}
	fresh, err := s.Fleets(e.Generation, nil)
	if err != nil {
		return e, err
	}
	for i, v := range s.Variants {
		f := &e.Fleets[e.Fleet(fresh[i].ID())]
		f.Spec, f.Weight = fresh[i].Spec, fresh[i].Weight
		if at, _ := old.variant(v.ID()); v.Scaling == nil && (old.Variants[at].Scaling != nil || old.Variants[at].replicas() != v.replicas()) {
			f.Replicas = v.replicas()
		}
	}
	e.Spec = text
	e.Note(cluster.EndpointNote{At: who.Now, What: "changed", Text: "settings, without new replicas", By: who.By})
	return e, nil
}

// start begins an update to the next generation.
func start(e cluster.Endpoint, s Spec, pins []cluster.ModelPin, who Asked) (cluster.Endpoint, error) {
	text, err := encode(s)
	if err != nil {
		return e, err
	}
	fleets, err := s.Fleets(e.Last+1, pins)
	if err != nil {
		return e, err
	}
	if len(e.Fleets)+len(fleets) > cluster.MaxFleets {
		return e, fault.New(fault.Conflict, "endpoint %q: %d fleets of earlier updates still drain: try again when they have", e.Job, len(e.Fleets))
	}
	for i := range fleets {
		if at := e.Fleet(cluster.FleetID(fleets[i].Variant, e.Generation)); at >= 0 {
			fleets[i].Replicas = max(fleets[i].Replicas, e.Fleets[at].Replicas)
		}
	}
	e.Last++
	e.Fleets = append(e.Fleets, fleets...)
	e.Rollout = &cluster.Rollout{
		From: e.Generation, To: e.Last, Spec: text, Phase: cluster.RolloutStarting, Steps: s.Update.steps(), Bake: s.Update.bake(),
		Startup: s.Startup(), Wait: s.Update.wait(), Started: who.Now, Since: who.Now, By: who.By,
	}
	e.Note(cluster.EndpointNote{At: who.Now, What: "update", Text: fmt.Sprintf("from generation %d to %d begins", e.Generation, e.Last), By: who.By})
	return e, nil
}

// Rollback goes back: from an update in progress at once, else to the spec that the last one replaced,
// whose replicas start first and then have all.
func Rollback(job cluster.Job, e cluster.Endpoint, why string, who Asked) (cluster.Endpoint, error) {
	if err := open(job); err != nil {
		return e, err
	}
	e = clone(e)
	if why == "" {
		why = "asked for by " + who.By
	}
	switch {
	case e.Rollout != nil && e.Rollout.Phase == cluster.RolloutRollingBack:
		return e, nil
	case e.Rollout != nil:
		rollBack(&e, why, who.Now)
		return settled(e, nil)
	case len(e.Previous) == 0:
		return e, fault.New(fault.Conflict, "endpoint %q: there is nothing to go back to: no update has taken over yet", e.Job)
	}
	s, err := read(e.Previous)
	if err != nil {
		return e, err
	}
	if e, err = start(e, s, e.PreviousModels, who); err != nil {
		return e, err
	}
	e.Rollout.Spec, e.Rollout.Steps, e.Rollout.Bake = e.Previous, []float64{1}, 0
	e.Note(cluster.EndpointNote{At: who.Now, What: "rollback", Text: fmt.Sprintf("generation %d is what was before: %s", e.Last, cut(why, cluster.MaxEndpointText/2)), By: who.By})
	return settled(e, nil)
}

// SetWeights changes the weights of variants; those that are not named keep theirs.
func SetWeights(job cluster.Job, e cluster.Endpoint, weights map[string]float64, who Asked) (cluster.Endpoint, error) {
	if err := open(job); err != nil {
		return e, err
	}
	if e.Rollout != nil {
		return e, fault.New(fault.Conflict, "endpoint %q: an update to generation %d is in progress (%s): weights change before or after it", e.Job, e.Rollout.To, e.Rollout.Phase)
	}
	s, err := read(e.Spec)
	if err != nil {
		return e, err
	}
	e, sum := clone(e), 0.0
	s.Variants = slices.Clone(s.Variants)
	if len(weights) == 0 {
		return e, fault.New(fault.Invalid, "weights: name at least one of %s", s.names())
	}
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		at, known := s.variant(name)
		switch w := weights[name]; {
		case !known:
			return e, fault.New(fault.Invalid, "weights: %q is no variant: there is %s", cluster.Clip(name), s.names())
		case !(w >= 0 && w <= cluster.MaxWeight):
			return e, fault.New(fault.Invalid, "weights: %s: %v is out of range: from 0 to %v", name, w, float64(cluster.MaxWeight))
		default:
			s.Variants[at].Weight = &w
		}
	}
	text := ""
	for _, v := range s.Variants {
		sum += v.weight()
		text += fmt.Sprintf(", %s %v", v.ID(), v.weight())
	}
	if sum == 0 {
		return e, fault.New(fault.Invalid, "weights: they would all be 0, and nothing would answer: give one variant a weight")
	}
	if err := rewrite(&e, s, e.Generation, &e.Spec); err != nil {
		return e, err
	}
	e.Note(cluster.EndpointNote{At: who.Now, What: "weights", Text: cut(text[2:], cluster.MaxEndpointText), By: who.By})
	return settled(e, nil)
}

// rewrite puts a changed spec in the place of one, and what it says of variants in their fleets.
func rewrite(e *cluster.Endpoint, s Spec, generation int64, place *[]byte) error {
	text, err := encode(s)
	if err != nil {
		return err
	}
	fresh, err := s.Fleets(generation, nil)
	if err != nil {
		return err
	}
	for _, f := range fresh {
		if at := e.Fleet(f.ID()); at >= 0 {
			e.Fleets[at].Spec, e.Fleets[at].Weight = f.Spec, f.Weight
		}
	}
	*place = text
	return nil
}

// Alarm has an update in progress rolled back with the next step. Without one nothing changes.
func Alarm(e cluster.Endpoint, reason string) cluster.Endpoint {
	e = clone(e)
	if r := e.Rollout; r != nil && r.Alarm == "" && r.Phase != cluster.RolloutRollingBack {
		r.Alarm = cut(reason, cluster.MaxEndpointText)
	}
	return e
}

// Idle marks replicas on their way out, by the names of their gangs, that no router has a request at.
func Idle(e cluster.Endpoint, gangs map[string]bool) cluster.Endpoint {
	e = clone(e)
	for i := range e.Fleets {
		f := &e.Fleets[i]
		f.Draining = slices.Clone(f.Draining)
		for k := range f.Draining {
			f.Draining[k].Idle = f.Draining[k].Idle || gangs[f.Draining[k].Gang]
		}
	}
	return e
}
