package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// earlier builds the binary of the last commit that knew no formats, once for a checkout, and skips the test where there is no
// history to build it from.
func earlier(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		if err != nil {
			t.Skipf("skipped: an upgrade is tested with the binary of an earlier commit, and there is no history here to build it from: git %s: %v", args[0], err)
		}
		return strings.TrimSpace(string(out))
	}
	added := git("log", "--diff-filter=A", "--format=%H", "--", "coordinator/command/format.go")
	if added == "" {
		t.Skip("skipped: an upgrade is tested with the binary of the commit before coordinator/command/format.go, and this history does not go back so far")
	}
	commit := git("rev-parse", added+"^")
	binary := filepath.Join(root, ".bin", "clary-"+commit[:12])
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	source := t.TempDir()
	build := exec.Command("bash", "-euc", `git -C "$1" archive "$2" | tar -x -C "$3"; cd "$3"; mkdir -p "$1/.bin"; go build -buildvcs=false -trimpath -ldflags "-s -w -X github.com/clary-ml/clary/internal/version.version=before" -o "$4" ./cmd/clary`,
		"build", root, commit, source, binary)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", commit, err, out)
	}
	return binary
}

// submissions are jobs that clients submit one after the other, counted.
type submissions struct {
	accepted, failed atomic.Int64
	worst            atomic.Int64 // nanoseconds that one submission took, at most
	working          sync.WaitGroup
}

func (l *submissions) run(ctx context.Context, t *testing.T, c *client.Client, me int) {
	for i := 0; ctx.Err() == nil; i++ {
		job := cluster.Job{Name: fmt.Sprintf("load-%d-%05d", me, i), Kind: cluster.KindTraining, Spec: []byte(`{"program":{"command":["true"]}}`), Held: true}
		job.RequestID = job.Name
		begun := time.Now()
		if _, err := c.Submit(context.WithoutCancel(ctx), job); err != nil {
			l.failed.Add(1)
			t.Logf("submit %s: %v", job.Name, err)
			continue
		}
		l.accepted.Add(1)
		took := int64(time.Since(begun))
		for worst := l.worst.Load(); took > worst && !l.worst.CompareAndSwap(worst, took); worst = l.worst.Load() {
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond): // the test is of upgrades, not of throughput
		}
	}
}

func TestAClusterIsUpgradedMemberByMemberUnderLoad(t *testing.T) {
	m := none(t)
	old := earlier(t)
	current := m.Binary
	m.Binary, m.Old = old, true
	m.Server("s1")
	m.Login("s1")
	m.Server("s2")
	m.Server("s3")
	m.WaitFor("all coordinators to vote", 30*time.Second, func() bool { return m.Voters() == 3 })

	l := &submissions{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := range 4 {
		c := m.Client()
		l.working.Go(func() { l.run(ctx, t, c, i) })
	}
	leader := m.Leader()
	order := slices.DeleteFunc([]string{"s1", "s2", "s3"}, func(name string) bool { return name == leader })
	m.Binary = current
	for i, name := range append(order, leader) {
		m.End(name)
		m.Run(name, m.Args[name]...)
		m.WaitFor(name+" to follow again", 30*time.Second, func() bool { return m.follows(name) })
		if i == 0 {
			m.mixed(t, name)
		}
	}
	m.WaitFor("the newest format", 20*time.Second, func() bool {
		inForce, newest, _ := m.formats()
		return inForce == newest
	})
	stop()
	l.working.Wait()
	t.Logf("%d submissions during the upgrade of three coordinators, %d failed in spite of retries; the longest took %s",
		l.accepted.Load(), l.failed.Load(), time.Duration(l.worst.Load()).Round(time.Millisecond))
	if l.failed.Load() > 0 || l.accepted.Load() < 50 {
		t.Errorf("%d accepted, %d failed", l.accepted.Load(), l.failed.Load())
	}
	held := 0
	for _, err := range m.Client().AllJobs(t.Context(), client.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		held++
	}
	if held != int(l.accepted.Load()) {
		t.Errorf("the cluster holds %d jobs, %d were accepted", held, l.accepted.Load())
	}
	if _, err := m.Client().EditSettings(t.Context(), client.SettingsEdit{Put: map[string]string{"backup.keep": "3"}}); err != nil {
		t.Errorf("what was held back, once all know it: %v", err)
	}

	// There is no way back.
	m.End("s3")
	m.Binary = old
	m.Run("s3", m.Args["s3"]...)
	m.WaitFor("s3 to end", 20*time.Second, func() bool { return slices.Contains(m.Ended(), "s3") })
	m.tells("s3", "follow the others") // it says so in other words where it finds out while it starts
}

// follows reports whether a coordinator answers at its own port and is as far as the rest.
func (m *machines) follows(name string) bool {
	out, err := m.Try("cluster", "members")
	if err != nil {
		return false
	}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[0] == name {
			return strings.Contains(line, "alive") && strings.Contains(line, "up to date")
		}
	}
	return false
}

func (m *machines) formats() (inForce, newest int, heldBack string) {
	m.T.Helper()
	var status struct {
		InForce  int `json:"in_force"`
		Newest   int
		HeldBack string `json:"held_back"`
	}
	m.JSON(&status, "cluster", "upgrade-status", "-o", "json")
	return status.InForce, status.Newest, status.HeldBack
}

// mixed asks the one coordinator of the newer version for what the others cannot read.
func (m *machines) mixed(t *testing.T, upgraded string) {
	t.Helper()
	to := m.Context()
	to.Addresses = []string{m.Address[upgraded]}
	c, err := client.Dial(to, client.WithPatience(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.EditSettings(t.Context(), client.SettingsEdit{Put: map[string]string{"backup.keep": "3"}})
	if !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "takes format 1, and the cluster is at 0") {
		t.Errorf("a noun that two of three cannot read: %v", err)
	}
	members, formats, err := c.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if formats.InForce != 0 || formats.HeldBack == "" || len(formats.Waiting) == 0 {
		t.Errorf("formats %+v", formats)
	}
	known := 0
	for _, one := range members {
		if one.Alive && one.Format > 0 {
			known++
		}
	}
	if known != 1 || len(members) != 3 {
		t.Errorf("%d of %d tell what they know: %+v", known, len(members), members)
	}
}
