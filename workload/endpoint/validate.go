package endpoint

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/serving/autoscale"
)

// Parse reads a spec and reports every mistake in it; the spec is only good without any.
func Parse(data []byte) (Spec, cluster.Problems) {
	var s Spec
	if problems := strictjson.Decode(data, &s); len(problems) > 0 {
		return Spec{}, problems
	}
	return s, s.Validate()
}

// Validate reports every mistake, each with the path of its field.
func (s Spec) Validate() cluster.Problems {
	var p cluster.Problems
	s.validateVariants(&p)
	if s.Models != "" {
		s.validateModels(&p)
	}
	if s.Shadow != nil {
		if _, known := s.variant(s.Shadow.Variant); !known {
			p.Add("shadow.variant", "%q is no variant: there is %s", cluster.Clip(s.Shadow.Variant), s.names())
		}
		part(&p, "shadow.share", s.Shadow.Share)
	}
	if s.Sticky != nil {
		p.Under("sticky", s.Sticky.validate())
	}
	p.Under("update", s.Update.validate())
	if s.Capture != nil {
		p.Under("capture", s.Capture.validate())
	}
	if s.Async != nil {
		p.Under("async", s.Async.validate())
	}
	p.Under("limits", s.Limits.validate())
	if len(p) > 0 {
		return p
	}
	// What is left are the limits that every fleet has: they are checked on the fleets.
	fleets, err := s.Fleets(1, nil)
	if err != nil {
		p.Add("", "%s", err)
		return p
	}
	for i := range fleets {
		fleets[i].Share = 1
		p.Under(fmt.Sprintf("variants[%d]", i), fleets[i].Validate())
	}
	return p
}

func (s Spec) names() string {
	names := make([]string, len(s.Variants))
	for i, v := range s.Variants {
		names[i] = v.ID()
	}
	return strings.Join(names, ", ")
}

func (s Spec) validateVariants(p *cluster.Problems) {
	if n := len(s.Variants); n == 0 || n > MaxVariants {
		p.Add("variants", "%d: an endpoint has from 1 to %d", n, MaxVariants)
	}
	seen, sum := map[string]bool{}, 0.0
	for i, v := range s.Variants {
		field := fmt.Sprintf("variants[%d]", i)
		cluster.CheckVariant(p, field+".name", v.ID())
		if seen[v.ID()] {
			p.Add(field+".name", "%q is there twice: name each variant", cluster.Clip(v.ID()))
		}
		seen[v.ID()] = true
		if w := v.weight(); !(w >= 0 && w <= cluster.MaxWeight) {
			p.Add(field+".weight", "%v is out of range: from 0 to %v", w, float64(cluster.MaxWeight))
		} else {
			sum += w
		}
		p.Under(field, v.validateNumber())
		if v.Scaling != nil && s.Async == nil && v.Scaling.Looks(autoscale.Backlog) {
			p.Add(field+".scaling.policies", "looks at the backlog of asynchronous requests, which this endpoint does not take: give it async.to")
		}
		if v.Own() && v.Model == "" && s.Models == "" {
			p.Add(field+".model", "is missing: name a model that Clary serves, or an image, a program or a script that is a server")
		}
		p.Under(field, v.Server.Validate(1))
		if v.Port > 0 && v.Image == "" {
			p.Add(field+".port", "%d is for a container, which has an address of its own: of two replicas on a node both would want it, and every update runs two; listen at the port that SAGEMAKER_BIND_TO_PORT says", v.Port)
		}
		if f := v.Probe.Failures; f != nil {
			inRange(p, field+".probe.failures", int64(*f), 0, 1000)
		}
	}
	if len(s.Variants) > 0 && sum == 0 {
		p.Add("variants", "the weights are all 0: nothing would answer; give one variant a weight")
	}
}

// validateNumber checks how many replicas there are to be.
func (v Variant) validateNumber() cluster.Problems {
	var p cluster.Problems
	if v.Scaling == nil {
		inRange(&p, "replicas", int64(v.replicas()), 0, cluster.MaxReplicas)
		return p
	}
	if v.Replicas != nil {
		p.Add("replicas", "stands beside scaling, which has min, max and initial: remove one of the two")
	}
	p.Under("scaling", v.Scaling.Validate())
	for i, policy := range v.Scaling.Policies {
		if policy.Metric == autoscale.GPU && v.Resources.GPUs == 0 { // what is not measured takes no replica away
			p.Add(fmt.Sprintf("scaling.policies[%d].metric", i), "%q is of replicas that have GPUs: ask for some with resources.gpus, or use another metric", policy.Metric)
		}
	}
	inRange(&p, "scaling.max", int64(max(v.Scaling.Min, v.Scaling.Max)), 0, cluster.MaxReplicas)
	for i, entry := range v.Scaling.Schedule {
		for field, bound := range map[string]*int{"min": entry.Min, "max": entry.Max} {
			if bound != nil {
				inRange(&p, fmt.Sprintf("scaling.schedule[%d].%s", i, field), int64(*bound), 0, cluster.MaxReplicas)
			}
		}
	}
	return p
}

func (s Spec) validateModels(p *cluster.Problems) {
	address(p, "models", s.Models)
	if !strings.HasSuffix(s.Models, "/") {
		p.Add("models", "%q is no prefix: end it with a slash", cluster.Clip(s.Models))
	}
	for i, v := range s.Variants {
		if !v.Own() || v.Model != "" {
			p.Add(fmt.Sprintf("variants[%d]", i), "stands beside models, which Clary's own server loads: leave model, image, program and script out")
		}
	}
}

func (y Sticky) validate() cluster.Problems {
	var p cluster.Problems
	if y.Header == "" && y.Cookie == "" {
		p.Add("", "names neither a header nor a cookie")
	}
	for field, name := range map[string]string{"header": y.Header, "cookie": y.Cookie} {
		const rest = "!#$%&'*+-.^_`|~0123456789"
		if len(name) > 128 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz"+rest) != "" {
			p.Add(field, "%q is no name of a header or cookie: use letters, digits and '-'", cluster.Clip(name))
		}
	}
	return p
}

func (u Takeover) validate() cluster.Problems {
	var p cluster.Problems
	switch u.Strategy {
	case "", AllAtOnce:
		if u.Step != 0 {
			p.Add("step", "is for %s and %s: name one of them as strategy", Canary, Linear)
		}
	case Canary, Linear:
		if u.Step == 0 {
			p.Add("step", "is missing: say which share of the requests goes over in a step, like 10%%")
		} else if !(u.Step >= 1.0/cluster.MaxRolloutSteps && u.Step <= 1) {
			p.Add("step", "%v is out of range: from 0.01 to 1", float64(u.Step))
		}
	default:
		p.Add("strategy", "%q is unknown: %s, %s or %s", cluster.Clip(string(u.Strategy)), AllAtOnce, Canary, Linear)
	}
	span(&p, "bake", u.Bake, 0, cluster.MaxRolloutTime)
	if u.Wait != nil {
		span(&p, "wait", *u.Wait, 0, cluster.MaxRolloutTime)
	}
	if u.Startup != 0 {
		span(&p, "startup", u.Startup, time.Second, 24*time.Hour)
	}
	if u.Alarms != nil {
		p.Under("alarms", u.Alarms.validate(u.bake()))
	}
	return p
}

func (a Alarms) validate(bake time.Duration) cluster.Problems {
	var p cluster.Problems
	if a.ErrorRate == nil && a.LatencyP50 == 0 && a.LatencyP99 == 0 && a.Metric == nil {
		p.Add("", "names nothing to watch: error_rate, latency_p50, latency_p99 or metric")
	}
	if a.ErrorRate != nil && !(*a.ErrorRate >= 0 && *a.ErrorRate < 1) {
		p.Add("error_rate", "%v is out of range: from 0 to below 1", float64(*a.ErrorRate))
	}
	span(&p, "latency_p50", a.LatencyP50, 0, time.Hour)
	span(&p, "latency_p99", a.LatencyP99, 0, time.Hour)
	if a.Window != 0 {
		span(&p, "window", a.Window, time.Second, 24*time.Hour)
	}
	if window := a.WithDefaults().Window.Std(); a.Window != 0 && window > bake {
		p.Add("window", "%s is longer than a step, which lasts %s", window, bake)
	}
	inRange(&p, "min_requests", a.MinRequests, 0, 1e9)
	if m := a.Metric; m != nil {
		if m.Name == "" || len(m.Name) > 255 {
			p.Add("metric.name", "%q: takes 1 to 255 bytes", cluster.Clip(m.Name))
		}
		if m.Above == nil && m.Below == nil {
			p.Add("metric", "has no bound: say above or below")
		}
		for field, bound := range map[string]*float64{"metric.above": m.Above, "metric.below": m.Below} {
			if bound != nil && (math.IsNaN(*bound) || math.IsInf(*bound, 0)) {
				p.Add(field, "%v is not a number", *bound)
			}
		}
	}
	return p
}

func (c Capture) validate() cluster.Problems {
	var p cluster.Problems
	part(&p, "share", c.Share)
	cluster.CheckTarget(&p, "to", c.To)
	if c.Inputs != nil && c.Outputs != nil && !*c.Inputs && !*c.Outputs {
		p.Add("inputs", "is false, and outputs too: nothing would be kept")
	}
	inRange(&p, "max_body", int64(c.MaxBody), 0, 1<<30)
	return p
}

func (a Async) validate() cluster.Problems {
	var p cluster.Problems
	cluster.CheckTarget(&p, "to", a.To)
	if a.Failures != "" {
		cluster.CheckTarget(&p, "failures", a.Failures)
	}
	inRange(&p, "concurrency", int64(a.Concurrency), 0, 1000)
	inRange(&p, "retries", int64(a.Retries), 0, 100)
	return p
}

func (l Limits) validate() cluster.Problems {
	var p cluster.Problems
	inRange(&p, "body", int64(l.Body), 0, 10<<30) // as behindRouters
	for _, d := range []struct {
		field string
		value quantity.Duration
		most  time.Duration
	}{{"timeout", l.Timeout, time.Hour}, {"queue_time", l.QueueTime, time.Hour}, {"hold_time", l.HoldTime, time.Hour}, {"drain", l.Drain, 24 * time.Hour}} {
		if d.value != 0 {
			span(&p, d.field, d.value, time.Millisecond, d.most)
		}
	}
	inRange(&p, "concurrency", int64(l.Concurrency), 0, 1e6)
	inRange(&p, "queue", int64(l.Queue), 0, 1e6)
	inRange(&p, "burst", int64(l.Burst), 0, 1e6)
	inRange(&p, "retries", int64(l.Retries), 0, 10)
	for field, rate := range map[string]float64{"rate": l.Rate, "per_token": l.PerToken} {
		if !(rate >= 0 && rate <= 1e9) {
			p.Add(field, "%v is out of range: from 0 to 1e9 requests a second", rate)
		}
	}
	return p
}

func part(p *cluster.Problems, field string, share quantity.Share) {
	if !(share > 0 && share <= 1) {
		p.Add(field, "%v is out of range: above 0, up to 1 or 100%%", float64(share))
	}
}

func span(p *cluster.Problems, field string, d quantity.Duration, least, most time.Duration) {
	if d.Std() < least || d.Std() > most {
		p.Add(field, "%s is out of range: from %s to %s", d.Std(), least, most)
	}
}

func inRange(p *cluster.Problems, field string, value, least, most int64) {
	if value < least || value > most {
		p.Add(field, "%d is out of range: from %d to %d", value, least, most)
	}
}

func address(p *cluster.Problems, field, uri string) {
	rest, isS3 := strings.CutPrefix(uri, "s3://")
	if bucket, _, _ := strings.Cut(rest, "/"); !isS3 || bucket == "" {
		p.Add(field, "%q is not s3://bucket/prefix/", cluster.Clip(uri))
	}
}
