package janitor_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/janitor"
)

const now = int64(1_000 * 24 * time.Hour)

func ids(gone []janitor.Gone) []string {
	var names []string
	for _, g := range gone {
		names = append(names, string(g.Kind)+" "+g.ID)
	}
	return names
}

func TestWhatIsOldGoesAndWhatIsNeededStays(t *testing.T) {
	settings := cluster.DefaultSettings()
	settings.Retention.Jobs = 10 * 24 * time.Hour
	settings.Retention.JobsMost = 0
	ago := func(d time.Duration) int64 { return now - int64(d) }
	view := janitor.View{
		Jobs: []janitor.Ended{{"old", ago(20 * 24 * time.Hour)}, {"source", ago(15 * 24 * time.Hour)}, {"young", ago(time.Hour)}},
		Refs: map[string]string{"source": "needed by version m@1 of a model"},
		Tokens: []cluster.Token{
			{ID: "ever"},
			{ID: "fresh", Expires: ago(time.Hour)},
			{ID: "later", Expires: now + 5},
			{ID: "stale", Expires: ago(40 * 24 * time.Hour)},
			{ID: "vouches", Kind: cluster.TokenJoin, Role: cluster.RoleCoordinator, BoundKey: "sha256:k", Expires: ago(40 * 24 * time.Hour)},
		},
	}
	result := janitor.Sweep(view, settings, now, 10)
	if got := ids(result.Gone); !slices.Equal(got, []string{"job old", "token stale"}) || result.More {
		t.Errorf("%v goes, more: %t", got, result.More)
	}
	if got := ids(result.Kept); !slices.Equal(got, []string{"job source"}) {
		t.Errorf("%v stays", got)
	}
	want := "it ended 20 days ago, and ended jobs are kept for 10 days (retention.jobs)"
	if result.Gone[0].Why != want {
		t.Errorf("why: %q", result.Gone[0].Why)
	}
	settings.Retention.Jobs, settings.Retention.JobsMost = 0, 2
	result = janitor.Sweep(view, settings, now, 10)
	if got := ids(result.Gone); !slices.Equal(got, []string{"job old", "token stale"}) {
		t.Errorf("%v goes when two jobs are kept", got)
	}
	settings.Retention.JobsMost = 0
	if got := ids(janitor.Sweep(view, settings, now, 10).Gone); !slices.Equal(got, []string{"token stale"}) {
		t.Errorf("%v goes when jobs are kept for ever", got)
	}
}

// Whatever there is: what is referred to stays, a round is bounded, rounds come to an end, and then exactly what is over is gone.
func TestSweepsComeToAnEndAndTakeOnlyWhatIsOver(t *testing.T) {
	removed, spared := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		settings := cluster.DefaultSettings()
		days := func(label string, least int) time.Duration {
			return time.Duration(rapid.IntRange(least, 20).Draw(t, label)) * 24 * time.Hour
		}
		settings.Retention.Jobs, settings.Retention.Tokens = days("jobs", 0), days("tokens", 1)
		settings.Retention.JobsMost = int64(rapid.IntRange(0, 8).Draw(t, "most"))
		view := janitor.View{Refs: map[string]string{}}
		for i := range rapid.IntRange(0, 15).Draw(t, "ended jobs") {
			job := janitor.Ended{Name: fmt.Sprint("j", i), At: now - int64(days("age", 0)) - int64(i)}
			view.Jobs = append(view.Jobs, job)
			if rapid.IntRange(0, 3).Draw(t, "referred") == 0 {
				view.Refs[job.Name] = "needed by a test"
			}
		}
		slices.SortFunc(view.Jobs, func(a, b janitor.Ended) int { return int(a.At - b.At) })
		for i := range rapid.IntRange(0, 8).Draw(t, "tokens") {
			view.Tokens = append(view.Tokens, cluster.Token{ID: fmt.Sprint("t", i), Expires: now - int64(days("age", 0))})
		}
		all, most := len(view.Jobs), rapid.IntRange(1, 5).Draw(t, "a round")
		for round := 0; ; round++ {
			result := janitor.Sweep(view, settings, now, most)
			if len(result.Gone) > most || len(result.Kept) > most || result.More && len(result.Gone) < most {
				t.Fatalf("a round of %d takes %v and keeps %v, more: %t", most, result.Gone, result.Kept, result.More)
			}
			if len(result.Gone) == 0 {
				break
			}
			for _, g := range result.Gone {
				if _, needed := view.Refs[g.ID]; needed || g.Why == "" {
					t.Fatalf("%+v goes, needed: %t", g, needed)
				}
				view.Jobs = slices.DeleteFunc(view.Jobs, func(j janitor.Ended) bool { return g.Kind == janitor.GoneJob && j.Name == g.ID })
				view.Tokens = slices.DeleteFunc(view.Tokens, func(j cluster.Token) bool { return g.Kind == janitor.GoneToken && j.ID == g.ID })
				removed++
			}
			if round > 40 {
				t.Fatal("it does not come to an end")
			}
		}
		for _, job := range view.Jobs {
			old := settings.Retention.Jobs > 0 && time.Duration(now-job.At) > settings.Retention.Jobs
			if view.Refs[job.Name] != "" {
				spared++
			} else if old {
				t.Fatalf("%v is over and stays", job)
			}
		}
		free := len(view.Jobs) - len(slices.Collect(maps.Keys(view.Refs)))
		if most := settings.Retention.JobsMost; most > 0 && int64(len(view.Jobs)) > most && free > 0 {
			// Those that stay beyond the number are needed, or ended a moment ago.
			for _, job := range view.Jobs[:int64(len(view.Jobs))-most] {
				if view.Refs[job.Name] == "" && time.Duration(now-job.At) > time.Hour {
					t.Fatalf("%d of %d jobs stay, %v among them, and at most %d are to", len(view.Jobs), all, job, most)
				}
			}
		}
		for _, token := range view.Tokens {
			if time.Duration(now-token.Expires) > settings.Retention.Tokens {
				t.Fatalf("token %s is over and stays", token.ID)
			}
		}
	})
	if removed == 0 || spared == 0 {
		t.Errorf("%d things were removed and %d spared: nothing was tried", removed, spared)
	}
}
