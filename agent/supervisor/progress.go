package supervisor

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"math"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
)

// Bounds on what a task may say of itself.
const (
	maxMetricLine = 64 << 10 // bytes
	maxMetrics    = 256      // names
	maxMetricName = 256      // bytes
)

// progressReader reads the lines that a task appends to its metrics file.
type progressReader struct {
	base   string // folder out of which no link leads
	path   string
	offset int64
	rest   []byte // a line whose end has not come yet
	skip   bool   // in a line that is too long
	now    cluster.Progress
}

func newProgressReader(base, path string) *progressReader {
	return &progressReader{base: base, path: path}
}

// read takes in what is new and reports whether there was anything.
func (r *progressReader) read() (cluster.Progress, bool) {
	file, err := staging.OpenIn(r.base, r.path)
	if err != nil {
		return r.now, false
	}
	defer file.Close() //nolint:errcheck // only read
	news := false
	block := make([]byte, 64<<10)
	for {
		n, err := file.ReadAt(block, r.offset)
		r.offset += int64(n)
		news = r.take(block[:n]) || news
		if err != nil || n == 0 {
			if err != nil && err != io.EOF {
				return r.now, news
			}
			break
		}
	}
	now := r.now
	now.Metrics = maps.Clone(now.Metrics)
	return now, news
}

func (r *progressReader) take(block []byte) bool {
	news := false
	for len(block) > 0 {
		line, rest, ended := bytes.Cut(block, []byte("\n"))
		block = rest
		switch {
		case r.skip:
		case len(r.rest)+len(line) > maxMetricLine:
			r.skip, r.rest = true, nil
		default:
			r.rest = append(r.rest, line...)
		}
		if ended {
			news = !r.skip && r.line(r.rest) || news
			r.rest, r.skip = r.rest[:0], false
		}
	}
	return news
}

// line merges one line; what is not JSON, or not finite, is left out.
func (r *progressReader) line(text []byte) bool {
	var said struct {
		Epoch   *int32             `json:"epoch"`
		Step    *int64             `json:"step"`
		Total   *int64             `json:"total"`
		Metrics map[string]float64 `json:"metrics"`
	}
	if len(bytes.TrimSpace(text)) == 0 || json.Unmarshal(text, &said) != nil {
		return false
	}
	if said.Epoch != nil {
		r.now.Epoch = *said.Epoch
	}
	if said.Step != nil {
		r.now.Step = *said.Step
	}
	if said.Total != nil {
		r.now.Total = *said.Total
	}
	for name, value := range said.Metrics {
		if r.now.Metrics == nil {
			r.now.Metrics = map[string]float64{}
		}
		_, known := r.now.Metrics[name]
		if len(name) <= maxMetricName && !math.IsInf(value, 0) && (known || len(r.now.Metrics) < maxMetrics) {
			r.now.Metrics[name] = value
		}
	}
	return true
}
