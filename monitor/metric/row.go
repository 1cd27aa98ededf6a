// Package metric is what tasks say of their work as numbers over time: the line protocol
// in which they say it, the patterns that find it in what they write, and the series that
// are made of it. It is pure: it reads no file and no clock.
package metric

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"

	"github.com/clary-ml/clary/cluster"
)

// Bounds on what a task may say.
const (
	MaxLine  = 64 << 10 // bytes of one row
	MaxNames = 256      // metrics of a task
	MaxName  = 256      // bytes
)

// Row is what one line says. What it does not say is nil.
//
// A line is an object of JSON, or words:
//
//	{"epoch": 3, "step": 1200, "total": 4000, "metrics": {"loss": 0.31, "accuracy": 0.9}}
//	epoch=3 step=1200 loss=0.31 accuracy=0.9
//
// total is how many steps there will be. A value that is not finite is none, as JSON has
// none, and ends what was said before: a loss that has become NaN leaves a gap.
type Row struct {
	Epoch  *int32             `json:"epoch,omitempty"`
	Step   *int64             `json:"step,omitempty"`
	Total  *int64             `json:"total,omitempty"`
	Values map[string]float64 `json:"metrics,omitempty"`
	// Lost are metrics whose newest value is not finite, sorted.
	Lost []string `json:"lost,omitempty"`

	// Cursor is where the row's source goes on after it, for whoever reads on after a
	// restart: an offset in a file, or a time.
	Cursor int64 `json:"cursor,omitempty"`
}

// ParseRow reads a line; rubbish is refused as a whole.
func ParseRow(line []byte) (Row, bool) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || len(line) > MaxLine {
		return Row{}, false
	}
	if line[0] == '{' {
		return parseObject(line)
	}
	return parseWords(line)
}

// notFinite are the words that Python and JavaScript write into what should be JSON.
var notFinite = regexp.MustCompile(`-?\b(NaN|Infinity)\b`)

func parseObject(line []byte) (Row, bool) {
	var said struct {
		Row
		Values map[string]*float64 `json:"metrics"`
	}
	if json.Unmarshal(line, &said) != nil && json.Unmarshal(notFinite.ReplaceAll(line, []byte("null")), &said) != nil {
		return Row{}, false
	}
	row := Row{Epoch: said.Epoch, Step: said.Step, Total: said.Total, Cursor: said.Cursor}
	for _, name := range said.Lost {
		row.put(name, math.NaN())
	}
	for _, name := range slices.Sorted(maps.Keys(said.Values)) {
		value := math.NaN()
		if said.Values[name] != nil {
			value = *said.Values[name]
		}
		row.put(name, value)
	}
	return row, !row.empty()
}

func parseWords(line []byte) (Row, bool) {
	var row Row
	for word := range bytes.FieldsSeq(line) {
		name, text, found := bytes.Cut(word, []byte("="))
		if !found || len(name) == 0 {
			return Row{}, false
		}
		if !row.say(string(name), string(text)) {
			return Row{}, false
		}
	}
	return row, !row.empty()
}

// say takes in one name and number; the names of a row's own fields mean those.
func (r *Row) say(name, text string) bool {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(value, 0) {
		return false
	}
	whole := math.Trunc(value) == value && math.Abs(value) < 1<<53
	own := name == "epoch" || name == "step" || name == "total"
	if own && !whole || name == "epoch" && math.Abs(value) > math.MaxInt32 {
		return false
	}
	n, epoch := int64(value), int32(value)
	switch name {
	case "epoch":
		r.Epoch = &epoch
	case "step":
		r.Step = &n
	case "total":
		r.Total = &n
	default:
		r.put(name, value)
	}
	return true
}

func (r *Row) put(name string, value float64) {
	lost, isLost := slices.BinarySearch(r.Lost, name)
	_, isKnown := r.Values[name]
	if name == "" || len(name) > MaxName || !isKnown && !isLost && len(r.Values)+len(r.Lost) >= MaxNames {
		return
	}
	if math.IsInf(value, 0) || math.IsNaN(value) {
		if delete(r.Values, name); !isLost {
			r.Lost = slices.Insert(slices.Clone(r.Lost), lost, name)
		}
		return
	}
	if isLost {
		r.Lost = slices.Delete(slices.Clone(r.Lost), lost, lost+1)
	}
	if r.Values == nil {
		r.Values = map[string]float64{}
	}
	r.Values[name] = value
}

func (r *Row) empty() bool {
	return r.Epoch == nil && r.Step == nil && r.Total == nil && len(r.Values)+len(r.Lost) == 0
}

// Text is the row as one line of JSON, without its end.
func (r *Row) Text() []byte {
	text, err := json.Marshal(r)
	if err != nil { // of finite numbers and texts there is none
		panic("metric: " + err.Error())
	}
	return text
}

// Merge takes a later row's word where it says anything.
func (r *Row) Merge(later Row) {
	if later.Epoch != nil {
		r.Epoch = later.Epoch
	}
	if later.Step != nil {
		r.Step = later.Step
	}
	if later.Total != nil {
		r.Total = later.Total
	}
	for _, name := range later.Lost {
		r.put(name, math.NaN())
	}
	for _, name := range slices.Sorted(maps.Keys(later.Values)) {
		r.put(name, later.Values[name])
	}
	if later.Cursor != 0 {
		r.Cursor = later.Cursor
	}
}

// Advance brings a task's progress up to the row.
func (r *Row) Advance(p *cluster.Progress) {
	if r.Epoch != nil {
		p.Epoch = *r.Epoch
	}
	if r.Step != nil {
		p.Step = *r.Step
	}
	if r.Total != nil {
		p.Total = *r.Total
	}
	if len(r.Values)+len(r.Lost) == 0 {
		return
	}
	metrics := maps.Clone(p.Metrics) // what was told before is not changed
	if metrics == nil {
		metrics = map[string]float64{}
	}
	for _, name := range r.Lost {
		delete(metrics, name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Values)) {
		if _, known := metrics[name]; known || len(metrics) < MaxNames {
			metrics[name] = r.Values[name]
		}
	}
	p.Metrics = metrics
}
