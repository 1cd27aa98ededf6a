package command

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"

	"github.com/clary-ml/clary/cluster"
)

// Stamped is a command with its proposer's clock: what stands in the log.
type Stamped struct {
	Command Command
	Now     int64
}

// Encode turns commands into bytes for the log. The bytes of two batches, one after the
// other, are the batch of both.
func Encode(now int64, commands ...Command) ([]byte, error) {
	batch := &claryv1.Batch{Commands: make([]*claryv1.Command, len(commands))}
	for i, c := range commands {
		message, err := toProto(c)
		if err != nil {
			return nil, err
		}
		message.Now = now
		batch.Commands[i] = message
	}
	raw, err := wire.Marshal(batch)
	if err != nil {
		return nil, fault.New(fault.Invalid, "encode commands: %w", err)
	}
	return raw, nil
}

// Decode is Encode's inverse. It refuses what Encode cannot have written.
func Decode(raw []byte) ([]Stamped, error) {
	var batch claryv1.Batch
	if err := proto.Unmarshal(raw, &batch); err != nil {
		return nil, fault.New(fault.Invalid, "decode commands: %w", err)
	}
	commands := make([]Stamped, len(batch.GetCommands()))
	for i, message := range batch.GetCommands() {
		c, err := fromProto(message)
		if err != nil {
			return nil, fault.New(fault.Invalid, "decode command %d of %d: %w", i+1, len(commands), err)
		}
		if message.GetDeed() != nil {
			c = Audited{Command: c, Deed: wire.DeedFromProto(message.GetDeed())}
		}
		commands[i] = Stamped{Command: c, Now: message.GetNow()}
	}
	return commands, nil
}

// EncodeResults turns the answers to a batch into bytes.
func EncodeResults(results []Result) ([]byte, error) {
	out := &claryv1.Results{Results: make([]*claryv1.Result, len(results))}
	for i, r := range results {
		message := &claryv1.Result{Revision: r.Revision}
		if r.Err != nil {
			message.ErrorKind = fault.KindOf(r.Err).String()
			message.Error = strings.ToValidUTF8(r.Err.Error(), "?")
		}
		for _, refusal := range r.Refused {
			line := refusal.ID + "\t" + refusal.Reason
			message.Refused = append(message.Refused, strings.ToValidUTF8(line, "?"))
		}
		out.Results[i] = message
	}
	return wire.Marshal(out)
}

// DecodeResults is EncodeResults' inverse: errors keep their kind and text.
func DecodeResults(raw []byte) ([]Result, error) {
	var message claryv1.Results
	if err := proto.Unmarshal(raw, &message); err != nil {
		return nil, fault.New(fault.Internal, "decode results: %w", err)
	}
	results := make([]Result, len(message.GetResults()))
	for i, m := range message.GetResults() {
		results[i].Revision = m.GetRevision()
		if m.GetErrorKind() != "" {
			results[i].Err = fault.New(wire.KindByName(m.GetErrorKind()), "%s", m.GetError())
		}
		for _, line := range m.GetRefused() {
			id, reason, _ := strings.Cut(line, "\t")
			results[i].Refused = append(results[i].Refused, Refusal{ID: id, Reason: reason})
		}
	}
	return results, nil
}

func toProto(c Command) (*claryv1.Command, error) {
	switch c := c.(type) {
	case Record:
		return c.toProto()
	case Audited:
		if _, twice := c.Command.(Audited); twice {
			return nil, fault.New(fault.Invalid, "encode commands: one is audited twice")
		}
		message, err := toProto(c.Command)
		if err == nil {
			message.Deed = wire.DeedToProto(c.Deed)
		}
		return message, err
	case CommitPlan:
		return &claryv1.Command{Command: &claryv1.Command_CommitPlan{CommitPlan: &claryv1.CommitPlan{
			Placements: convert(c.Placements, wire.PlacementToProto), Evictions: convert(c.Evictions, wire.EvictionToProto),
		}}}, nil
	case ReportTasks:
		return &claryv1.Command{Command: &claryv1.Command_ReportTasks{ReportTasks: &claryv1.ReportTasks{
			Node: c.Node, Reports: convert(c.Reports, reportToProto),
		}}}, nil
	case PutNode:
		return &claryv1.Command{Command: &claryv1.Command_PutNode{PutNode: &claryv1.PutNode{
			Node: wire.NodeToProto(c.Node),
		}}}, nil
	case SetNodeState:
		return &claryv1.Command{Command: &claryv1.Command_SetNodeState{SetNodeState: &claryv1.SetNodeState{
			Node: c.Node, State: string(c.State), Reason: c.Reason, Expect: c.Expect, Empties: c.Empties, Deadline: c.Deadline,
		}}}, nil
	case RemoveNode:
		return &claryv1.Command{Command: &claryv1.Command_RemoveNode{RemoveNode: &claryv1.RemoveNode{
			Node: c.Node,
		}}}, nil
	case Revoke:
		return &claryv1.Command{Command: &claryv1.Command_Revoke{Revoke: &claryv1.Revoke{Revocation: wire.RevocationToProto(c.Revocation)}}}, nil
	case SetNodeTaints:
		return &claryv1.Command{Command: &claryv1.Command_SetNodeTaints{SetNodeTaints: &claryv1.SetNodeTaints{
			Node: c.Node, Taints: convert(c.Taints, wire.TaintToProto), Expect: c.Expect,
		}}}, nil
	case SetNodeCached:
		return &claryv1.Command{Command: &claryv1.Command_SetNodeCached{SetNodeCached: &claryv1.SetNodeCached{
			Node: c.Node, Cached: c.Cached,
		}}}, nil
	case Publish:
		return &claryv1.Command{Command: &claryv1.Command_Publish{Publish: &claryv1.Publish{
			Job: c.Job, Gang: c.Gang, Attempt: c.Attempt, Outputs: convert(c.Outputs, wire.OutputToProto),
		}}}, nil
	case RaiseFormat:
		return &claryv1.Command{Command: &claryv1.Command_RaiseFormat{RaiseFormat: &claryv1.RaiseFormat{To: int32(c.To)}}}, nil
	}
	return nil, fault.New(fault.Invalid, "encode commands: %T is none", c)
}

func fromProto(message *claryv1.Command) (Command, error) {
	switch m := message.GetCommand().(type) {
	case *claryv1.Command_Record:
		return recordFromProto(m.Record)
	case *claryv1.Command_CommitPlan:
		return CommitPlan{
			Placements: convert(m.CommitPlan.GetPlacements(), wire.PlacementFromProto),
			Evictions:  convert(m.CommitPlan.GetEvictions(), wire.EvictionFromProto),
		}, nil
	case *claryv1.Command_ReportTasks:
		return ReportTasks{
			Node: m.ReportTasks.GetNode(), Reports: convert(m.ReportTasks.GetReports(), reportFromProto),
		}, nil
	case *claryv1.Command_PutNode:
		return PutNode{Node: wire.NodeFromProto(m.PutNode.GetNode())}, nil
	case *claryv1.Command_SetNodeState:
		s := m.SetNodeState
		return SetNodeState{
			Node: s.GetNode(), State: cluster.NodeState(s.GetState()), Reason: s.GetReason(), Expect: s.GetExpect(),
			Empties: s.GetEmpties(), Deadline: s.GetDeadline(),
		}, nil
	case *claryv1.Command_RemoveNode:
		return RemoveNode{Node: m.RemoveNode.GetNode()}, nil
	case *claryv1.Command_SetNodeTaints:
		s := m.SetNodeTaints
		return SetNodeTaints{Node: s.GetNode(), Taints: convert(s.GetTaints(), wire.TaintFromProto), Expect: s.GetExpect()}, nil
	case *claryv1.Command_SetNodeCached:
		return SetNodeCached{Node: m.SetNodeCached.GetNode(), Cached: m.SetNodeCached.GetCached()}, nil
	case *claryv1.Command_Revoke:
		return Revoke{Revocation: wire.RevocationFromProto(m.Revoke.GetRevocation())}, nil
	case *claryv1.Command_Publish:
		p := m.Publish
		return Publish{
			Job: p.GetJob(), Gang: p.GetGang(), Attempt: p.GetAttempt(),
			Outputs: convert(p.GetOutputs(), wire.OutputFromProto),
		}, nil
	case *claryv1.Command_RaiseFormat:
		if to := int(m.RaiseFormat.GetTo()); to > Format {
			return nil, fmt.Errorf("it raises the format to %d, and this version knows %d: a newer one wrote it", to, Format)
		}
		return RaiseFormat{To: int(m.RaiseFormat.GetTo())}, nil
	}
	return nil, fmt.Errorf("it is of no kind that this version knows (format %d): a newer one wrote it", Format)
}

func (r Record) toProto() (*claryv1.Command, error) {
	out := &claryv1.Record{Changes: make([]*claryv1.Change, len(r.Changes))}
	for i, change := range r.Changes {
		m := &claryv1.Change{Expect: change.Expect}
		set := 0
		if change.Job != nil {
			m.Change, set = &claryv1.Change_Job{Job: wire.JobToProto(*change.Job)}, set+1
		}
		if change.Gang != nil {
			m.Change, set = &claryv1.Change_Gang{Gang: wire.GangToProto(*change.Gang)}, set+1
		}
		if change.Queue != nil {
			m.Change, set = &claryv1.Change_Queue{Queue: wire.QueueToProto(*change.Queue)}, set+1
		}
		if change.Token != nil {
			m.Change, set = &claryv1.Change_Token{Token: wire.TokenToProto(*change.Token)}, set+1
		}
		if change.Secret != nil {
			m.Change, set = &claryv1.Change_Secret{Secret: wire.SecretToProto(*change.Secret)}, set+1
		}
		if change.Trust != nil {
			m.Change, set = &claryv1.Change_Trust{Trust: wire.TrustToProto(*change.Trust)}, set+1
		}
		if change.Deed != nil {
			m.Change, set = &claryv1.Change_Deed{Deed: wire.DeedToProto(*change.Deed)}, set+1
		}
		if change.Sweep != nil {
			m.Change, set = &claryv1.Change_Sweep{Sweep: wire.SweepToProto(*change.Sweep)}, set+1
		}
		if change.Trial != nil {
			m.Change, set = &claryv1.Change_Trial{Trial: wire.TrialToProto(*change.Trial)}, set+1
		}
		if change.Endpoint != nil {
			m.Change, set = &claryv1.Change_Endpoint{Endpoint: wire.EndpointToProto(*change.Endpoint)}, set+1
		}
		if change.Model != nil {
			m.Change, set = &claryv1.Change_Model{Model: wire.ModelToProto(*change.Model)}, set+1
		}
		if change.Version != nil {
			m.Change, set = &claryv1.Change_ModelVersion{ModelVersion: wire.ModelVersionToProto(*change.Version)}, set+1
		}
		if change.Settings != nil {
			m.Change, set = &claryv1.Change_Settings{Settings: wire.SettingsToProto(*change.Settings)}, set+1
		}
		if change.Archived != nil {
			m.Change, set = &claryv1.Change_Archived{Archived: wire.ArchivedToProto(*change.Archived)}, set+1
		}
		if change.Delete != nil {
			m.Change, set = &claryv1.Change_Delete{Delete: keyToProto(change.Delete)}, set+1
		}
		if change.Check != nil {
			m.Change, set = &claryv1.Change_Check{Check: keyToProto(change.Check)}, set+1
		}
		if set != 1 {
			return nil, fault.New(fault.Invalid, "record: change %d names %d nouns; it must name one", i, set)
		}
		out.Changes[i] = m
	}
	return &claryv1.Command{Command: &claryv1.Command_Record{Record: out}}, nil
}

func recordFromProto(record *claryv1.Record) (Command, error) {
	changes := make([]Change, len(record.GetChanges()))
	for i, m := range record.GetChanges() {
		change := Change{Expect: m.GetExpect()}
		switch c := m.GetChange().(type) {
		case *claryv1.Change_Job:
			job := wire.JobFromProto(c.Job)
			change.Job = &job
		case *claryv1.Change_Gang:
			gang := wire.GangFromProto(c.Gang)
			change.Gang = &gang
		case *claryv1.Change_Queue:
			queue := wire.QueueFromProto(c.Queue)
			change.Queue = &queue
		case *claryv1.Change_Token:
			token := wire.TokenFromProto(c.Token)
			change.Token = &token
		case *claryv1.Change_Secret:
			secret := wire.SecretFromProto(c.Secret)
			change.Secret = &secret
		case *claryv1.Change_Trust:
			trust := wire.TrustFromProto(c.Trust)
			change.Trust = &trust
		case *claryv1.Change_Deed:
			deed := wire.DeedFromProto(c.Deed)
			change.Deed = &deed
		case *claryv1.Change_Delete:
			change.Delete = keyFromProto(c.Delete)
		case *claryv1.Change_Sweep:
			sweep := wire.SweepFromProto(c.Sweep)
			change.Sweep = &sweep
		case *claryv1.Change_Trial:
			trial := wire.TrialFromProto(c.Trial)
			change.Trial = &trial
		case *claryv1.Change_Endpoint:
			endpoint := wire.EndpointFromProto(c.Endpoint)
			change.Endpoint = &endpoint
		case *claryv1.Change_Model:
			model := wire.ModelFromProto(c.Model)
			change.Model = &model
		case *claryv1.Change_ModelVersion:
			version := wire.ModelVersionFromProto(c.ModelVersion)
			change.Version = &version
		case *claryv1.Change_Settings:
			if err := wire.CheckSettings(c.Settings); err != nil {
				return nil, fmt.Errorf("change %d of the record: %w", i, err)
			}
			settings := wire.SettingsFromProto(c.Settings)
			change.Settings = &settings
		case *claryv1.Change_Archived:
			archived := wire.ArchivedFromProto(c.Archived)
			change.Archived = &archived
		case *claryv1.Change_Check:
			change.Check = keyFromProto(c.Check)
		default:
			return nil, fmt.Errorf("change %d of the record is of no kind that this version knows", i)
		}
		changes[i] = change
	}
	return Record{Changes: changes}, nil
}

func keyToProto(key *Key) *claryv1.Key { return &claryv1.Key{Kind: string(key.Kind), Id: key.ID} }

func keyFromProto(key *claryv1.Key) *Key {
	return &Key{Kind: state.Kind(key.GetKind()), ID: key.GetId()}
}

func reportToProto(r TaskReport) *claryv1.TaskReport {
	return &claryv1.TaskReport{Task: r.Task, Status: wire.TaskStatusToProto(r.Status)}
}

func reportFromProto(r *claryv1.TaskReport) TaskReport {
	return TaskReport{Task: r.GetTask(), Status: wire.TaskStatusFromProto(r.GetStatus())}
}

func convert[A, B any](items []A, one func(A) B) []B {
	if len(items) == 0 {
		return nil
	}
	out := make([]B, len(items))
	for i, item := range items {
		out[i] = one(item)
	}
	return out
}
