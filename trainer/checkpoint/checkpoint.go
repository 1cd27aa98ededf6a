package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/data"
	"github.com/clary-ml/clary/trainer/spec"
)

// Header says where a training stands.
type Header struct {
	// Digest is of the run: see spec.Training.Digest.
	Digest string `json:"digest"`
	Seed   int64  `json:"seed"`
	// Step counts all rounds done, Epoch the epochs done, EpochStep the rounds done of
	// the one that goes on, by Workers; Parts are what others did of it before. Rows are the training
	// rows of all.
	Step      uint64      `json:"step"`
	Epoch     int         `json:"epoch"`
	EpochStep int         `json:"epoch_step"`
	Workers   int         `json:"workers,omitempty"`
	Parts     []data.Done `json:"parts,omitempty"`
	Rows      int         `json:"rows,omitempty"`
	// Partial sums up the epoch that goes on.
	Partial Partial `json:"partial"`
	// Finished is set when the run had all that it asked for.
	Finished bool `json:"finished,omitempty"`
	// History has one entry for each epoch done.
	History    []Epoch `json:"history"`
	Parameters int     `json:"parameters"`
	Slots      int     `json:"slots"`
}

// Partial is what the rounds of an unfinished epoch add up to.
type Partial struct {
	Loss    float64 `json:"loss"`
	Correct float64 `json:"correct"`
	Rows    float64 `json:"rows"`
}

// Epoch is what was measured of one epoch.
type Epoch struct {
	Epoch   int                `json:"epoch"`
	Metrics map[string]float64 `json:"metrics"`
}

// Checkpoint is a header with its values.
type Checkpoint struct {
	Header
	Weights []float32
	// State has the optimiser's values for each parameter.
	State [][]float32
}

const (
	magic = "CLARYCKP"
	// version of the file's layout.
	version   = 1
	suffix    = ".ckpt"
	maxHeader = 256 << 20
	maxSlots  = 2
	// Kept is how many checkpoints stay in the folder.
	Kept = 2
)

// Save writes a checkpoint into the folder and removes all but the newest.
func Save(dir string, c Checkpoint) (path string, err error) {
	c.Parameters, c.Slots = len(c.Weights), len(c.State)
	head, err := json.Marshal(c.Header)
	if err != nil {
		return "", fault.New(fault.Internal, "write checkpoint: %w", err)
	}
	path = filepath.Join(dir, nameOf(c.Step))
	err = writeFile(path, func(w io.Writer) error {
		sum := sha256.New()
		out := io.MultiWriter(w, sum)
		lead := append([]byte(magic), 0, 0, 0, 0, 0, 0, 0, 0)
		binary.LittleEndian.PutUint32(lead[8:], version)
		binary.LittleEndian.PutUint32(lead[12:], uint32(len(head)))
		for _, b := range [][]byte{lead, head} {
			if _, err := out.Write(b); err != nil {
				return err
			}
		}
		for _, values := range append([][]float32{c.Weights}, c.State...) {
			if err := writeValues(out, values); err != nil {
				return err
			}
		}
		_, err := w.Write(sum.Sum(nil))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("write checkpoint %s: %w", path, err)
	}
	return path, prune(dir)
}

// Load reads and verifies one file.
func Load(path string) (c Checkpoint, err error) {
	f, err := os.Open(path)
	if err != nil {
		return c, fault.New(fault.NotFound, "read checkpoint: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return c, fmt.Errorf("read checkpoint %s: %w", path, err)
	}
	if c, err = decode(f, info.Size()); err != nil {
		return Checkpoint{}, fault.New(fault.Invalid, "checkpoint %s is damaged: %w", path, err)
	}
	return c, nil
}

// decode reads a checkpoint of so many bytes; it believes no length before it has
// compared it with that.
func decode(r io.Reader, size int64) (c Checkpoint, err error) {
	sum := sha256.New()
	in := io.TeeReader(r, sum)
	var lead [16]byte
	if _, err := io.ReadFull(in, lead[:]); err != nil {
		return c, fmt.Errorf("it ends too early: %w", err)
	}
	if string(lead[:8]) != magic || binary.LittleEndian.Uint32(lead[8:]) != version {
		return c, fmt.Errorf("begins with %q: not a checkpoint of version %d", lead[:12], version)
	}
	n := int64(binary.LittleEndian.Uint32(lead[12:]))
	if n > maxHeader || n > size {
		return c, fmt.Errorf("a header of %d bytes in %d", n, size)
	}
	head := make([]byte, n)
	if _, err := io.ReadFull(in, head); err != nil {
		return c, fmt.Errorf("it ends too early: %w", err)
	}
	if err := json.Unmarshal(head, &c.Header); err != nil {
		return c, fmt.Errorf("its header: %w", err)
	}
	p, slots := c.Parameters, c.Slots
	if p < 1 || p > spec.MaxParameters || slots < 0 || slots > maxSlots || size != 16+n+4*int64(p)*int64(1+slots)+sha256.Size {
		return c, fmt.Errorf("%d bytes for %d parameters with %d slots", size, p, slots)
	}
	if c.Weights, err = readValues(in, p); err != nil {
		return c, err
	}
	for range slots {
		values, err := readValues(in, p)
		if err != nil {
			return c, err
		}
		c.State = append(c.State, values)
	}
	want := sum.Sum(nil)
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
		return c, errors.New("its checksum does not match: a part was changed or lost")
	}
	return c, nil
}

// Latest returns the newest checkpoint of a run, if there is one. refused says, for each
// newer file, why it was not used.
func Latest(dir string, ofRun func(Header) bool) (c Checkpoint, found bool, refused []error, err error) {
	names, err := list(dir)
	if err != nil {
		return c, false, nil, err
	}
	for _, name := range slices.Backward(names) {
		c, err := Load(filepath.Join(dir, name))
		if err == nil && !ofRun(c.Header) {
			err = fault.New(fault.Conflict, "checkpoint %s is of another run: its network, data, optimizer, batch, seed or number of workers differ", name)
		}
		if err == nil {
			return c, true, refused, nil
		}
		refused = append(refused, err)
	}
	return Checkpoint{}, false, refused, nil
}

// At returns the checkpoint of a run that was written at a step.
func At(dir string, step uint64, ofRun func(Header) bool) (Checkpoint, error) {
	path := filepath.Join(dir, nameOf(step))
	c, err := Load(path)
	if err == nil && !ofRun(c.Header) {
		return Checkpoint{}, fault.New(fault.Conflict, "checkpoint %s is of another run", path)
	}
	return c, err
}

func nameOf(step uint64) string { return fmt.Sprintf("step-%012d%s", step, suffix) }

// list returns the checkpoints' names, oldest first.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && strings.HasPrefix(e.Name(), "step-") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func prune(dir string) error {
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, name := range names[:max(len(names)-Kept, 0)] {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	return nil
}

// writeFile makes a file appear whole or not at all.
func writeFile(path string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const valuesBlock = 16 << 10

func writeValues(w io.Writer, values []float32) error {
	buffer := make([]byte, 4*min(len(values), valuesBlock))
	for len(values) > 0 {
		n := min(len(values), valuesBlock)
		for i, v := range values[:n] {
			binary.LittleEndian.PutUint32(buffer[4*i:], math.Float32bits(v))
		}
		if _, err := w.Write(buffer[:4*n]); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

func readValues(r io.Reader, n int) ([]float32, error) {
	values := make([]float32, n)
	buffer := make([]byte, 4*min(n, valuesBlock))
	for rest := values; len(rest) > 0; {
		k := min(len(rest), valuesBlock)
		if _, err := io.ReadFull(r, buffer[:4*k]); err != nil {
			return nil, fmt.Errorf("it ends too early: %w", err)
		}
		for i := range k {
			rest[i] = math.Float32frombits(binary.LittleEndian.Uint32(buffer[4*i:]))
		}
		rest = rest[k:]
	}
	return values, nil
}
