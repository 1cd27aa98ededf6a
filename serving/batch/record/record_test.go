package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch/record"
)

// readAll returns all records, and the position behind each.
func readAll(from io.Reader, split record.Split, at record.Position, most int64) (records []string, ends []record.Position, err error) {
	r := record.NewReader(from, split, at, most)
	for {
		data, err := r.Next()
		if errors.Is(err, io.EOF) {
			return records, ends, nil
		}
		if err != nil {
			return records, ends, err
		}
		records, ends = append(records, string(data)), append(ends, r.At())
	}
}

func recordIO(data string, kind uint32) string {
	text := binary.LittleEndian.AppendUint32(nil, 0xced7230a)
	text = binary.LittleEndian.AppendUint32(text, kind<<29|uint32(len(data)))
	text = append(text, data...)
	for len(text)%4 != 0 {
		text = append(text, 0)
	}
	return string(text)
}

func tfRecord(data string) string {
	masked := func(b []byte) uint32 {
		sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
		return (sum>>15 | sum<<17) + 0xa282ead8
	}
	text := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	text = binary.LittleEndian.AppendUint32(text, masked(text))
	text = append(text, data...)
	return string(binary.LittleEndian.AppendUint32(text, masked([]byte(data))))
}

func TestCutsObjectsIntoRecords(t *testing.T) {
	long := strings.Repeat("x", 200_000) // longer than what is buffered
	a, b := recordIO("one", 0), recordIO("three", 0)
	parted := recordIO("fi", 1) + recordIO("rs", 2) + recordIO("t", 3)
	for _, test := range []struct {
		claim string
		split record.Split
		text  string
		want  []string
	}{
		{"the whole", record.None, "a\nb\n", []string{"a\nb\n"}},
		{"nothing", record.None, "", nil},
		{"lines", record.Line, "a\nb\n", []string{"a", "b"}},
		{"a last line without an end", record.Line, "a\nb", []string{"a", "b"}},
		{"lines of Windows", record.Line, "a\r\nb\r\n", []string{"a", "b"}},
		{"blank lines are none", record.Line, "\na\n \n\r\n\nb\n\n", []string{"a", "b"}},
		{"only blank lines", record.Line, "\n\n \n", nil},
		{"a long line", record.Line, "a\n" + long + "\nb", []string{"a", long, "b"}},
		{"RecordIO", record.RecordIO, a + b, []string{a, b}},
		{"RecordIO in pieces", record.RecordIO, a + parted + b, []string{a, parted, b}},
		{"TFRecord", record.TFRecord, tfRecord("a") + tfRecord("") + tfRecord(long), []string{tfRecord("a"), tfRecord(""), tfRecord(long)}},
	} {
		t.Run(test.claim, func(t *testing.T) {
			got, ends, err := readAll(iotest.OneByteReader(strings.NewReader(test.text)), test.split, record.Position{}, 1<<20)
			if err != nil || !slices.Equal(got, test.want) {
				t.Fatalf("%d records, %v; want %d", len(got), err, len(test.want))
			}
			// From behind any record on, the rest comes the same.
			for i, end := range ends {
				rest, _, err := readAll(strings.NewReader(test.text[end.Offset:]), test.split, end, 1<<20)
				if err != nil || !slices.Equal(rest, test.want[i+1:]) {
					t.Errorf("behind record %d: %d records, %v", i, len(rest), err)
				}
			}
		})
	}
}

func TestNamesWhatIsBroken(t *testing.T) {
	flipped := []byte(tfRecord("abc"))
	flipped[13] ^= 1
	for _, test := range []struct {
		claim string
		split record.Split
		text  string
		most  int64
		want  string
	}{
		{"a large object", record.None, "abcdef", 5, "larger than a request may be (5 bytes): raise max_payload"},
		{"a large line", record.Line, "a\n\nabcdef\n", 5, "line 3 is larger"},
		{"a large line of many buffers", record.Line, "a\n" + strings.Repeat("x", 300_000), 1000, "line 2 is larger"},
		{"no magic", record.RecordIO, recordIO("a", 0) + "abcdefgh", 99, "record 2 at byte 12: it does not begin with RecordIO's magic"},
		{"a cut head", record.RecordIO, recordIO("a", 0) + "abc", 99, "record 2 at byte 12: the object ends inside"},
		{"a cut body", record.RecordIO, recordIO("abcdef", 0)[:10], 99, "record 1 at byte 0: the object ends inside"},
		{"a cut record in pieces", record.RecordIO, recordIO("a", 1), 99, "record 1 at byte 0: the object ends inside"},
		{"a last piece alone", record.RecordIO, recordIO("a", 3), 99, "out of order"},
		{"a length that lies", record.RecordIO, recordIO(strings.Repeat("a", 100), 0), 50, "record 1 is larger"},
		{"a TFRecord's length", record.TFRecord, "abcdefghijkl", 99, "the checksum of its length"},
		{"a TFRecord's data", record.TFRecord, string(flipped), 99, "record 1 at byte 0: the checksum of its data"},
		{"a cut TFRecord", record.TFRecord, tfRecord("a") + tfRecord("abc")[:13], 99, "record 2 at byte 17: the object ends inside"},
		{"a large TFRecord", record.TFRecord, tfRecord("abcdef"), 10, "record 1 is larger"},
	} {
		t.Run(test.claim, func(t *testing.T) {
			_, _, err := readAll(strings.NewReader(test.text), test.split, record.Position{}, test.most)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("said %v, want %q", err, test.want)
			}
		})
	}
	failing := io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(errors.New("the disk is gone")))
	if got, _, err := readAll(failing, record.Line, record.Position{}, 99); !fault.Is(err, fault.Unready) || len(got) != 1 {
		t.Errorf("a read error after %v: %v", got, err)
	}
}

// However records are laid out, they come back as they were, and reading may begin anew
// behind each.
func TestFramedRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		split := rapid.SampledFrom([]record.Split{record.RecordIO, record.TFRecord}).Draw(t, "split")
		var want []string
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			data := string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "data"))
			switch {
			case split == record.TFRecord:
				want = append(want, tfRecord(data))
			case rapid.Bool().Draw(t, "parted"):
				want = append(want, recordIO(data, 1)+recordIO(data, 2)+recordIO(data, 3))
			default:
				want = append(want, recordIO(data, 0))
			}
		}
		text := strings.Join(want, "")
		got, ends, err := readAll(iotest.HalfReader(strings.NewReader(text)), split, record.Position{}, 1000)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
		if len(ends) > 0 && ends[len(ends)-1] != (record.Position{Offset: int64(len(text)), Number: int64(len(want))}) {
			t.Errorf("ends at %+v", ends[len(ends)-1])
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("a\n\nb\r\n"), 100)
	f.Add([]byte(recordIO("abc", 0)+recordIO("a", 1)), 100)
	f.Add([]byte(tfRecord("abc")), 20)
	f.Fuzz(func(t *testing.T, text []byte, most int) {
		if most < 0 || most > 1<<20 {
			return
		}
		for _, split := range record.Splits() {
			r := record.NewReader(bytes.NewReader(text), split, record.Position{}, int64(most))
			at := record.Position{}
			for {
				data, err := r.Next()
				if err != nil {
					if !errors.Is(err, io.EOF) && !fault.Is(err, fault.Invalid) {
						t.Fatalf("%s: %v", split, err)
					}
					break
				}
				now := r.At()
				raw := text[at.Offset:now.Offset]
				if len(data) == 0 || len(data) > most || now.Number <= at.Number || !bytes.Contains(raw, data) {
					t.Fatalf("%s: record %q of %q at %+v", split, data, raw, now)
				}
				at = now
			}
		}
	})
}
