// Package axes maps what is measured and searched to places along the axes of plots, on
// pages and in terminals.
package axes

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// Axis maps values to places: pixels, or columns and lines of a terminal. Its fields are what
// the script of a page maps with, too.
type Axis struct {
	Scale space.Scale `json:"scale"` // linear for choices, whose values are their places
	Low   float64     `json:"low"`   // values; Low is below High
	High  float64     `json:"high"`
	From  float64     `json:"from"` // places of Low and High
	To    float64     `json:"to"`

	Ticks []Tick `json:"-"`
}

// Tick is a mark along an axes.
type Tick struct {
	At   float64 // a value
	Text string
}

func warped(scale space.Scale, v float64) float64 {
	switch scale {
	case space.Log:
		return math.Log(v)
	case space.ReverseLog:
		return -math.Log1p(-v)
	case space.Logit:
		return math.Log(v) - math.Log1p(-v)
	}
	return v
}

// Place is where a value stands; values beyond the axis stand at its end.
func (a Axis) Place(v float64) float64 {
	v = min(max(v, a.Low), a.High)
	low, high := warped(a.Scale, a.Low), warped(a.Scale, a.High)
	if high <= low {
		return (a.From + a.To) / 2
	}
	return a.From + (warped(a.Scale, v)-low)/(high-low)*(a.To-a.From)
}

// OfParameter is the axis of all that a parameter can be.
func OfParameter(q space.Parameter, from, to float64) Axis {
	a := Axis{Scale: q.Scale, From: from, To: to}
	if a.Scale == "" {
		a.Scale = space.Linear
	}
	if names := Choices(q); names != nil {
		a.High = float64(len(names) - 1)
		for i, name := range names {
			a.Ticks = append(a.Ticks, Tick{float64(i), Shorten(name, 18)})
		}
		a.Ticks = Thin(a.Ticks, 12)
		if len(names) > 1 { // half a place at the ends, so that nothing stands on the frame
			a.Low, a.High = -0.5, a.High+0.5
		}
		return a
	}
	a.Low, a.High = *q.Low, *q.High
	a.Ticks = Ticks(a.Scale, a.Low, a.High, q.Type == space.Int)
	return a
}

// Choices are the texts of a parameter's choices; nil of a number.
func Choices(q space.Parameter) []string {
	switch q.Type {
	case space.Constant:
		return []string{q.Value.String()}
	case space.Ordered, space.Categorical:
		texts := make([]string, len(q.Choices))
		for i, choice := range q.Choices {
			texts[i] = choice.String()
		}
		return texts
	}
	return nil
}

// OfValues is an axis for measured values. Their good end is always on it; what lies far
// beyond the rest at the bad end is not.
func OfValues(values []float64, direction tuner.Direction, from, to float64) Axis {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return Axis{Scale: space.Linear, High: 1, From: from, To: to}
	}
	low, high := sorted[0], sorted[len(sorted)-1]
	if n := len(sorted); n >= 8 {
		early, late := sorted[n/10], sorted[n-1-n/10]
		if direction == tuner.Maximize {
			low = max(low, early-2*(late-early))
		} else {
			high = min(high, late+2*(late-early))
		}
	}
	a := Axis{Scale: space.Linear, Low: low, High: high, From: from, To: to}
	switch {
	case low == high:
		margin := max(math.Abs(low)*0.1, 1e-12)
		a.Low, a.High = low-margin, high+margin
	case low > 0 && high/low > 100:
		a.Scale = space.Log
		margin := math.Pow(high/low, 0.04)
		a.Low, a.High = low/margin, high*margin
	default:
		margin := 0.04*high - 0.04*low
		a.Low, a.High = low-margin, high+margin
	}
	if math.IsInf(a.Low, 0) || math.IsInf(a.High, 0) || math.IsInf(a.High-a.Low, 0) {
		a.Low, a.High = max(low, -math.MaxFloat64/4), min(high, math.MaxFloat64/4)
	}
	a.Ticks = Ticks(a.Scale, a.Low, a.High, false)
	return a
}

// OfCounts is an axis of whole numbers.
func OfCounts(low, high, from, to float64) Axis {
	a := Axis{Scale: space.Linear, Low: low, High: max(high, low+1), From: from, To: to}
	a.Ticks = Ticks(space.Linear, a.Low, a.High, true)
	return a
}

// Ticks are round numbers between two others, as many as fit along a plot.
func Ticks(scale space.Scale, low, high float64, whole bool) []Tick {
	var at []float64
	switch scale {
	case space.Log:
		at = decades(low, high)
	case space.ReverseLog:
		at = wiThin([]float64{0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999}, low, high)
	case space.Logit:
		at = wiThin([]float64{1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999}, low, high)
	}
	write := Format
	if len(at) < 2 {
		var step float64
		at, step = evenly(low, high, whole)
		write = func(v float64) string { return formatStep(v, step) }
	}
	marks := make([]Tick, len(at))
	for i, v := range at {
		marks[i] = Tick{v, write(v)}
	}
	return marks
}

func wiThin(candidates []float64, low, high float64) []float64 {
	return slices.DeleteFunc(candidates, func(v float64) bool { return v < low || v > high })
}

// decades are powers of ten, with 2 and 5 times them where there are few.
func decades(low, high float64) []float64 {
	first, last := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	step := math.Ceil((last - first) / 7)
	var at []float64
	for power := first; power <= last; power += step {
		at = append(at, math.Pow(10, power))
		if last-first <= 2 {
			at = append(at, 2*math.Pow(10, power), 5*math.Pow(10, power))
		}
	}
	return wiThin(at, low*(1-1e-9), high*(1+1e-9))
}

// evenly are some round numbers between two others, and the step between them.
func evenly(low, high float64, whole bool) (at []float64, step float64) {
	const about = 5
	step = round125(high/about - low/about)
	if whole {
		step = max(step, 1)
	}
	if !(step > 0) || math.IsInf(step, 0) {
		return []float64{low}, 0
	}
	for k := math.Ceil(low / step * (1 - 1e-12)); len(at) < 20 && k*step <= high+step*1e-9; k++ {
		at = append(at, k*step+0)
	}
	return at, step
}

// formatStep writes a number with the digits that tell it from the next step.
func formatStep(v, step float64) string {
	size := math.Abs(v)
	if step <= 0 || size != 0 && (size < 1e-3 || size >= 1e6) || step < 1e-9*size {
		return Format(v)
	}
	return strconv.FormatFloat(v, 'f', max(0, -int(math.Floor(math.Log10(step*1.0000001)))), 64)
}

func round125(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	switch v /= power; {
	case v < 1.5:
		return power
	case v < 3.5:
		return 2 * power
	case v < 7.5:
		return 5 * power
	}
	return 10 * power
}

// Thin leaves so many at most, evenly.
func Thin(marks []Tick, most int) []Tick {
	if len(marks) <= most {
		return marks
	}
	var left []Tick
	for i := range most {
		left = append(left, marks[i*(len(marks)-1)/(most-1)])
	}
	return left
}

// Format writes a number in four digits, the shortest way.
func Format(v float64) string {
	if v != 0 && (math.Abs(v) < 1e-3 || math.Abs(v) >= 1e6) {
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'e', 3, 64), "e")
		mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
		power, _ := strconv.Atoi(exponent) // FormatFloat wrote it
		return mantissa + "e" + strconv.Itoa(power)
	}
	return strconv.FormatFloat(rounded(v), 'f', -1, 64)
}

// rounded is a number of four digits, or of all those before the point.
func rounded(v float64) float64 {
	if v == 0 {
		return 0
	}
	digits := max(3-int(math.Floor(math.Log10(math.Abs(v)))), 0)
	power := math.Pow10(digits)
	return math.Round(v*power) / power
}

// Shorten cuts a text to at most so many characters.
func Shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}
