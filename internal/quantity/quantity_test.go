package quantity_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/quantity"
	"pgregory.net/rapid"
)

func read[T any](text string) (T, error) {
	var v T
	err := json.Unmarshal([]byte(text), &v)
	return v, err
}

func TestReadsWhatPeopleWrite(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`"90s"`: 90 * time.Second, `"1h30m"`: 90 * time.Minute, `"2d"`: 48 * time.Hour, `"1d12h"`: 36 * time.Hour, `1.5`: 1500 * time.Millisecond, `0`: 0,
	} {
		if got, err := read[quantity.Duration](text); err != nil || got.Std() != want {
			t.Errorf("duration %s is %s, %v", text, got, err)
		}
	}
	for text, want := range map[string]quantity.Bytes{
		`"512MiB"`: 512 << 20, `"1.5 GiB"`: 3 << 29, `"2GB"`: 2e9, `"4Ki"`: 4096, `"100"`: 100, `1048576`: 1 << 20, `"7B"`: 7,
	} {
		if got, err := read[quantity.Bytes](text); err != nil || got != want {
			t.Errorf("size %s is %d, %v", text, got, err)
		}
	}
	for text, want := range map[string]quantity.Share{`0.1`: 0.1, `"10%"`: 0.1, `"12.5 %"`: 0.125, `"1"`: 1, `0`: 0} {
		if got, err := read[quantity.Share](text); err != nil || got != want {
			t.Errorf("share %s is %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]quantity.Cores{`2`: 2000, `0.5`: 500, `"500m"`: 500, `"1.25"`: 1250} {
		if got, err := read[quantity.Cores](text); err != nil || got != want {
			t.Errorf("cores %s is %d, %v", text, got, err)
		}
	}
}

func TestRefusesRubbish(t *testing.T) {
	for _, text := range []string{`"soon"`, `"5"`, `"1d-2h"`, `"99999999d"`, `1e12`, `true`, `{}`, `"dd"`, `""`} {
		if got, err := read[quantity.Duration](text); err == nil {
			t.Errorf("duration %s is %s", text, got)
		}
	}
	for _, text := range []string{`"lots"`, `"MiB"`, `"1e99GiB"`, `"0x10"`, `"inf"`, `"nan"`, `[]`, `"9000PB"`, `""`} {
		if got, err := read[quantity.Bytes](text); err == nil {
			t.Errorf("size %s is %d", text, got)
		}
	}
	for _, text := range []string{`"half"`, `"NaN"`, `"inf%"`, `"%"`, `true`, `"0x1p4"`} {
		if got, err := read[quantity.Share](text); err == nil {
			t.Errorf("share %s is %v", text, got)
		}
	}
	for _, text := range []string{`"two"`, `0.0001`, `1e300`, `"inf"`, `"NaN"`, `false`, `"0x1p4"`} {
		if got, err := read[quantity.Cores](text); err == nil {
			t.Errorf("cores %s is %d", text, got)
		}
	}
}

func TestWritesWhatItReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := quantity.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "duration"))
		b := quantity.Bytes(rapid.Int64Range(0, 1<<52).Draw(t, "bytes"))
		c := quantity.Cores(rapid.Int64Range(0, 1<<30).Draw(t, "cores"))
		s := quantity.Share(rapid.Float64Range(0, 1).Draw(t, "share"))
		text, err := json.Marshal(map[string]any{"d": d, "b": b, "c": c, "s": s})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			D quantity.Duration
			B quantity.Bytes
			C quantity.Cores
			S quantity.Share
		}
		if err := json.Unmarshal(text, &got); err != nil || got.D != d || got.B != b || got.C != c || got.S != s {
			t.Fatalf("%s is read as %+v, %v", text, got, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("1d2h")
	f.Add("1.5GiB")
	f.Add("500m")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := quantity.ParseDuration(text); err == nil {
			if again, err := quantity.ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("duration %q is %s, read again %s, %v", text, d, again, err)
			}
		}
		if b, err := quantity.ParseBytes(text); err == nil && (b > 1<<62 || b < -1<<62) {
			t.Errorf("size %q is %d", text, b)
		}
		if c, err := quantity.ParseCores(text); err == nil && (c > 1e12 || c < -1e12) {
			t.Errorf("cores %q is %d", text, c)
		}
	})
}
