package rpc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
)

// Bounds of what goes on record beside the log's own commands.
const (
	auditEvery   = time.Second // how often it is written
	auditBatch   = 256         // entries of one record
	auditWaiting = 4096        // entries that wait, while there is no leader for example
	// Refusals are put on record at this rate for long, and so many at once; what comes beyond is counted.
	refusedPerSecond, refusedAtOnce = 10, 200
)

// act is one call as the audit has it.
type act struct {
	deed     cluster.Deed
	object   atomic.Pointer[string]
	recorded atomic.Bool // it is in the log, or its service sees to that
	idle     atomic.Bool // it changes nothing, as it is
	refused  bool        // by the guard
}

type actKey struct{}

// newAct is what is known of a call before anything of it was read.
func newAct(ctx context.Context, method string, now time.Time) *act {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/clary.v1."), "/")
	a := &act{deed: cluster.Deed{
		Action: short(strings.ToLower(service + "/" + name)), Time: now.UnixNano(), User: "(unknown)", Request: request.ID(ctx),
		ID: cluster.NewDeedID(now.UnixNano(), request.NewID()),
	}}
	if from, ok := peer.FromContext(ctx); ok {
		host, _, err := net.SplitHostPort(from.Addr.String())
		if err != nil {
			host = from.Addr.String()
		}
		a.deed.From = short(host)
	}
	return a
}

func (a *act) by(who Identity) {
	switch {
	case who.Role == pki.Agent || who.Role == pki.Coordinator:
		a.deed.User = short(who.Role + "/" + who.Name)
	case who.Name != "":
		a.deed.User = short(who.Name)
	}
}

// onBehalf notes whose join token a machine has shown, once that is sure: it has no name of its own yet.
func onBehalf(ctx context.Context, token cluster.Token) {
	act := actOf(ctx)
	act.deed.User, act.deed.Detail = short(cmp.Or(token.By, act.deed.User)), "with the join token "+token.ID
}

// actOf is the call that a service answers; one that nobody records if it is not on record.
func actOf(ctx context.Context) *act {
	if a, _ := ctx.Value(actKey{}).(*act); a != nil {
		return a
	}
	return &act{}
}

// about notes what a message is about, from the first one that says so, and whether it only asks what would be.
func (a *act) about(message any) {
	if a.object.Load() != nil {
		return
	}
	if m, ok := message.(proto.Message); ok {
		fields := m.ProtoReflect().Descriptor().Fields()
		if dry := fields.ByName("dry_run"); dry != nil && dry.Kind() == protoreflect.BoolKind && m.ProtoReflect().Get(dry).Bool() {
			a.idle.Store(true)
		}
		if object := short(objectOf(m.ProtoReflect(), 0)); object != "" {
			a.object.CompareAndSwap(nil, &object)
		}
	}
}

// entry is the act as it goes on record.
func (a *act) entry() cluster.Deed {
	deed := a.deed
	if object := a.object.Load(); object != nil {
		deed.Object = *object
	}
	return deed
}

// naming are the fields that say what a request is about, the one that says most first. Of a queue's secret
// both are taken.
var naming = []protoreflect.Name{"name", "job", "sweep", "ref", "model", "endpoint", "node", "uri", "id", "member", "task", "kind", "queue", "what", "to", "path"}

// objectOf finds what a request is about: a field that names it, in the message or in one right below. It
// reads nothing else, so that no payload gets on record.
func objectOf(m protoreflect.Message, depth int) string {
	fields := m.Descriptor().Fields()
	for _, name := range naming {
		field := fields.ByName(name)
		if field == nil || field.Kind() != protoreflect.StringKind || field.IsList() || field.IsMap() {
			continue
		}
		text := m.Get(field).String()
		if queue := fields.ByName("queue"); name == "name" && queue != nil && queue.Kind() == protoreflect.StringKind && depth == 0 && m.Get(queue).String() != "" {
			text = m.Get(queue).String() + "/" + text
		}
		if text != "" {
			return text
		}
	}
	if depth > 0 {
		return ""
	}
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Kind() != protoreflect.MessageKind || field.IsMap() {
			continue
		}
		object := ""
		if field.IsList() {
			object = objectsOf(m.Get(field).List(), depth)
		} else if m.Has(field) {
			object = objectOf(m.Get(field).Message(), depth+1)
		}
		if object != "" {
			return object
		}
	}
	return ""
}

// objectsOf names the first of a list, and says how many more there are.
func objectsOf(list protoreflect.List, depth int) string {
	if list.Len() == 0 {
		return ""
	}
	object := objectOf(list.Get(0).Message(), depth+1)
	if object != "" && list.Len() > 1 {
		object += fmt.Sprintf(" and %d more", list.Len()-1)
	}
	return object
}

// short cuts a text to what an entry may have.
func short(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > cluster.MaxDeedText {
		return strings.ToValidUTF8(text[:cluster.MaxDeedText], "")
	}
	return text
}

// passedOn reports whether a call comes from another coordinator in a user's name: that one puts it on record,
// since it knows where it came from.
func passedOn(ctx context.Context) bool {
	node, _, err := callingNode(ctx)
	return err == nil && node.Role == pki.Coordinator
}

// auditing puts who asked for a change into the very entry of the log that has the change.
//
// While a format is in force that has no such entries, changes go without, and are put on record like refusals, once it
// is another.
type auditing struct {
	Replica
	known *atomic.Bool // the format has them: it is never lowered
}

// records reports whether entries of the log can say who asked for them.
func (r auditing) records(ctx context.Context) bool {
	if r.known.Load() {
		return true
	}
	snapshot, err := r.Read(ctx, true)
	if err != nil {
		return false
	}
	defer snapshot.Close()
	needs, _ := command.Needs(command.Audited{Command: command.Record{}})
	r.known.Store(snapshot.Format() >= needs)
	return r.known.Load()
}

// Propose is of Replica.
func (r auditing) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	act, _ := ctx.Value(actKey{}).(*act)
	if act == nil || len(commands) == 0 || act.recorded.Load() || !r.records(ctx) {
		return r.Replica.Propose(ctx, commands...)
	}
	audited := append([]command.Command{command.Audited{Command: commands[0], Deed: act.entry()}}, commands[1:]...)
	results, err := r.Replica.Propose(ctx, audited...)
	if len(results) > 0 && results[0].Err == nil {
		act.recorded.Store(true)
	}
	return results, err
}

// Auditor puts on record what leaves no command in the log: what was refused, and what changed objects
// elsewhere. It gathers for a second, so that it costs no request an entry of its own; a coordinator that is
// killed may take that second with it. The lines are in its own log too.
type Auditor struct {
	replica Replica
	log     *slog.Logger
	refused *rate.Limiter

	mu      sync.Mutex
	waiting []cluster.Deed
	left    int // how many were left out since the last record
}

// NewAuditor makes an auditor; Run writes what it gathers.
func NewAuditor(replica Replica, log *slog.Logger) *Auditor {
	return &Auditor{replica: replica, log: log, refused: rate.NewLimiter(refusedPerSecond, refusedAtOnce)}
}

// conclude takes in how a call ended that is to be on record.
func (a *Auditor) conclude(ctx context.Context, act *act, counts bool, outcome string, err error) {
	if act.recorded.Load() || !counts || passedOn(ctx) || act.idle.Load() && outcome == cluster.OutcomeOK {
		return
	}
	deed := act.entry()
	deed.Ended, deed.Outcome = time.Now().UnixNano(), outcome
	if err != nil && outcome != fault.Invalid.String() { // what is wrong in a request may be part of a secret
		deed.Result = clip(err.Error())
	}
	a.add(deed)
}

func (a *Auditor) add(deed cluster.Deed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) >= auditWaiting || deed.Outcome != cluster.OutcomeOK && !a.refused.Allow() {
		a.left++
		return
	}
	a.waiting = append(a.waiting, deed)
}

// take returns the next entries, and what was left out as one of them.
func (a *Auditor) take() []cluster.Deed {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.waiting), auditBatch)
	batch := a.waiting[:n:n]
	a.waiting = a.waiting[n:]
	if len(a.waiting) == 0 {
		a.waiting = nil
	}
	if a.left > 0 {
		now := time.Now().UnixNano()
		batch = append(batch, cluster.Deed{
			ID: cluster.NewDeedID(now, request.NewID()), Time: now, Ended: now, User: "(unknown)", Action: "audit/left-out", Outcome: "left out",
			Detail: fmt.Sprintf("%d more requests, beyond the bounds of what is put on record", a.left),
		})
		a.left = 0
	}
	return batch
}

// putBack keeps what was not written; of what does not fit the count stays.
func (a *Auditor) putBack(batch []cluster.Deed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fits := min(len(batch), auditWaiting-len(a.waiting))
	a.left += len(batch) - fits
	a.waiting = append(batch[:fits:fits], a.waiting...)
}

// Run writes what was gathered, until ctx ends.
func (a *Auditor) Run(ctx context.Context) error {
	clock := time.NewTicker(auditEvery)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
		if err := a.write(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("the audit waits", "error", err)
		}
	}
}

func (a *Auditor) write(ctx context.Context) error {
	for {
		batch := a.take()
		if len(batch) == 0 {
			return nil
		}
		changes := make([]command.Change, len(batch))
		for i := range batch {
			changes[i].Deed = &batch[i]
		}
		_, err := a.replica.Propose(ctx, command.Record{Changes: changes})
		if fault.Is(err, fault.Conflict) { // some are written already: by a try, or with a change, of which nobody heard
			if batch, err = a.unwritten(ctx, batch); err == nil {
				a.putBack(batch)
				continue
			}
		}
		switch {
		case err != nil && fault.Is(err, fault.Invalid):
			a.log.Error("entries of the audit were refused", "entries", len(batch), "error", err)
		case err != nil:
			a.putBack(batch)
			return err
		}
	}
}

// unwritten are those of a batch, which was refused as a whole, that are not on record. If that is all of it, it is refused for another reason.
func (a *Auditor) unwritten(ctx context.Context, batch []cluster.Deed) ([]cluster.Deed, error) {
	snapshot, err := a.replica.Read(ctx, false)
	if err != nil {
		return batch, err
	}
	defer snapshot.Close()
	left := slices.DeleteFunc(slices.Clone(batch), func(deed cluster.Deed) bool {
		_, known := snapshot.Deed(deed.ID)
		return known
	})
	if len(left) == len(batch) {
		return batch, fault.New(fault.Invalid, "none of %d entries is on record, and together they are refused", len(batch))
	}
	return left, nil
}

// isPartOf reports whether an entry's action is what was asked for: all of it, or its first words.
func isPartOf(action, what string) bool {
	return what == "" || action == what || strings.HasPrefix(action, cmp.Or(strings.TrimSuffix(what, "/"), what)+"/")
}
