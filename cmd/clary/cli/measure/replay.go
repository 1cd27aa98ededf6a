package measure

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/coordinator/decisions"
	"github.com/clary-ml/clary/internal/fault"
)

// replayFlags say what is repeated.
type replayFlags struct {
	fromCluster, last bool
	save              string
	until             decisions.Until
}

func (a app) replayCommand() *cobra.Command {
	var flags replayFlags
	command := &cobra.Command{
		Use:   "replay [FILE]",
		Short: "Repeat what the scheduler decided, bit for bit, and say why a job waited then",
		Long: "Repeat a record of what the scheduler was told and decided: this program's scheduler is told the same, and has to\n" +
			"decide the same. The record is a file, a coordinator's folder decisions below its --data, or the leader's own with\n" +
			"--from-cluster. Exits with 1 at the first decision that differs.",
		Example: "  clary replay /var/lib/clary/decisions\n  clary replay --from-cluster --last --explain digits\n" +
			"  clary replay --from-cluster --save monday.log\n  clary replay monday.log --decision 1200 --explain digits -o json",
		Args: shell.Takes("[FILE]"),
		RunE: func(command *cobra.Command, args []string) error {
			switch {
			case flags.fromCluster == (len(args) > 0):
				return shell.Usage(command, "name a FILE, or say --from-cluster: one of the two")
			case flags.save != "" && !flags.fromCluster:
				return shell.Usage(command, "--save goes with --from-cluster")
			case flags.until.Decision < 0:
				return shell.Usage(command, "--decision takes the number of a decision, from 1")
			}
			if err := a.CheckFormat(); err != nil {
				return err
			}
			record, err := a.record(command.Context(), flags, args)
			if err != nil {
				return err
			}
			defer record.Close()
			return a.replay(record, flags.until)
		},
	}
	f := command.Flags()
	f.BoolVar(&flags.fromCluster, "from-cluster", false, "repeat the leader's record")
	f.BoolVar(&flags.last, "last", false, "only the newest segment of the record")
	f.StringVar(&flags.save, "save", "", "keep a copy of the leader's record in this file")
	f.Int64Var(&flags.until.Decision, "decision", 0, "stop at the first decision of this number")
	f.StringVar(&flags.until.Explain, "explain", "", "say why this job waited before the last decision that is repeated")
	return command
}

// record opens what is to be repeated.
func (a app) record(ctx context.Context, flags replayFlags, args []string) (io.ReadCloser, error) {
	if flags.fromCluster {
		return a.fetchRecord(ctx, flags)
	}
	info, err := os.Stat(args[0])
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if flags.last {
			return nil, fault.New(fault.Invalid, "--last: goes with a folder or --from-cluster, and %s is a file", args[0])
		}
		return os.Open(args[0])
	}
	paths, err := decisions.Segments(args[0])
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fault.New(fault.NotFound, "%s: there is no record of decisions in this folder", args[0])
	}
	if flags.last {
		paths = paths[len(paths)-1:]
	}
	return decisions.Open(paths)
}

// fetchRecord copies the leader's record into a file. What lies where it is saved stays until the copy is whole.
func (a app) fetchRecord(ctx context.Context, flags replayFlags) (io.ReadCloser, error) {
	if info, err := os.Stat(flags.save); err == nil && !info.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, "--save: %s is there and is no file: name one", flags.save)
	}
	c, err := a.Connect()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	file, err := createRecord(flags.save)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, c, flags, file); err != nil {
		_ = file.Close()
		if flags.save != "" {
			_ = os.Remove(file.Name())
		}
		return nil, err
	}
	return file, nil
}

// createRecord makes a file beside path, or if that is "" one that goes when it is closed.
func createRecord(path string) (*os.File, error) {
	if path != "" {
		return os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	}
	file, err := os.CreateTemp("", "clary-decisions-*")
	if err == nil {
		err = os.Remove(file.Name())
	}
	return file, err
}

func fill(ctx context.Context, c *client.Client, flags replayFlags, file *os.File) error {
	if err := c.Decisions(ctx, flags.last, file); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil || flags.save == "" {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(file.Name(), flags.save)
}

// replayJSON is what came of it.
type replayJSON struct {
	Equal     bool             `json:"equal"`
	Segments  int              `json:"segments"`
	Decisions int64            `json:"decisions"`
	Placed    int              `json:"placed"`
	Evicted   int              `json:"evicted"`
	Torn      bool             `json:"torn,omitempty"`
	Differs   string           `json:"differs,omitempty"`
	Last      string           `json:"last,omitempty"` // when the last decision was made
	Whys      []submit.WhyJSON `json:"whys,omitempty"`
}

func (a app) replay(record io.Reader, until decisions.Until) error {
	began := time.Now()
	out, err := decisions.Replay(record, until)
	if err != nil {
		return err
	}
	shown := replayJSON{
		Equal: out.Differs == "", Segments: out.Segments, Decisions: out.Decisions, Placed: out.Placed, Evicted: out.Evicted,
		Torn: out.Torn, Differs: out.Differs, Whys: submit.WhysToJSON(out.Whys),
	}
	if out.Last != nil {
		shown.Last = shell.Moment(out.Last.Now)
	}
	err = a.Print(shown, func(to io.Writer) error {
		if shown.Equal {
			fmt.Fprintf(to, "%d decisions in %d segments repeated in %s, all equal: %d gangs placed, %d told to make room\n",
				out.Decisions, out.Segments, time.Since(began).Round(time.Millisecond), out.Placed, out.Evicted)
		}
		if until.Explain != "" && len(out.Whys) == 0 {
			fmt.Fprintf(to, "%s did not wait then\n", until.Explain)
		}
		for _, why := range out.Whys {
			submit.ShowWhy(to, why)
		}
		return nil
	})
	if err == nil && !shown.Equal {
		return shell.ExitWith(shell.ExitFailed, fault.New(fault.Internal, "not equal: %s", out.Differs))
	}
	return err
}
