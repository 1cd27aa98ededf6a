package janitor_test

import (
	"fmt"
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

func TestWhatIsOldIsArchivedAndNothingIsDeletedUnasked(t *testing.T) {
	settings := cluster.DefaultSettings()
	settings.Retention.Jobs, settings.Retention.JobsMost = 10*24*time.Hour, 0
	ago := func(d time.Duration) int64 { return now - int64(d) }
	view := janitor.View{
		Jobs:     []janitor.Ended{{"old", ago(20 * 24 * time.Hour)}, {"source", ago(15 * 24 * time.Hour)}, {"taught", ago(12 * 24 * time.Hour)}, {"young", ago(2 * time.Hour)}},
		Archived: []janitor.Ended{{"before", ago(400 * 24 * time.Hour)}, {"shown", ago(300 * 24 * time.Hour)}},
		Refs:     map[string]string{"source": "needed by version m@1 of a model", "shown": "needed by endpoint e"},
		Reads:    map[string]string{"taught": "needed by sweep s"},
		Tokens: []cluster.Token{
			{ID: "ever"},
			{ID: "fresh", Expires: ago(time.Hour)},
			{ID: "later", Expires: now + 5},
			{ID: "stale", Expires: ago(40 * 24 * time.Hour)},
			{ID: "vouches", Kind: cluster.TokenJoin, Role: cluster.RoleCoordinator, BoundKey: "sha256:k", Expires: ago(40 * 24 * time.Hour)},
		},
	}
	for _, test := range []struct {
		name       string
		set        func(*cluster.Retention)
		gone, kept []string
	}{
		{"by age", nil, []string{"record old", "record source", "token stale"}, []string{"record taught"}},
		{"by number", func(r *cluster.Retention) { r.Jobs, r.JobsMost = 0, 2 }, []string{"record old", "record source", "token stale"}, nil},
		{"for ever", func(r *cluster.Retention) { r.Jobs = 0 }, []string{"token stale"}, nil},
		{
			"where outputs may go", func(r *cluster.Retention) { r.Outputs = 14 * 24 * time.Hour },
			[]string{"job old", "record source", "archived before", "token stale"},
			[]string{"job source", "record taught", "archived shown"},
		},
		{
			"where outputs go and records stay", func(r *cluster.Retention) { r.Jobs, r.Outputs = 0, 14*24*time.Hour },
			[]string{"job old", "archived before", "token stale"},
			[]string{"job source", "archived shown"},
		},
	} {
		set := settings
		if test.set != nil {
			test.set(&set.Retention)
		}
		result := janitor.Sweep(view, set, now, 10)
		if got := ids(result.Gone); !slices.Equal(got, test.gone) || result.More {
			t.Errorf("%s: %q goes, want %q; more: %t", test.name, got, test.gone, result.More)
		}
		if got := ids(result.Kept); !slices.Equal(got, test.kept) {
			t.Errorf("%s: %q stays, want %q", test.name, got, test.kept)
		}
	}
	want := "it ended 20 days ago, and ended jobs are at hand for 10 days (retention.jobs)"
	if why := janitor.Sweep(view, settings, now, 1).Gone[0].Why; why != want {
		t.Errorf("why: %q", why)
	}
}

// drawn is a view, and how it becomes another when what a sweep names goes.
type drawn struct{ janitor.View }

func (d *drawn) take(g janitor.Gone) {
	without := func(list []janitor.Ended, name string) []janitor.Ended {
		return slices.DeleteFunc(slices.Clone(list), func(j janitor.Ended) bool { return j.Name == name })
	}
	switch g.Kind {
	case janitor.GoneJob:
		d.Jobs = without(d.Jobs, g.ID)
	case janitor.GoneRecord:
		at := slices.IndexFunc(d.Jobs, func(j janitor.Ended) bool { return j.Name == g.ID })
		if at < 0 {
			return // another sweep was faster
		}
		d.Archived = append(d.Archived, d.Jobs[at])
		d.Jobs = without(d.Jobs, g.ID)
	case janitor.GoneArchived:
		d.Archived = without(d.Archived, g.ID)
	case janitor.GoneToken:
		d.Tokens = slices.DeleteFunc(slices.Clone(d.Tokens), func(k cluster.Token) bool { return k.ID == g.ID })
	}
}

func drawView(t *rapid.T) (drawn, cluster.Settings) {
	settings := cluster.DefaultSettings()
	days := func(label string, least int) time.Duration {
		return time.Duration(rapid.IntRange(least, 20).Draw(t, label)) * 24 * time.Hour
	}
	settings.Retention.Jobs, settings.Retention.Outputs, settings.Retention.Tokens = days("jobs", 0), days("outputs", 0), days("tokens", 1)
	settings.Retention.JobsMost = int64(rapid.IntRange(0, 8).Draw(t, "most"))
	d := drawn{janitor.View{Refs: map[string]string{}, Reads: map[string]string{}}}
	for i := range rapid.IntRange(0, 15).Draw(t, "ended jobs") {
		job := janitor.Ended{Name: fmt.Sprint("j", i), At: now - int64(days("age", 0)) - int64(i)}
		if rapid.Bool().Draw(t, "archived") {
			d.Archived = append(d.Archived, job)
		} else {
			d.Jobs = append(d.Jobs, job)
		}
		for label, refs := range map[string]map[string]string{"referred": d.Refs, "read": d.Reads} {
			if rapid.IntRange(0, 3).Draw(t, label) == 0 {
				refs[job.Name] = "needed by a test"
			}
		}
	}
	slices.SortFunc(d.Jobs, func(a, b janitor.Ended) int { return int(a.At - b.At) })
	for i := range rapid.IntRange(0, 8).Draw(t, "tokens") {
		d.Tokens = append(d.Tokens, cluster.Token{ID: fmt.Sprint("t", i), Expires: now - int64(days("age", 0))})
	}
	return d, settings
}

// Whatever there is: what is referred to is not deleted and what is read is not archived, nothing is deleted unless that was asked
// for, a round is bounded, rounds come to an end, and then exactly what is over is gone. Two who sweep beside each other, each
// from what it saw before the other acted, end where one does.
func TestSweepsComeToAnEndAndTakeOnlyWhatIsOver(t *testing.T) {
	gone, spared, twice := map[janitor.Kind]int{}, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		d, settings := drawView(t)
		alone := drawn{d.View}
		most := rapid.IntRange(1, 5).Draw(t, "a round")
		sweep := func(d *drawn, pairs bool) {
			for round := 0; ; round++ {
				result := janitor.Sweep(d.View, settings, now, most)
				if len(result.Gone) > most || len(result.Kept) > most || result.More && len(result.Gone) < most {
					t.Fatalf("a round of %d takes %v and keeps %v, more: %t", most, result.Gone, result.Kept, result.More)
				}
				if len(result.Gone) == 0 {
					return
				}
				also := result.Gone
				if pairs {
					for _, g := range result.Gone[:rapid.IntRange(0, len(result.Gone)).Draw(t, "how far the other is")] {
						d.take(g)
						twice++
					}
				}
				for _, g := range also {
					deletes := g.Kind == janitor.GoneJob || g.Kind == janitor.GoneArchived
					if d.Refs[g.ID] != "" && deletes || d.Reads[g.ID] != "" && g.Kind == janitor.GoneRecord || g.Why == "" {
						t.Fatalf("%+v goes, and is needed by %q and read by %q", g, d.Refs[g.ID], d.Reads[g.ID])
					}
					if deletes && settings.Retention.Outputs == 0 {
						t.Fatalf("%+v is deleted, and nobody asked for it", g)
					}
					d.take(g)
					gone[g.Kind]++
				}
				if round > 60 {
					t.Fatal("it does not come to an end")
				}
			}
		}
		sweep(&d, true)
		sweep(&alone, false)
		same := func(a, b []janitor.Ended) bool {
			slices.SortFunc(a, func(x, y janitor.Ended) int { return int(x.At - y.At) })
			slices.SortFunc(b, func(x, y janitor.Ended) int { return int(x.At - y.At) })
			return slices.Equal(a, b)
		}
		if !same(d.Jobs, alone.Jobs) || !same(d.Archived, alone.Archived) || len(d.Tokens) != len(alone.Tokens) {
			t.Fatalf("two end with %v and %v, one with %v and %v", d.Jobs, d.Archived, alone.Jobs, alone.Archived)
		}
		spared += checkLeft(t, d.View, settings)
	})
	if len(gone) != 4 || spared == 0 || twice == 0 {
		t.Errorf("%v went, %d were spared, %d twice: not all was tried", gone, spared, twice)
	}
}

// checkLeft says if something stays that is over and that nothing needs, and counts what does for being needed.
func checkLeft(t *rapid.T, view janitor.View, settings cluster.Settings) (spared int) {
	keep := settings.Retention
	for i, job := range view.Jobs {
		age := time.Duration(now - job.At)
		if view.Refs[job.Name] != "" || view.Reads[job.Name] != "" {
			spared++
		}
		if keep.Outputs > 0 && age > keep.Outputs && view.Refs[job.Name] == "" {
			t.Fatalf("%v may be deleted, and stays", job)
		}
		surplus := keep.JobsMost > 0 && int64(i) < int64(len(view.Jobs))-keep.JobsMost && age > 2*time.Hour
		if (keep.Jobs > 0 && age > keep.Jobs || surplus) && view.Reads[job.Name] == "" {
			t.Fatalf("%v, %d of %d, is to be archived, and stays", job, i, len(view.Jobs))
		}
	}
	for _, job := range view.Archived {
		if keep.Outputs > 0 && time.Duration(now-job.At) > keep.Outputs && view.Refs[job.Name] == "" {
			t.Fatalf("archived %v may be deleted, and stays", job)
		}
	}
	for _, token := range view.Tokens {
		if time.Duration(now-token.Expires) > keep.Tokens {
			t.Fatalf("token %s is over and stays", token.ID)
		}
	}
	return spared
}
