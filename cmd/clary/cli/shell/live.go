package shell

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// Line is one line that is drawn again and again on a terminal; elsewhere a new line is
// written when there is something new to say.
type Line struct {
	out      io.Writer
	terminal bool
	width    func() int // of the terminal, in columns
	last     string
	drawn    bool
}

// NewLine is a line on the terminal of whoever runs a command.
func (a *App) NewLine() Line { return Line{out: a.Err, terminal: a.Terminal, width: a.Width} }

// NewLog is a line that is never drawn over.
func (a *App) NewLog() Line { return Line{out: a.Err, width: a.Width} }

// Draw shows text on a terminal. news is what is written where lines cannot be drawn
// over, once for each new text.
func (l *Line) Draw(text, news string) {
	if l.terminal {
		fmt.Fprintf(l.out, "\r\x1b[K%s", Cut(text, l.width()-1))
		l.drawn = true
		return
	}
	if news != l.last {
		fmt.Fprintln(l.out, news)
		l.last = news
	}
}

// End leaves the line as it stands.
func (l *Line) End() {
	if l.drawn {
		fmt.Fprintln(l.out)
		l.drawn = false
	}
}

// Clear takes the line away.
func (l *Line) Clear() {
	if l.drawn {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.drawn = false
	}
}

// Gauge is a bar of so many characters.
func Gauge(done, total int64, width int) string {
	if total <= 0 {
		return ""
	}
	full := int(min(max(done, 0), total) * int64(width) / total)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// Bar shows how much of a file has been copied, on a terminal only.
type Bar struct {
	line  Line
	name  string
	Total int64 // -1 while it is unknown
	done  int64
	began time.Time
	drawn time.Time
}

// NewBar shows how much of something of so many bytes has been copied; -1 while that is unknown.
func (a *App) NewBar(name string, total int64) *Bar {
	return &Bar{line: a.NewLine(), name: name, Total: total, began: time.Now()}
}

// Write counts bytes that pass by.
func (b *Bar) Write(p []byte) (int, error) {
	b.Add(int64(len(p)))
	return len(p), nil
}

// Add counts n bytes more.
func (b *Bar) Add(n int64) { b.Set(b.done + n) }

// Set says how many bytes there are so far.
func (b *Bar) Set(n int64) {
	b.done = n
	if !b.line.terminal || time.Since(b.drawn) < 100*time.Millisecond {
		return
	}
	b.drawn = time.Now()
	rate := float64(b.done) / max(time.Since(b.began).Seconds(), 0.001)
	b.line.Draw(Joined(b.name, Gauge(b.done, b.Total, 30), cluster.FormatBytes(b.done), cluster.FormatBytes(int64(rate))+"/s"), "")
}

// Close takes the bar away.
func (b *Bar) Close() { b.line.Clear() }
