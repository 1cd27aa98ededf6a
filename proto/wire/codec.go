package wire

import (
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/kv"
)

// JobCodec stores jobs.
func JobCodec() kv.Codec[cluster.Job] {
	return codec(JobToProto, JobFromProto, func() *claryv1.Job { return new(claryv1.Job) })
}

// GangCodec stores gangs.
func GangCodec() kv.Codec[cluster.Gang] {
	return codec(GangToProto, GangFromProto, func() *claryv1.Gang { return new(claryv1.Gang) })
}

// TaskCodec stores tasks.
func TaskCodec() kv.Codec[cluster.Task] {
	return codec(TaskToProto, TaskFromProto, func() *claryv1.Task { return new(claryv1.Task) })
}

// PublicationCodec stores publications.
func PublicationCodec() kv.Codec[cluster.Publication] {
	return codec(PublicationToProto, PublicationFromProto,
		func() *claryv1.Publication { return new(claryv1.Publication) })
}

// NodeCodec stores nodes.
func NodeCodec() kv.Codec[cluster.Node] {
	return codec(NodeToProto, NodeFromProto, func() *claryv1.Node { return new(claryv1.Node) })
}

// ResourcesCodec stores what is used of a node.
func ResourcesCodec() kv.Codec[cluster.Resources] {
	return codec(ResourcesToProto, ResourcesFromProto,
		func() *claryv1.Resources { return new(claryv1.Resources) })
}

// QueueCodec stores queues.
func QueueCodec() kv.Codec[cluster.Queue] {
	return codec(QueueToProto, QueueFromProto, func() *claryv1.Queue { return new(claryv1.Queue) })
}

// QueueUsageCodec stores what queues hold.
func QueueUsageCodec() kv.Codec[cluster.QueueUsage] {
	return codec(QueueUsageToProto, QueueUsageFromProto, func() *claryv1.QueueUsage { return new(claryv1.QueueUsage) })
}

// AmountCodec stores what the nodes have together.
func AmountCodec() kv.Codec[cluster.Amount] {
	return codec(AmountToProto, AmountFromProto, func() *claryv1.Amount { return new(claryv1.Amount) })
}

// SecretCodec stores secrets.
func SecretCodec() kv.Codec[cluster.Secret] {
	return codec(SecretToProto, SecretFromProto, func() *claryv1.Secret { return new(claryv1.Secret) })
}

// ArchivedCodec stores what stays of archived jobs.
func ArchivedCodec() kv.Codec[cluster.Archived] {
	return codec(ArchivedToProto, ArchivedFromProto, func() *claryv1.ArchivedJob { return new(claryv1.ArchivedJob) })
}

// SettingsCodec stores settings.
func SettingsCodec() kv.Codec[cluster.Settings] {
	return codec(SettingsToProto, SettingsFromProto, func() *claryv1.ClusterSettings { return new(claryv1.ClusterSettings) })
}

// TrustCodec stores what is agreed on of keys.
func TrustCodec() kv.Codec[cluster.Trust] {
	return codec(TrustToProto, TrustFromProto, func() *claryv1.Trust { return new(claryv1.Trust) })
}

// DeedCodec stores deeds.
func DeedCodec() kv.Codec[cluster.Deed] {
	return codec(DeedToProto, DeedFromProto, func() *claryv1.Deed { return new(claryv1.Deed) })
}

// TrialCodec stores trials.
func TrialCodec() kv.Codec[cluster.Trial] {
	return codec(TrialToProto, TrialFromProto, func() *claryv1.Trial { return new(claryv1.Trial) })
}

// SweepCodec stores what changes of tuning jobs.
func SweepCodec() kv.Codec[cluster.Sweep] {
	return codec(SweepToProto, SweepFromProto, func() *claryv1.Sweep { return new(claryv1.Sweep) })
}

// EndpointCodec stores what changes of endpoints.
func EndpointCodec() kv.Codec[cluster.Endpoint] {
	return codec(EndpointToProto, EndpointFromProto, func() *claryv1.Endpoint { return new(claryv1.Endpoint) })
}

// ModelCodec stores models.
func ModelCodec() kv.Codec[cluster.Model] {
	return codec(ModelToProto, ModelFromProto, func() *claryv1.Model { return new(claryv1.Model) })
}

// ModelVersionCodec stores versions of models.
func ModelVersionCodec() kv.Codec[cluster.ModelVersion] {
	return codec(ModelVersionToProto, ModelVersionFromProto, func() *claryv1.ModelVersion { return new(claryv1.ModelVersion) })
}

// TokenCodec stores tokens.
func TokenCodec() kv.Codec[cluster.Token] {
	return codec(TokenToProto, TokenFromProto, func() *claryv1.Token { return new(claryv1.Token) })
}

func codec[V any, P proto.Message](to func(V) P, from func(P) V, fresh func() P) kv.Codec[V] {
	return kv.Codec[V]{
		Encode: func(v V) ([]byte, error) { return Marshal(to(v)) },
		Decode: func(raw []byte) (V, error) {
			message := fresh()
			err := proto.Unmarshal(raw, message)
			return from(message), err
		},
	}
}

// Marshal encodes a message deterministically: the same message gives the same bytes
// (within one build of Clary). It fails for text that is not UTF-8.
func Marshal(message proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(message)
}
