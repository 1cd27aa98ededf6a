package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

// topJobs are how many jobs are looked at: of those that have not ended the first by name.
const topJobs = 500

func (a app) topCommand() *cobra.Command {
	every := "2s"
	command := &cobra.Command{
		Use:   "top",
		Short: "Watch nodes, queues and jobs",
		Long: "Watch nodes, queues and jobs, drawn again every two seconds: 1, 2 and 3 or tab switch between them, s sorts by the next\n" +
			"column, r turns the order round, j and k scroll, q quits. Where the output is no terminal all three are printed once.",
		Example: "  clary top\n  clary top --every 10s\n  clary top | head -20",
		Args:    shell.Takes(),
	}
	command.Flags().StringVar(&every, "every", every, "how often it is drawn again, at least 500ms")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		pause, err := quantity.ParseDuration(every)
		if err == nil && pause.Std() < 500*time.Millisecond {
			err = fault.New(fault.Invalid, "%s is less than 500ms", every)
		}
		if err != nil {
			return fault.New(fault.Invalid, "--every: %w", err)
		}
		input, ok := a.In.(*os.File)
		if a.OutTerminal && a.ForPeople() && ok && term.IsTerminal(int(input.Fd())) {
			return a.watchTop(ctx, c, input, pause.Std())
		}
		seen, err := lookAtAll(ctx, c)
		if err != nil {
			return err
		}
		return a.Print(seen.json(), func(out io.Writer) error {
			for pane := range panes {
				if pane > 0 {
					fmt.Fprintln(out)
				}
				for _, line := range seen.frame(topState{pane: pane}, a.Width(), 1<<20, time.Now()) {
					fmt.Fprintln(out, strings.TrimRight(line, " "))
				}
			}
			return nil
		})
	})
	return command
}

// topView is what is seen of the cluster at once.
type topView struct {
	info   client.Info
	nodes  []client.NodeView
	queues []cluster.QueueView
	jobs   []cluster.Job
	more   bool // than these jobs have not ended
}

// lookAtAll asks any coordinator for what it has.
func lookAtAll(ctx context.Context, c *client.Client) (seen topView, err error) {
	if seen.info, err = c.Info(ctx); err != nil {
		return seen, err
	}
	if seen.nodes, err = c.Nodes(ctx, client.ReadOption(true)); err != nil {
		return seen, err
	}
	if seen.queues, _, err = c.Queues(ctx, true); err != nil {
		return seen, err
	}
	var next string
	seen.jobs, next, err = c.Jobs(ctx, client.Filter{States: liveStates(), Limit: topJobs, Stale: true})
	seen.more = next != ""
	return seen, err
}

// liveStates are those of jobs that have not ended.
func liveStates() []cluster.JobState {
	return []cluster.JobState{cluster.JobQueued, cluster.JobRunning, cluster.JobPublishing, cluster.JobStopping}
}

// json is the view with the API's names.
func (v topView) json() any {
	shown := struct {
		Leader string           `json:"leader"`
		Nodes  []shell.NodeJSON `json:"nodes"`
		Queues []queueJSON      `json:"queues"`
		Jobs   []shell.JobJSON  `json:"jobs"`
	}{Leader: v.info.Leader, Nodes: []shell.NodeJSON{}, Queues: []queueJSON{}, Jobs: []shell.JobJSON{}}
	for _, node := range v.nodes {
		shown.Nodes = append(shown.Nodes, shell.NodeToJSON(node))
	}
	for _, queue := range v.queues {
		shown.Queues = append(shown.Queues, queueToJSON(queue))
	}
	for _, job := range v.jobs {
		shown.Jobs = append(shown.Jobs, shell.JobToJSON(client.JobView{Job: job}))
	}
	return shown
}

// Sequences of a terminal.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	restOfLine  = "\x1b[K"
	restOfPage  = "\x1b[J"
	ctrlC       = 3
)

// watchTop draws until a person quits.
func (a app) watchTop(ctx context.Context, c *client.Client, input *os.File, every time.Duration) error {
	before, err := term.MakeRaw(int(input.Fd()))
	if err != nil {
		return err
	}
	defer term.Restore(int(input.Fd()), before) //nolint:errcheck // there is nothing left to try
	fmt.Fprint(a.Out, enterScreen)
	defer fmt.Fprint(a.Out, leaveScreen)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := make(chan byte)
	go typed(ctx, input, keys) // it may read once more after this has returned, as the process ends
	looks := make(chan topLook)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		keepLooking(ctx, c, every, looks)
	}()
	defer func() { cancel(); <-looked }()
	var state topState
	var last topLook
	for {
		select {
		case <-ctx.Done():
			return nil // Ctrl-C is how it ends
		case last = <-looks:
			if fault.Is(last.err, fault.Denied) {
				return last.err
			}
		case key := <-keys:
			if key == 'q' || key == ctrlC {
				return nil
			}
			state.press(key)
		}
		if err := a.drawTop(last, &state, input); err != nil {
			return err
		}
	}
}

type topLook struct {
	view topView
	err  error
	at   time.Time
}

// keepLooking asks the cluster again and again; one that cannot be asked is shown as it was, and why.
func keepLooking(ctx context.Context, c *client.Client, every time.Duration, looks chan<- topLook) {
	clock := time.NewTicker(every)
	defer clock.Stop()
	var last topLook
	for {
		view, err := lookAtAll(ctx, c)
		if last.err = err; err == nil {
			last.view, last.at = view, time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case looks <- last:
		}
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
	}
}

func typed(ctx context.Context, input io.Reader, keys chan<- byte) {
	one := make([]byte, 1)
	for {
		n, err := input.Read(one)
		if n == 1 {
			select {
			case keys <- one[0]:
			case <-ctx.Done():
				return
			}
		}
		if err != nil && !errors.Is(err, io.ErrNoProgress) {
			return
		}
	}
}

func (a app) drawTop(look topLook, state *topState, screen *os.File) error {
	width, height, err := term.GetSize(int(screen.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	state.within(len(panes[state.pane].rows(look.view, time.Now())))
	lines := look.view.frame(*state, width, height-1, time.Now())
	status := "1 nodes  2 queues  3 jobs  s sort  r reverse  j k scroll  q quit"
	switch {
	case look.err != nil:
		status = "as of " + look.at.Format("15:04:05") + ": " + shell.OneLine(look.err.Error())
	case look.at.IsZero():
		status = "asking the cluster; q quits"
	}
	for len(lines) < height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:height-1], shell.Cut(status, width))
	var page strings.Builder
	page.WriteString(toTop)
	for i, line := range lines {
		if i > 0 {
			page.WriteString("\r\n")
		}
		page.WriteString(line + restOfLine)
	}
	page.WriteString(restOfPage)
	_, err = io.WriteString(a.Out, page.String())
	return err
}
