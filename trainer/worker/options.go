package worker

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/paramserver"
	"github.com/clary-ml/clary/trainer/spec"
)

// Options is all that a task of a training knows.
type Options struct {
	spec.Run
	// Job is the name that the model's manifest carries.
	Job string
	// Index is this task's number among those of its role.
	Index int
	// Addresses of the parameter servers, by number.
	Addresses []string
	// Listen is the address that a server binds.
	Listen string
	// TLSDir has the task's certificate; empty is for loopback addresses alone.
	TLSDir string

	// Train, Validation and Transform are the channels' folders; the last two need not exist.
	// Transform has what the rows went through, for the model to keep.
	Train, Validation, Transform string
	// Checkpoints, Model, Metrics and Failure are where things are written; an empty one
	// is not written.
	Checkpoints, Model, Metrics, Failure string

	// Threads is how many the matrix library may use; 0 means as many as Go does.
	Threads int
	// Plain leaves OpenBLAS alone even where it is installed.
	Plain bool
	// Out gets a line for each epoch and for what a person should know.
	Out io.Writer
	// JoinWithin and Grace are how long a peer may take to appear, and be gone later; 0
	// means the parameter servers' defaults.
	JoinWithin, Grace time.Duration
}

// OptionsFromEnv reads what the agent says in a task's environment.
func OptionsFromEnv(getenv func(string) string) (Options, error) {
	base := getenv("SAGEMAKER_BASE_DIR")
	if base == "" {
		base = "/opt/ml"
	}
	o := Options{
		Job: getenv("CLARY_JOB"), TLSDir: getenv("CLARY_TLS_DIR"), Metrics: getenv("CLARY_METRICS"),
		Train: filepath.Join(base, "input/data/train"), Validation: filepath.Join(base, "input/data/validation"),
		Transform:   filepath.Join(base, "input/data/transform"),
		Checkpoints: filepath.Join(base, "checkpoints"), Model: filepath.Join(base, "model"),
		Failure: filepath.Join(base, "output/failure"), Addresses: hosts(getenv, "SERVER"), Out: os.Stdout,
	}
	text, err := os.ReadFile(getenv("CLARY_SPEC"))
	if err != nil {
		return o, fault.New(fault.Invalid, "CLARY_SPEC=%q: %w: give the path of the training's spec", getenv("CLARY_SPEC"), err)
	}
	if err := json.Unmarshal(text, &o.Run); err != nil {
		return o, fault.New(fault.Invalid, "CLARY_SPEC=%q: %w", getenv("CLARY_SPEC"), err)
	}
	if o.Index, err = count(getenv, "CLARY_INDEX"); err != nil {
		return o, err
	}
	if o.Threads, err = count(getenv, "OPENBLAS_NUM_THREADS"); err != nil {
		return o, err
	}
	if o.Workers == 0 {
		o.Workers = len(hosts(getenv, "WORKER"))
	}
	if o.Servers == 0 {
		o.Servers = len(o.Addresses)
	}
	if len(o.Addresses) != o.Servers {
		return o, fault.New(fault.Invalid, "CLARY_HOSTS_SERVER has %d addresses for %d parameter servers", len(o.Addresses), o.Servers)
	}
	if getenv("CLARY_ROLE") == "server" {
		o.Listen = listen(getenv("CLARY_LISTEN"), getenv("CLARY_PORTS"), o.Addresses, o.Index)
	}
	return o, nil
}

func hosts(getenv func(string) string, role string) []string {
	if text := getenv("CLARY_HOSTS_" + role); text != "" {
		return strings.Split(text, ",")
	}
	return nil
}

func count(getenv func(string) string, name string) (int, error) {
	text := getenv(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "%s=%q: give a number from 0", name, text)
	}
	return n, nil
}

// listen is the address to bind: the host that the agent names with the task's first
// port, or else the address under which the others look for it.
func listen(host, ports string, addresses []string, index int) string {
	port, _, _ := strings.Cut(ports, ",")
	if port == "" && index < len(addresses) {
		return addresses[index]
	}
	if host == "" && index < len(addresses) {
		host, _, _ = net.SplitHostPort(addresses[index]) // without a host it binds all
	}
	return net.JoinHostPort(host, port)
}

// complete fills in what was left open and checks the rest.
func (o *Options) complete() (spec.Plan, error) {
	if err := o.Validate().Err(); err != nil {
		return spec.Plan{}, err
	}
	plan, problems := o.Network.Plan()
	o.Workers, o.Servers = max(o.Workers, 1), max(o.Servers, 1)
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = 1
	}
	return plan, problems.Err()
}

func (o *Options) identity() (*paramserver.Identity, error) {
	if o.TLSDir == "" {
		return nil, nil
	}
	return paramserver.LoadIdentity(o.TLSDir)
}

// printf writes a line for people. That nobody reads it ends no training.
func (o *Options) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(o.Out, format+"\n", args...)
}

// explain leaves the reason of a failure where the agent looks for it.
func (o *Options) explain(err error) {
	if err == nil || o.Failure == "" {
		return
	}
	text := err.Error()
	if os.MkdirAll(filepath.Dir(o.Failure), 0o755) == nil {
		_ = os.WriteFile(o.Failure, []byte(text[:min(len(text), 1024)]), 0o644) // the error is returned too
	}
}

func (o *Options) logger() *slog.Logger { return slog.New(slog.NewTextHandler(o.Out, nil)) }
