package wire_test

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// noun is one line of the table of everything that crosses the wire.
type noun struct {
	zero  any
	there func(any) proto.Message
	back  func(proto.Message) any
	fresh func() proto.Message
}

func line[V any, P proto.Message](to func(V) P, from func(P) V, fresh P) noun {
	return noun{
		zero:  *new(V),
		there: func(v any) proto.Message { return to(v.(V)) },
		back:  func(m proto.Message) any { return from(m.(P)) },
		fresh: func() proto.Message { return fresh.ProtoReflect().New().Interface() },
	}
}

func nouns() []noun {
	return []noun{
		line(wire.JobToProto, wire.JobFromProto, &claryv1.Job{}),
		line(wire.ArchivedToProto, wire.ArchivedFromProto, &claryv1.ArchivedJob{}),
		line(wire.GangToProto, wire.GangFromProto, &claryv1.Gang{}),
		line(wire.RoleToProto, wire.RoleFromProto, &claryv1.Role{}),
		line(wire.ProgramToProto, wire.ProgramFromProto, &claryv1.Program{}),
		line(wire.InputToProto, wire.InputFromProto, &claryv1.Input{}),
		line(wire.ExportToProto, wire.ExportFromProto, &claryv1.Export{}),
		line(wire.AskToProto, wire.AskFromProto, &claryv1.Ask{}),
		line(wire.ResourcesToProto, wire.ResourcesFromProto, &claryv1.Resources{}),
		line(wire.DeviceToProto, wire.DeviceFromProto, &claryv1.Device{}),
		line(wire.NodeToProto, wire.NodeFromProto, &claryv1.Node{}),
		line(wire.AllocationToProto, wire.AllocationFromProto, &claryv1.Allocation{}),
		line(wire.TaskToProto, wire.TaskFromProto, &claryv1.Task{}),
		line(wire.TaskStatusToProto, wire.TaskStatusFromProto, &claryv1.TaskStatus{}),
		line(wire.ProgressToProto, wire.ProgressFromProto, &claryv1.Progress{}),
		line(wire.OutputToProto, wire.OutputFromProto, &claryv1.Output{}),
		line(wire.SeriesToProto, wire.SeriesFromProto, &claryv1.Series{}),
		line(wire.PointToProto, wire.PointFromProto, &claryv1.Point{}),
		line(wire.PublicationToProto, wire.PublicationFromProto, &claryv1.Publication{}),
		line(wire.PlacementToProto, wire.PlacementFromProto, &claryv1.Placement{}),
		line(wire.PlanToProto, wire.PlanFromProto, &claryv1.Plan{}),
		line(wire.WhyToProto, wire.WhyFromProto, &claryv1.Why{}),
		line(wire.BlockToProto, wire.BlockFromProto, &claryv1.Block{}),
		line(wire.QueueToProto, wire.QueueFromProto, &claryv1.Queue{}),
		line(wire.LimitToProto, wire.LimitFromProto, &claryv1.Limit{}),
		line(wire.UserLimitToProto, wire.UserLimitFromProto, &claryv1.UserLimit{}),
		line(wire.PreemptToProto, wire.PreemptFromProto, &claryv1.Preempt{}),
		line(wire.AmountToProto, wire.AmountFromProto, &claryv1.Amount{}),
		line(wire.ModelAmountToProto, wire.ModelAmountFromProto, &claryv1.ModelAmount{}),
		line(wire.ClaimToProto, wire.ClaimFromProto, &claryv1.Claim{}),
		line(wire.QueueUsageToProto, wire.QueueUsageFromProto, &claryv1.QueueUsage{}),
		line(wire.QueueViewToProto, wire.QueueViewFromProto, &claryv1.QueueView{}),
		line(wire.OwnerUsageToProto, wire.OwnerUsageFromProto, &claryv1.OwnerUsage{}),
		line(wire.SecretToProto, wire.SecretFromProto, &claryv1.Secret{}),
		line(wire.TrustToProto, wire.TrustFromProto, &claryv1.Trust{}),
		line(wire.DeedToProto, wire.DeedFromProto, &claryv1.Deed{}),
		line(wire.TrialToProto, wire.TrialFromProto, &claryv1.Trial{}),
		line(wire.CurvePointToProto, wire.CurvePointFromProto, &claryv1.CurvePoint{}),
		line(wire.SweepToProto, wire.SweepFromProto, &claryv1.Sweep{}),
		line(wire.BudgetToProto, wire.BudgetFromProto, &claryv1.Budget{}),
		line(wire.TrialCountsToProto, wire.TrialCountsFromProto, &claryv1.TrialCounts{}),
		line(wire.ModelToProto, wire.ModelFromProto, &claryv1.Model{}),
		line(wire.ModelVersionToProto, wire.ModelVersionFromProto, &claryv1.ModelVersion{}),
		line(wire.ApprovalToProto, wire.ApprovalFromProto, &claryv1.Approval{}),
		line(wire.LineageToProto, wire.LineageFromProto, &claryv1.Lineage{}),
		line(wire.CodeToProto, wire.CodeFromProto, &claryv1.Code{}),
		line(wire.DataRefToProto, wire.DataRefFromProto, &claryv1.DataRef{}),
		line(wire.ModelPinToProto, wire.ModelPinFromProto, &claryv1.ModelPin{}),
		line(wire.EvaluationToProto, wire.EvaluationFromProto, &claryv1.Evaluation{}),
		line(wire.EndpointToProto, wire.EndpointFromProto, &claryv1.Endpoint{}),
		line(wire.FleetToProto, wire.FleetFromProto, &claryv1.Fleet{}),
		line(wire.DrainingReplicaToProto, wire.DrainingReplicaFromProto, &claryv1.DrainingReplica{}),
		line(wire.RolloutToProto, wire.RolloutFromProto, &claryv1.Rollout{}),
		line(wire.ExperimentToProto, wire.ExperimentFromProto, &claryv1.Experiment{}),
		line(wire.EndpointNoteToProto, wire.EndpointNoteFromProto, &claryv1.EndpointNote{}),
		line(wire.ShareToProto, wire.ShareFromProto, &claryv1.DeviceShare{}),
		line(wire.MIGProfileToProto, wire.MIGProfileFromProto, &claryv1.MIGProfile{}),
		line(wire.TaintToProto, wire.TaintFromProto, &claryv1.Taint{}),
		line(wire.ConstraintToProto, wire.ConstraintFromProto, &claryv1.Constraint{}),
		line(wire.AffinityToProto, wire.AffinityFromProto, &claryv1.Affinity{}),
		line(wire.TolerationToProto, wire.TolerationFromProto, &claryv1.Toleration{}),
		line(wire.TopologyToProto, wire.TopologyFromProto, &claryv1.Topology{}),
		line(wire.TokenToProto, wire.TokenFromProto, &claryv1.Token{}),
	}
}

func (n noun) name() string { return reflect.TypeOf(n.zero).Name() }

// fill draws a value for every field below v; full leaves none at its zero value.
func fill(t *rapid.T, v reflect.Value, full bool) {
	if !full && rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.StringN(1, 8, 32).Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(rapid.Int32Range(1, 1<<30).Draw(t, "number")))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(rapid.Uint8Range(1, 255).Draw(t, "number")))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(0.5, 1e9).Draw(t, "number"))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), full)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), full)
	case reflect.Slice:
		n := rapid.IntRange(1, 3).Draw(t, "length")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), full)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(1, 3).Draw(t, "length") {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, key, true)
			fill(t, value, full)
			v.SetMapIndex(key, value)
		}
	default:
		t.Fatalf("no way to fill a %s", v.Type())
	}
}

// blank names a field that is still at its zero value.
func blank(v reflect.Value) string {
	if v.Kind() != reflect.Struct {
		return map[bool]string{true: v.Type().String()}[v.IsZero()]
	}
	for i := range v.NumField() {
		if name := blank(v.Field(i)); name != "" {
			return v.Type().Field(i).Name + "." + name
		}
	}
	return ""
}

func TestEveryFieldOfEveryNounSurvivesTheWire(t *testing.T) {
	for _, n := range nouns() {
		t.Run(n.name(), func(t *testing.T) {
			full := 0
			rapid.Check(t, func(t *rapid.T) {
				v := reflect.New(reflect.TypeOf(n.zero)).Elem()
				all := rapid.Bool().Draw(t, "full")
				fill(t, v, all)
				if all {
					if field := blank(v); field != "" {
						t.Fatalf("the test left %s blank", field)
					}
					full++
				}
				raw, err := wire.Marshal(n.there(v.Interface()))
				if err != nil {
					t.Fatal(err)
				}
				message := n.fresh()
				if err := proto.Unmarshal(raw, message); err != nil {
					t.Fatal(err)
				}
				if got := n.back(message); !reflect.DeepEqual(got, v.Interface()) {
					t.Fatalf("sent     %+v\nreceived %+v", v.Interface(), got)
				}
				again, err := wire.Marshal(n.there(n.back(message)))
				if err != nil || !bytes.Equal(raw, again) {
					t.Fatalf("the same noun gave other bytes: %x, then %x (%v)", raw, again, err)
				}
			})
			if full == 0 {
				t.Fatal("no noun had every field filled")
			}
		})
	}
}

func TestEveryMessageFieldHasANounField(t *testing.T) {
	for _, n := range nouns() {
		fields := n.fresh().ProtoReflect().Descriptor().Fields().Len()
		if got := reflect.TypeOf(n.zero).NumField(); got != fields {
			t.Errorf("%s has %d fields, its message %d", n.name(), got, fields)
		}
	}
}

func TestNothingConvertsToNothing(t *testing.T) {
	for _, n := range nouns() {
		if got := n.back(n.fresh()); !reflect.DeepEqual(got, n.zero) {
			t.Errorf("an empty %s came back as %+v", n.name(), got)
		}
		absent := reflect.Zero(reflect.TypeOf(n.fresh())).Interface().(proto.Message)
		if got := n.back(absent); !reflect.DeepEqual(got, n.zero) {
			t.Errorf("an absent %s came back as %+v", n.name(), got)
		}
	}
}

func TestEmptyListsAndMapsBecomeNil(t *testing.T) {
	job := cluster.Job{Name: "a", Labels: map[string]string{}, Spec: []byte{}}
	got := wire.JobFromProto(wire.JobToProto(job))
	if got.Labels != nil || got.Spec != nil {
		t.Errorf("labels %#v, spec %#v: want nil", got.Labels, got.Spec)
	}
}

func TestCodecsRefuseTextThatIsNotUTF8(t *testing.T) {
	if _, err := wire.JobCodec().Encode(cluster.Job{Name: "\xff"}); err == nil {
		t.Error("a name that is not UTF-8 was stored")
	}
}

func FuzzDecode(f *testing.F) {
	for i := range nouns() {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0x0a, 0x03, 'a', 'b', 'c', 0x32, 0x04, 0x0a, 0x00, 0x12, 0x00})
	}
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		n := nouns()[int(which)%len(nouns())]
		message := n.fresh()
		if proto.Unmarshal(raw, message) != nil {
			return
		}
		once := n.back(message)
		encoded, err := wire.Marshal(n.there(once))
		if err != nil {
			t.Fatalf("a noun that was decoded cannot be encoded: %v", err)
		}
		message = n.fresh()
		if err := proto.Unmarshal(encoded, message); err != nil {
			t.Fatal(err)
		}
		// NaN differs from itself, and pointers print as addresses, so what is encoded is compared.
		again, err := wire.Marshal(n.there(n.back(message)))
		if err != nil || !bytes.Equal(encoded, again) {
			t.Fatalf("decoded  %+v\nthen     %+v, %v", once, n.back(message), err)
		}
	})
}
