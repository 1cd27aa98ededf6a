package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
	"github.com/clary-ml/clary/storage/journal/archive"
)

// query asks for metrics and returns them as "worker-0 loss 10=0.5 20=0.25", and the notes.
func (w *world) query(request *claryv1.QueryMetricsRequest) (lines, notes []string, err error) {
	if request.GetJob() == "" {
		request.Job = "digits"
	}
	response, err := claryv1.NewMetricsClient(w.as(cluster.RoleViewer)).Query(w.Context(), request)
	for _, series := range response.GetSeries() {
		line := series.GetTask() + " " + series.GetName()
		for _, p := range series.GetPoints() {
			line += fmt.Sprintf(" %d=%g", p.GetStep(), p.GetValue())
		}
		lines = append(lines, line)
	}
	return lines, response.GetNotes(), wire.FromStatus(err)
}

func TestMetricsOfTasksAreReadByNameTimeAndTask(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node("n1", 1), w.node("n2", 2)
		tasks, began := w.starts("digits", 2, "n1", "n2")
		a.sayMetrics(tasks[0].ID, at(began, 1, "said", "step=10 loss=0.5 val/loss=0.75"), at(began, 2, "usage", "usage/cores=1.5"), at(began, 3, "said", "step=20 loss=0.25"))
		b.sayMetrics(tasks[1].ID, at(began, 1, "said", "step=10 loss=0.5"), at(began, 2, "found", "rubbish"), at(began, 4, "found", `{"metrics":{"acc":0.9}}`))
		a.say(tasks[0].ID, at(began, 1, "stdout", "step=1 loss=9")) // which is its log
		x, y := fmt.Sprintf("worker-%d", tasks[0].Index), fmt.Sprintf("worker-%d", tasks[1].Index)
		for _, c := range []struct {
			request *claryv1.QueryMetricsRequest
			want    []string
		}{
			{&claryv1.QueryMetricsRequest{}, []string{y + " acc 0=0.9", "worker-0 loss", "worker-1 loss", x + " val/loss 10=0.75"}},
			{&claryv1.QueryMetricsRequest{Names: []string{"*loss"}, Task: x}, []string{x + " loss 10=0.5 20=0.25", x + " val/loss 10=0.75"}},
			{&claryv1.QueryMetricsRequest{Names: []string{"usage/*"}}, []string{x + " usage/cores 0=1.5"}},
			{&claryv1.QueryMetricsRequest{Names: []string{"loss"}, Task: x, Since: began.Add(2 * time.Second).UnixNano()}, []string{x + " loss 20=0.25"}},
			{&claryv1.QueryMetricsRequest{Names: []string{"loss"}, Task: x, Until: began.Add(2 * time.Second).UnixNano()}, []string{x + " loss 10=0.5"}},
			{&claryv1.QueryMetricsRequest{Names: []string{"nothing"}}, nil},
			{&claryv1.QueryMetricsRequest{Task: "nobody"}, nil},
			{&claryv1.QueryMetricsRequest{Attempt: 7}, nil},
		} {
			lines, notes, err := w.query(c.request)
			same := slices.EqualFunc(lines, c.want, func(got, want string) bool { return strings.HasPrefix(got, want) })
			if err != nil || !same || len(notes) > 0 {
				w.Errorf("%v: %q, %q, %v; want %q", c.request, lines, notes, err, c.want)
			}
		}
		for field, request := range map[string]*claryv1.QueryMetricsRequest{
			"points": {Points: -1}, "until": {Since: 2, Until: 1}, "names: \"[\"": {Names: []string{"["}},
			"names: 300": {Names: slices.Repeat([]string{"x"}, 300)}, "there is no job \"another\"": {Job: "another"},
		} {
			if _, _, err := w.query(request); err == nil || !strings.Contains(err.Error(), field) || !fault.Is(err, fault.Invalid) && request.GetJob() != "another" {
				w.Errorf("%s: %v", field, err)
			}
		}
	})
}

func TestMetricsGoOnOverAttemptsAndOutliveTheirNode(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.node("n1", 1)
		tasks, began := w.starts("digits", 1, "n1")
		task := tasks[0]
		var rows []journal.Entry
		for step := range 3000 {
			rows = append(rows, at(began, step, "said", fmt.Sprintf("step=%d loss=%d", step+1, 3000-step)))
		}
		shipper := archive.Shipper{
			Store: w.logs.at(fmt.Sprintf("jobs/digits/attempts/%d/worker-0/metrics", task.Attempt)),
			Read: func(_ context.Context, query journal.Query, sink journal.Sink) error {
				return pick(rows, query, sink)
			},
		}
		if err := shipper.Ship(w.Context()); err != nil {
			w.Fatal(err)
		}
		// The node has let go of them: they come from the store, thinned, with both ends.
		a.sayMetrics("another", at(began, 1, "said", "step=1 loss=9"))
		lines, notes, err := w.query(&claryv1.QueryMetricsRequest{Points: 10})
		if err != nil || len(notes) > 0 || len(lines) != 1 {
			w.Fatalf("%q, %q, %v", lines, notes, err)
		}
		if words := strings.Fields(lines[0]); len(words) != 12 || words[2] != "1=3000" || words[11] != "3000=1" {
			w.Errorf("thinned to %q", lines[0])
		}
	})
}

// sayMetrics has a task say rows of metrics.
func (a *agent) sayMetrics(task string, rows ...journal.Entry) { a.say("metrics of "+task, rows...) }
