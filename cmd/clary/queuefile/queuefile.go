// Package queuefile is the form of queues that people write and read: a YAML file with the whole tree,
// flags like gpus=8,memory=1TiB, and the same with JSON's names.
package queuefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

// MaxSize is the largest file that is read.
const MaxSize = 4 << 20

// File is the whole tree.
type File struct {
	Queues []Queue `json:"queues" yaml:"queues"`
}

// Queue is a queue as it is written. What is left out is as little as can be: weight 1, nothing guaranteed, no limit.
type Queue struct {
	Name       string   `json:"name" yaml:"name"`
	Parent     string   `json:"parent,omitempty" yaml:"parent,omitempty"`
	Weight     *int32   `json:"weight,omitempty" yaml:"weight,omitempty"`
	Guarantee  Quota    `json:"guarantee,omitempty" yaml:"guarantee,omitempty"`
	Borrow     Quota    `json:"borrow,omitempty" yaml:"borrow,omitempty"`
	Lend       Quota    `json:"lend,omitempty" yaml:"lend,omitempty"`
	Firm       Quota    `json:"unpreemptible,omitempty" yaml:"unpreemptible,omitempty"`
	MaxRunning int32    `json:"max_running,omitempty" yaml:"max_running,omitempty"`
	MaxWaiting int32    `json:"max_waiting,omitempty" yaml:"max_waiting,omitempty"`
	User       *User    `json:"user,omitempty" yaml:"user,omitempty"`
	Order      string   `json:"order,omitempty" yaml:"order,omitempty"`
	Backfill   string   `json:"backfill,omitempty" yaml:"backfill,omitempty"`
	Preempt    *Preempt `json:"preempt,omitempty" yaml:"preempt,omitempty"`
	MinRuntime string   `json:"min_runtime,omitempty" yaml:"min_runtime,omitempty"`
	HalfLife   string   `json:"half_life,omitempty" yaml:"half_life,omitempty"`
}

// Quota is limits by resource, as texts: "2.5" cores or GPUs, "64GiB" of memory.
type Quota map[string]string

// MarshalYAML writes amounts without quotes, in the order of their resources.
func (q Quota) MarshalYAML() (any, error) {
	node := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	for _, resource := range slices.Sorted(maps.Keys(q)) {
		var key yaml.Node
		key.SetString(resource)
		node.Content = append(node.Content, &key, &yaml.Node{Kind: yaml.ScalarNode, Value: q[resource]})
	}
	return node, nil
}

// User is what one owner of jobs may hold.
type User struct {
	Most       Quota `json:"most,omitempty" yaml:"most,omitempty"`
	MaxRunning int32 `json:"max_running,omitempty" yaml:"max_running,omitempty"`
}

// Preempt is what a queue's jobs may evict.
type Preempt struct {
	Within  string `json:"within,omitempty" yaml:"within,omitempty"`
	Reclaim string `json:"reclaim,omitempty" yaml:"reclaim,omitempty"`
	Fair    string `json:"fair,omitempty" yaml:"fair,omitempty"`
}

// Parse reads a file. Fields that are unknown are refused, with their line, and so is a second document;
// every mistake in a queue is told with the queue's name.
func Parse(data []byte) ([]cluster.Queue, error) {
	if len(data) > MaxSize {
		return nil, fault.New(fault.Invalid, "%d bytes: a file of queues has at most %d", len(data), MaxSize)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	var file File
	if err := decoder.Decode(&file); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty: write queues: and a list of them")
		}
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "there is more than one document in the file: put all queues into one list")
	}
	if len(file.Queues) == 0 {
		return nil, fault.New(fault.Invalid, "queues: the file names none")
	}
	var problems cluster.Problems
	queues := make([]cluster.Queue, len(file.Queues))
	for i, q := range file.Queues {
		var p cluster.Problems
		queues[i] = q.noun(&p)
		if len(p) == 0 {
			p = queues[i].Validate()
		}
		problems.Under(fmt.Sprintf("queues[%d] (%s)", i, cluster.Clip(q.Name)), p)
	}
	if err := problems.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	return queues, nil
}

func (q Queue) noun(p *cluster.Problems) cluster.Queue {
	made := cluster.Queue{
		Name: q.Name, Parent: q.Parent, Weight: 1, MaxRunning: q.MaxRunning, MaxWaiting: q.MaxWaiting,
		Order: cluster.QueueOrder(q.Order), Backfill: cluster.Backfill(q.Backfill),
		Guarantee: q.Guarantee.noun(p, "guarantee"), Borrow: q.Borrow.noun(p, "borrow"), Lend: q.Lend.noun(p, "lend"), Unpreemptible: q.Firm.noun(p, "unpreemptible"),
		MinRuntime: duration(p, "min_runtime", q.MinRuntime), HalfLife: duration(p, "half_life", q.HalfLife),
	}
	if q.Weight != nil {
		made.Weight = *q.Weight
	}
	if q.User != nil {
		made.User = cluster.UserLimit{Most: q.User.Most.noun(p, "user.most"), MaxRunning: q.User.MaxRunning}
	}
	if q.Preempt != nil {
		made.Preempt = cluster.Preempt{
			Within: cluster.PreemptRule(q.Preempt.Within), Reclaim: cluster.PreemptRule(q.Preempt.Reclaim), Fair: cluster.PreemptRule(q.Preempt.Fair),
		}
	}
	return made
}

func (q Quota) noun(p *cluster.Problems, field string) cluster.Quota {
	var made cluster.Quota
	for _, resource := range slices.Sorted(maps.Keys(q)) {
		amount, err := ParseAmount(resource, q[resource])
		if err != nil {
			p.Add(field+"."+cluster.Clip(resource), "%v", err)
			continue
		}
		made = made.With(resource, amount)
	}
	return made
}

func duration(p *cluster.Problems, field, text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := quantity.ParseDuration(text)
	if err != nil {
		p.Add(field, "%v", err)
	}
	return time.Duration(d)
}

// ParseAmount reads an amount of a resource: a number of cores or GPUs, which may have up to three decimals, or a
// size of memory.
func ParseAmount(resource, text string) (int64, error) {
	if resource == cluster.ResourceMemory {
		size, err := quantity.ParseBytes(text)
		if err != nil {
			return 0, err
		}
		if size < 0 {
			return 0, fmt.Errorf("%q is less than nothing", cluster.Clip(text))
		}
		return int64(size), nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fmt.Errorf("%q is no number", cluster.Clip(text))
	}
	if n < 0 || n > 1e9 {
		return 0, fmt.Errorf("%q is out of range: from 0 to 1e9", cluster.Clip(text))
	}
	milli := math.Round(n * 1000)
	if math.Abs(milli-n*1000) > 1e-6*max(1, n) {
		return 0, fmt.Errorf("%q has more than three decimals", cluster.Clip(text))
	}
	return int64(milli), nil
}

// Change reads a flag like "gpus=8,memory=1TiB,cores=none" and changes a quota by it; none takes a limit out.
func Change(quota cluster.Quota, text string) (cluster.Quota, error) {
	for part := range strings.SplitSeq(text, ",") {
		resource, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || resource == "" {
			return nil, fault.New(fault.Invalid, "%q is not RESOURCE=AMOUNT, like gpus=8 or memory=64GiB", cluster.Clip(part))
		}
		amount := int64(-1)
		if value != "none" {
			var err error
			if amount, err = ParseAmount(resource, value); err != nil {
				return nil, fault.New(fault.Invalid, "%s: %w", resource, err)
			}
		}
		quota = quota.With(resource, amount)
	}
	return quota, nil
}

// Of is a queue as it is written.
func Of(q cluster.Queue) Queue {
	made := Queue{
		Name: q.Name, Parent: q.Parent, MaxRunning: q.MaxRunning, MaxWaiting: q.MaxWaiting,
		Guarantee: quotaOf(q.Guarantee), Borrow: quotaOf(q.Borrow), Lend: quotaOf(q.Lend), Firm: quotaOf(q.Unpreemptible),
		Order: string(q.Order), Backfill: string(q.Backfill),
	}
	if q.Weight != 1 {
		made.Weight = &q.Weight
	}
	if len(q.User.Most) > 0 || q.User.MaxRunning > 0 {
		made.User = &User{quotaOf(q.User.Most), q.User.MaxRunning}
	}
	if q.Preempt != (cluster.Preempt{}) {
		made.Preempt = &Preempt{string(q.Preempt.Within), string(q.Preempt.Reclaim), string(q.Preempt.Fair)}
	}
	if q.MinRuntime != 0 {
		made.MinRuntime = q.MinRuntime.String()
	}
	if q.HalfLife != 0 {
		made.HalfLife = q.HalfLife.String()
	}
	return made
}

func quotaOf(q cluster.Quota) Quota {
	if len(q) == 0 {
		return nil
	}
	made := make(Quota, len(q))
	for _, limit := range q {
		made[limit.Resource] = Text(limit.Resource, limit.Amount)
	}
	return made
}

// Text is an amount as ParseAmount reads it.
func Text(resource string, amount int64) string {
	if resource != cluster.ResourceMemory {
		return strconv.FormatFloat(float64(amount)/1000, 'f', -1, 64)
	}
	return quantity.Bytes(amount).String()
}

// Format writes the whole tree as Parse reads it.
func Format(queues []cluster.Queue) ([]byte, error) {
	file := File{Queues: make([]Queue, len(queues))}
	for i, q := range queues {
		file.Queues[i] = Of(q)
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(file), encoder.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Differences says what a change does to a queue, field by field, like "weight: 1 -> 2".
func Differences(before, after cluster.Queue) []string {
	old, now := fields(before), fields(after)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if old[name] != now[name] {
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", name, old[name], now[name]))
		}
	}
	return lines
}

func fields(q cluster.Queue) map[string]string {
	q = q.Effective()
	count := func(n int32) string {
		if n == 0 {
			return "none"
		}
		return strconv.Itoa(int(n))
	}
	span := func(d time.Duration) string {
		if d == 0 {
			return "none"
		}
		return d.String()
	}
	parent := q.Parent
	if parent == "" {
		parent = "none"
	}
	return map[string]string{
		"parent": parent, "weight": strconv.Itoa(int(q.Weight)),
		"guarantee": Line(q.Guarantee), "borrow": Line(q.Borrow), "lend": Line(q.Lend), "unpreemptible": Line(q.Unpreemptible),
		"max_running": count(q.MaxRunning), "max_waiting": count(q.MaxWaiting),
		"user.most": Line(q.User.Most), "user.max_running": count(q.User.MaxRunning),
		"order": string(q.Order), "backfill": string(q.Backfill),
		"preempt.within": string(q.Preempt.Within), "preempt.reclaim": string(q.Preempt.Reclaim), "preempt.fair": string(q.Preempt.Fair),
		"min_runtime": span(q.MinRuntime), "half_life": span(q.HalfLife),
	}
}

// Line is a quota in one line, like "cores=64,gpus=8"; "none" if it names nothing.
func Line(q cluster.Quota) string {
	if len(q) == 0 {
		return "none"
	}
	parts := make([]string, len(q))
	for i, limit := range q {
		parts[i] = limit.Resource + "=" + Text(limit.Resource, limit.Amount)
	}
	return strings.Join(parts, ",")
}
