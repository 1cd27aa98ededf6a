package endpoint

import (
	"fmt"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// SetReplicas changes how many replicas a variant has, in its spec too; of one that scales by itself the
// number that it goes on from, within its bounds. While an update is in progress it is the number in
// both versions, and may only rise.
func SetReplicas(job cluster.Job, e cluster.Endpoint, variant string, n int32, who Asked) (cluster.Endpoint, error) {
	if n < 0 || n > cluster.MaxReplicas {
		return e, fault.New(fault.Invalid, "replicas: %d is out of range: from 0 to %d", n, cluster.MaxReplicas)
	}
	return resize(job, e, variant, who, fmt.Sprintf("to %d", n), func(v *Variant, f *cluster.Fleet) error {
		if s := v.Scaling; s == nil {
			v.Replicas = &n
		} else if most := max(s.Min, s.Max); int(n) < s.Min || int(n) > most {
			return fault.New(fault.Invalid, "replicas: %d is out of range: %s scales by itself from %d to %d: set its bounds", n, variant, s.Min, most)
		}
		f.Replicas, f.Scaled = n, who.Now
		return nil
	})
}

// SetBounds changes between which numbers of replicas a variant scales by itself; what is nil stays.
func SetBounds(job cluster.Job, e cluster.Endpoint, variant string, least, most *int32, who Asked) (cluster.Endpoint, error) {
	if least == nil && most == nil {
		return e, fault.New(fault.Invalid, "min: is missing, and max too: say which one changes")
	}
	text := ""
	if least != nil {
		text += fmt.Sprintf(" min %d", *least)
	}
	if most != nil {
		text += fmt.Sprintf(" max %d", *most)
	}
	return resize(job, e, variant, who, "has now"+text, func(v *Variant, f *cluster.Fleet) error {
		if v.Scaling == nil {
			return fault.New(fault.Invalid, "variant %s does not scale by itself: set its replicas, or give it scaling in its spec", variant)
		}
		s := *v.Scaling
		if least != nil {
			s.Min = int(*least)
		}
		if most != nil {
			s.Max = int(*most)
		}
		if s.Initial != nil { // it is for a new fleet, and must be in the bounds
			initial := min(max(*s.Initial, s.Min), max(s.Min, s.Max))
			s.Initial = &initial
		}
		v.Scaling = &s
		if problems := v.validateNumber(); len(problems) > 0 {
			return fault.New(fault.Invalid, "variant %s: %w", variant, problems)
		}
		f.Replicas = max(f.Replicas, int32(s.Min))
		if e.Rollout == nil {
			f.Replicas = min(f.Replicas, int32(max(s.Min, s.Max)))
		}
		return nil
	})
}

// resize edits a variant in all versions that are or come into force.
func resize(job cluster.Job, e cluster.Endpoint, variant string, who Asked, text string, edit func(*Variant, *cluster.Fleet) error) (cluster.Endpoint, error) {
	if err := open(job); err != nil {
		return e, err
	}
	e = clone(e)
	type version struct {
		generation int64
		text       *[]byte
	}
	versions := []version{{e.Generation, &e.Spec}}
	if e.Rollout != nil {
		versions = append(versions, version{e.Rollout.To, &e.Rollout.Spec})
	}
	names, found := "", false
	for _, one := range versions {
		s, err := read(*one.text)
		if err != nil {
			return e, err
		}
		names = s.names()
		at, known := s.variant(variant)
		fleet := e.Fleet(cluster.FleetID(variant, one.generation))
		if !known || fleet < 0 {
			continue
		}
		found = true
		f := &e.Fleets[fleet]
		before := f.Replicas
		s.Variants = slices.Clone(s.Variants)
		if err := edit(&s.Variants[at], f); err != nil {
			return e, err
		}
		if e.Rollout != nil && f.Replicas < before {
			return e, fault.New(fault.Conflict, "endpoint %q: %s has %d replicas and an update is in progress: until it is done they only become more", e.Job, f.ID(), before)
		}
		if err := rewrite(&e, s, one.generation, one.text); err != nil {
			return e, err
		}
	}
	if !found {
		return e, fault.New(fault.Invalid, "variant: %q is none: there is %s", cluster.Clip(variant), names)
	}
	e.Note(cluster.EndpointNote{At: who.Now, What: "scaled", Text: variant + " " + text, By: who.By})
	return settled(e, nil)
}

// Scale changes by itself how many replicas a fleet has, and keeps the state of what decided it. The
// spec stays. Fewer are refused while an update is in progress; state alone may always change.
func Scale(e cluster.Endpoint, fleet string, n int32, state []byte, why string, now int64) (cluster.Endpoint, error) {
	e = clone(e)
	at := e.Fleet(fleet)
	if at < 0 || e.Fleets[at].Retired {
		return e, fault.New(fault.NotFound, "endpoint %q has no fleet %s", e.Job, cluster.Clip(fleet))
	}
	f := &e.Fleets[at]
	switch {
	case n < f.Replicas && e.Rollout != nil:
		return e, fault.New(fault.Conflict, "endpoint %q: an update is in progress: until it is done replicas only become more", e.Job)
	case n != f.Replicas:
		e.Note(cluster.EndpointNote{At: now, What: "scaled", Text: cut(fmt.Sprintf("%s from %d to %d: %s", fleet, f.Replicas, n, why), cluster.MaxEndpointText)})
		f.Replicas, f.Scaled = n, now
	}
	f.Scaler = state
	return settled(e, nil)
}
