package e2e

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// asks asks a process's listener for operators, with a token if one is given.
func asks(t *testing.T, url, token string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestOperatorsSeeHowProcessesAreWhoDidWhatAndEmptyANode(t *testing.T) {
	m := start(t, 1, 1)
	urls := m.Ops
	token, err := os.ReadFile(m.Path("s1/admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	admin := strings.TrimSpace(string(token))
	for _, name := range []string{"s1", "n1"} {
		m.WaitFor(name+" to be ready", 30*time.Second, func() bool { code, _ := asks(t, urls[name]+"/readyz", ""); return code == http.StatusOK })
		for path, want := range map[string]string{
			"/healthz": "ok", "/readyz": `"ready": true`, "/metrics": map[string]string{"s1": "clary_raft_leader 1", "n1": "clary_agent_linked 1"}[name],
		} {
			if code, body := asks(t, urls[name]+path, ""); code != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s%s: %d %s", name, path, code, body)
			}
		}
		if code, _ := asks(t, urls[name]+"/debug/pprof/goroutine?debug=1", ""); code != http.StatusUnauthorized {
			t.Errorf("%s shows profiles to everybody: %d", name, code)
		}
		if code, body := asks(t, urls[name]+"/debug/pprof/goroutine?debug=1", admin); code != http.StatusOK || !strings.Contains(body, "goroutine profile") {
			t.Errorf("%s shows an admin no profile: %d %s", name, code, body)
		}
	}

	// It keeps no checkpoints, so it stays until the deadline, and then begins again elsewhere.
	m.Exits(0, "run", "--detach", "--name", "sleeps", "--grace", "1s", "--", "sleep", "600")
	m.WaitFor("it to run", 30*time.Second, func() bool { tasks := m.Job("sleeps").Tasks; return len(tasks) > 0 && tasks[0].State == "running" })
	if out := m.Exits(0, "nodes", "drain", "n1", "--deadline", "2s", "--reason", "new disk"); !strings.Contains(out, "gets nothing new") {
		t.Error(out)
	}
	if task := m.Job("sleeps").Tasks[0]; task.State != "stopped" || !strings.Contains(task.Reason, "node n1 is drained: new disk") {
		t.Errorf("it is %s: %s", task.State, task.Reason)
	}
	m.Exits(0, "nodes", "uncordon", "n1")
	m.Exits(0, "cancel", "sleeps")

	var deeds []struct{ User, Action, Object, From, Request, Outcome string }
	m.JSON(&deeds, "audit", "--limit", "0", "-o", "json")
	done := map[string]string{}
	for _, d := range deeds {
		if d.User != "admin" || d.From == "" || d.Request == "" || d.Outcome != "ok" {
			t.Errorf("on record: %+v", d)
		}
		done[d.Action] = d.Object
	}
	for action, object := range map[string]string{"jobs/submit": "sleeps", "nodes/drain": "n1", "nodes/resume": "n1", "jobs/cancel": "sleeps"} {
		if done[action] != object {
			t.Errorf("%s of %q is not on record: %v", action, object, done)
		}
	}

	m.Kill("s1")
	m.WaitFor("the agent to say that it is cut off", 30*time.Second, func() bool {
		code, body := asks(t, urls["n1"]+"/readyz", "")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "no connection to a coordinator")
	})
	m.Again("s1")
}
