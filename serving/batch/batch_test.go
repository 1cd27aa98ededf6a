package batch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/record"
)

// folders are those of a run.
type folders struct{ in, out, journal string }

// tester is what tests and drawn tests have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	TempDir() string
}

func newFolders(t tester, objects map[string]string) folders {
	t.Helper()
	f := folders{t.TempDir(), filepath.Join(t.TempDir(), "out[1]"), t.TempDir()}
	left := filepath.Join(f.out, ".partial-1") // by a run that was killed
	if err := errors.Join(os.Mkdir(f.out, 0o755), os.WriteFile(left, []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, text := range objects {
		at := filepath.Join(f.in, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f folders) options(server batch.Server, shape batch.Shape, limits batch.Limits) batch.Options {
	return batch.Options{
		Server: server, Shape: shape, Limits: limits.Else(batch.Defaults()), Inputs: f.in, Outputs: f.out, Journal: f.journal,
	}
}

func (f folders) outputs(t tester) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(f.out, func(at string, item os.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		text, err := os.ReadFile(at)
		name, _ := filepath.Rel(f.out, at)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var upper = eachLine(strings.ToUpper)

func numbered(lines int, prefix string) string {
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "%s%d\n", prefix, i)
	}
	return text.String()
}

func TestEveryObjectHasAnOutput(t *testing.T) {
	f := newFolders(t, map[string]string{"a.csv": numbered(100, "a"), "deep/down/b.csv": numbered(7, "b"), "empty": "", "blank": "\n\n"})
	var last batch.Progress
	o := f.options(upper, batch.Shape{Split: record.Line}, batch.Limits{Concurrent: 3, Payload: 30})
	o.Report = func(p batch.Progress) { last = p }
	summary, err := batch.Run(t.Context(), o)
	if err != nil || len(summary.Failed) > 0 {
		t.Fatalf("%+v, %v", summary, err)
	}
	want := map[string]string{
		"a.csv.out": strings.ToUpper(numbered(100, "a")), "deep/down/b.csv.out": strings.ToUpper(numbered(7, "b")), "empty.out": "", "blank.out": "",
	}
	if got := f.outputs(t); !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
	bytes := int64(len(numbered(100, "a")) + len(numbered(7, "b")) + 2)
	if p := summary.Progress; p != last || p.Records != 107 || p.Objects != 4 || p.ObjectsDone != 4 || p.BytesDone != bytes || p.Bytes != bytes {
		t.Errorf("%+v, told %+v", p, last)
	}
}

func TestRequestsAreCutByTheLimits(t *testing.T) {
	lines := numbered(20, "x") // ten of 2 bytes, ten of 3
	for _, test := range []struct {
		claim  string
		limits batch.Limits
		want   int
	}{
		{"one record each", batch.Limits{Strategy: batch.Single}, 20},
		{"all in one", batch.Limits{}, 1},
		{"what fits", batch.Limits{Payload: 8}, 4 + 5}, // three of x0 to x9 with newlines between them are 8 bytes, two of x10 to x19 are 7
		{"exactly all", batch.Limits{Payload: int64(len(lines)) - 1}, 1},
		{"a byte less", batch.Limits{Payload: int64(len(lines)) - 2}, 2},
	} {
		t.Run(test.claim, func(t *testing.T) {
			f := newFolders(t, map[string]string{"x": lines})
			requests, largest := 0, 0
			server := answers(func(request string) (string, error) {
				requests, largest = requests+1, max(largest, len(request))
				return request, nil
			})
			o := f.options(server, batch.Shape{Split: record.Line}, test.limits)
			if _, err := batch.Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if requests != test.want || int64(largest) > o.Limits.Payload {
				t.Errorf("%d requests, want %d; the largest has %d bytes", requests, test.want, largest)
			}
			if got := f.outputs(t)["x.out"]; got != lines {
				t.Errorf("%q", got)
			}
		})
	}
}

// Objects that are one request each are sent at the same time too, and whatever answers
// first, the order stays.
func TestSendsAsManyAtATimeAsItMayAndKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := map[string]string{"a": numbered(50, "a"), "b": numbered(50, "b")}
		for i := range 20 {
			objects[fmt.Sprintf("c%02d", i)] = "c\n"
		}
		f := newFolders(t, objects)
		var now, most, sent atomic.Int64
		server := answers(func(request string) (string, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Duration(sent.Add(1)*7%5+1) * time.Second) // later ones are often faster
			now.Add(-1)
			return strings.ToUpper(request), nil
		})
		o := f.options(server, batch.Shape{Split: record.Line}, batch.Limits{Concurrent: 4, Strategy: batch.Single})
		if _, err := batch.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if most.Load() != 4 {
			t.Errorf("%d at a time, want 4", most.Load())
		}
		for name, text := range f.outputs(t) {
			if want := strings.ToUpper(objects[strings.TrimSuffix(name, ".out")]); text != want {
				t.Errorf("%s: %q", name, text)
			}
		}
	})
}

// While one answer does not come, only so much is cut, however large the object is.
func TestASlowAnswerHoldsBackWhatIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolders(t, map[string]string{"x": numbered(5000, "x")})
		free := make(chan struct{})
		var sent atomic.Int64
		server := answers(func(request string) (string, error) {
			sent.Add(1)
			if request == "x0" {
				<-free
			}
			return request, nil
		})
		o := f.options(server, batch.Shape{Split: record.Line}, batch.Limits{Concurrent: 4, Strategy: batch.Single})
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := batch.Run(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if n := sent.Load(); n < 4 || n > 16 {
			t.Errorf("%d requests were sent while the first has no answer", n)
		}
		close(free)
		all.Wait()
		if got := f.outputs(t)["x.out"]; got != numbered(5000, "x") {
			t.Errorf("%d bytes", len(got))
		}
	})
}

// An object that fails has no output; the others have theirs.
func TestAnObjectWithABadRecordHasNoOutput(t *testing.T) {
	f := newFolders(t, map[string]string{
		"a": numbered(50, "a"), "b": numbered(30, "b") + "poison\n" + numbered(50, "b"), "c": numbered(20, "c") + strings.Repeat("x", 500) + "\n",
		"d": numbered(5, "d"),
	})
	server := answers(func(request string) (string, error) {
		if strings.Contains(request, "poison") {
			return "", fault.New(fault.Invalid, "the server answered 400")
		}
		return request, nil
	})
	o := f.options(server, batch.Shape{Split: record.Line}, batch.Limits{Concurrent: 3, Strategy: batch.Single, Payload: 100})
	o.CommitBytes = 1 // so that parts of what fails are in the journal
	for range 2 {     // and a run that goes on from a finished one says the same
		summary, err := batch.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		want := []batch.Failure{{Object: "b", Reason: "record 31: the server answered 400"}, {Object: "c", Reason: "line 21 is larger than a request may be (100 bytes): raise max_payload"}}
		if len(summary.Failed) != 2 || summary.Failed[0] != want[0] || summary.Failed[1] != want[1] {
			t.Errorf("%+v", summary.Failed)
		}
		if p := summary.Progress; p.ObjectsDone != 2 || p.ObjectsFailed != 2 || p.BytesDone != p.Bytes {
			t.Errorf("%+v", p)
		}
		if got := f.outputs(t); !maps.Equal(got, map[string]string{"a.out": numbered(50, "a"), "d.out": numbered(5, "d")}) {
			t.Errorf("%q", got)
		}
	}
}

// An output cannot be a file and a folder: whose folder it would be has none, and the others theirs.
func TestAnObjectBelowAnothersOutputFailsAlone(t *testing.T) {
	f := newFolders(t, map[string]string{"x": "x\n", "x.out/y": "y\n", "x.out/deep/z": "z\n", "y.out/y": "y\n", "deep/a": "a\n", "deep/a.out/b/c": "c\n", "z": "z\n"})
	o := f.options(upper, batch.Shape{Split: record.Line}, batch.Limits{})
	for range 2 { // and so says a run that goes on from a finished one
		summary, err := batch.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		want := []batch.Failure{
			{Object: "deep/a.out/b/c", Reason: "its output would lie below deep/a.out, which is the output of deep/a: rename one of the two"},
			{Object: "x.out/deep/z", Reason: "its output would lie below x.out, which is the output of x: rename one of the two"},
			{Object: "x.out/y", Reason: "its output would lie below x.out, which is the output of x: rename one of the two"},
		}
		if !slices.Equal(summary.Failed, want) {
			t.Errorf("%+v", summary.Failed)
		}
		if got := f.outputs(t); !maps.Equal(got, map[string]string{"x.out": "X\n", "y.out/y.out": "Y\n", "deep/a.out": "A\n", "z.out": "Z\n"}) {
			t.Errorf("%q", got)
		}
	}
}

func TestAnAnswerThatDoesNotFitFailsItsObject(t *testing.T) {
	for _, test := range []struct{ claim, answer, want string }{
		{"too few lines", "1\n2", "3 records were sent and the server answered 2 lines"},
		{"too many", "1\n2\n3\n4", "3 records were sent and the server answered 4 lines"},
		{"nothing", "", "answered 0 lines"},
		{"no JSON", "1\n<html>\n3", `record 2: join: the server's answer is not valid JSON: "<html>"`},
	} {
		f := newFolders(t, map[string]string{"x": "{}\n{}\n{}\n"})
		server := answers(func(string) (string, error) { return test.answer, nil })
		summary, err := batch.Run(t.Context(), f.options(server, batch.Shape{Split: record.Line, ContentType: linesType, Join: true}, batch.Limits{}))
		if err != nil || len(summary.Failed) != 1 || !strings.Contains(summary.Failed[0].Reason, test.want) {
			t.Errorf("%s: %+v, %v; want %q", test.claim, summary.Failed, err, test.want)
		}
		if got := f.outputs(t); len(got) > 0 {
			t.Errorf("%s: %q", test.claim, got)
		}
	}
}

func TestAServerThatRefusesEverythingIsGivenUp(t *testing.T) {
	objects := map[string]string{}
	for i := range 100 {
		objects[fmt.Sprintf("%03d", i)] = "x"
	}
	f := newFolders(t, objects)
	server := answers(func(string) (string, error) { return "", fault.New(fault.Invalid, "it answered 500: no model") })
	_, err := batch.Run(t.Context(), f.options(server, batch.Shape{}, batch.Limits{}))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "the first 10 objects failed") || !strings.Contains(err.Error(), "no model") {
		t.Errorf("%v", err)
	}
}

func TestAServerThatIsGoneEndsTheRun(t *testing.T) {
	f := newFolders(t, map[string]string{"x": numbered(100, "x"), "y": "y"})
	var sent atomic.Int64
	server := answers(func(request string) (string, error) {
		if sent.Add(1) > 20 {
			return "", fault.New(fault.Unready, "connection refused")
		}
		return request, nil
	})
	summary, err := batch.Run(t.Context(), f.options(server, batch.Shape{Split: record.Line}, batch.Limits{Strategy: batch.Single, Concurrent: 2}))
	if !fault.Is(err, fault.Unready) || summary.Records > 20 || summary.ObjectsDone != 0 {
		t.Errorf("%+v, %v", summary, err)
	}
	if got := f.outputs(t); len(got) > 0 {
		t.Errorf("it leaves %q", got)
	}
}

func TestACancelledRunEndsAndKeepsWhatWasDone(t *testing.T) {
	f := newFolders(t, map[string]string{"x": numbered(100, "x")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := 0
	server := answers(func(request string) (string, error) {
		if sent++; sent == 50 {
			cancel()
		}
		return request, nil
	})
	o := f.options(server, batch.Shape{Split: record.Line}, batch.Limits{Strategy: batch.Single})
	if _, err := batch.Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	var resumed int64
	o.Report = func(p batch.Progress) { resumed = p.ResumedBytes }
	summary, err := batch.Run(t.Context(), o)
	if err != nil || f.outputs(t)["x.out"] != numbered(100, "x") || summary.Records != 100 {
		t.Errorf("%+v, %v", summary, err)
	}
	if resumed == 0 || sent > 140 {
		t.Errorf("%d requests for 100 records, %d bytes were taken over", sent, resumed)
	}
}
