package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/test/testbed"
)

// over is what clary gc -o json says.
type over struct {
	Gone, Kept []struct {
		Kind, ID, Why string
		Bytes         int64
	}
}

func (m *machines) names(args ...string) []string {
	m.T.Helper()
	var jobs []testbed.Job
	m.JSON(&jobs, append([]string{"jobs", "--limit", "0", "-o", "json"}, args...)...)
	names := make([]string, len(jobs))
	for i, job := range jobs {
		names[i] = job.Name
	}
	slices.Sort(names)
	return names
}

const many = 60

// Settings hold at once; a job is archived when its time has come and not before, through the death of the leader in the middle of it; what it
// left stays until somebody says otherwise, and what a version of a model came from even then.
func TestEndedJobsAreArchivedAndTheirOutputsStayThroughTheDeathOfALeader(t *testing.T) {
	m := start(t, 3, 1)
	c := m.Client()
	all := []string{"made", "source"}
	for i := range many {
		name := fmt.Sprintf("held-%02d", i)
		all = append(all, name)
		spec := `{"program": {"command": ["true"]}}`
		if _, err := c.Submit(t.Context(), cluster.Job{Name: name, Kind: cluster.KindTraining, Spec: []byte(spec), Held: true, RequestID: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Cancel(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	for _, name := range []string{"made", "source"} {
		args := []string{"run", "--name", name, "--detach"}
		if name == "source" {
			args = append(args, "--register", "net")
		}
		m.Exits(0, append(args, "--", "sh", "-c", "echo hello from "+name+"; echo weights of "+name+" >$SAGEMAKER_BASE_DIR/model/model.txt")...)
		m.Waits(0, name)
	}
	output := m.Job("made").Outputs[0].URI
	task := m.Path("n1/tasks/made~main~worker-0.1")
	if _, err := os.Stat(task); err != nil {
		t.Fatal(err)
	}
	m.WaitFor("the log to be in the store", time.Minute, func() bool {
		out, _ := m.Try("ls", "-r", "s3://clary/jobs/made/")
		return strings.Contains(out, "logs/complete")
	})
	if got := m.names(); !slices.Equal(got, all) {
		t.Fatalf("before anything was set there are %v", got)
	}

	// Sweeps go on in the background from when it is set; the first that are archived are old enough by then.
	set := time.Now()
	m.Exits(0, "settings", "set", "retention.jobs=1m")
	m.WaitFor("some to be archived", 4*time.Minute, func() bool { return len(m.names("--archived", "--stale")) > 0 })
	leader := m.Leader()
	m.Kill(leader)
	archived := m.names("--archived")
	t.Logf("%s was killed with %d of %d archived, %s after it was set", leader, len(archived), len(all), time.Since(set))
	both := append(m.names(), archived...)
	for _, name := range all {
		if !slices.Contains(both, name) {
			t.Errorf("%s is neither at hand nor archived", name)
		}
	}
	m.Again(leader)
	m.WaitFor("all to be archived", 5*time.Minute, func() bool { return len(m.names("--stale")) == 0 })
	if got := m.names("--archived"); !slices.Equal(got, all) {
		t.Errorf("archived are %v", got)
	}

	var view struct {
		testbed.Job
		Archived string
		Spec     json.RawMessage
	}
	m.JSON(&view, "job", "made", "-o", "json")
	if view.Archived == "" || view.State != "succeeded" || len(view.Tasks) != 1 || len(view.Outputs) == 0 || view.Outputs[0].URI != output || len(view.Spec) == 0 {
		t.Errorf("an archived job is shown as %+v", view)
	}
	if log := m.Clary("logs", "made"); !strings.Contains(log, "hello from made") {
		t.Errorf("its log is %q", log)
	}
	m.Exits(0, "cp", output, m.Path("made.tar.gz"))
	m.WaitFor("the agent to forget it", time.Minute, func() bool { _, err := os.Stat(task); return os.IsNotExist(err) })
	if said := m.Exits(1, "run", "--name", "made", "--", "true"); !strings.Contains(said, "archived") {
		t.Errorf("its name is taken by another: %s", said)
	}

	// Now its outputs may go, too; the other's are those of a version.
	m.Exits(0, "settings", "set", "retention.outputs=1m", "retention.jobs=365d")
	m.WaitFor("what is allowed to go to be gone", 3*time.Minute, func() bool { return len(m.names("--archived", "--stale")) == 1 })
	if got := m.names("--archived"); !slices.Equal(got, []string{"source"}) {
		t.Errorf("what is left of archived jobs: %v", got)
	}
	if out, _ := m.Try("ls", "-r", "s3://clary/jobs/"); strings.Contains(out, "jobs/made/") || !strings.Contains(out, "jobs/source/") {
		t.Errorf("what is left in the store:\n%s", out)
	}
	m.Exits(0, "models", "show", "net@1")
	var rest over
	m.JSON(&rest, "gc", "--dry-run", "-o", "json")
	if len(rest.Gone) != 0 || len(rest.Kept) != 1 || rest.Kept[0].ID != "source" || !strings.Contains(rest.Kept[0].Why, "net@1") {
		t.Errorf("a dry run says %+v", rest)
	}
	if said := m.Exits(0, "gc", "--yes"); !strings.Contains(said, "stays") || strings.Contains(said, "deleted") {
		t.Errorf("gc says %s", said)
	}
	if code, body := asks(t, m.Ops[m.Leader()]+"/metrics", ""); code != http.StatusOK || !strings.Contains(body, `clary_janitor_removed_total{kind="record"}`) {
		t.Errorf("metrics: %d", code)
	}
}
