// Package wire is the only converter between the nouns of package cluster and their
// protobuf form, and between error kinds and gRPC status codes.
//
// For every noun there is XToProto and XFromProto; for every noun that is stored,
// XCodec too, which package storage/kv takes. Bytes are deterministic: the same noun
// gives the same bytes, so that replicas can be compared. An absent message, list or
// map becomes a zero value, and an empty one becomes nil, so a noun that went through
// the wire once does not change when it goes through again.
package wire

// list converts each element. An empty list is nil.
func list[A, B any](items []A, convert func(A) B) []B {
	if len(items) == 0 {
		return nil
	}
	out := make([]B, len(items))
	for i, item := range items {
		out[i] = convert(item)
	}
	return out
}

// some returns nil for an empty slice, so that "none" has one form only.
func some[T any](items []T) []T {
	if len(items) == 0 {
		return nil
	}
	return items
}

// table returns nil for an empty map.
func table[V any](m map[string]V) map[string]V {
	if len(m) == 0 {
		return nil
	}
	return m
}
