package batch

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch/record"
)

// plan is what decides how objects are cut. A journal of another plan is of no use: its
// parts and those to come would not be of one output.
type plan struct {
	Version int    `json:"version"`
	Shape   Shape  `json:"shape"`
	Limits  Limits `json:"limits"`
}

const (
	planVersion = 1
	planFile    = "plan.json"
	partSuffix  = ".part"
	maxHead     = 256 << 20 // bytes: a part has few events, unless objects are tiny
)

// event is one thing that happened to the output: an answer was appended to an object's, or
// an object ended. Events are in order.
type event struct {
	Object  int             `json:"o"`
	Name    string          `json:"name,omitempty"` // where an object ends: what it was called
	Size    int64           `json:"size,omitempty"` // and how large
	To      record.Position `json:"to,omitzero"`
	Records int64           `json:"n,omitempty"`
	Output  int64           `json:"out,omitempty"` // bytes in the part
	Ends    bool            `json:"ends,omitempty"`
	Failed  string          `json:"failed,omitempty"` // why there is no output
}

// head begins a part: a line of JSON, behind which stand the bytes of all answers.
type head struct {
	Before string  `json:"before"` // SHA-256 of the part before, of the plan for the first
	Size   int64   `json:"size"`   // of what follows
	Events []event `json:"events"`
}

// journal is a folder with a plan and a chain of parts. A part appears whole, or not at all,
// and names the one before by its digest: whatever subset of the files of however many runs
// a crash or a copy leaves, there is one longest chain, and that is what was done.
type journal struct {
	folder string
	writer *writer
	before string // digest of the last part
	number int    // of parts

	events []event // since the last part
	body   bytes.Buffer
	since  time.Time // of the first event
}

// openJournal takes over what a folder's parts say was done, and deletes the others.
func openJournal(folder string, p plan, w *writer) (*journal, error) {
	p.Version = planVersion
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fault.New(fault.Internal, "write the plan: %w", err)
	}
	j := &journal{folder: folder, writer: w, before: digest(text)}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fault.New(fault.Internal, "make the journal: %w", err)
	}
	for {
		known, err := j.replay(j.partFile(j.number))
		if err != nil {
			return nil, err
		}
		if !known {
			break
		}
	}
	if err := j.clear(); err != nil {
		return nil, fault.New(fault.Internal, "clear the journal: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(folder, planFile), text, 0o644); err != nil {
		return nil, fault.New(fault.Internal, "write the journal: %w", err)
	}
	w.resumed = w.progress()
	return j, nil
}

// KeptLimits are those that an earlier run in the folder had, zero if there was none. Going on
// with others would begin anew.
func KeptLimits(folder string) Limits {
	var p plan
	text, err := os.ReadFile(filepath.Join(folder, planFile))
	if err != nil || json.Unmarshal(text, &p) != nil || p.Version != planVersion || p.Limits.Validate() != nil {
		return Limits{}
	}
	return p.Limits
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func (j *journal) partFile(number int) string {
	return filepath.Join(j.folder, fmt.Sprintf("%08d%s", number, partSuffix))
}

// replay takes over one part; false if it is not there, not whole, or does not follow.
func (j *journal) replay(name string) (bool, error) {
	sum, sound, err := j.check(name)
	if err != nil || !sound {
		return false, err
	}
	file, err := os.Open(name)
	if err != nil {
		return false, fault.New(fault.Unready, "read the journal: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	body := bufio.NewReaderSize(file, 1<<16)
	h, _ := readHead(body)
	for _, e := range h.Events {
		if err := j.writer.apply(e, io.LimitReader(body, e.Output)); err != nil {
			return false, err
		}
	}
	j.before, j.number = sum, j.number+1
	return true, nil
}

// check reads a part through: its digest, and whether it is the next one for these objects.
func (j *journal) check(name string) (sum string, sound bool, err error) {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fault.New(fault.Unready, "read the journal: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	hash := sha256.New()
	body := bufio.NewReaderSize(io.TeeReader(file, hash), 1<<16)
	h, ok := readHead(body)
	if !ok || h.Before != j.before || !j.writer.follows(h.Events) {
		return "", false, nil
	}
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return "", false, fault.New(fault.Unready, "read the journal: %w", err)
	}
	total := int64(0)
	for _, e := range h.Events {
		total += e.Output
	}
	return hex.EncodeToString(hash.Sum(nil)), n == h.Size && total == h.Size, nil
}

func readHead(from *bufio.Reader) (head, bool) {
	var h head
	var line []byte
	for {
		piece, err := from.ReadSlice('\n')
		line = append(line, piece...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxHead {
			return h, false
		}
	}
	return h, json.Unmarshal(line, &h) == nil
}

// clear deletes what does not belong to the chain, so that it never will.
func (j *journal) clear() error {
	items, err := os.ReadDir(j.folder)
	if err != nil {
		return err
	}
	var errs []error
	for _, item := range items {
		number, isPart := strings.CutSuffix(item.Name(), partSuffix)
		if isPart && number >= fmt.Sprintf("%08d", j.number) || strings.HasPrefix(item.Name(), ".") {
			errs = append(errs, os.Remove(filepath.Join(j.folder, item.Name())))
		}
	}
	return errors.Join(errs...)
}

// append writes an answer to the output, and remembers it for the next part.
func (j *journal) append(e event, answer []byte) error {
	e.Output = int64(len(answer))
	j.body.Write(answer)
	return j.remember(e, answer)
}

// add is append of an event without an answer: an object ends.
func (j *journal) add(e event) error {
	e.Name, e.Size = j.writer.objects[e.Object].name, j.writer.objects[e.Object].size
	return j.remember(e, nil)
}

func (j *journal) remember(e event, answer []byte) error {
	if len(j.events) == 0 {
		j.since = time.Now()
	}
	// Answers to one object are one event in a part.
	if n := len(j.events); n > 0 && !e.Ends && j.events[n-1].Object == e.Object {
		last := &j.events[n-1]
		last.To, last.Records, last.Output = e.To, last.Records+e.Records, last.Output+e.Output
	} else {
		j.events = append(j.events, e)
	}
	return j.writer.apply(e, bytes.NewReader(answer))
}

func (j *journal) due(size int64, every time.Duration) bool {
	return len(j.events) > 0 && (int64(j.body.Len()) >= size || len(j.events) >= 1<<16 || time.Since(j.since) >= pause(every, j.number))
}

// pause is how long the next part may take to come together. Parts stay, and a folder that is
// mirrored has a bound on its files: so from the thousandth on a part takes about a thousandth of the time that
// all before it took, and no more than lastPart.
func pause(every time.Duration, parts int) time.Duration {
	const many, lastPart = 1000, 10 * time.Minute
	grown := float64(every) * math.Exp(float64(max(0, parts-many))/many)
	return time.Duration(min(grown, float64(max(every, lastPart))))
}

// commit makes a part of what happened since the last. When it returns that is on disk.
func (j *journal) commit() error {
	if len(j.events) == 0 {
		return nil
	}
	text, err := json.Marshal(head{Before: j.before, Size: int64(j.body.Len()), Events: j.events})
	if err != nil {
		return fault.New(fault.Internal, "write the journal: %w", err)
	}
	text = append(append(text, '\n'), j.body.Bytes()...)
	if err := atomicfile.Write(j.partFile(j.number), text, 0o644); err != nil {
		return fault.New(fault.Internal, "write the journal: %w", err)
	}
	j.before, j.number = digest(text), j.number+1
	j.events = j.events[:0]
	j.body.Reset()
	return nil
}
