package route

import (
	"fmt"
	"math"
	"net"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// Bounds of what a table may ask for.
const (
	MaxBody     = 1 << 40
	MaxCount    = 1 << 20 // of requests, replicas, and requests a second
	MaxDuration = 24 * time.Hour
	MaxWeight   = 1e9
)

// Validate reports every mistake in the table.
func (t Table) Validate() cluster.Problems {
	var p cluster.Problems
	names := map[string]bool{}
	for i := range t.Endpoints {
		e := &t.Endpoints[i]
		field := at("endpoints", i)
		p.Under(field, e.validate())
		if names[e.Name] {
			p.Add(field+".name", "%q is there twice: give each endpoint a name of its own", cluster.Clip(e.Name))
		}
		names[e.Name] = true
	}
	ids := map[string]bool{}
	for i, token := range t.Tokens {
		field := at("tokens", i)
		if token.ID == "" || ids[token.ID] {
			p.Add(field+".id", "%q is empty or there twice: give each token its own", cluster.Clip(token.ID))
		}
		ids[token.ID] = true
		if len(token.Hash) != 32 {
			p.Add(field+".hash", "%d bytes: SHA-256 of the secret has 32", len(token.Hash))
		}
	}
	return p
}

func (e *Endpoint) validate() cluster.Problems {
	var p cluster.Problems
	cluster.CheckName(&p, "name", e.Name)
	type key struct {
		variant    string
		generation int64
	}
	variants, keys, sum := map[string]bool{}, map[key]bool{}, 0.0
	for i := range e.Fleets {
		f := &e.Fleets[i]
		field := at("fleets", i)
		p.Under(field, f.validate())
		if keys[key{f.Variant, f.Generation}] {
			p.Add(field+".variant", "%q of generation %d is there twice: put all its replicas into one fleet", cluster.Clip(f.Variant), f.Generation)
		}
		keys[key{f.Variant, f.Generation}] = true
		variants[f.Variant] = true
		sum += f.Weight
	}
	if len(e.Fleets) > 0 && sum == 0 {
		p.Add("fleets", "all weights are 0, so that nobody would answer: give one of them a weight above 0")
	}
	p.Under("limits", e.Limits.validate())
	if s := e.Sticky; s != nil && (s.Header == "" && s.Cookie == "" || !token(s.Header) || !token(s.Cookie)) {
		p.Add("sticky", "header %q, cookie %q: name one of them, of letters, digits and '-'", cluster.Clip(s.Header), cluster.Clip(s.Cookie))
	}
	if s := e.Shadow; s != nil {
		if !variants[s.Variant] {
			p.Add("shadow.variant", "%q is no variant of this endpoint", cluster.Clip(s.Variant))
		}
		checkShare(&p, "shadow.share", s.Share)
	}
	if c := e.Capture; c != nil {
		checkShare(&p, "capture.share", c.Share)
	}
	return p
}

func (f *Fleet) validate() cluster.Problems {
	var p cluster.Problems
	cluster.CheckName(&p, "variant", f.Variant)
	checkNumber(&p, "weight", f.Weight, MaxWeight)
	ids := map[string]bool{}
	for i, r := range f.Replicas {
		field := at("replicas", i)
		if r.ID == "" || len(r.ID) > 256 || ids[r.ID] {
			p.Add(field+".id", "%q is empty, longer than 256 bytes, or there twice: give each replica its own", cluster.Clip(r.ID))
		}
		ids[r.ID] = true
		if _, port, err := net.SplitHostPort(r.Address); err != nil || port == "" || port == "0" {
			p.Add(field+".address", "%q is no address: it takes HOST:PORT", cluster.Clip(r.Address))
		}
	}
	return p
}

func (l Limits) validate() cluster.Problems {
	var p cluster.Problems
	for _, n := range []struct {
		field     string
		value     int64
		low, most int64
	}{
		{"body", l.Body, 0, MaxBody},
		{"concurrency", int64(l.Concurrency), 0, MaxCount},
		{"queue", int64(l.Queue), 0, MaxCount},
		{"burst", int64(l.Burst), 0, MaxCount},
		{"retries", int64(l.Retries), -1, 10},
	} {
		if n.value < n.low || n.value > n.most {
			p.Add(n.field, "%d: it takes %d to %d, and 0 is the router's default", n.value, n.low, n.most)
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"timeout", l.Timeout}, {"queue_time", l.QueueTime}, {"hold_time", l.HoldTime}} {
		if d.value < 0 || d.value > MaxDuration {
			p.Add(d.field, "%v: it takes 0 to %v, and 0 is the router's default", d.value, MaxDuration)
		}
	}
	checkNumber(&p, "rate", l.Rate, MaxCount)
	checkNumber(&p, "per_token", l.PerToken, MaxCount)
	return p
}

func checkNumber(p *cluster.Problems, field string, x, most float64) {
	if !(x >= 0 && x <= most) { // NaN too
		p.Add(field, "%v: it takes a number from 0 to %v", x, most)
	}
}

func checkShare(p *cluster.Problems, field string, x float64) {
	if math.IsNaN(x) || x < 0 || x > 1 {
		p.Add(field, "%v: it takes a share from 0 to 1", x)
	}
}

// token reports whether text may be the name of a header field or a cookie.
func token(text string) bool {
	for _, c := range []byte(text) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
