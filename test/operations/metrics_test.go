// Package operations holds docs/operations.md to what the processes do.
package operations

import (
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	agent "github.com/clary-ml/clary/agent/telemetry"
	coordinator "github.com/clary-ml/clary/coordinator/telemetry"
	"github.com/clary-ml/clary/serving/annex"
	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/serving/router"
)

var (
	named  = regexp.MustCompile(`fqName: "([a-z0-9_]+)"`)
	inRow  = regexp.MustCompile("(?m)^\\| `(clary_[a-z0-9_]+)`")
	ofOurs = regexp.MustCompile(`^clary_`)
)

// served are the names of what a registry serves, but for those that every Go program has.
func served(t *testing.T, registry *prometheus.Registry) map[string]bool {
	t.Helper()
	described := make(chan *prometheus.Desc, 1000)
	registry.Describe(described)
	close(described)
	names := map[string]bool{}
	for d := range described {
		name := named.FindStringSubmatch(d.String())
		if name == nil {
			t.Fatalf("a metric has no name: %s", d)
		}
		if ofOurs.MatchString(name[1]) {
			names[name[1]] = true
		}
	}
	return names
}

// unasked is a store of which nothing is asked.
type unasked struct{ async.Store }

func TestThePageNamesEveryMetricThatIsServedAndNoOther(t *testing.T) {
	options := router.Options{Name: "x", Log: slog.New(slog.DiscardHandler)}
	annex.New(annex.Options{Store: unasked{}, Log: options.Log}).Install(&options)
	r, err := router.New(options)
	if err != nil {
		t.Fatal(err)
	}
	found := served(t, coordinator.New(coordinator.Sources{}, r.Collectors()...).Registry)
	maps.Copy(found, served(t, agent.New(agent.Sources{})))
	if len(found) < 40 {
		t.Fatalf("only %d metrics were found", len(found))
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range inRow.FindAllSubmatch(page, -1) {
		documented[string(row[1])] = true
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !documented[name] {
			t.Errorf("%s is served, and docs/operations.md does not name it", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if !found[name] {
			t.Errorf("docs/operations.md names %s, and nobody serves it", name)
		}
	}
}
