package route

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
)

// limitsText is Limits as JSON has them: spans of time are written like "30s".
type limitsText struct {
	limitsAlone
	Timeout   quantity.Duration `json:"timeout,omitempty"`
	QueueTime quantity.Duration `json:"queue_time,omitempty"`
	HoldTime  quantity.Duration `json:"hold_time,omitempty"`
}

type limitsAlone Limits

// MarshalJSON writes spans of time like "30s".
func (l Limits) MarshalJSON() ([]byte, error) {
	return json.Marshal(limitsText{limitsAlone(l), quantity.Duration(l.Timeout), quantity.Duration(l.QueueTime), quantity.Duration(l.HoldTime)})
}

// UnmarshalJSON reads spans of time like "30s", or as a number of seconds.
func (l *Limits) UnmarshalJSON(text []byte) error {
	var read limitsText
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	*l = Limits(read.limitsAlone)
	l.Timeout, l.QueueTime, l.HoldTime = read.Timeout.Std(), read.QueueTime.Std(), read.HoldTime.Std()
	return nil
}

// Parse reads a table that a person wrote, and reports every mistake in it.
func Parse(text []byte) (Table, error) {
	var t Table
	problems := strictjson.Decode(text, &t)
	problems = append(problems, strangeLimits(text)...)
	if len(problems) == 0 {
		problems = t.Validate()
	}
	return t, problems.Err()
}

// strangeLimits reports limits that there are none of: they read themselves, and let them pass.
func strangeLimits(text []byte) cluster.Problems {
	var p cluster.Problems
	var read struct {
		Endpoints []struct {
			Limits map[string]json.RawMessage `json:"limits"`
		} `json:"endpoints"`
	}
	if json.Unmarshal(text, &read) != nil {
		return nil // it is told of elsewhere
	}
	all, _ := json.Marshal(Limits{1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
	known := map[string]json.RawMessage{}
	_ = json.Unmarshal(all, &known) // it was just written
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for i := range read.Endpoints {
		for name := range read.Endpoints[i].Limits {
			if _, ok := known[name]; !ok {
				p.Add(at("endpoints", i)+".limits."+cluster.Clip(name), "there is no such limit: the limits are %s", strings.Join(names, ", "))
			}
		}
	}
	return p
}
