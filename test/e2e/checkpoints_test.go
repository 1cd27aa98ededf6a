package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// dies counts its attempts in its checkpoints up to its number, beside a file that stays as it is, and fails each time.
const dies = `at=$SAGEMAKER_BASE_DIR/checkpoints; n=$(cat $at/count 2>/dev/null || echo 0)
[ -e $at/large ] || head -c 20000000 /dev/urandom >$at/large
[ $n -lt "$0" ] && echo $((n+1)) >$at/.count && mv $at/.count $at/count
exit 1`

func TestOfAJobThatFailsAgainAndAgainOldCheckpointsGoAndWhoGoesOnFindsTheLast(t *testing.T) {
	m := start(t, 1, 1)
	m.Exits(0, "settings", "set", "retention.checkpoints=2")
	m.Exits(0, "run", "--detach", "--name", "digits", "--checkpoints", "--retries", "7", "--backoff", "0s", "--", "sh", "-c", dies, "3")
	m.Waits(1, "digits")
	folder := m.Path("s1/objects/clary/jobs/digits/checkpoints")
	left := func() (attempts []string) {
		items, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			attempts = append(attempts, item.Name())
		}
		return attempts
	}
	if got := fmt.Sprint(left()); got != "[1 2 3 4 5 6 7 8]" {
		t.Fatalf("attempts %s have left checkpoints", got)
	}
	gc := func(args ...string) (found over) {
		m.JSON(&found, append([]string{"gc", "-o", "json"}, args...)...)
		return found
	}
	if young := gc("--dry-run"); len(young.Gone) != 0 {
		t.Errorf("what came just now would go: %+v", young)
	}

	// Two hours later.
	before := time.Now().Add(-2 * time.Hour)
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, before, before)
	})
	if err != nil {
		t.Fatal(err)
	}
	// The last five have only what they began with; the third is the last that came beyond that.
	would := gc("--dry-run")
	if len(would.Gone) != 5 {
		t.Fatalf("a dry run says %+v", would)
	}
	for i, g := range would.Gone {
		if g.Kind != "checkpoints" || g.ID != fmt.Sprintf("s3://clary/jobs/digits/checkpoints/%d/worker-0/", []int{6, 5, 4, 2, 1}[i]) || g.Bytes != 20_000_002 || !strings.Contains(g.Why, "retention.checkpoints") {
			t.Errorf("it would remove %+v", g)
		}
	}
	m.Exits(0, "settings", "set", "retention.checkpoints=4")
	m.WaitFor("the last four to be left", time.Minute, func() bool { return fmt.Sprint(left()) == "[3 5 6 7 8]" })
	m.Exits(0, "settings", "set", "retention.checkpoints=2")
	m.WaitFor("the last two to be left", time.Minute, func() bool { return fmt.Sprint(left()) == "[3 7 8]" })

	spec := `{"program": {"command": ["sh", "-c", "cd $SAGEMAKER_BASE_DIR/checkpoints; echo goes on at $(cat count) with $(stat -c %s large)"]}, "checkpoints": true, "restore": "s3://clary/jobs/digits/checkpoints/"}`
	if _, err := m.Client().Submit(t.Context(), cluster.Job{Name: "heir", Kind: cluster.KindTraining, Spec: []byte(spec), RequestID: "heir"}); err != nil {
		t.Fatal(err)
	}
	m.Waits(0, "heir")
	if log := m.Clary("logs", "heir"); !strings.Contains(log, "goes on at 3 with 20000000") {
		t.Errorf("who goes on from what is left says %q", log)
	}
}
