package metric

import (
	"fmt"
	"regexp"

	"github.com/clary-ml/clary/cluster"
)

// Matcher finds metrics in the lines that a task writes.
type Matcher struct{ rules []rule }

type rule struct {
	name    string
	pattern *regexp.Regexp
}

// NewMatcher prepares a program's definitions, which have been validated.
func NewMatcher(definitions []cluster.MetricDefinition) (*Matcher, error) {
	m := &Matcher{}
	for _, definition := range definitions {
		pattern, err := regexp.Compile(definition.Regex)
		if err != nil || pattern.NumSubexp() < 1 {
			return nil, fmt.Errorf("metric %q: %q is no pattern with a group", definition.Name, definition.Regex)
		}
		m.rules = append(m.rules, rule{definition.Name, pattern})
	}
	return m, nil
}

// Match makes a row of a line. Of several matches of one definition, as in a progress bar
// that draws itself again, the last counts. A definition named epoch, step or total says
// those.
func (m *Matcher) Match(line []byte) (Row, bool) {
	var row Row
	if len(line) > MaxLine {
		line = line[:MaxLine]
	}
	for _, rule := range m.rules {
		all := rule.pattern.FindAllSubmatch(line, -1)
		if len(all) > 0 {
			row.say(rule.name, string(all[len(all)-1][1]))
		}
	}
	return row, !row.empty()
}
