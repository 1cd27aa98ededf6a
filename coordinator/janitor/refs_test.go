package janitor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
)

// One job for each way in which something can need it, and one that nothing needs; what a running job reads is another test's.
func TestWhatLineageSweepsAndEndpointsReferToStays(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Jobs, s.Retention.Outputs = 0, day })
		for _, name := range []string{"made", "made-t3", "data", "earlier", "alone"} {
			h.job(name, nil, true)
		}
		model := cluster.Model{Name: "m", Owner: "ada", Next: 2, Count: 1}
		version := cluster.ModelVersion{
			Model: "m", Number: 1, Owner: "ada", Created: 1, Approval: cluster.Approval{State: cluster.ApprovalPending},
			Artifact: cluster.Output{Name: "model.tar.gz", URI: "s3://clary/models/m/key/model.tar.gz", SHA256: sha, Size: 5},
			Lineage:  cluster.Lineage{Job: "made-t3", Submitted: 1, Output: "model", Data: []cluster.DataRef{{Channel: "train", URI: "s3://clary/jobs/data/attempts/1/"}}},
		}
		h.must(command.Change{Model: &model}, command.Change{Version: &version})
		h.job("learner", func(j *cluster.Job) {
			j.Kind, j.Spec = cluster.KindTuning, []byte(`{"warm_start":["earlier"]}`)
		}, false)
		time.Sleep(2 * day)
		if got := h.there(); got != "data earlier learner made made-t3 jobs/data/checkpoints jobs/earlier/checkpoints jobs/made-t3/checkpoints jobs/made/checkpoints" {
			h.Errorf("there are %s", got)
		}
		h.set(func(s *cluster.Settings) { s.Retention.Jobs, s.Retention.Outputs = day, 0 })
		time.Sleep(2 * time.Minute)
		if got, _, _ := strings.Cut(h.there(), " jobs/"); got != "earlier learner" {
			h.Errorf("of those that are archived, and one that is learned from, there are %s", got)
		}
		h.set(func(s *cluster.Settings) { s.Retention.Outputs = day })
		time.Sleep(2 * time.Minute)
		if got := h.there(); !strings.Contains(got, "jobs/data/checkpoints") || !strings.Contains(got, "jobs/made-t3/checkpoints") {
			h.Errorf("what a version of a model came from is gone since it was archived: %s", got)
		}
	})
}

const sha = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
