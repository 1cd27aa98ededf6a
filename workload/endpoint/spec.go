// Package endpoint is the kind of job that answers requests for as long as it is wanted: variants of
// a model, each with replicas that start anew when they end, and updates that take over step by step.
//
// What changes of an endpoint stands in cluster.Endpoint. Kind.Reconcile makes its replicas be what its
// fleets say, and drives updates; Update, SetWeights, SetReplicas and Rollback are what its owner may
// ask for; Table is what routers are told. All of it is pure. See DESIGN.md.
package endpoint

import (
	"encoding/json"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/workload/hosting"
)

// Spec is what an endpoint is to be.
type Spec struct {
	// Variants share the requests by their weights.
	Variants []Variant `json:"variants"`
	// Shadow sends copies of requests to a variant whose answers nobody gets.
	Shadow *Shadow `json:"shadow,omitempty"`
	// Sticky keeps requests of one session at one variant, and while it is there at one replica.
	Sticky *Sticky `json:"sticky,omitempty"`
	// Update says how a new version takes over.
	Update Takeover `json:"update,omitzero"`
	// Capture keeps a share of requests and answers in the object store.
	Capture *Capture `json:"capture,omitempty"`
	// Async lets requests be left in the object store, and be answered there.
	Async *Async `json:"async,omitempty"`
	// Limits are bounds at each router.
	Limits Limits `json:"limits,omitzero"`
	// Public lets anyone ask; else a request shows a token of the cluster.
	Public bool `json:"public,omitempty"`
	// Models is the s3:// prefix of many models behind this one endpoint: a request names the one that
	// it is for, and the server loads it. The server is Clary's own. What is put there later is found
	// by new replicas.
	Models string `json:"models,omitempty"`
}

// Variant is a model with its server, and its part of the requests.
type Variant struct {
	// Name tells variants apart; main if it is left out.
	Name string `json:"name,omitempty"`
	// Weight is its part of the requests beside the other variants' weights; 1 if it is left out. With 0
	// it gets only requests that name it, and copies.
	Weight *float64 `json:"weight,omitempty"`
	// Replicas are how many servers run; 1 if it is left out. Scaling has their number follow the load.
	Replicas *int32          `json:"replicas,omitempty"`
	Scaling  *autoscale.Spec `json:"scaling,omitempty"`
	hosting.Server
	// Probe says how a node finds out whether a replica serves.
	Probe Probe `json:"probe,omitzero"`
}

// Probe is a GET that a healthy replica answers with 200.
type Probe struct {
	// Path is asked; /ping if it is left out.
	Path string `json:"path,omitempty"`
	// Every is the time between two, Timeout that of one; 1s and 2s if left out.
	Every   quantity.Duration `json:"every,omitzero"`
	Timeout quantity.Duration `json:"timeout,omitzero"`
	// Failures in a row after which a replica that has served is started anew, 0 for never. Left out it
	// is as many as take a minute or the limit of a request, whichever is longer: a server that computes
	// may answer nothing else meanwhile.
	Failures *int32 `json:"failures,omitempty"`
}

// Shadow is mirrored traffic.
type Shadow struct {
	// Variant gets the copies. Share of the requests is copied, from 0 to 1, or like 10%.
	Variant string         `json:"variant"`
	Share   quantity.Share `json:"share"`
}

// Sticky names where a session's name stands.
type Sticky struct {
	// Header or Cookie has the session's name. Without it in a request, a cookie gets one made up.
	Header string `json:"header,omitempty"`
	Cookie string `json:"cookie,omitempty"`
}

// Strategy is how traffic goes over from old replicas to new ones.
type Strategy string

// The strategies.
const (
	AllAtOnce Strategy = "all_at_once" // in one step
	Canary    Strategy = "canary"      // first a small share, then all
	Linear    Strategy = "linear"      // in equal steps
)

// Takeover says how a new version takes over. First all its replicas start and must answer; then it gets
// its share, step by step; last the old ones go. Until then a rollback is instant.
type Takeover struct {
	// Strategy is all_at_once, which it is if left out, canary or linear.
	Strategy Strategy `json:"strategy,omitempty"`
	// Step is the share of a canary, or of each linear step: like 0.1, or 10%.
	Step quantity.Share `json:"step,omitzero"`
	// Bake is how long each step lasts; left out it is 5 minutes, and nothing for all_at_once without alarms.
	Bake quantity.Duration `json:"bake,omitzero"`
	// Wait is how long the old replicas stay after the last step; a minute if left out.
	Wait *quantity.Duration `json:"wait,omitempty"`
	// Startup is how long the new replicas may take until all answer, with the time that they wait for
	// room; left out it is 10 minutes more than the longest startup_timeout.
	Startup quantity.Duration `json:"startup,omitzero"`
	// Alarms roll the update back by itself.
	Alarms *Alarms `json:"alarms,omitempty"`
}

// Alarms are what must not happen to the new replicas while an update goes on.
type Alarms struct {
	// ErrorRate is the most of their answers that may be errors, from 0 to 1, or like 2%.
	ErrorRate *quantity.Share `json:"error_rate,omitempty"`
	// LatencyP50 and LatencyP99 are the most that half and all but a hundredth of their answers may take.
	LatencyP50 quantity.Duration `json:"latency_p50,omitzero"`
	LatencyP99 quantity.Duration `json:"latency_p99,omitzero"`
	// Metric is one that the replicas tell, in the mean of all and over the window.
	Metric *MetricAlarm `json:"metric,omitempty"`
	// Window is over how long they are measured, MinRequests how many answers it takes to judge; a
	// minute and 20 if left out.
	Window      quantity.Duration `json:"window,omitzero"`
	MinRequests int64             `json:"min_requests,omitempty"`
}

// MetricAlarm is a bound of a metric that the replicas tell.
type MetricAlarm struct {
	Name  string   `json:"name"`
	Above *float64 `json:"above,omitempty"`
	Below *float64 `json:"below,omitempty"`
}

// Capture keeps requests and answers as JSON lines.
type Capture struct {
	// Share of the requests is kept, from 0 to 1, or like 10%. To is an s3:// prefix.
	Share quantity.Share `json:"share"`
	To    string         `json:"to"`
	// Inputs and Outputs say which halves are kept; both if left out.
	Inputs  *bool `json:"inputs,omitempty"`
	Outputs *bool `json:"outputs,omitempty"`
	// MaxBody is how much of a body is kept: a request with more is kept without it.
	MaxBody quantity.Bytes `json:"max_body,omitzero"`
}

// Async are requests that lie in the object store.
type Async struct {
	// To is the s3:// prefix of the answers, Failures of what went wrong.
	To       string `json:"to"`
	Failures string `json:"failures,omitempty"`
	// Concurrency is how many a replica is given at a time, Retries how often one is tried again.
	Concurrency int `json:"concurrency,omitempty"`
	Retries     int `json:"retries,omitempty"`
}

// Limits are bounds of the endpoint at each router. What is left out has the router's default.
type Limits struct {
	// Body is the largest request, Timeout how long an answer may take to begin and, if it is no stream,
	// to end.
	Body    quantity.Bytes    `json:"body,omitzero"`
	Timeout quantity.Duration `json:"timeout,omitzero"`
	// Concurrency is the most requests that a replica is given at a time, Queue how many wait for
	// that at most, and QueueTime how long.
	Concurrency int               `json:"concurrency,omitempty"`
	Queue       int               `json:"queue,omitempty"`
	QueueTime   quantity.Duration `json:"queue_time,omitzero"`
	// Rate is the most requests a second, PerToken of each token, Burst how many may come at once.
	Rate     float64 `json:"rate,omitempty"`
	PerToken float64 `json:"per_token,omitempty"`
	Burst    int     `json:"burst,omitempty"`
	// Retries are how often a request that is safe to send again goes to another replica.
	Retries int `json:"retries,omitempty"`
	// HoldTime is how long a request waits for the first replica where there is none.
	HoldTime quantity.Duration `json:"hold_time,omitzero"`
	// Drain is how long a replica that goes may take to finish what it has, streams too; it goes as soon
	// as it has nothing. Left out it is 15 minutes, or Timeout if that is longer.
	Drain quantity.Duration `json:"drain,omitzero"`
}

// DefaultVariant is the name of a variant that has none.
const DefaultVariant = "main"

// Bounds and defaults.
const (
	MaxVariants = 16

	defaultBake    = 5 * time.Minute
	defaultWait    = time.Minute
	startupReserve = 10 * time.Minute
	defaultWindow  = time.Minute
	defaultJudged  = 20
	defaultDrain   = 15 * time.Minute
)

// ID is the variant's name.
func (v Variant) ID() string {
	if v.Name == "" {
		return DefaultVariant
	}
	return v.Name
}

// weight is its part of the requests.
func (v Variant) weight() float64 {
	if v.Weight == nil {
		return 1
	}
	return *v.Weight
}

// replicas are how many it begins with.
func (v Variant) replicas() int32 {
	switch {
	case v.Scaling != nil:
		return int32(min(v.Scaling.First(), cluster.MaxReplicas))
	case v.Replicas == nil:
		return 1
	}
	return *v.Replicas
}

// serves is what of the variant a replica is made of, to tell whether another one takes new replicas.
func (v Variant) serves() ([]byte, error) {
	return json.Marshal(struct {
		hosting.Server
		Probe Probe
	}{v.Server, v.Probe})
}

func (s Spec) variant(name string) (int, bool) {
	for i, v := range s.Variants {
		if v.ID() == name {
			return i, true
		}
	}
	return 0, false
}

// steps are the shares that new replicas have one after the other.
func (u Takeover) steps() []float64 {
	step := float64(u.Step)
	switch u.Strategy {
	case Canary:
		if step < 1 {
			return []float64{step, 1}
		}
	case Linear:
		var steps []float64
		for i := 1; float64(i)*step < 1-1e-9; i++ {
			steps = append(steps, float64(i)*step)
		}
		return append(steps, 1)
	}
	return []float64{1}
}

func (u Takeover) bake() time.Duration {
	if u.Bake == 0 && (u.Alarms != nil || u.Strategy == Canary || u.Strategy == Linear) {
		return defaultBake
	}
	return u.Bake.Std()
}

func (u Takeover) wait() time.Duration {
	if u.Wait == nil {
		return defaultWait
	}
	return u.Wait.Std()
}

// Startup is how long new replicas may take until all answer.
func (s Spec) Startup() time.Duration {
	if s.Update.Startup != 0 {
		return s.Update.Startup.Std()
	}
	longest := time.Duration(0)
	for _, v := range s.Variants {
		longest = max(longest, v.Startup().Std())
	}
	return longest + startupReserve
}

// WithDefaults are the alarms with everything said.
func (a Alarms) WithDefaults() Alarms {
	if a.Window == 0 {
		a.Window = quantity.Duration(defaultWindow)
	}
	if a.MinRequests == 0 {
		a.MinRequests = defaultJudged
	}
	return a
}

// Drain is how long a replica that goes may take to finish what it has.
func (s Spec) Drain() time.Duration {
	if s.Limits.Drain != 0 {
		return s.Limits.Drain.Std()
	}
	return max(s.Limits.Timeout.Std(), defaultDrain)
}
