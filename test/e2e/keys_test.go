package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/client/config"
)

// shownKeys is what clary keys show -o json tells.
type shownKeys struct {
	Phase, Rotates string
	CAs            []struct {
		Pin   string
		Signs bool
	} `json:"cas"`
	Members []struct {
		Role, ID  string
		CAPin     string `json:"ca_pin"`
		Confirmed bool
	}
	Revoked []struct {
		ID       string
		Rejoined bool
	}
}

func (m *machines) keys() shownKeys {
	m.T.Helper()
	var shown shownKeys
	m.JSON(&shown, "keys", "show", "-o", "json")
	return shown
}

// steady does something again and again, and counts how often and what failed.
type steady struct {
	done, failed atomic.Int64
	mu           sync.Mutex
	why          []string
}

func (s *steady) run(ctx context.Context, do func(i int) error) {
	for i := 0; ctx.Err() == nil; i++ {
		if err := do(i); err != nil && ctx.Err() == nil {
			s.failed.Add(1)
			s.mu.Lock()
			s.why = append(s.why, err.Error())
			s.mu.Unlock()
			continue
		}
		s.done.Add(1)
	}
}

// The CA is replaced, twice, while jobs are submitted, an endpoint is asked, and objects are written and read: nothing of it
// fails that the client's own retries do not cover. Then another context, which pins the old CA and was not used meanwhile, is told what to do.
func TestTheCAIsReplacedUnderLoadAndNoRequestFails(t *testing.T) {
	m := start(t, 3, 2)
	path := filepath.Join(m.Dir, "config.json")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	asleep := []string{"CLARY_CONFIG=" + m.File("asleep.json", string(before))}
	token := m.Token("agent") // pins the old CA
	first := m.keys()
	m.Clary("deploy", m.sides(), "--name", "sides", "--replicas", "2", "--cores", "0.2", "--memory", "128MiB", "--timeout", "2m")
	m.waitHealthy("sides", 2)
	asker := m.asker(m.Serve["s1"], m.Serve["s2"], m.Serve["s3"])
	asker.answers(m, "sides")
	asker.client.Transport.(*http.Transport).DisableKeepAlives = true // each request is a handshake
	asked := asker.load("sides", 2)
	defer asked.stop()

	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var jobs, objects steady
	load.Go(func() {
		jobs.run(ctx, func(i int) error {
			out, err := m.Try("run", "--name", fmt.Sprintf("under-load-%d", i), "--detach", "--", "true")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	})
	file := m.File("object", strings.Repeat("0123456789", 1000))
	load.Go(func() {
		objects.run(ctx, func(i int) error {
			uri := fmt.Sprintf("s3://clary/load/%d", i%10)
			if out, err := m.Try("cp", file, uri); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if out, err := m.Try("cp", uri, "-"); err != nil || len(out) != 10_000 {
				return fmt.Errorf("%w: %d bytes: %.200s", err, len(out), out)
			}
			return nil
		})
	})
	asked.during(m, "a new CA", 0, func() { m.Clary("keys", "rotate", "ca", "--wait", "--yes") })
	asked.during(m, "another", 0, func() { m.Clary("keys", "rotate", "ca", "--wait", "--yes") })
	asked.during(m, "a new gossip key", 0, func() { m.Clary("keys", "rotate", "gossip", "--wait") })
	after := m.keys()
	m.Clary("run", "--name", "after", "--", "true") // agents and coordinators speak, by the new CA alone
	cancel()
	load.Wait()
	asked.stop()
	m.Clary("endpoint", "delete", "sides")

	t.Logf("%d jobs, %d objects and %d requests of an endpoint; failed: %d, %d and %d",
		jobs.done.Load(), objects.done.Load(), asked.asked.Load(), jobs.failed.Load(), objects.failed.Load(), asked.failed.Load())
	if jobs.done.Load() == 0 || objects.done.Load() == 0 {
		t.Error("there was no load")
	}
	if why := slices.Concat(jobs.why, objects.why, asked.why); len(why) > 0 {
		t.Errorf("failed: %s", strings.Join(why, "\n"))
	}
	if len(after.CAs) != 1 || after.CAs[0].Pin == first.CAs[0].Pin || len(after.Members) != 5 {
		t.Errorf("after it the keys are %+v", after)
	}
	for _, member := range after.Members {
		if member.CAPin != after.CAs[0].Pin {
			t.Errorf("%s still shows a certificate of %s", member.ID, member.CAPin)
		}
	}
	file2, err := config.Load(path)
	if err != nil || file2.Contexts[file2.Current].CAPin != after.CAs[0].Pin {
		t.Errorf("the context that was used pins %s, %v", file2.Contexts[file2.Current].CAPin, err)
	}
	m.refuses(asleep, []string{"nodes"}, "another CA", "clary login")
	m.refuses(nil, m.joining("n9", token), "another CA", "new token")
	m.Agent("n3") // one that joins now
	m.WaitFor("an agent that joins after it", 20*time.Second, func() bool { return m.Ready() == 3 })
}

// One coordinator is down while the others take up a new CA: it is waited for, and comes back right.
func TestACoordinatorThatWasDownComesBackWithTheKeysOfToday(t *testing.T) {
	m := start(t, 3, 1)
	away := "s2"
	if m.Leader() == away {
		away = "s3"
	}
	m.Clary("keys", "rotate", "ca", "--phase", "add")
	m.Kill(away)
	m.refuses(nil, []string{"keys", "rotate", "ca", "--phase", "use"}, "coordinator "+away, "--force")
	m.WaitFor("it to be named before a step without it", 20*time.Second, func() bool {
		out, err := m.Try("keys", "rotate", "ca", "--phase", "use", "--force")
		return err != nil && strings.Contains(out, "Go on without coordinator "+away) && strings.Contains(out, "--yes")
	})
	m.WaitFor("a step without it", 20*time.Second, func() bool {
		_, err := m.Try("keys", "rotate", "ca", "--phase", "use", "--force", "--yes")
		return err == nil
	})
	m.Again(away)
	m.Clary("keys", "rotate", "ca", "--wait", "--yes")
	shown := m.keys()
	for _, member := range shown.Members {
		if !member.Confirmed {
			t.Errorf("%s is behind: %+v", member.ID, shown)
		}
	}
	if len(shown.CAs) != 1 || len(shown.Members) != 4 {
		t.Errorf("the keys are %+v", shown)
	}
	m.Clary("keys", "rotate", "gossip", "--wait")
	m.WaitFor("all to see one another by the new gossip key", 20*time.Second, func() bool { return m.Voters() == 3 })
}

// A node that was revoked is out at once, and comes back only with another key.
func TestARevokedNodeIsOutUntilItJoinsAnew(t *testing.T) {
	m := start(t, 1, 2)
	m.Clary("run", "--name", "runs", "--detach", "--retries", "3", "--", "sleep", "300")
	m.WaitFor("the job to run", 30*time.Second, func() bool { return m.Job("runs").State == "running" })
	node := m.Job("runs").Tasks[0].Node
	m.refuses(nil, []string{"node", "revoke", node, "--reason", "a test"}, "--yes")
	m.Clary("node", "revoke", node, "--reason", "a test", "--yes")
	m.WaitFor("its task to run elsewhere", 30*time.Second, func() bool {
		tasks := m.Job("runs").Tasks
		last := tasks[len(tasks)-1]
		return last.Node != node && last.State == "running"
	})
	state := func() string {
		var nodes []struct{ ID, State, Reason string }
		if err := json.Unmarshal([]byte(m.Clary("nodes", "-o", "json")), &nodes); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if n.ID == node {
				return n.State + ": " + n.Reason
			}
		}
		return ""
	}
	if got := state(); got != "lost: revoked: a test" {
		t.Errorf("the node is %s", got)
	}
	// Its agent starts again with its old key, and with its old key and a new token.
	m.Kill(node)
	m.Again(node)
	m.WaitFor("it to be refused", 20*time.Second, func() bool {
		log, _ := os.ReadFile(m.Path(node) + ".log")
		return strings.Contains(string(log), "bad certificate")
	})
	m.Cut(node)
	if err := os.Remove(filepath.Join(m.Path(node), "member.json")); err != nil {
		t.Fatal(err)
	}
	args := m.Args[node]
	for i, arg := range args {
		if arg == "--token" {
			args[i+1] = m.Token("agent")
		}
	}
	m.refuses(nil, args, "was revoked", "empty data folder")
	if err := os.RemoveAll(m.Path(node)); err != nil {
		t.Fatal(err)
	}
	for i, arg := range args {
		if arg == "--token" {
			args[i+1] = m.Token("agent")
		}
	}
	m.Run(node, args...)
	m.WaitFor("it to be back with another key", 20*time.Second, func() bool { return m.Ready() == 2 })
	if revoked := m.keys().Revoked; len(revoked) != 1 || !revoked[0].Rejoined {
		t.Errorf("of the revoked is told: %+v", revoked)
	}
	m.Clary("cancel", "runs")
	m.WaitFor("the job to end", 20*time.Second, func() bool { return m.Job("runs").State != "running" })
}

// A user's own token is replaced: both are good for the overlap, then one.
func TestATokenIsReplacedWithAnOverlap(t *testing.T) {
	m := start(t, 1, 0)
	path := m.File("ada.token", "")
	m.Clary("token", "create", "ada", "--role", "user", "--token-file", path)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := []string{"CLARY_TOKEN=" + strings.TrimSpace(string(text))}
	out, err := m.As(old, "token", "rotate", "--overlap", "2s", "-o", "json")
	var made struct{ Secret, Name, Role string }
	if err != nil || json.Unmarshal([]byte(out), &made) != nil || made.Name != "ada" || made.Role != "user" {
		t.Fatalf("%v: %s", err, out)
	}
	young := []string{"CLARY_TOKEN=" + made.Secret}
	if out, err := m.As(young, "cluster"); err != nil || !strings.Contains(out, "ada (user)") {
		t.Errorf("the new token: %v: %s", err, out)
	}
	m.WaitFor("the old token to end", 10*time.Second, func() bool {
		out, err := m.As(old, "cluster")
		return err != nil && strings.Contains(out, "the token has expired")
	})
	if out, err := m.As(young, "nodes"); err != nil {
		t.Errorf("the new token after the old one's end: %v: %s", err, out)
	}
	m.refuses(young, []string{"token", "rotate", strings.Split(old[0], "_")[3]}, "may not", "admin")
}

// A coordinator that was revoked leaves the quorum, is believed by nobody, and does not come back: not as it runs, not after a
// start, and not with a new token. It says why. Another machine may take its name.
func TestARevokedCoordinatorCannotComeBackAndSaysWhy(t *testing.T) {
	m := start(t, 3, 1)
	m.refuses(nil, []string{"nodes", "revoke", m.Leader(), "--coordinator", "--reason", "a test", "--yes"}, "leads", "clary cluster transfer")
	out := m.followers()[0]
	if out == "s1" { // it keeps the objects
		out = m.followers()[1]
	}
	m.Clary("nodes", "revoke", out, "--coordinator", "--reason", "its key leaked", "--yes")
	if members := m.members(); len(members) != 2 {
		t.Errorf("members are %v", members)
	}
	const why = "was revoked by admin: its key leaked"
	m.tells(out, why)
	m.WaitFor("it to end", 30*time.Second, func() bool { return slices.Contains(m.Ended(), out) })
	if err := os.Truncate(m.Path(out)+".log", 0); err != nil { // what it says from here on is of the next start
		t.Fatal(err)
	}
	m.Run(out, m.Args[out]...)
	m.tells(out, why)
	m.Clary("run", "--name", "without", "--", "true")

	m.wipe(out)
	m.anew(out)
	m.WaitFor("another machine of that name to vote", 30*time.Second, func() bool { return m.Voters() == 3 })
	if revoked := m.keys().Revoked; len(revoked) != 1 || revoked[0].ID != out || !revoked[0].Rejoined {
		t.Errorf("of the revoked is told: %+v", revoked)
	}
}
