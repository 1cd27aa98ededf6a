package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
)

// logLine is one of `clary logs -o json`.
type logLine struct {
	Time         time.Time
	Task, Stream string
	Text         string
}

// lines are what a job's tasks wrote, and the notes about what cannot be told.
func (m *machines) lines(args ...string) []logLine {
	m.T.Helper()
	var all []logLine
	for line := range strings.Lines(m.Clary(append([]string{"logs", "-o", "json"}, args...)...)) {
		var l logLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			m.T.Fatalf("%q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

func texts(lines []logLine) string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return strings.Join(all, " ")
}

// numbers are those from 1 on, a line each.
func numbers(n int) string {
	var all strings.Builder
	for i := range n {
		fmt.Fprintln(&all, i+1)
	}
	return all.String()
}

// notes are what is said of a log that is not whole.
func (m *machines) notes(job string) (notes, text string) {
	m.T.Helper()
	var said []byte
	for chunk, err := range m.Client().Logs(m.T.Context(), client.LogRequest{Job: job, Stdout: true}) {
		if err != nil {
			m.T.Fatal(err)
		}
		notes += chunk.Note
		for _, e := range chunk.Entries {
			said = e.AppendRaw(said)
		}
	}
	return notes, string(said)
}

// leaves waits until a node has let go of a job's logs, which the store then has.
func (m *machines) leaves(node, job string) {
	m.T.Helper()
	m.WaitFor("the log of "+job+" to be in the store alone", 30*time.Second, func() bool {
		left, _ := filepath.Glob(filepath.Join(m.Path(node), "tasks", job+"~*", "output.log*"))
		return len(left) == 0
	})
}

func TestLogsOfTwoTasksAreReadByTimeTaskAndText(t *testing.T) {
	m := start(t, 1, 2)
	script := `for i in 1 2 3 4; do echo "$CLARY_INDEX says $i"; echo "$CLARY_INDEX complains of $i" >&2; sleep 0.4; done`
	m.Exits(0, "run", "--name", "talk", "-n", "2", "--cores", "0.5", "--", "sh", "-c", script)
	check := func(where string) {
		t.Helper()
		all := m.lines("talk")
		if len(all) != 16 {
			t.Fatalf("%s: %d lines: %q", where, len(all), texts(all))
		}
		if !slices.IsSortedFunc(all, func(a, b logLine) int { return a.Time.Compare(b.Time) }) {
			t.Errorf("%s: the tasks are not merged by time: %+v", where, all)
		}
		if got := texts(m.lines("talk", "worker-1", "--stdout")); got != "1 says 1 1 says 2 1 says 3 1 says 4" {
			t.Errorf("%s: worker-1 wrote %q", where, got)
		}
		if got := texts(m.lines("talk", "worker-0", "--grep", "says [24]$")); got != "0 says 2 0 says 4" {
			t.Errorf("%s: of lines with a text there are %q", where, got)
		}
		own := m.lines("talk", "worker-0")
		window := m.lines("talk", "worker-0", "--since", own[2].Time.Format(time.RFC3339Nano), "--until", own[6].Time.Format(time.RFC3339Nano))
		if !slices.Equal(window, own[2:6]) {
			t.Errorf("%s: between two instants it wrote %+v, want %+v", where, window, own[2:6])
		}
		if got := m.lines("talk", "--tail", "1", "--stderr"); len(got) != 2 || got[0].Task == got[1].Task || !strings.HasSuffix(texts(got), "of 4") {
			t.Errorf("%s: the last lines are %+v", where, got)
		}
		if out := m.Clary("logs", "talk", "--timestamps", "--grep", "0 says 3"); !strings.HasSuffix(out, "Z worker-0.1 | 0 says 3\n") {
			t.Errorf("%s: %q", where, out)
		}
	}
	check("on the nodes or in the store")
	m.leaves("n1", "talk")
	m.leaves("n2", "talk")
	check("in the store")
	m.refuses(nil, []string{"logs", "talk", "--grep", "("}, `match: "(" is no regular expression`)
	m.refuses(nil, []string{"logs", "talk", "--since", "1m", "--until", "2m"}, "is not after since")

	// A job that is deleted leaves none of it.
	if kept := m.Clary("ls", "-r", "s3://clary/jobs/talk/"); !strings.Contains(kept, "worker-1/logs/") {
		t.Errorf("in the store there is %q", kept)
	}
	m.Clary("delete", "talk")
	if left := m.Clary("ls", "-r", "s3://clary/jobs/talk/"); left != "" {
		t.Errorf("a deleted job leaves %q", left)
	}
}

func TestLogsAreWholeThoughTheAgentIsKilledMidway(t *testing.T) {
	m := start(t, 1, 1)
	m.Clary("run", "-d", "--name", "count", "--", "sh", "-c", "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.01; done; printf 'no end'")
	follower := exec.Command(m.Binary, "logs", "-f", "count")
	follower.Env = m.Env
	var followed strings.Builder
	follower.Stdout = &followed
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"60\n", "180\n"} {
		m.WaitFor("line "+line, 30*time.Second, func() bool { return strings.Contains(m.sofar("count"), "\n"+line) })
		m.Kill("n1")
		m.Again("n1")
	}
	m.Waits(0, "count")
	want := numbers(400) + "no end"
	if err := follower.Wait(); err != nil || followed.String() != want {
		t.Errorf("followed %d bytes of %d, %v", followed.Len(), len(want), err)
	}
	m.leaves("n1", "count")
	if notes, text := m.notes("count"); text != want || notes != "" {
		t.Errorf("read %d bytes of %d, with the notes %q", len(text), len(want), notes)
	}
}

// sofar is what a job wrote so far, if it can be read now.
func (m *machines) sofar(job string) string {
	out, err := m.Try("logs", job)
	if err != nil {
		return ""
	}
	return out
}

func TestLogsAreReadableAfterTheNodeIsGone(t *testing.T) {
	m := start(t, 1, 1)
	m.Exits(0, "run", "--name", "old", "--", "seq", "1", "1000")
	m.leaves("n1", "old")
	// One that runs when its node dies: its first mebibyte is in the store, the rest is not.
	m.Clary("run", "-d", "--name", "cut", "--", "sh", "-c", "seq 1 200000; sleep 2; echo the last words; exec sleep 600")
	m.WaitFor("a part of its log in the store", 30*time.Second, func() bool {
		kept, err := m.Try("ls", "-r", "s3://clary/jobs/cut/")
		return err == nil && strings.Contains(kept, ".log.gz")
	})
	m.WaitFor("its last words", 30*time.Second, func() bool { return strings.HasSuffix(m.sofar("cut"), "the last words\n") })
	m.Cut("n1")
	m.WaitFor("the node to count as lost", 40*time.Second, func() bool { return m.Ready() == 0 })
	if notes, text := m.notes("old"); text != numbers(1000) || notes != "" {
		t.Errorf("%d bytes of the old one, with the notes %q", len(text), notes)
	}
	notes, text := m.notes("cut")
	if !strings.HasPrefix(text, "1\n2\n3\n") || strings.Contains(text, "the last words") || !strings.Contains(notes, "its node is lost") {
		t.Errorf("%d bytes of the one that was cut off, with the notes %q", len(text), notes)
	}
	m.Clary("cancel", "cut") // its next attempt waits for a node
	m.Again("n1")
	m.WaitFor("the rest of its log, once the node is back", 40*time.Second, func() bool {
		notes, text := m.notes("cut")
		return strings.HasSuffix(text, "the last words\n") && notes == ""
	})
	m.Kill("n1")
	m.WaitFor("the node to count as lost again", 40*time.Second, func() bool { return m.Ready() == 0 })
	m.Clary("nodes", "remove", "n1")
	if out := m.Clary("logs", "old", "--tail", "1"); out != "1000\n" {
		t.Errorf("without the node: %q", out)
	}
	m.Again("n1")
	m.WaitFor("the node's return", 30*time.Second, func() bool { return m.Ready() == 1 })
}

func TestLogsOfAnEarlyAttemptOutliveItsRecord(t *testing.T) {
	m := start(t, 1, 1)
	m.Exits(3, "run", "--name", "again", "--retries", "5", "--", "sh", "-c", "echo attempt $CLARY_ATTEMPT; exit 3")
	for attempt := 1; attempt <= 6; attempt++ {
		want := fmt.Sprintf("attempt %d\n", attempt)
		m.WaitFor("the log of "+want, 20*time.Second, func() bool {
			out, err := m.Try("logs", "again", "--attempt", fmt.Sprint(attempt))
			return err == nil && out == want
		})
	}
}

func TestAFloodOfOutputIsBoundedOnTheNodeAndInTheStore(t *testing.T) {
	m := start(t, 1, 1)
	m.Clary("run", "-d", "--name", "flood", "--", "sh", "-c", "yes $(seq -s. 1 40) | head -c 199800000; echo end; sleep 600")
	m.WaitFor("its end", 2*time.Minute, func() bool {
		out, err := m.Try("logs", "flood", "--tail", "1")
		return err == nil && out == "end\n"
	})
	var kept int64
	logs, _ := filepath.Glob(filepath.Join(m.Path("n1"), "tasks", "flood*", "output.log*"))
	for _, log := range logs {
		if info, err := os.Stat(log); err == nil {
			kept += info.Size()
		}
	}
	if kept < 30<<20 || kept > 64<<20 {
		t.Errorf("%d bytes are kept of the flood", kept)
	}
	m.Clary("cancel", "flood")
	_, _ = m.Try("wait", "flood", "--timeout", "1m")
	m.leaves("n1", "flood")
	var raw int64
	for line := range strings.Lines(m.Clary("ls", "-r", "s3://clary/jobs/flood/")) {
		var first, last, bytes int64
		name := line[strings.LastIndexByte(line, '/')+1:]
		if n, _ := fmt.Sscanf(name, "%d-%d-%d.log.gz", &first, &last, &bytes); n == 3 {
			raw += bytes
		}
	}
	if raw < 30<<20 || raw > 64<<20 {
		t.Errorf("the segments in the store are of %d bytes", raw)
	}
	if out := m.Clary("logs", "flood", "--tail", "2"); !strings.HasSuffix(out, ".39.40\nend\n") || strings.Count(out, "\n") != 2 {
		t.Errorf("its last lines are %q", out)
	}
}
