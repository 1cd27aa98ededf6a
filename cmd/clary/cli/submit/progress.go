package submit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// Leading is the status of the task whose progress stands for the job's: the first
// worker of the newest attempt, or whoever has said anything.
func Leading(view client.JobView) cluster.TaskStatus {
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

// ProgressText says how far a job is.
func ProgressText(view client.JobView) string {
	p := Leading(view).Progress
	switch {
	case view.Job.Kind == cluster.KindTransform && p.Total > 0:
		return fmt.Sprintf("%s %d%%  %s", shell.Gauge(p.Step, p.Total, 20), 100*min(p.Step, p.Total)/p.Total, transformText(p, view.Job.State.Ended()))
	case p.Total > 0:
		return fmt.Sprintf("%s %d%%  epoch %d  step %d of %d", shell.Gauge(p.Step, p.Total, 20), 100*min(p.Step, p.Total)/p.Total, p.Epoch, p.Step, p.Total)
	case p.Step > 0 || p.Epoch > 0:
		return fmt.Sprintf("epoch %d  step %d", p.Epoch, p.Step)
	}
	return ""
}

// shownMetrics come first and in this order; others follow by name.
var shownMetrics = []string{"validation_accuracy", "validation_loss", "train_accuracy", "train_loss"}

// MetricsText are the metrics that matter most.
func MetricsText(metrics map[string]float64) string {
	var texts []string
	for _, name := range shownMetrics {
		if value, known := metrics[name]; known {
			texts = append(texts, fmt.Sprintf("%s %.4f", strings.ReplaceAll(name, "_", " "), value))
		}
	}
	for _, name := range shell.SortedKeys(metrics) {
		if !slices.Contains(shownMetrics, name) && len(texts) < 6 {
			texts = append(texts, fmt.Sprintf("%s %.4g", strings.ReplaceAll(shell.OneLine(name), "_", " "), metrics[name]))
		}
	}
	return strings.Join(texts, "  ")
}

// JobLine is the job in one line, and what of it is news where lines are not drawn over:
// its state, and each epoch.
func JobLine(view client.JobView, waitsFor string) (line, news string) {
	job, p := view.Job, Leading(view).Progress
	said := MetricsText(p.Metrics)
	if job.Kind == cluster.KindTransform {
		said = transformText(p, job.State.Ended())
	}
	parts := []string{job.Name, shell.StateText(job)}
	if job.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", job.Attempt))
	}
	news = strings.Join(parts, "  ")
	switch {
	case job.State == cluster.JobQueued:
		if waitsFor == "" {
			waitsFor = job.Reason
		}
		news = shell.Joined(news, shell.OneLine(waitsFor))
		return news, news
	case job.State.Ended():
		line = shell.Joined(news, said, shell.Took(job), shell.OneLine(job.Reason))
		return line, line
	}
	if p.Epoch > 0 {
		news = shell.Joined(news, fmt.Sprintf("epoch %d", p.Epoch), MetricsText(p.Metrics))
	}
	bar := shell.Gauge(p.Step, p.Total, 20)
	if p.Total > 0 {
		bar += fmt.Sprintf(" %d%%", 100*min(p.Step, p.Total)/p.Total)
	}
	return shell.Joined(strings.Join(parts, "  "), bar, shell.NonZeroPrefixed("epoch ", int64(p.Epoch)), said, shell.Took(job)), news
}

// transformed is how far all instances of a transform are together.
func transformed(view client.JobView) cluster.TaskStatus {
	var all cluster.TaskStatus
	for _, task := range view.Tasks {
		p := task.Status.Progress
		if task.Attempt != view.Job.Attempt || p.Total == 0 {
			continue
		}
		all.Progress.Step, all.Progress.Total = all.Progress.Step+p.Step, all.Progress.Total+p.Total
		if all.Progress.Metrics == nil {
			all.Progress.Metrics = map[string]float64{}
		}
		for name, value := range p.Metrics {
			if name == "seconds_left" { // of the slowest
				all.Progress.Metrics[name] = max(all.Progress.Metrics[name], value)
				continue
			}
			all.Progress.Metrics[name] += value
		}
	}
	return all
}

// transformText is what there is to say of a transform's progress.
func transformText(p cluster.Progress, ended bool) string {
	m := p.Metrics
	if m == nil {
		return ""
	}
	text := shell.Joined(fmt.Sprintf("%.0f of %.0f objects", m["objects"], m["objects_total"]), fmt.Sprintf("%.0f records", m["records"]))
	if m["objects_failed"] > 0 {
		text = shell.Joined(text, fmt.Sprintf("%.0f without output", m["objects_failed"]))
	}
	if m["records_per_second"] > 0 {
		text = shell.Joined(text, fmt.Sprintf("%.0f/s", m["records_per_second"]))
	}
	if left := time.Duration(m["seconds_left"] * float64(time.Second)).Round(time.Second); left > 0 && !ended {
		text = shell.Joined(text, left.String()+" left")
	}
	return text
}
