package tune

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// programHelp is the protocol of tuneProgram, for people.
const programHelp = `A program of your own is measured with --program COMMAND, on the same instances, noise and durations. It reads a question
a line from its standard input and answers with a line, both JSON, until its input ends:
  {"search": {"parameters": [{"name": "x", "type": "float", "low": -5, "high": 5}, {"name": "y", "type": "categorical",
    "choices": 3}], "maximize": true, "seed": 7, "budget": 100, "workers": 8}, "trial": 0, "ended": []}
  {"config": [0.25, 2], "cpu_ms": 1.5}
A search begins with a question that has "search". Each question asks for the configuration of a trial, by its number: a
number for a float, an index for choices, which are "ordered" or "categorical". It says what ended since the question
before, in this order: {"trial": 0, "config": [0.25, 2], "value": 0.91}. Trials that the program was never asked for may be
among these; those that it proposed and that have not ended are running. "cpu_ms" is what the answer took.`

// tuneProgram is a process that proposes. It serves one search at a time, and any number
// one after the other.
type tuneProgram struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	used    time.Duration
}

// programQuestion is a line to the process, programAnswer one from it.
type programQuestion struct {
	Search *programSearch `json:"search,omitempty"`
	Trial  int            `json:"trial"`
	Ended  []programTrial `json:"ended"`
}

type programSearch struct {
	Parameters []programParameter `json:"parameters"`
	Maximize   bool               `json:"maximize"`
	Seed       uint64             `json:"seed"`
	Budget     int                `json:"budget"`
	Workers    int                `json:"workers"`
}

type programParameter struct {
	Name    string     `json:"name"`
	Type    space.Type `json:"type"`
	Low     *float64   `json:"low,omitempty"`
	High    *float64   `json:"high,omitempty"`
	Choices int        `json:"choices,omitempty"`
}

type programTrial struct {
	Trial  int       `json:"trial"`
	Config []float64 `json:"config"`
	Value  float64   `json:"value"`
}

type programAnswer struct {
	Config []float64 `json:"config"`
	CPU    float64   `json:"cpu_ms"`
}

func startTuneProgram(ctx context.Context, line string, stderr io.Writer) (*tuneProgram, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil, fault.New(fault.Invalid, "--program %q: name a program", line)
	}
	command := exec.CommandContext(ctx, words[0], words[1:]...)
	command.Stderr = stderr
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fault.New(fault.Invalid, "--program: %w", err)
	}
	return &tuneProgram{command: command, in: in, out: json.NewDecoder(bufio.NewReader(out))}, nil
}

// close ends the process, and waits for it.
func (p *tuneProgram) close() error {
	if err := errors.Join(p.in.Close(), p.command.Wait()); err != nil {
		return fmt.Errorf("--program %s: %w", p.command.Path, err)
	}
	return nil
}

// search begins a search: it is a tuner.Maker.
func (p *tuneProgram) search(problem tuner.Problem) (tuner.Sampler, error) {
	spec := problem.Space.Spec()
	search := &programSearch{
		Maximize: problem.Objectives[0].Direction == tuner.Maximize,
		Seed:     problem.Seed, Budget: problem.Budget, Workers: problem.Workers,
	}
	for _, name := range problem.Space.Names() {
		q := spec.Parameters[slices.IndexFunc(spec.Parameters, func(q space.Parameter) bool { return q.Name == name })]
		search.Parameters = append(search.Parameters, programParameter{Name: name, Type: q.Type, Low: q.Low, High: q.High, Choices: len(q.Choices)})
	}
	return &programSampler{program: p, search: search}, nil
}

// programSampler is a tuner.Sampler for one history that grows.
type programSampler struct {
	program *tuneProgram
	search  *programSearch // until it is known
	told    int            // of h.Ended()
}

func (s *programSampler) Suggest(h *tuner.History) (space.Config, error) {
	q := programQuestion{Search: s.search, Trial: h.Len(), Ended: []programTrial{}}
	for _, number := range h.Ended()[s.told:] {
		n := int(number)
		q.Ended = append(q.Ended, programTrial{Trial: n, Config: h.Config(n), Value: h.Values(n)[0]})
	}
	s.search, s.told = nil, len(h.Ended())
	var a programAnswer
	if err := errors.Join(json.NewEncoder(s.program.in).Encode(q), s.program.out.Decode(&a)); err != nil {
		return nil, fmt.Errorf("--program: no answer for trial %d: %w", q.Trial, err)
	}
	s.program.used += time.Duration(a.CPU * float64(time.Millisecond))
	return a.Config, nil
}
