package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// asker asks an endpoint at several routers, as a client does that knows of all: at the next one when a
// router cannot be reached, or hangs up before it has answered.
type asker struct {
	urls   []string
	token  string
	client *http.Client
}

func (m *machines) asker(urls ...string) *asker {
	m.T.Helper()
	token, err := os.ReadFile(filepath.Join(m.Path("s1"), "admin.token"))
	if err != nil {
		m.T.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 64, //nolint:gosec // whose it is says another test
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
	}
	m.T.Cleanup(transport.CloseIdleConnections)
	return &asker{urls: urls, token: strings.TrimSpace(string(token)), client: &http.Client{Transport: transport, Timeout: 20 * time.Second}}
}

// ask asks once, beginning at a router; the error is why there is no good answer.
func (a *asker) ask(ctx context.Context, endpoint, body string, first int) (answer string, router string, err error) {
	for i := range a.urls {
		router = a.urls[(first+i)%len(a.urls)]
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, router+"/endpoints/"+endpoint+"/invocations", strings.NewReader(body))
		if err != nil {
			return "", router, err
		}
		request.Header.Set("Authorization", "Bearer "+a.token)
		request.Header.Set("Content-Type", "text/csv")
		response, failed := a.client.Do(request)
		if failed != nil {
			if err = failed; ctx.Err() != nil {
				return "", router, err
			}
			continue // the router is gone: the next one is asked
		}
		text, failed := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if failed != nil {
			err = failed
			continue
		}
		if response.StatusCode != http.StatusOK {
			return "", router, fmt.Errorf("%s at %s: %s", response.Status, router, bytes.TrimSpace(text))
		}
		return strings.TrimSpace(string(text)), router, nil
	}
	return "", "", fmt.Errorf("no router answers: the last is %s", router)
}

// load is steady: so many ask, each the next thing as soon as it has an answer, and count what fails.
type load struct {
	asked, failed atomic.Int64
	mu            sync.Mutex
	why           []string
	stop          func()
}

const columns = "3,1\n"

func (a *asker) load(endpoint string, many int) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for i := range many {
		asking.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				_, _, err := a.ask(ctx, endpoint, columns, n)
				if ctx.Err() != nil {
					return
				}
				l.asked.Add(1)
				if err != nil {
					l.failed.Add(1)
					l.mu.Lock()
					l.why = append(l.why, err.Error())
					l.mu.Unlock()
				}
				select { // steady: the machine is to do other things too
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	l.stop = func() { cancel(); asking.Wait() }
	return l
}

// during does something while requests are asked for, and waits until many more were answered. No more
// may fail than are allowed: those that a killed process had, which nobody may send again.
func (l *load) during(m *machines, what string, allowed int64, do func()) {
	m.T.Helper()
	asked, failed, began := l.asked.Load(), l.failed.Load(), time.Now()
	do()
	settled := l.asked.Load()
	m.WaitFor("requests after "+what, time.Minute, func() bool { return l.asked.Load() > settled+200 })
	count, bad := l.asked.Load()-asked, l.failed.Load()-failed
	m.T.Logf("%s: %d requests in %s, %d failed", what, count, time.Since(began).Round(time.Millisecond), bad)
	if bad > allowed {
		l.mu.Lock()
		defer l.mu.Unlock()
		m.T.Errorf("%s: %d of %d requests failed, %d may: %s", what, bad, count, allowed, strings.Join(l.why[len(l.why)-min(int(bad), 5):], "; "))
	}
}

// replica is a part of what clary endpoint says of one.
type replica struct {
	Gang, Task, Node, State string
}

func (m *machines) replicas(endpoint string) []replica {
	m.T.Helper()
	var view struct{ Replicas []replica }
	out, err := m.Try("endpoint", "status", endpoint, "-o", "json")
	if err != nil {
		return nil // while nobody leads
	}
	if err := json.Unmarshal([]byte(out), &view); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	return view.Replicas
}

func (m *machines) healthy(endpoint string) (found []replica) {
	m.T.Helper()
	return slices.DeleteFunc(m.replicas(endpoint), func(r replica) bool { return r.State != "healthy" })
}

func (m *machines) waitHealthy(endpoint string, many int) {
	m.T.Helper()
	m.WaitFor(fmt.Sprintf("%d healthy replicas of %s", many, endpoint), 2*time.Minute, func() bool { return len(m.healthy(endpoint)) == many })
}

// serverOf is the process of a replica's server: the one below its shim.
func (m *machines) serverOf(task string) int {
	m.T.Helper()
	shims := m.PIDs(strings.ReplaceAll(task, "/", "~"))
	for _, pid := range m.PIDs("clary\x00serve") {
		for above := pid; above > 1; above = parentOf(above) {
			if slices.Contains(shims, above) {
				return pid
			}
		}
	}
	m.T.Fatalf("no server of %s runs below %v: servers are %v", task, shims, m.PIDs("clary\x00serve"))
	return 0
}

func parentOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := bytes.Cut(text, []byte(") "))
	parent := 0
	_, _ = fmt.Sscanf(string(rest), "%c %d", new(rune), &parent)
	return parent
}

// askers ask at a time: that many requests may be at a process that is killed.
const askers = 8

// serving is a cluster of three coordinators, two nodes with a replica each and a node that routes.
func serving(t *testing.T) *machines {
	t.Helper()
	m := none(t)
	m.Bridged()
	m.Server("s1")
	m.Login("s1")
	m.Server("s2")
	m.Server("s3")
	m.WaitFor("all coordinators to vote", 30*time.Second, func() bool { return m.Voters() == 3 })
	m.Agent("n1", "--label", "for=replicas")
	m.Agent("n2", "--label", "for=replicas")
	m.Agent("n3", "--ingress-listen", ":7426")
	m.WaitFor("all agents to be ready", 30*time.Second, func() bool { return m.Ready() == 3 })
	m.Clary("deploy", m.sides(), "--name", "sides", "--replicas", "2", "--on", "for=replicas", "--cores", "0.2", "--memory", "128MiB", "--timeout", "2m")
	m.waitHealthy("sides", 2)
	return m
}

func (m *machines) ingress(name string) string { return "https://" + m.Plugged(name) + ":7426" }

// answers waits until an endpoint is answered for at every one of the asker's routers.
func (a *asker) answers(m *machines, endpoint string) {
	m.T.Helper()
	for i, url := range a.urls {
		one := *a
		one.urls = a.urls[i : i+1]
		m.WaitFor("an answer at "+url, time.Minute, func() bool {
			answer, _, err := one.ask(m.T.Context(), endpoint, columns, 0)
			return err == nil && strings.Contains(answer, "left")
		})
	}
}

func TestRequestsAreAnsweredWhateverIsKilled(t *testing.T) {
	m := serving(t)
	if on := m.healthy("sides"); on[0].Node == on[1].Node {
		t.Errorf("both replicas are on %s", on[0].Node)
	}
	a := m.asker(m.Serve["s1"], m.Serve["s2"], m.Serve["s3"], m.ingress("n3"))
	a.answers(m, "sides")
	l := a.load("sides", askers)
	defer l.stop()
	l.during(m, "nothing", 0, func() {})
	l.during(m, "kill -9 of a replica", askers, func() {
		victim := m.healthy("sides")[0].Task
		if err := syscall.Kill(m.serverOf(victim), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		m.WaitFor("its end to be known", 30*time.Second, func() bool {
			return !slices.ContainsFunc(m.healthy("sides"), func(r replica) bool { return r.Task == victim })
		})
		m.waitHealthy("sides", 2)
	})
	l.during(m, "kill -9 of a router on an agent, and its start again", 0, func() {
		m.Kill("n3")
		m.Again("n3")
	})
	l.during(m, "kill -9 of an agent that leads to a replica, and its start again", askers, func() {
		node := m.healthy("sides")[0].Node
		m.Kill(node)
		m.Again(node)
		m.waitHealthy("sides", 2)
	})
	l.during(m, "kill -9 of the leader", 0, func() {
		leader := m.Leader()
		m.Kill(leader)
		m.WaitFor("another leader", 30*time.Second, func() bool { now := m.Leader(); return now != "" && now != leader })
		m.Again(leader)
		m.WaitFor("all coordinators to vote", 30*time.Second, func() bool { return m.Voters() == 3 })
	})
	l.during(m, "the drain of a node", 0, func() {
		node := m.healthy("sides")[0].Node
		m.Clary("nodes", "drain", node, "--move")
		m.WaitFor("its replica to be elsewhere", time.Minute, func() bool {
			healthy := m.healthy("sides")
			return len(healthy) == 2 && healthy[0].Node != node && healthy[1].Node != node
		})
		m.Clary("nodes", "resume", node)
	})
	all := []string{"s1", "s2", "s3"}
	l.during(m, "kill -9 of all coordinators", 0, func() {
		for _, name := range all {
			m.Kill(name)
		}
	})
	l.stop()
	m.Kill("n3")
	m.Again("n3")
	alone := m.asker(m.ingress("n3"))
	alone.answers(m, "sides") // by a router that was started while nobody told it anything
	for _, name := range all {
		m.Again(name)
	}
	m.WaitFor("a leader", time.Minute, func() bool { return m.Leader() != "" })
	a.answers(m, "sides")
	m.Clary("endpoint", "delete", "sides")
}

// coldStarts are how often a fleet without replicas is asked.
const coldStarts = 7

// coldView is what of clary endpoint status says when what happened.
type coldView struct {
	Replicas []struct{ Started, Healthy time.Time }
	Notes    []struct {
		At   time.Time
		Text string
	}
}

// TestAnEndpointWithoutReplicasAnswers measures a cold start, part by part: make bench-cold shows it. What
// it demands is far above what it takes on an idle machine, since tests run on busy ones.
func TestAnEndpointWithoutReplicasAnswers(t *testing.T) {
	m := start(t, 1, 1)
	m.Clary("deploy", m.sides(), "--name", "cold", "--cores", "0.2", "--memory", "128MiB", "--timeout", "2m")
	a := m.asker(m.Serve["s1"])
	a.answers(m, "cold")
	var all []time.Duration
	for range coldStarts {
		m.Clary("endpoint", "scale", "cold", "0")
		m.WaitFor("no replicas", time.Minute, func() bool { return len(m.replicas("cold")) == 0 })
		began := time.Now()
		answer, _, err := a.ask(t.Context(), "cold", columns, 0)
		took := time.Since(began)
		if err != nil || !strings.Contains(answer, "left") {
			t.Fatalf("after %s: %q, %v", took, answer, err)
		}
		all = append(all, took)
		var view coldView
		m.JSON(&view, "endpoint", "status", "cold", "-o", "json")
		if len(view.Replicas) != 1 || len(view.Notes) == 0 || !strings.Contains(view.Notes[len(view.Notes)-1].Text, "somebody asks") {
			t.Fatalf("%+v", view)
		}
		r, ms := view.Replicas[0], time.Millisecond
		wanted := view.Notes[len(view.Notes)-1].At
		t.Logf("asked to answered %s: wanted after %s, its process after %s more, healthy after %s more, answered after %s more",
			took.Round(ms), wanted.Sub(began).Round(ms), r.Started.Sub(wanted).Round(ms), r.Healthy.Sub(r.Started).Round(ms), began.Add(took).Sub(r.Healthy).Round(ms))
	}
	slices.Sort(all)
	t.Logf("cold start of a model that Clary trained: median %s, worst %s of %d", all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all))
	if all[len(all)/2] > 5*time.Second {
		t.Errorf("the median cold start is %s", all[len(all)/2])
	}
	// What a request may be is the endpoint's matter: Clary's own server takes all that the router lets through.
	long := strings.TrimSpace(columns) + "." + strings.Repeat("0", 20<<20) + "\n"
	if answer, _, err := a.ask(t.Context(), "cold", long, 0); err != nil || !strings.Contains(answer, "left") {
		t.Errorf("a request of 20 MiB: %q, %v", answer, err)
	}
	m.Clary("endpoint", "delete", "cold")
}
