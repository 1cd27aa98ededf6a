// Package reward names inferences, and takes in what they turned out to be worth: numbers that are
// posted back with the name, and counted for the variant that answered.
package reward

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/clary-ml/clary/internal/fault"
)

// Newest stands for the newest generation of a variant, where none is named.
const Newest = -1

// Count adds a reward to a fleet's, and says whether there is such a fleet.
type Count func(variant string, generation int64, reward float64) bool

// Receipt is what became of the rewards of one request.
type Receipt struct {
	// Accepted were counted, Duplicates had been before; Stale are of a variant or a generation that
	// is not there any more, or not yet: they may be sent again.
	Accepted   int `json:"accepted"`
	Duplicates int `json:"duplicates"`
	Stale      int `json:"stale"`
}

// The bounds of one request. A reward may have at most Largest as its amount: sums of squares of
// more could become infinite.
const (
	MaxBody  = 4 << 20
	MaxBatch = 10_000
	Largest  = 1e12
)

// DefaultRemembered is how many inferences a desk remembers.
const DefaultRemembered = 1 << 18

// Desk takes rewards in, each once.
type Desk struct {
	mu   sync.Mutex
	seen recent
}

// NewDesk makes a desk that remembers so many rewards, at least, to know one that comes again.
func NewDesk(remembered int) *Desk {
	return &Desk{seen: recent{half: max(remembered, 1)}}
}

// item is one reward as it is posted.
type item struct {
	ID         string   `json:"inference_id"`
	Reward     *float64 `json:"reward"`
	Variant    string   `json:"variant"`
	Generation *int64   `json:"generation"`
}

// Take counts the rewards of a body: one object, or a list of them. If one of them is wrong none is
// counted, and the error names all that are.
func (d *Desk) Take(endpoint string, body io.Reader, count Count) (Receipt, error) {
	items, err := read(body)
	if err != nil {
		return Receipt{}, err
	}
	var problems []error
	for i := range items {
		if err := items[i].complete(endpoint); err != nil && len(problems) < 10 {
			problems = append(problems, fault.New(fault.Invalid, "reward %d: %w", i, err))
		}
	}
	if len(problems) > 0 {
		return Receipt{}, fault.New(fault.Invalid, "no reward was counted: %w", errors.Join(problems...))
	}
	var r Receipt
	for _, it := range items {
		switch {
		case !d.first(endpoint, it.ID):
			r.Duplicates++
		case count(it.Variant, *it.Generation, *it.Reward):
			r.Accepted++
		default:
			d.forget(endpoint, it.ID) // its fleet may be one that this router has not heard of yet
			r.Stale++
		}
	}
	return r, nil
}

// read reads one reward, or a list of them.
func read(body io.Reader) ([]item, error) {
	text, err := io.ReadAll(io.LimitReader(body, MaxBody+1))
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the rewards: %w", err)
	}
	if len(text) > MaxBody {
		return nil, fault.New(fault.Invalid, "the rewards have more than %d bytes: send fewer at once", MaxBody)
	}
	items := make([]item, 1)
	var to any = &items[0]
	if text = bytes.TrimSpace(text); len(text) > 0 && text[0] == '[' {
		items, to = nil, &items
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return nil, fault.New(fault.Invalid, `a reward is {"inference_id": …, "reward": number}, or a list of them: %w`, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "there is something behind the reward: send several as a list")
	}
	if len(items) == 0 || len(items) > MaxBatch {
		return nil, fault.New(fault.Invalid, "the list has %d rewards: send 1 to %d at once", len(items), MaxBatch)
	}
	return items, nil
}

// complete checks a reward, and finds out whose it is.
func (it *item) complete(endpoint string) error {
	if it.Reward == nil {
		return fault.New(fault.Invalid, "reward is missing: give a number")
	}
	if math.Abs(*it.Reward) > Largest {
		return fault.New(fault.Invalid, "reward %v: give at most %g either way, in another unit if need be", *it.Reward, float64(Largest))
	}
	variant, generation, ours := Parse(endpoint, it.ID)
	switch {
	case ours && it.Variant != "" && it.Variant != variant:
		return fault.New(fault.Invalid, "inference_id %q is of the variant %s, not %s: leave variant out", shortened(it.ID), variant, shortened(it.Variant))
	case ours && it.Generation != nil && *it.Generation != generation:
		return fault.New(fault.Invalid, "inference_id %q is of the generation %d, not %d: leave generation out", shortened(it.ID), generation, *it.Generation)
	case ours:
		it.Variant, it.Generation = variant, &generation
	case it.Variant == "":
		return fault.New(fault.Invalid, "inference_id %q is none that the endpoint %s has given: send the answer's X-Clary-Inference-Id as it is, or name the variant that answered", shortened(it.ID), endpoint)
	default:
		if err := CheckOwn(it.ID); err != nil {
			return err
		}
		if it.Generation == nil {
			newest := int64(Newest)
			it.Generation = &newest
		} else if *it.Generation < 0 {
			return fault.New(fault.Invalid, "generation %d: give 0 or more, or leave it out", *it.Generation)
		}
	}
	return nil
}

// first remembers an inference, and says whether it is new.
func (d *Desk) first(endpoint, id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen.add(keyOf(endpoint, id))
}

// forget lets an inference be new again that was not counted.
func (d *Desk) forget(endpoint, id string) {
	key := keyOf(endpoint, id)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.seen.now, key)
	delete(d.seen.then, key)
}

func keyOf(endpoint, id string) [16]byte {
	return xxh3.HashString128(endpoint + "\x00" + id).Bytes()
}

// recent is a set that forgets what was not asked for longest: it remembers the last half keys
// surely, and never more than twice as many. Two maps that take turns need no list through them.
type recent struct {
	half      int
	now, then map[[16]byte]struct{}
}

// add remembers a key, and says whether it is new.
func (r *recent) add(key [16]byte) bool {
	if _, has := r.now[key]; has {
		return false
	}
	_, had := r.then[key]
	if len(r.now) >= r.half || r.now == nil {
		r.then, r.now = r.now, make(map[[16]byte]struct{})
	}
	r.now[key] = struct{}{}
	return !had
}
