package command

import (
	"errors"
	"fmt"
	"slices"

	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// Format numbers what may be in the log and in the state. A build that meets what it does
// not know must stop, or would drop what it cannot read and differ from the others. So a
// cluster keeps which format is in force, and raises it when all coordinators know more:
// until then the commands in the table below are refused.
//
// Whoever adds a command, a noun, or a field of one that the log carries adds a row with
// this number, which is raised with the first row after a release.
// Whoever proposes such a command without a user who waits for the answer goes on without it
// where the error is ErrHeldBack.
const Format = 1

// row ties what a format brought to it.
type row struct {
	format int
	what   string // as an operator reads it
	is     func(Command) bool
	// without is the command as earlier formats have it, where it is worth something without what is new; nil:
	// it is refused.
	without func(Command) Command
}

// firmFormat is from when on claims say that nobody may preempt what they are of.
const firmFormat = 1

// rows are what each format brought. What is older than all of them is format 0.
var rows = []row{
	{1, "raising the format", of[RaiseFormat], nil},
	{1, "noting what a node's cache holds", of[SetNodeCached], nil},
	{1, "changing settings", changing(func(c Change) bool { return c.Settings != nil }), nil},
	{1, "archiving jobs", changing(func(c Change) bool { return c.Archived != nil }), nil},
	{1, "replacing keys", changing(func(c Change) bool { return c.Trust != nil }), nil},
	{1, "revoking a member", of[Revoke], nil},
	{1, "emptying a node until a deadline", func(c Command) bool {
		set, ok := c.(SetNodeState)
		return ok && (set.Empties || set.Deadline != 0)
	}, nil},
	{firmFormat, "limiting what nobody may preempt", changing(func(c Change) bool { return c.Queue != nil && len(c.Queue.Unpreemptible) > 0 }), nil},
	{1, "putting refusals on record", changing(func(c Change) bool { return c.Deed != nil && c.Deed.Task == "" }), nil},
	{1, "noting where a person in a task came from", changing(func(c Change) bool { return c.Deed != nil && c.Deed.Task != "" && c.Deed.Request != "" }), withoutOrigin},
	{1, "noting who made a token", changing(func(c Change) bool { return c.Token != nil && c.Token.By != "" }), withoutMaker},
	{1, "putting changes on record", of[Audited], func(c Command) Command { return c.(Audited).Command }},
	{1, "noting the key of a node", func(c Command) bool {
		put, ok := c.(PutNode)
		return ok && put.Node.Key != ""
	}, func(c Command) Command {
		put := c.(PutNode)
		put.Node.Key = ""
		return put
	}},
}

// withoutOrigin is a record whose deeds say what earlier formats know of them.
func withoutOrigin(c Command) Command {
	record := Record{Changes: slices.Clone(c.(Record).Changes)}
	for i, change := range record.Changes {
		if change.Deed != nil {
			deed := *change.Deed
			deed.Object, deed.From, deed.Request, deed.Outcome = "", "", "", ""
			record.Changes[i].Deed = &deed
		}
	}
	return record
}

// withoutMaker is a record whose tokens do not say who made them.
func withoutMaker(c Command) Command {
	record := Record{Changes: slices.Clone(c.(Record).Changes)}
	for i, change := range record.Changes {
		if change.Token != nil {
			token := *change.Token
			token.By = ""
			record.Changes[i].Token = &token
		}
	}
	return record
}

// of reports whether a command is of a type.
func of[C Command](c Command) bool {
	_, is := c.(C)
	return is
}

// changing reports whether a command is a record with a change that is so.
func changing(is func(Change) bool) func(Command) bool {
	return func(c Command) bool {
		record, ok := c.(Record)
		return ok && slices.ContainsFunc(record.Changes, is)
	}
}

// Needs tells which format must be in force for a command, and for what in it. One that is Audited needs what it would by itself, too.
func Needs(c Command) (format int, what string) {
	if audited, is := c.(Audited); is {
		format, what = Needs(audited.Command)
	}
	for _, row := range rows {
		if row.format > format && row.is(c) {
			format, what = row.format, row.what
		}
	}
	return format, what
}

// HeldBack is one thing that takes a format.
type HeldBack struct {
	Format int
	What   string
}

// Beyond lists what is refused while a format is in force.
func Beyond(format int) []HeldBack {
	var held []HeldBack
	for _, row := range rows {
		if row.format > format && !row.is(RaiseFormat{}) && row.without == nil {
			held = append(held, HeldBack{row.format, row.what})
		}
	}
	return held
}

// ErrHeldBack is in the chain of the error for a command whose format is not in force yet.
var ErrHeldBack = errors.New("it is held back until all coordinators know it")

// Fit makes commands such that every coordinator can read them: what an earlier format knows is left as it is, what is
// worth something without what is new goes without, and the rest is refused. why says what holds the format back, if that
// is known. Raising it is what changes the answer, and is always allowed: its proposer has asked everybody.
func Fit(inForce int, why string, commands ...Command) ([]Command, error) {
	fit := slices.Clone(commands)
	for i := range fit {
		for _, row := range rows { // those with a lesser form come last, and uncover what is older
			if row.format > inForce && row.without != nil && row.is(fit[i]) {
				fit[i] = row.without(fit[i])
			}
		}
		if audited, is := fit[i].(Audited); is { // which is known, or it would go without by now
			inside, err := Fit(inForce, why, audited.Command)
			if err != nil {
				return nil, err
			}
			audited.Command = inside[0]
			fit[i] = audited
		}
		format, what := Needs(fit[i])
		if format <= inForce || of[RaiseFormat](fit[i]) {
			continue
		}
		if why == "" {
			why = "one is of an earlier version, or is not heard"
		}
		return nil, fault.New(fault.Unready, "%s takes format %d, and the cluster is at %d: %w: %s; see clary cluster upgrade-status", what, format, inForce, ErrHeldBack, why)
	}
	return fit, nil
}

// RaiseFormat puts a newer format in force. Its proposer has made sure that every
// coordinator knows it. A format is never lowered.
type RaiseFormat struct {
	To int
}

// Apply implements Command.
func (c RaiseFormat) Apply(tx *state.Tx, _ int64) (Result, error) {
	if c.To > Format {
		panic(fmt.Sprintf("command: format %d is beyond what this build knows, %d", c.To, Format)) // Decode refuses it
	}
	if c.To > tx.Format() {
		tx.PutFormat(c.To)
	}
	return Result{}, nil
}
