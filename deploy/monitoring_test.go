package deploy

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// metric is a name in an expression or in the table.
var metric = regexp.MustCompile(`clary_[a-z0-9_]+`)

// described are the metrics of the table in docs/operations.md, with those that Prometheus makes of a histogram.
func described(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !metric.MatchString(cells[1]) {
			continue
		}
		name := metric.FindString(cells[1])
		found[name] = true
		if strings.Contains(line, "histogram") || strings.HasSuffix(name, "duration_seconds") {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				found[name+suffix] = true
			}
		}
	}
	return found
}

// known fails the test for each name in an expression that the table has not.
func known(t *testing.T, table map[string]bool, where, expression string) int {
	t.Helper()
	names := metric.FindAllString(expression, -1)
	for _, name := range names {
		if !table[name] {
			t.Errorf("%s asks for %s, which is not in docs/operations.md", where, name)
		}
	}
	return len(names)
}

func TestAlertsAskForMetricsThatThereAreAndSayWhatToDo(t *testing.T) {
	text, err := os.ReadFile("monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	table, asked := described(t), 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			if known(t, table, rule.Alert, rule.Expr) == 0 && !strings.HasPrefix(rule.Expr, "up{") {
				t.Errorf("%s asks for nothing", rule.Alert)
			}
			if rule.Annotations["summary"] == "" || rule.Annotations["remedy"] == "" {
				t.Errorf("%s says not what is wrong, or not what to do", rule.Alert)
			}
			asked++
		}
	}
	if asked < 10 {
		t.Errorf("only %d alerts were read", asked)
	}
}

func TestTheDashboardAsksForMetricsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	table, asked := described(t), 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			asked += known(t, table, panel.Title, target.Expr)
		}
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("%s asks for nothing", panel.Title)
		}
	}
	if asked < 20 {
		t.Errorf("only %d metrics are asked for", asked)
	}
}
