package operate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

func busyCluster() topView {
	v := topView{info: client.Info{Leader: "a", Coordinators: []client.Coordinator{{ID: "a", Alive: true}, {ID: "b", Alive: true}, {ID: "c"}}}}
	for i := range 40 {
		node := cluster.Node{
			ID: fmt.Sprintf("a-machine-with-a-long-name-%02d", i), State: cluster.NodeReady, MilliCPU: 128_000, Memory: 512 << 30,
			Devices: make([]cluster.Device, 8), Reason: "a reason\nof two lines that is far too long for what is left of it",
		}
		v.nodes = append(v.nodes, client.NodeView{Node: node, Used: cluster.Resources{MilliCPU: int64(i) * 1500, Memory: int64(i) << 33}, Tasks: make([]string, i)})
	}
	v.nodes[3].Node.State = cluster.NodeLost
	for i := range 60 {
		v.jobs = append(v.jobs, cluster.Job{Name: fmt.Sprintf("job-%02d", i), State: cluster.JobRunning, Kind: cluster.KindTraining, Owner: "ada", Queue: "default", Submitted: int64(i) * int64(time.Minute)})
	}
	v.jobs[0].State = cluster.JobQueued
	v.queues = []cluster.QueueView{
		{Queue: cluster.Queue{Name: "default"}, Used: cluster.Amount{MilliCPU: 1000, Memory: 1 << 30}, Running: 2, Waiting: 7, Share: 0.25},
		{Queue: cluster.Queue{Name: "vision"}, Used: cluster.Amount{MilliCPU: 9000}, Running: 9, Share: 0.75},
	}
	return v
}

func TestEveryPaneFitsItsTerminal(t *testing.T) {
	v, now := busyCluster(), time.Unix(0, int64(time.Hour))
	for pane := range panes {
		for _, width := range []int{1, 20, 80, 200} {
			for _, height := range []int{1, 3, 24} {
				lines := v.frame(topState{pane: pane}, width, height, now)
				if len(lines) > max(height, 2) {
					t.Errorf("%s: %d lines for %d", panes[pane].name, len(lines), height)
				}
				for _, line := range lines {
					if utf8.RuneCountInString(line) > width || strings.ContainsAny(line, "\n\r\x1b") {
						t.Errorf("%s at %d columns: %q", panes[pane].name, width, line)
					}
				}
			}
		}
		lines := v.frame(topState{pane: pane}, 80, 24, now)
		for _, c := range panes[pane].columns[:len(panes[pane].columns)-1] {
			if !strings.Contains(lines[1], strings.ToUpper(c.title)) {
				t.Errorf("no %s at 80 columns: %q", c.title, lines[1])
			}
		}
		for by, c := range panes[pane].columns {
			if heading := v.frame(topState{pane: pane, sort: by}, 80, 24, now)[1]; !strings.Contains(heading, strings.ToUpper(c.title)+"↓") {
				t.Errorf("sorted by %s there is no room for the mark: %q", c.title, heading)
			}
		}
	}
	if first := v.frame(topState{}, 80, 24, now)[0]; !strings.HasPrefix(first, "a leads (2 of 3)  40 nodes (1 lost)  cores ") || !strings.HasSuffix(first, "  59 run 1 wait") {
		t.Errorf("%q", first)
	}
}

func TestKeysSortTurnScrollAndSwitch(t *testing.T) {
	v, now := busyCluster(), time.Unix(0, int64(time.Hour))
	first := func(keys string) string {
		var s topState
		for _, key := range []byte(keys) {
			s.press(key)
		}
		return strings.Fields(v.frame(s, 120, 24, now)[2])[0]
	}
	for keys, want := range map[string]string{
		"": "a-machine-with-a…", "2": "default", "2s": "vision", "2sr": "default", "3": "job-00", "3j": "job-01", "3jk": "job-00", "3k": "job-00", "\t": "default", "\t\t\t": "a-machine-with-a…",
		"3sssss": "job-00", "3sssssr": "job-59", "3r": "job-59", "x": "a-machine-with-a…",
	} {
		if got := first(keys); got != want {
			t.Errorf("%q: the first row is %s, not %s", keys, got, want)
		}
	}
	if lines := v.frame(topState{pane: 2, first: 1000}, 80, 24, now); len(lines) != 3 {
		t.Errorf("scrolled past the end: %d lines", len(lines))
	}
	if empty := (topView{}).frame(topState{first: 5}, 80, 24, now); len(empty) != 2 || !strings.HasPrefix(empty[0], "nobody leads") {
		t.Errorf("%q", empty)
	}
	s := topState{pane: 2}
	for range 1000 {
		s.press('j')
		s.within(len(v.jobs))
	}
	s.press('k')
	if s.first != len(v.jobs)-2 {
		t.Errorf("after the end one up is row %d of %d", s.first, len(v.jobs))
	}
}

func TestLargeAmountsAreReadAsNumbersAndMoreJobsThanAreShownAreSaid(t *testing.T) {
	v := topView{more: true, jobs: []cluster.Job{{State: cluster.JobRunning}, {State: cluster.JobQueued}}}
	for i := range 400 {
		node := cluster.Node{ID: fmt.Sprint(i), MilliCPU: 64_000, Memory: 1<<40 - 1, Devices: make([]cluster.Device, 8)}
		v.nodes = append(v.nodes, client.NodeView{Node: node, Used: cluster.Resources{MilliCPU: 62_250, Memory: 1<<40 - 1}})
	}
	v.queues = []cluster.QueueView{{Queue: cluster.Queue{Name: "all"}, Used: cluster.Amount{MilliCPU: 24_900_000, Memory: 1023 << 30, MilliGPU: 3_200_250}}}
	lines := v.frame(topState{}, 200, 4, time.Now())
	if !strings.Contains(lines[0], "  cores 24900/25600  gpus 0/3200  1+ run 1+ wait") {
		t.Errorf("%q", lines[0])
	}
	if got := strings.Fields(lines[2]); !slices.Equal(got, []string{"0", "62.25/64", "100%", "of", "1T", "0/8", "0"}) {
		t.Errorf("%q", got)
	}
	if got := strings.Fields(v.frame(topState{pane: 1}, 80, 4, time.Now())[2]); !slices.Equal(got, []string{"all", "0", "0", "24900", "0.999T", "3200.25", "0%"}) {
		t.Errorf("%q", got)
	}
	if got := strings.Fields(v.frame(topState{}, 80, 4, time.Now())[2]); !slices.Contains(got, "1T") {
		t.Errorf("at 80 columns the memory of a node is cut: %q", got)
	}
}
