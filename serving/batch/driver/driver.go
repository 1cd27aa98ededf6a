// Package driver is the task that feeds a server in a batch transform: it waits until the
// server of its number is healthy, and runs the engine over its share of the objects. It
// sees files, the environment and an address, not the cluster.
package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/batch"
)

// Spec is what the job says of the transform.
type Spec struct {
	batch.Shape
	Limits  batch.Limits      `json:"limits,omitzero"`
	Timeout quantity.Duration `json:"timeout,omitzero"` // of a request
	Tries   int               `json:"tries,omitempty"`  // further ones, after the first
	Startup quantity.Duration `json:"startup,omitzero"` // until the server is healthy
	Port    int               `json:"port,omitempty"`   // of the server, if it has one of its own
	Memory  int64             `json:"memory,omitempty"` // bytes that requests and their answers may take
}

// Exit codes of the driver's process.
const (
	ExitFailed   = 1  // trying again would end the same
	ExitTryAgain = 75 // something was not there: the server, a disk
)

const (
	maxMessage    = 1000
	maxGreeting   = 1 << 20 // bytes of what is answered before the limits are known
	progressEvery = time.Second
	commitEvery   = 2 * time.Second // as often as an agent looks for what is new
)

// Folders of the task, below its base.
const (
	Inputs  = "processing/input"
	Outputs = "processing/output"
)

// Options are all that the driver knows.
type Options struct {
	Spec
	Address string // of the server, host:port
	Inputs  string // folders
	Outputs string
	Journal string
	Metrics string // files; "" is not written
	Message string
	Failure string
	Out     io.Writer
}

// OptionsFromEnv reads what the agent says in a task's environment.
func OptionsFromEnv(getenv func(string) string) (Options, error) {
	base := getenv("SAGEMAKER_BASE_DIR")
	if base == "" {
		base = "/opt/ml"
	}
	o := Options{
		Inputs: filepath.Join(base, Inputs), Outputs: filepath.Join(base, Outputs), Journal: filepath.Join(base, "checkpoints"),
		Metrics: getenv("CLARY_METRICS"), Message: filepath.Join(base, "output/message"), Failure: filepath.Join(base, "output/failure"), Out: os.Stdout,
	}
	text, err := os.ReadFile(getenv("CLARY_SPEC"))
	if err == nil {
		err = json.Unmarshal(text, &o.Spec)
	}
	if err != nil {
		return o, fault.New(fault.Invalid, "CLARY_SPEC=%q: %w: give the path of the transform's spec", getenv("CLARY_SPEC"), err)
	}
	servers := strings.Split(getenv("CLARY_HOSTS_SERVER"), ",")
	index, err := strconv.Atoi(getenv("CLARY_INDEX"))
	if err != nil || index < 0 || index >= len(servers) || servers[index] == "" {
		return o, fault.New(fault.Invalid, "CLARY_HOSTS_SERVER=%q has no address for CLARY_INDEX=%q", getenv("CLARY_HOSTS_SERVER"), getenv("CLARY_INDEX"))
	}
	o.Address = servers[index]
	if o.Port > 0 {
		host, _, err := net.SplitHostPort(o.Address)
		if err != nil {
			host = o.Address
		}
		o.Address = net.JoinHostPort(host, strconv.Itoa(o.Port))
	}
	return o, nil
}

// Run transforms. What it fails of is in the failure file too, and in the message which
// objects have no output.
func Run(ctx context.Context, o Options) error {
	summary, err := o.transform(ctx)
	if err != nil {
		if o.Failure != "" {
			err = errors.Join(err, os.WriteFile(o.Failure, []byte(err.Error()), 0o644))
		}
		return err
	}
	if message := describe(summary); message != "" {
		fmt.Fprintln(o.Out, message)
		if o.Message != "" {
			if err := os.WriteFile(o.Message, []byte(message), 0o644); err != nil {
				return fault.New(fault.Internal, "write the message: %w", err)
			}
		}
	}
	for _, failure := range summary.Failed {
		fmt.Fprintf(o.Out, "no output: %s: %s\n", failure.Object, failure.Reason)
	}
	fmt.Fprintf(o.Out, "done: %d objects, %d records\n", summary.ObjectsDone, summary.Records)
	return nil
}

// ExitCode is what the process ends with for an error of Run. A full disk is the node's trouble, and passes; what
// is over a bound of the task's own would be so again.
func ExitCode(err error) int {
	if errors.Is(err, context.Canceled) || errors.Is(err, syscall.ENOSPC) || fault.Is(err, fault.Unready) && !errors.Is(err, errStartup) {
		return ExitTryAgain
	}
	return ExitFailed
}

// errStartup marks a server that never became healthy: the next would not either.
var errStartup = errors.New("the server cannot be used")

func (o Options) transform(ctx context.Context) (batch.Summary, error) {
	none, err := empty(o.Inputs)
	if err != nil {
		return batch.Summary{}, err
	}
	if none {
		fmt.Fprintln(o.Out, "there is no object for this instance")
		return batch.Summary{}, nil
	}
	shape := o.Shape.Resolved()
	server := &batch.HTTPServer{
		Base: "http://" + o.Address, ContentType: shape.ContentType, Accept: shape.Accept, Timeout: o.Timeout.Std(), Retries: o.Tries,
		MaxAnswer: maxGreeting,
	}
	server.Dial(batch.MaxConcurrent)
	defer server.Close()
	began := time.Now()
	if err := server.AwaitHealthy(ctx, o.Startup.Std()); err != nil {
		return batch.Summary{}, mark(err)
	}
	own, err := server.Limits(ctx)
	if err != nil {
		return batch.Summary{}, mark(err)
	}
	limits := o.Limits.Else(batch.KeptLimits(o.Journal)).Else(own).Else(batch.Defaults())
	limits, server.MaxAnswer = o.Bounded(limits)
	fmt.Fprintf(o.Out, "the server is healthy after %s; requests: %d at a time, %s, up to %d bytes; answers: up to %d bytes\n",
		time.Since(began).Round(time.Millisecond), limits.Concurrent, limits.Strategy, limits.Payload, server.MaxAnswer)
	now := time.Now()
	teller := &teller{o: o, began: now, logged: now}
	summary, err := batch.Run(ctx, batch.Options{
		Server: server, Shape: o.Shape, Limits: limits, Inputs: o.Inputs, Outputs: o.Outputs, Journal: o.Journal, Report: teller.take,
		CommitEvery: commitEvery,
	})
	return summary, errors.Join(err, teller.last(summary.Progress))
}

// mark says of a server's error that there is no use in another try; not of a run that was
// told to end.
func mark(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fault.New(fault.KindOf(err), "%w: %w", errStartup, err)
}

// empty reports whether a folder has no file.
func empty(folder string) (bool, error) {
	found := errors.New("found")
	err := filepath.WalkDir(folder, func(_ string, item os.DirEntry, err error) error {
		if err == nil && !item.IsDir() {
			return found
		}
		return err
	})
	switch {
	case errors.Is(err, found):
		return false, nil
	case err != nil:
		return false, fault.New(fault.Unready, "list the objects of this instance: %w", err)
	}
	return true, nil
}

// describe names the objects that have no output, as many as there is room for.
func describe(s batch.Summary) string {
	if len(s.Failed) == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d objects have no output", len(s.Failed), s.Objects)
	for i, failure := range s.Failed {
		next := fmt.Sprintf("; %s: %s", failure.Object, failure.Reason)
		if len(text)+len(next) > maxMessage {
			return text + fmt.Sprintf("; and %d more, see the log", len(s.Failed)-i)
		}
		text += next
	}
	return text
}
