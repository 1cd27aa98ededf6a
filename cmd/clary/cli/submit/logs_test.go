package submit

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/storage/journal"
)

// shown is what a person sees of some pieces of logs: task, stream, text; a text without a newline at
// its end goes on.
func shown(t *testing.T, format string, named, stamped bool, pieces ...[3]string) (out, err string) {
	t.Helper()
	var stdout, stderr strings.Builder
	a := For(&shell.App{Out: &stdout, Err: &stderr, Format: format})
	writer := a.logWriter(named, stamped)
	at := time.Date(2026, 11, 25, 17, 40, 9, 123_000_000, time.UTC).UnixNano()
	for i, piece := range pieces {
		text, ended := strings.CutSuffix(piece[2], "\n")
		e := journal.Entry{Time: at + int64(i), Stream: piece[1], Partial: !ended, Text: []byte(text)}
		if err := writer.write(client.LogChunk{Task: "j/main/" + piece[0] + ".1", Entries: []journal.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.end(); err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String()
}

func TestLinesOfTasksAreNotMixed(t *testing.T) {
	out, err := shown(t, "", true, false,
		[3]string{"a-0", "stdout", "one "}, [3]string{"b-0", "stdout", "two\n"}, [3]string{"b-0", "stdout", "three"},
		[3]string{"a-0", "stderr", "bad\n"}, [3]string{"a-0", "stdout", "more\n"})
	if want := "b-0.1 | two\na-0.1 | one more\nb-0.1 | three\n"; out != want || err != "a-0.1 | bad\n" {
		t.Errorf("%q and %q, want %q", out, err, want)
	}
	endless := strings.Repeat("x", longestLine/2+1)
	out, _ = shown(t, "", true, false, [3]string{"a-0", "stdout", endless}, [3]string{"a-0", "stdout", endless}, [3]string{"b-0", "stdout", "b\n"})
	if !strings.HasSuffix(out, "x\nb-0.1 | b\n") {
		t.Error("an endless line fills the memory")
	}
}

func TestWhatOneTaskWroteIsPassedOnByteForByte(t *testing.T) {
	pieces := []string{"\r 10%", "\r 20%\r\n", "\x00\xff\n", "\n", "no end"}
	var all [][3]string
	for _, piece := range pieces {
		all = append(all, [3]string{"a-0", "stdout", piece})
	}
	if out, err := shown(t, "", false, false, all...); out != strings.Join(pieces, "") || err != "" {
		t.Errorf("%q, %q", out, err)
	}
}

func TestALineHasTheTimeOfItsBeginning(t *testing.T) {
	out, _ := shown(t, "", true, true, [3]string{"a-0", "stdout", "loss "}, [3]string{"a-0", "stdout", "0.5\n"})
	if want := "2026-11-25T17:40:09.123Z a-0.1 | loss 0.5\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	out, _ = shown(t, "json", false, false, [3]string{"a-0", "stderr", "<a>"}, [3]string{"a-0", "stderr", " b\n"}, [3]string{"a-0", "stdout", "no end"})
	want := `{"time":"2026-11-25T17:40:09.123Z","task":"j/main/a-0.1","stream":"stderr","text":"<a> b"}` + "\n" +
		`{"time":"2026-11-25T17:40:09.123000002Z","task":"j/main/a-0.1","stream":"stdout","text":"no end","partial":true}` + "\n"
	if out != want {
		t.Errorf("%s, want %s", out, want)
	}
}

func TestAnInstantIsReadAsPeopleWriteIt(t *testing.T) {
	now := time.Date(2026, 11, 25, 17, 40, 9, 0, time.Local)
	for text, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "2d": now.Add(-48 * time.Hour), "": {},
		"2026-11-25T12:00:00+01:00": time.Date(2026, 11, 25, 11, 0, 0, 0, time.UTC), "2026-11-25T12:00:00.5Z": time.Date(2026, 11, 25, 12, 0, 0, 500_000_000, time.UTC),
		"2026-11-24": time.Date(2026, 11, 24, 0, 0, 0, 0, time.Local), "2026-11-24 12:30": time.Date(2026, 11, 24, 12, 30, 0, 0, time.Local),
		"17:30": time.Date(2026, 11, 25, 17, 30, 0, 0, time.Local), "17:30:05": time.Date(2026, 11, 25, 17, 30, 5, 0, time.Local),
	} {
		if got, err := Instant("--since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-5m", "25:00", "2026-13-01"} {
		if got, err := Instant("--since", text, now); err == nil || !strings.Contains(err.Error(), "--since") {
			t.Errorf("%q is %s, %v", text, got, err)
		}
	}
}
