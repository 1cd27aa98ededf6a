package sheet_test

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/sheet"
)

func TestReadsColumnsByNameInAnyOrder(t *testing.T) {
	text := "\ufeffshare, n ,note,more\n0.5,7,\"a, b\",x\n\n1e-3,-2,,y\n"
	type row struct {
		line        int
		n           int64
		share       float64
		note, other string
	}
	var got []row
	err := sheet.Read("f", strings.NewReader(text), []string{"n", "share", "note"}, func(r *sheet.Row) error {
		got = append(got, row{r.Line(), r.Int("n", -5, 10), r.Float("share", 0, 1), r.Maybe("note"), r.Maybe("absent")})
		return nil
	})
	want := []row{{2, 7, 0.5, "a, b", ""}, {4, -2, 0.001, "", ""}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}

func TestNumbersThatAreNoneAreRefused(t *testing.T) {
	for text, says := range map[string]string{
		"nan":    "f: line 2: x: nan is out of range: from 0 to 10",
		"+Inf":   "f: line 2: x: +Inf is out of range",
		"1e999":  "f: line 2: x: 1e999 is out of range",
		"-0.1":   "f: line 2: x: -0.1 is out of range",
		"ten":    `f: line 2: x: "ten" is not a number`,
		"":       "f: line 2: x: empty",
		"0x1p-2": "",
	} {
		err := sheet.Read("f", strings.NewReader("x,y\n"+text+",1\n"), []string{"x"}, func(r *sheet.Row) error {
			r.Float("x", 0, 10)
			return nil
		})
		if says == "" {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), says) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func TestAReaderThatFailsIsNoMistakeOfTheFile(t *testing.T) {
	lost := errors.New("disk gone")
	err := sheet.Read("f", iotest.ErrReader(lost), []string{"x"}, func(*sheet.Row) error { return nil })
	if !errors.Is(err, lost) || fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestAQuoteThatIsNeverClosedIsNamedByItsOwnLine(t *testing.T) {
	text := "x\n1\n\"2\n" + strings.Repeat("3\n", 50)
	err := sheet.Read("f", strings.NewReader(text), []string{"x"}, func(*sheet.Row) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "f: line 3: ") {
		t.Error(err)
	}
}

func TestAHugeLineIsRefusedInFewWords(t *testing.T) {
	for name, line := range map[string]string{
		"a field":     strings.Repeat("9", 16<<20) + ",1",
		"many fields": strings.Repeat("1,", 4<<20),
		"a quote":     `"` + strings.Repeat("x\n", 4<<20),
	} {
		err := sheet.Read("f", strings.NewReader("x,y\n1,1\n"+line+"\n"), []string{"x"}, func(r *sheet.Row) error {
			r.Int("x", 0, 10)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "f: line 3: ") || len(err.Error()) > 300 || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %.400v", name, err)
		}
	}
}
