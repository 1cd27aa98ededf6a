package supervisor

import (
	"bytes"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/monitor/metric"
)

// mostAtALook bounds what is read at a time; of more the last is. A task that says more than
// can be read must not keep its goroutine from hearing that it is to end.
const mostAtALook = 4 << 20 // bytes

// rowReader reads the lines that a task appends to its metrics file.
type rowReader struct {
	base string // folder out of which no link leads
	path string
	next int64  // offset of what was not read yet
	rest []byte // a line whose end has not come yet
	skip bool   // in a line that is too long
}

// read hands on the rows of what is new. Each has the offset after it as its cursor.
func (r *rowReader) read(add func(metric.Row)) {
	file, err := staging.OpenIn(r.base, r.path)
	if err != nil {
		return
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		return
	}
	if info.Size() < r.next {
		r.next, r.rest, r.skip = 0, nil, false // it was begun anew
	}
	if over := info.Size() - r.next - mostAtALook; over > 0 {
		r.next, r.rest, r.skip = r.next+over, nil, true // in the middle of a line
	}
	block := make([]byte, 64<<10)
	for until := r.next + mostAtALook; r.next < until; {
		n, err := file.ReadAt(block, r.next)
		r.take(block[:n], add)
		if err != nil || n == 0 {
			return
		}
	}
}

func (r *rowReader) take(block []byte, add func(metric.Row)) {
	for len(block) > 0 {
		line, after, ended := bytes.Cut(block, []byte("\n"))
		r.next += int64(len(block) - len(after))
		block = after
		switch {
		case r.skip:
		case len(r.rest)+len(line) > metric.MaxLine:
			r.skip, r.rest = true, nil
		default:
			r.rest = append(r.rest, line...)
		}
		if ended {
			r.end(add)
		}
	}
}

// end takes what there is of a line for the whole of it.
func (r *rowReader) end(add func(metric.Row)) {
	if row, ok := metric.ParseRow(r.rest); ok && !r.skip {
		row.Cursor = r.next
		add(row)
	}
	r.rest, r.skip = r.rest[:0], false
}
