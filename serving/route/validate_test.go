package route_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/serving/route"
)

func good() route.Table {
	return route.Table{
		Endpoints: []route.Endpoint{{
			Name:   "churn",
			Fleets: []route.Fleet{{Variant: "blue", Weight: 1, Replicas: []route.Replica{{ID: "a", Address: "10.0.0.1:80"}, {ID: "b", Address: "[::1]:80"}}}, {Variant: "green", Replicas: nil}},
			Shadow: &route.Shadow{Variant: "green", Share: 0.5}, Sticky: &route.Sticky{Cookie: "sid"},
		}},
		Tokens: []route.Token{{ID: "t", Hash: make([]byte, 32)}},
	}
}

func TestEveryMistakeOfATableIsNamedByItsField(t *testing.T) {
	if p := good().Validate(); len(p) > 0 {
		t.Fatal(p)
	}
	for field, spoil := range map[string]func(*route.Table){
		"endpoints[0].name":                          func(t *route.Table) { t.Endpoints[0].Name = "Churn!" },
		"endpoints[1].name":                          func(t *route.Table) { t.Endpoints = append(t.Endpoints, t.Endpoints[0]) },
		"endpoints[0].fleets":                        func(t *route.Table) { t.Endpoints[0].Fleets[0].Weight = 0 },
		"endpoints[0].fleets[0].weight":              func(t *route.Table) { t.Endpoints[0].Fleets[0].Weight = math.NaN() },
		"endpoints[0].fleets[1].weight":              func(t *route.Table) { t.Endpoints[0].Fleets[1].Weight = -1 },
		"endpoints[0].fleets[0].variant":             func(t *route.Table) { t.Endpoints[0].Fleets[0].Variant = "" },
		"endpoints[0].fleets[1].variant":             func(t *route.Table) { t.Endpoints[0].Fleets[1].Variant = "blue" },
		"endpoints[0].fleets[0].replicas[1].id":      func(t *route.Table) { t.Endpoints[0].Fleets[0].Replicas[1].ID = "a" },
		"endpoints[0].fleets[0].replicas[0].address": func(t *route.Table) { t.Endpoints[0].Fleets[0].Replicas[0].Address = "10.0.0.1" },
		"endpoints[0].fleets[0].replicas[1].address": func(t *route.Table) { t.Endpoints[0].Fleets[0].Replicas[1].Address = "a:0" },
		"endpoints[0].shadow.variant":                func(t *route.Table) { t.Endpoints[0].Shadow.Variant = "red" },
		"endpoints[0].shadow.share":                  func(t *route.Table) { t.Endpoints[0].Shadow.Share = 1.1 },
		"endpoints[0].capture.share":                 func(t *route.Table) { t.Endpoints[0].Capture = &route.Capture{Share: math.NaN()} },
		"endpoints[0].sticky":                        func(t *route.Table) { t.Endpoints[0].Sticky = &route.Sticky{} },
		"endpoints[0].limits.body":                   func(t *route.Table) { t.Endpoints[0].Limits.Body = -1 },
		"endpoints[0].limits.timeout":                func(t *route.Table) { t.Endpoints[0].Limits.Timeout = 25 * time.Hour },
		"endpoints[0].limits.queue_time":             func(t *route.Table) { t.Endpoints[0].Limits.QueueTime = -1 },
		"endpoints[0].limits.hold_time":              func(t *route.Table) { t.Endpoints[0].Limits.HoldTime = math.MinInt64 },
		"endpoints[0].limits.concurrency":            func(t *route.Table) { t.Endpoints[0].Limits.Concurrency = 1 << 21 },
		"endpoints[0].limits.queue":                  func(t *route.Table) { t.Endpoints[0].Limits.Queue = -1 },
		"endpoints[0].limits.burst":                  func(t *route.Table) { t.Endpoints[0].Limits.Burst = -1 },
		"endpoints[0].limits.retries":                func(t *route.Table) { t.Endpoints[0].Limits.Retries = 11 },
		"endpoints[0].limits.rate":                   func(t *route.Table) { t.Endpoints[0].Limits.Rate = math.Inf(1) },
		"endpoints[0].limits.per_token":              func(t *route.Table) { t.Endpoints[0].Limits.PerToken = -1 },
		"tokens[0].id":                               func(t *route.Table) { t.Tokens[0].ID = "" },
		"tokens[0].hash":                             func(t *route.Table) { t.Tokens[0].Hash = nil },
	} {
		table := good()
		spoil(&table)
		found := false
		for _, p := range table.Validate() {
			found = found || p.Field == field && p.Text != ""
		}
		if !found {
			t.Errorf("%s: it says %v", field, table.Validate())
		}
	}
}

func TestATableThatAPersonWroteIsReadStrictly(t *testing.T) {
	const text = `{"endpoints":[{"name":"e","public":true,"limits":{"timeout":"1m30s","queue_time":2,"retries":-1},
		"fleets":[{"variant":"v","weight":1,"replicas":[{"id":"a","address":"localhost:1"}]}]}]}`
	table, err := route.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if l := table.Endpoints[0].Limits; l.Timeout != 90*time.Second || l.QueueTime != 2*time.Second || l.Retries != -1 {
		t.Errorf("the limits are %+v", l)
	}
	for from, want := range map[string]string{
		`"public"`:     `endpoints[0].publik`,
		`"queue_time"`: `endpoints[0].limits.que_time`,
		`"1m30s"`:      `endpoints[0].limits`,
		`"weight":1`:   `endpoints[0].fleets: all weights are 0`,
	} {
		to := map[string]string{`"public"`: `"publik"`, `"queue_time"`: `"que_time"`, `"1m30s"`: `"soon"`, `"weight":1`: `"weight":0`}[from]
		if _, err := route.Parse([]byte(strings.Replace(text, from, to, 1))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %s it says %v, want %s", to, err, want)
		}
	}
}
