// Package route is what routers and the cluster tell each other: tables of endpoints with the
// replicas that answer for them, and reports of what was asked and how it went.
//
// Both are plain values with one JSON form. It is what goes over the wire, what a router keeps on
// disk to go on with while no coordinator answers, and what a table written by hand looks like.
package route

import "time"

// Table is all that a router knows of the cluster.
type Table struct {
	// Version rises with every change; 0 is a table written by hand.
	Version   uint64     `json:"version,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Tokens    []Token    `json:"tokens,omitempty"`
}

// Endpoint is one name that requests go to.
type Endpoint struct {
	Name string `json:"name"`
	// Public lets anyone ask; else a request shows a token of the cluster.
	Public bool `json:"public,omitempty"`
	// Fleets answer. A variant has one, or during a rollout two: the old and the new.
	Fleets  []Fleet  `json:"fleets,omitempty"`
	Limits  Limits   `json:"limits,omitzero"`
	Sticky  *Sticky  `json:"sticky,omitempty"`
	Shadow  *Shadow  `json:"shadow,omitempty"`
	Capture *Capture `json:"capture,omitempty"`
	Async   *Async   `json:"async,omitempty"`
	// Models says that a request names the model it is for among many: the server loads it.
	Models bool `json:"models,omitempty"`
}

// Fleet is the replicas of one variant as one generation of the endpoint's spec has them.
type Fleet struct {
	Variant    string `json:"variant"`
	Generation int64  `json:"generation,omitempty"`
	// Weight is its share of the endpoint's requests, relative to the other fleets'. A fleet of weight 0
	// gets only what names its variant, and mirrored traffic.
	Weight   float64   `json:"weight,omitempty"`
	Replicas []Replica `json:"replicas,omitempty"`
	// Cold says that no replica gets requests now, and that one is to: requests are held, and where there
	// is none at all, since nobody asked, the first one has it started.
	Cold bool `json:"cold,omitempty"`
}

// Replica is one server.
type Replica struct {
	// ID is its task's; of a table written by hand, any name.
	ID   string `json:"id"`
	Node string `json:"node,omitempty"`
	// Address is host:port: of the server itself, or with Gateway of its node's agent, which
	// brings connections that name ID to it, over TLS of the cluster.
	Address string `json:"address"`
	Gateway bool   `json:"gateway,omitempty"`
	// Draining replicas get nothing new, and finish what they have.
	Draining bool `json:"draining,omitempty"`
}

// Limits are bounds of one endpoint, at each router. What is 0 has the router's default.
type Limits struct {
	// Body is the most bytes of a request, Timeout how long an answer may take to begin and, if it is
	// no stream, to end.
	Body    int64         `json:"body,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	// Concurrency is the most requests that a replica is given at a time, Queue how many wait for
	// that at most, and QueueTime how long.
	Concurrency int           `json:"concurrency,omitempty"`
	Queue       int           `json:"queue,omitempty"`
	QueueTime   time.Duration `json:"queue_time,omitempty"`
	// Rate is the most requests a second, PerToken of each token, Burst how many may come at once.
	Rate     float64 `json:"rate,omitempty"`
	PerToken float64 `json:"per_token,omitempty"`
	Burst    int     `json:"burst,omitempty"`
	// Retries are how often a request that is safe to send again goes to another replica.
	Retries int `json:"retries,omitempty"`
	// HoldTime is how long a request is held for a cold fleet's first replica that answers.
	HoldTime time.Duration `json:"hold_time,omitempty"`
}

// Sticky keeps requests of one session at one variant and, while it is there, one replica.
type Sticky struct {
	// Header or Cookie has the session's name. Without it in a request, a cookie gets one made up.
	Header string `json:"header,omitempty"`
	Cookie string `json:"cookie,omitempty"`
}

// Shadow sends copies of requests to a variant whose answers nobody gets.
type Shadow struct {
	Variant string  `json:"variant"`
	Share   float64 `json:"share"` // of the endpoint's requests, from 0 to 1
}

// Capture keeps a share of requests and answers as JSON lines in the object store.
type Capture struct {
	Share float64 `json:"share"` // from 0 to 1
	To    string  `json:"to"`    // s3://bucket/prefix
	// Inputs and Outputs say which halves are kept.
	Inputs  bool `json:"inputs,omitempty"`
	Outputs bool `json:"outputs,omitempty"`
	// MaxBody is how much of a body is kept; a request with more is captured without it.
	MaxBody int64 `json:"max_body,omitempty"`
}

// Async lets requests be left in the object store, to be answered there.
type Async struct {
	To          string `json:"to"` // s3://bucket/prefix of answers
	Failures    string `json:"failures,omitempty"`
	Concurrency int    `json:"concurrency,omitempty"` // at a time, for each replica
	Retries     int    `json:"retries,omitempty"`
}

// Token is what a router needs to know of a user's token: never the secret itself.
type Token struct {
	ID      string `json:"id"`
	Hash    []byte `json:"hash"` // SHA-256 of the secret
	Name    string `json:"name"`
	Role    string `json:"role"`
	Expires int64  `json:"expires,omitempty"` // Unix nanoseconds; 0 is never
}
