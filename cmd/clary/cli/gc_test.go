package cli_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

func TestGarbageIsShownFirstAndGoesOnlyAfterAYes(t *testing.T) {
	fake, err := clienttest.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fake.Close() }()
	fake.Over(&claryv1.SweepResponse{
		Gone: []*claryv1.Gone{
			{Kind: "record", Id: "digits", Why: "it ended long ago"},
			{Kind: "upload", Id: "s3://clary/uploads/abc/", Why: "nothing names it", Objects: 2, Bytes: 3 << 20},
		},
		Kept: []*claryv1.Gone{{Kind: "job", Id: "source", Why: "needed by version net@1 of a model"}},
	})
	to := fake.Context()
	env := map[string]string{
		config.EnvAddress: strings.Join(to.Addresses, ","), config.EnvToken: to.Token, config.EnvPin: to.CAPin, "HOME": t.TempDir(),
	}
	run := func(args ...string) (string, error) {
		t.Helper()
		var said bytes.Buffer
		app := &shell.App{Out: &said, Err: &said, Getenv: func(name string) string { return env[name] }}
		root := under(t, app, args[0]).Root()
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return said.String(), err
	}
	said, err := run("gc") // nobody can be asked here
	if err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("it removed what is over unasked: %v", err)
	}
	for _, want := range []string{"to be archived", "to be deleted", "3 MiB", "stays", "needed by version net@1", "would free 3 MiB in 2 objects"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	if said, err := run("gc", "--dry-run", "-o", "json"); err != nil || !strings.Contains(said, `"bytes": 3145728`) {
		t.Errorf("as JSON: %s, %v", said, err)
	}
	if said, err := run("gc", "--yes"); err != nil || !strings.Contains(said, "2 gone, which freed 3 MiB in 2 objects") {
		t.Errorf("after a yes: %s, %v", said, err)
	}
	if said, err := run("gc", "--yes"); err != nil || !strings.Contains(said, "there is nothing to remove") {
		t.Errorf("once more: %s, %v", said, err)
	}

	c, err := client.Dial(to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Submit(t.Context(), cluster.Job{Name: "long-ago", Kind: cluster.KindTraining, RequestID: "request"}); err != nil {
		t.Fatal(err)
	}
	fake.Update("long-ago", func(v *client.JobView) {
		v.Job.State, v.Archived = cluster.JobSucceeded, time.Now().Add(-48*time.Hour).UnixNano()
	})
	if said, err := run("jobs"); err != nil || strings.Contains(said, "long-ago") {
		t.Errorf("an archived job is at hand: %s, %v", said, err)
	}
	if said, err := run("jobs", "--archived"); err != nil || !strings.Contains(said, "long-ago") {
		t.Errorf("an archived job is not listed: %s, %v", said, err)
	}
	if said, err := run("job", "long-ago"); err != nil || !strings.Contains(said, "archived") {
		t.Errorf("it is not said that it is archived: %s, %v", said, err)
	}
}
