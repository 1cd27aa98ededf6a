package cluster

import "testing"

// walk checks a table from the drawing: every edge is allowed, every non-edge refused.
func walk[S ~string](t *testing.T, table edges[S], can func(from, to S) bool, drawn map[S][]S) {
	t.Helper()
	if len(table) != len(drawn) {
		t.Fatalf("%d states in the table, %d in the drawing", len(table), len(drawn))
	}
	allowed, refused := 0, 0
	for from := range drawn {
		for to := range drawn {
			want := edges[S](drawn).has(from, to)
			if got := can(from, to); got != want {
				t.Errorf("%s to %s: allowed is %v, the drawing says %v", from, to, got, want)
			}
			if want {
				allowed++
			} else {
				refused++
			}
		}
	}
	if allowed == 0 || refused == 0 {
		t.Fatalf("walked %d edges and %d non-edges: nothing was exercised", allowed, refused)
	}
	if can("nonsense", "nonsense") {
		t.Error("an unknown state has an edge")
	}
}

func TestJobStatesAreAsDrawn(t *testing.T) {
	walk(t, jobEdges, JobState.CanBecome, map[JobState][]JobState{
		"queued":     {"running", "stopping", "failed", "cancelled"},
		"running":    {"queued", "publishing", "stopping", "failed", "cancelled"},
		"publishing": {"succeeded", "stopping", "failed", "cancelled"},
		"stopping":   {"cancelled", "failed"},
		"succeeded":  {}, "failed": {}, "cancelled": {},
	})
}

func TestTaskStatesAreAsDrawn(t *testing.T) {
	ends := []TaskState{"succeeded", "failed", "stopped", "lost"}
	walk(t, taskEdges, TaskState.CanBecome, map[TaskState][]TaskState{
		"assigned":  append([]TaskState{"staging", "ready", "running", "uploading"}, ends...),
		"staging":   append([]TaskState{"ready", "running", "uploading"}, ends...),
		"ready":     append([]TaskState{"running", "uploading"}, ends...),
		"running":   append([]TaskState{"uploading"}, ends...),
		"uploading": ends,
		"succeeded": {}, "failed": {}, "stopped": {}, "lost": {},
	})
}

func TestNodeStatesAreAsDrawn(t *testing.T) {
	walk(t, nodeEdges, NodeState.CanBecome, map[NodeState][]NodeState{
		"ready":    {"draining", "lost"},
		"draining": {"ready", "lost"},
		"lost":     {"ready", "draining"},
	})
}

func TestOnlyFinalStatesAreEnded(t *testing.T) {
	for state := range jobEdges {
		want := state == JobSucceeded || state == JobFailed || state == JobCancelled
		if state.Ended() != want {
			t.Errorf("job state %s: ended is %v", state, state.Ended())
		}
	}
	for state := range taskEdges {
		want := state == TaskSucceeded || state == TaskFailed || state == TaskStopped || state == TaskLost
		if state.Ended() != want {
			t.Errorf("task state %s: ended is %v", state, state.Ended())
		}
	}
	if JobState("nonsense").Ended() || TaskState("").Ended() {
		t.Error("an unknown state counts as ended")
	}
}

func TestRolloutPhasesAreAsDrawn(t *testing.T) {
	walk(t, rolloutEdges, RolloutPhase.CanBecome, map[RolloutPhase][]RolloutPhase{
		"starting":     {"baking", "rolling_back"},
		"baking":       {"retiring", "rolling_back"},
		"retiring":     {"rolling_back"},
		"rolling_back": {},
	})
}

func TestTrialStatesAreAsDrawn(t *testing.T) {
	ends := []TrialState{"complete", "stopped", "failed", "infeasible", "cancelled"}
	walk(t, trialEdges, TrialState.CanBecome, map[TrialState][]TrialState{
		"waiting":  append([]TrialState{"running", "paused"}, ends...),
		"running":  append([]TrialState{"waiting", "paused"}, ends...),
		"paused":   {"waiting", "running", "complete", "stopped", "failed", "cancelled"},
		"complete": {}, "stopped": {}, "failed": {}, "infeasible": {}, "cancelled": {},
	})
}
