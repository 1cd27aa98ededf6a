package sweep

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/console/axes"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// shades is how many colours the trials of an objective have: the best of them have the
// strongest.
const shades = 10

// figures are what the plots draw: the sweep's trials by column.
type figures struct {
	sweep   Found
	problem tuner.Problem
	params  []space.Parameter // in the order of a configuration
	order   []int             // parameters that vary, the most important first
	shade   [][]int8          // by objective and trial, 0 to shades-1; -1: no complete trial within the limits
	front   []int             // numbers of the Pareto front
	place   []int             // of each trial among those that have ended, from 1; 0: it has not
}

func newFigures(s Found) *figures {
	f := &figures{sweep: s, problem: s.History.Problem()}
	byName := map[string]space.Parameter{}
	for _, q := range f.problem.Space.Spec().Parameters {
		byName[q.Name] = q
	}
	for i, name := range f.problem.Space.Names() {
		q := byName[name]
		f.params = append(f.params, q)
		if q.Type != space.Constant && (q.Choices == nil || len(q.Choices) > 1) && (q.Low == nil || *q.Low < *q.High) {
			f.order = append(f.order, i)
		}
	}
	share := map[string]float64{}
	if len(s.Importance) > 0 {
		for _, one := range s.Importance[0].Shares {
			share[one.Parameter] = one.Share
		}
	}
	slices.SortStableFunc(f.order, func(a, b int) int {
		x, y := share[f.params[a].Name], share[f.params[b].Name]
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	f.place = make([]int, s.History.Len())
	for i, number := range s.History.Ended() {
		f.place[number] = i + 1
	}
	for objective := range f.problem.Objectives {
		f.shade = append(f.shade, f.shaded(objective))
	}
	if len(f.problem.Objectives) > 1 {
		f.front = s.History.Front()
	}
	return f
}

// shaded ranks the complete trials within the limits by an objective.
func (f *figures) shaded(objective int) []int8 {
	h := f.sweep.History
	shade := make([]int8, h.Len())
	var ranked []int
	for number := range h.Len() {
		shade[number] = -1
		if h.State(number) == tuner.Complete && h.Excess(number) <= 0 {
			ranked = append(ranked, number)
		}
	}
	slices.SortStableFunc(ranked, func(a, b int) int {
		if h.Loss(a, objective) > h.Loss(b, objective) {
			return -1
		}
		return 1
	})
	for place, number := range ranked {
		shade[number] = int8((place + 1) * shades / (len(ranked) + 1))
	}
	if n := len(ranked); n > 0 {
		shade[ranked[n-1]] = shades - 1
	}
	return shade
}

// complete are the values of an objective of all complete trials.
func (f *figures) complete(objective int) []float64 {
	var values []float64
	for number := range f.sweep.History.Len() {
		if f.sweep.History.State(number) == tuner.Complete {
			values = append(values, f.sweep.History.Values(number)[objective])
		}
	}
	return values
}

// letters are the states as the page's script names them.
var letters = map[cluster.TrialState]byte{
	cluster.TrialWaiting: 'w', cluster.TrialRunning: 'r', cluster.TrialPaused: 'p', cluster.TrialComplete: 'c',
	cluster.TrialStopped: 's', cluster.TrialFailed: 'f', cluster.TrialInfeasible: 'i', cluster.TrialCancelled: 'x',
}

// last is where a trial's curve ends, or what a live one last said; NaN if it said nothing.
func (f *figures) last(number int) float64 {
	if f.sweep.History.State(number) == tuner.Complete {
		return math.NaN()
	}
	if curve := f.sweep.Trials[number].Curve; len(curve) > 0 {
		return curve[len(curve)-1].Value
	}
	if values := f.sweep.Trials[number].Values; len(values) > 0 {
		return values[0]
	}
	return math.NaN()
}

// columns is the data of the page's script.
type columns struct {
	Sweep      string            `json:"sweep"`
	Objectives []string          `json:"objectives"`
	Maximize   []bool            `json:"maximize"`
	Limits     []string          `json:"limits,omitempty"`
	Params     []column          `json:"params"`
	State      string            `json:"state"`  // a letter for each trial, see letters
	Values     [][]figure        `json:"values"` // by objective, then by limit
	Shades     []string          `json:"shades"` // by objective, a letter from a for each trial; . is none
	Last       []figure          `json:"last"`   // of the first objective, where a trial that is not complete stood last
	Seconds    []figure          `json:"seconds"`
	Place      []int             `json:"place"`             // among those that have ended, from 1; 0: it has not
	Reasons    map[string]string `json:"reasons,omitempty"` // of some trials, by number
	Made       map[string]string `json:"made,omitempty"`    // who added trials by hand, by number
}

type column struct {
	Name    string   `json:"name"`
	Choices []string `json:"choices,omitempty"`
	Values  []figure `json:"values"` // places in choices, if there are any
}

// figure is a number in six digits, or null.
type figure float64

// MarshalJSON implements json.Marshaler.
func (v figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(v), 'g', 6, 64), nil
}

// Texts of the page are cut, since strangers' programs write them.
const (
	maxReasons = 2000
	maxReason  = 200 // characters
)

func (f *figures) columns() ([]byte, error) {
	h := f.sweep.History
	c := columns{Sweep: f.sweep.Job.Name, Reasons: map[string]string{}, Made: map[string]string{}}
	for i, o := range f.problem.Objectives {
		c.Objectives = append(c.Objectives, o.Name)
		c.Maximize = append(c.Maximize, o.Direction == tuner.Maximize)
		row := make([]byte, h.Len())
		for number, shade := range f.shade[i] {
			row[number] = '.'
			if shade >= 0 {
				row[number] = 'a' + byte(shade)
			}
		}
		c.Shades = append(c.Shades, string(row))
	}
	for _, l := range f.problem.Limits {
		c.Limits = append(c.Limits, l.Name)
	}
	c.Values = make([][]figure, len(c.Objectives)+len(c.Limits))
	c.Params = make([]column, len(f.params))
	for i, q := range f.params {
		c.Params[i] = column{Name: q.Name, Choices: axes.Choices(q)}
	}
	states := make([]byte, h.Len())
	for number := range h.Len() {
		trial := f.sweep.Trials[number]
		states[number] = letters[trial.State]
		for i, v := range slices.Concat(h.Values(number), h.Limits(number)) {
			c.Values[i] = append(c.Values[i], figure(v))
		}
		for i, v := range h.Config(number) {
			c.Params[i].Values = append(c.Params[i].Values, figure(v))
		}
		c.Seconds = append(c.Seconds, figure(took(trial, f.sweep.Made).Seconds()))
		c.Last = append(c.Last, figure(f.last(number)))
		c.Place = append(c.Place, f.place[number])
		if trial.Reason != "" && len(c.Reasons) < maxReasons {
			c.Reasons[strconv.Itoa(number)] = axes.Shorten(trial.Reason, maxReason)
		}
		if trial.By != "" {
			c.Made[strconv.Itoa(number)] = trial.By
		}
	}
	c.State = string(states)
	return json.Marshal(c)
}

// took is how long a trial has run.
func took(t cluster.Trial, now time.Time) time.Duration {
	switch {
	case t.Started == 0:
		return 0
	case t.Ended == 0:
		return max(now.Sub(time.Unix(0, t.Started)), 0)
	}
	return time.Duration(t.Ended - t.Started)
}
