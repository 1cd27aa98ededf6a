package decisions

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
)

// spoil changes one number, text or list somewhere in a message into something absurd. It reports whether it found one.
func spoil(t *rapid.T, m protoreflect.Message) bool {
	fields := m.Descriptor().Fields()
	var set []protoreflect.FieldDescriptor
	for i := range fields.Len() {
		if m.Has(fields.Get(i)) {
			set = append(set, fields.Get(i))
		}
	}
	if len(set) == 0 {
		return false
	}
	field := rapid.SampledFrom(set).Draw(t, "field")
	switch {
	case field.IsMap():
		return false
	case field.IsList() && field.Message() != nil:
		list := m.Mutable(field).List()
		if rapid.IntRange(0, 3).Draw(t, "twice") == 0 {
			list.Append(list.Get(0))
			return true
		}
		return spoil(t, list.Get(rapid.IntRange(0, list.Len()-1).Draw(t, "item")).Message())
	case field.IsList():
		m.Clear(field)
	case field.Message() != nil:
		if rapid.IntRange(0, 5).Draw(t, "cleared") == 0 {
			m.Clear(field)
			return true
		}
		return spoil(t, m.Mutable(field).Message())
	case field.Kind() == protoreflect.Int64Kind:
		m.Set(field, protoreflect.ValueOfInt64(rapid.SampledFrom([]int64{-1, 0, math.MinInt64, math.MaxInt64}).Draw(t, "number")))
	case field.Kind() == protoreflect.Int32Kind:
		m.Set(field, protoreflect.ValueOfInt32(rapid.SampledFrom([]int32{-1, 0, math.MinInt32, math.MaxInt32}).Draw(t, "number")))
	case field.Kind() == protoreflect.StringKind:
		m.Set(field, protoreflect.ValueOfString(rapid.SampledFrom([]string{"", "n0", "j0/main", "\x00", "worker"}).Draw(t, "text")))
	default:
		return false
	}
	return true
}

func TestARecordOfAbsurdThingsEndsNoProgram(t *testing.T) {
	refused, spoilt := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		at := rapid.IntRange(1, len(h.told)-1).Draw(rt, "at")
		good := record(rt, h.told[:at])
		p := described{}.toProto(h.told[at])
		if h.told[at].Begin != nil || !spoil(rt, p.ProtoReflect()) {
			return
		}
		content, err := proto.Marshal(p)
		if err != nil {
			return // a text that is none
		}
		bad := binary.LittleEndian.AppendUint32(good, uint32(len(content)))
		bad = binary.LittleEndian.AppendUint32(bad, crc32.Checksum(content, castagnoli))
		bad = append(bad, content...)
		rest := record(rt, h.told[at+1:])
		if at+1 < len(h.told) && h.told[at+1].Begin == nil {
			bad = append(bad, rest...)
		}
		spoilt++
		out, err := Replay(bytes.NewReader(bad), Until{Explain: "j0"})
		if err == nil {
			return
		}
		refused++
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "offset") {
			rt.Fatalf("%v, %+v", err, out)
		}
	})
	if spoilt < 50 || refused == 0 {
		t.Errorf("%d were spoilt, of which %d were refused", spoilt, refused)
	}
}
