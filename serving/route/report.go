package route

// Report is what a router tells of itself, once a second and at once when a cold fleet is asked for.
// Counts are since the router started, so that a report that is lost or told twice does no harm; a
// router that starts anew has another Boot.
type Report struct {
	Router string `json:"router"`
	Boot   string `json:"boot"`
	// Version is that of the table in force.
	Version uint64        `json:"version"`
	At      int64         `json:"at"` // Unix nanoseconds
	Fleets  []FleetReport `json:"fleets,omitempty"`
}

// FleetReport is how one fleet did at one router.
type FleetReport struct {
	Endpoint   string `json:"endpoint"`
	Variant    string `json:"variant"`
	Generation int64  `json:"generation,omitempty"`

	// What is now: requests at replicas, and those that wait or are held.
	InFlight int64 `json:"in_flight,omitempty"`
	Waiting  int64 `json:"waiting,omitempty"`

	// What was, since the router started. Requests were answered or given up; Errors are those answered
	// 5xx by a replica or not at all; Refused were never sent to one (429, 503).
	Requests int64 `json:"requests,omitempty"`
	Errors   int64 `json:"errors,omitempty"`
	Refused  int64 `json:"refused,omitempty"`
	// Busy is the sum of the times that requests have spent at replicas so far, in seconds: its growth over
	// time is the mean concurrency.
	Busy float64 `json:"busy,omitempty"`
	// Latency is of requests that a replica answered, and of those that their client gave up: how long it had
	// waited. It has no requests that were not answered at all. Logs are of answers that are not errors
	// alone: sums of natural logarithms, in seconds.
	Latency Histogram `json:"latency,omitzero"`
	Logs    Moments   `json:"logs,omitzero"`
	Rewards Moments   `json:"rewards,omitzero"`
	// Shadow counts are those of mirrored requests, which are in none of the above.
	Shadow *ShadowReport `json:"shadow,omitempty"`

	Replicas []ReplicaReport `json:"replicas,omitempty"`
}

// ShadowReport is how mirrored requests went, beside the answers that were given.
type ShadowReport struct {
	Requests int64     `json:"requests,omitempty"`
	Errors   int64     `json:"errors,omitempty"`
	Dropped  int64     `json:"dropped,omitempty"` // since the shadow was busy, or they were too large
	Same     int64     `json:"same,omitempty"`    // answers equal to the ones that were given, to the byte
	Latency  Histogram `json:"latency,omitzero"`
	Logs     Moments   `json:"logs,omitzero"`
}

// ReplicaReport is what a router sees of one replica now.
type ReplicaReport struct {
	ID       string `json:"id"`
	InFlight int64  `json:"in_flight,omitempty"`
	// Ejected says that the router leaves it out for a while, and Why.
	Ejected bool   `json:"ejected,omitempty"`
	Why     string `json:"why,omitempty"`
}

// Moments are sums from which mean, variance and skewness follow.
type Moments struct {
	N      int64   `json:"n,omitempty"`
	Sum    float64 `json:"sum,omitempty"`
	Square float64 `json:"square,omitempty"` // sum of squares
	Cube   float64 `json:"cube,omitempty"`   // sum of cubes
}

// Add takes in one value.
func (m *Moments) Add(x float64) {
	m.N, m.Sum, m.Square, m.Cube = m.N+1, m.Sum+x, m.Square+x*x, m.Cube+x*x*x
}

// Plus is both together.
func (m Moments) Plus(o Moments) Moments {
	return Moments{m.N + o.N, m.Sum + o.Sum, m.Square + o.Square, m.Cube + o.Cube}
}

// Minus is what m has more than an earlier state of it.
func (m Moments) Minus(o Moments) Moments {
	return Moments{m.N - o.N, m.Sum - o.Sum, m.Square - o.Square, m.Cube - o.Cube}
}
