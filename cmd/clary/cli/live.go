package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

// live is one line that is drawn again and again on a terminal; elsewhere a new line is
// written when there is something new to say.
type live struct {
	out      io.Writer
	terminal bool
	width    func() int // of the terminal, in columns
	last     string
	drawn    bool
}

// newLine is a line on the terminal of whoever runs a command.
func (a *App) newLine() live { return live{out: a.Err, terminal: a.Terminal, width: a.Width} }

// newLog is a line that is never drawn over.
func (a *App) newLog() live { return live{out: a.Err, width: a.Width} }

// draw shows text on a terminal. news is what is written where lines cannot be drawn
// over, once for each new text.
func (l *live) draw(text, news string) {
	if l.terminal {
		fmt.Fprintf(l.out, "\r\x1b[K%s", cut(text, l.width()-1))
		l.drawn = true
		return
	}
	if news != l.last {
		fmt.Fprintln(l.out, news)
		l.last = news
	}
}

// end leaves the line as it stands.
func (l *live) end() {
	if l.drawn {
		fmt.Fprintln(l.out)
		l.drawn = false
	}
}

// clear takes the line away.
func (l *live) clear() {
	if l.drawn {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.drawn = false
	}
}

// gauge is a bar of so many characters.
func gauge(done, total int64, width int) string {
	if total <= 0 {
		return ""
	}
	full := int(min(max(done, 0), total) * int64(width) / total)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// leading is the status of the task whose progress stands for the job's: the first
// worker of the newest attempt, or whoever has said anything.
func leading(view client.JobView) cluster.TaskStatus {
	if view.Job.Kind == cluster.KindTransform {
		return transformed(view)
	}
	var best cluster.Task
	for _, task := range view.Tasks {
		if task.Attempt != view.Job.Attempt {
			continue
		}
		rank := func(t cluster.Task) int {
			said := 0
			if t.Status.Progress.Step > 0 || len(t.Status.Progress.Metrics) > 0 {
				said = 4
			}
			if t.Role == "worker" {
				said += 2
			}
			if t.Index == 0 {
				said++
			}
			return said
		}
		if best.ID == "" || rank(task) > rank(best) {
			best = task
		}
	}
	return best.Status
}

func progressText(view client.JobView) string {
	p := leading(view).Progress
	switch {
	case view.Job.Kind == cluster.KindTransform && p.Total > 0:
		return fmt.Sprintf("%s %d%%  %s", gauge(p.Step, p.Total, 20), 100*min(p.Step, p.Total)/p.Total, transformText(p, view.Job.State.Ended()))
	case p.Total > 0:
		return fmt.Sprintf("%s %d%%  epoch %d  step %d of %d", gauge(p.Step, p.Total, 20), 100*min(p.Step, p.Total)/p.Total, p.Epoch, p.Step, p.Total)
	case p.Step > 0 || p.Epoch > 0:
		return fmt.Sprintf("epoch %d  step %d", p.Epoch, p.Step)
	}
	return ""
}

// shownMetrics come first and in this order; others follow by name.
var shownMetrics = []string{"validation_accuracy", "validation_loss", "train_accuracy", "train_loss"}

func metricsText(metrics map[string]float64) string {
	var texts []string
	for _, name := range shownMetrics {
		if value, known := metrics[name]; known {
			texts = append(texts, fmt.Sprintf("%s %.4f", strings.ReplaceAll(name, "_", " "), value))
		}
	}
	for _, name := range sortedKeys(metrics) {
		if !slices.Contains(shownMetrics, name) && len(texts) < 6 {
			texts = append(texts, fmt.Sprintf("%s %.4g", strings.ReplaceAll(oneLine(name), "_", " "), metrics[name]))
		}
	}
	return strings.Join(texts, "  ")
}

// jobLine is the job in one line, and what of it is news where lines are not drawn over:
// its state, and each epoch.
func jobLine(view client.JobView, waitsFor string) (line, news string) {
	job, p := view.Job, leading(view).Progress
	said := metricsText(p.Metrics)
	if job.Kind == cluster.KindTransform {
		said = transformText(p, job.State.Ended())
	}
	parts := []string{job.Name, stateText(job)}
	if job.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", job.Attempt))
	}
	news = strings.Join(parts, "  ")
	switch {
	case job.State == cluster.JobQueued:
		if waitsFor == "" {
			waitsFor = job.Reason
		}
		news = joined(news, oneLine(waitsFor))
		return news, news
	case job.State.Ended():
		line = joined(news, said, took(job), oneLine(job.Reason))
		return line, line
	}
	if p.Epoch > 0 {
		news = joined(news, fmt.Sprintf("epoch %d", p.Epoch), metricsText(p.Metrics))
	}
	bar := gauge(p.Step, p.Total, 20)
	if p.Total > 0 {
		bar += fmt.Sprintf(" %d%%", 100*min(p.Step, p.Total)/p.Total)
	}
	return joined(strings.Join(parts, "  "), bar, nonZeroPrefixed("epoch ", int64(p.Epoch)), said, took(job)), news
}

func nonZeroPrefixed(prefix string, n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", prefix, n)
}

func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "  ")
}

// bar shows how much of a file has been copied, on a terminal only.
type bar struct {
	line  live
	name  string
	total int64 // -1 while it is unknown
	done  int64
	began time.Time
	drawn time.Time
}

func (a *App) newBar(name string, total int64) *bar {
	return &bar{line: a.newLine(), name: name, total: total, began: time.Now()}
}

// Write counts bytes that pass by.
func (b *bar) Write(p []byte) (int, error) {
	b.add(int64(len(p)))
	return len(p), nil
}

func (b *bar) add(n int64) { b.set(b.done + n) }

func (b *bar) set(n int64) {
	b.done = n
	if !b.line.terminal || time.Since(b.drawn) < 100*time.Millisecond {
		return
	}
	b.drawn = time.Now()
	rate := float64(b.done) / max(time.Since(b.began).Seconds(), 0.001)
	b.line.draw(joined(b.name, gauge(b.done, b.total, 30), cluster.FormatBytes(b.done), cluster.FormatBytes(int64(rate))+"/s"), "")
}

func (b *bar) close() { b.line.clear() }
