package capture_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/capture"
	"github.com/clary-ml/clary/storage/object"
)

// shelf is a store in memory that can be down.
type shelf struct {
	mu      sync.Mutex
	objects map[string]string
	down    error // what it says while it is down
	lost    bool  // it takes an object and says that it did not
	hangs   bool
	asked   int
}

func (s *shelf) Put(ctx context.Context, to object.URI, content io.Reader, size int64) (object.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.hangs {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return object.Info{}, fault.New(fault.Unready, "%w", ctx.Err())
	}
	if s.down != nil && !s.lost {
		return object.Info{}, s.down
	}
	text, err := io.ReadAll(content)
	if err != nil || int64(len(text)) != size {
		return object.Info{}, fault.New(fault.Invalid, "%d bytes of %d, %v", len(text), size, err)
	}
	if s.objects == nil {
		s.objects = map[string]string{}
	}
	s.objects[to.String()] = string(text)
	return object.Info{}, s.down
}

func (s *shelf) set(change func(*shelf)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *shelf) lines() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range s.objects {
		all = append(all, strings.Split(strings.TrimSuffix(text, "\n"), "\n")...)
	}
	return all
}

// start runs a keeper; end ends it and waits.
func start(t *testing.T, s *shelf, o capture.Options) (k *capture.Keeper, end func()) {
	t.Helper()
	k = capture.New(s, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	return k, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if held := k.Stats().Held; held != 0 {
			t.Errorf("%d bytes are held after the end", held)
		}
	}
}

var to = object.URI{Bucket: "clary", Key: "captured"}

func record(event string) capture.Record {
	return capture.Record{
		Endpoint: "churn", Variant: "blue", Event: event, Time: time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC),
		Input:  &capture.Body{ContentType: "text/csv", Data: []byte("1,2\n")},
		Output: &capture.Body{ContentType: "application/json", Data: []byte(`{"p":"<1>"}`)},
	}
}

func TestALineHasSageMakersForm(t *testing.T) {
	s := &shelf{}
	k, end := start(t, s, capture.Options{})
	r := record("e1")
	r.Inference, r.Attributes = "order-7", "trace=1"
	k.Keep(to, r)
	end()
	want := `{"captureData":{"endpointInput":{"observedContentType":"text/csv","mode":"INPUT","data":"1,2\n","encoding":"CSV"},` +
		`"endpointOutput":{"observedContentType":"application/json","mode":"OUTPUT","data":"{\"p\":\"<1>\"}","encoding":"JSON"}},` +
		`"eventMetadata":{"eventId":"e1","customAttributes":["trace=1"],"inferenceId":"order-7","inferenceTime":"2026-03-04T05:06:07Z"},"eventVersion":"0"}`
	if got := s.lines(); len(got) != 1 || got[0] != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	form := regexp.MustCompile(`^s3://clary/captured/churn/blue/2026/03/04/05/06-07-089-[0-9a-f]{16}\.jsonl$`)
	for name := range s.objects {
		if !form.MatchString(name) {
			t.Errorf("it is in %s", name)
		}
	}
}

func TestTheContentTypeChoosesTheEncoding(t *testing.T) {
	for _, c := range []struct{ contentType, data, encoding string }{
		{"text/csv", "1,2", "CSV"},
		{"text/csv; charset=utf-8", "1,ü", "CSV"},
		{"Text/CSV", "1", "CSV"},
		{"application/json", "{}", "JSON"},
		{"application/json", "{\xff}", "BASE64"}, // no JSON can hold it
		{"application/jsonlines", "{}", "BASE64"},
		{"application/x-npy", "\x93NUMPY", "BASE64"},
		{"", "x", "BASE64"},
		{";;", "x", "BASE64"},
	} {
		s := &shelf{}
		k, end := start(t, s, capture.Options{})
		k.Keep(to, capture.Record{Endpoint: "e", Variant: "v", Input: &capture.Body{ContentType: c.contentType, Data: []byte(c.data)}})
		end()
		got := parse(t, s.lines()[0])
		if got.Capture.Output != nil {
			t.Errorf("%q: a half that was not kept is there", c.contentType)
		}
		if in := got.Capture.Input; in.Encoding != c.encoding || !bytes.Equal(in.bytes(t), []byte(c.data)) || in.Type != c.contentType {
			t.Errorf("%q of type %q: %+v", c.data, c.contentType, in)
		}
	}
}

type half struct {
	Type     string `json:"observedContentType"`
	Data     string `json:"data"`
	Encoding string `json:"encoding"`
	Omitted  int64  `json:"omittedBytes"`
}

func (h half) bytes(t interface{ Fatal(...any) }) []byte {
	if h.Encoding != "BASE64" {
		return []byte(h.Data)
	}
	out, err := base64.StdEncoding.DecodeString(h.Data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type line struct {
	Capture struct {
		Input  *half `json:"endpointInput"`
		Output *half `json:"endpointOutput"`
	} `json:"captureData"`
	Metadata struct {
		Event string `json:"eventId"`
	} `json:"eventMetadata"`
}

func parse(t interface{ Fatal(...any) }, text string) (l line) {
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatal(text, err)
	}
	return l
}

// Whatever bytes a body has are read back from its line, and every line is one.
func TestBodiesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := &shelf{}
		k, end := start(t, s, capture.Options{})
		contentType := rapid.SampledFrom([]string{"text/csv", "application/json", "image/png"}).Draw(r, "type")
		body := rapid.SliceOf(rapid.Byte()).Draw(r, "body")
		k.Keep(to, capture.Record{Endpoint: "e", Variant: "v", Output: &capture.Body{ContentType: contentType, Data: bytes.Clone(body)}})
		end()
		lines := s.lines()
		if len(lines) != 1 {
			r.Fatalf("%d lines", len(lines))
		}
		if got := parse(r, lines[0]).Capture.Output.bytes(r); !bytes.Equal(got, body) {
			r.Fatalf("%q came back as %q", body, got)
		}
	})
}

func TestABodyThatIsTooLargeIsNamedWithItsSize(t *testing.T) {
	s := &shelf{}
	k, end := start(t, s, capture.Options{})
	k.Keep(to, capture.Record{Endpoint: "e", Variant: "v", Input: &capture.Body{ContentType: "image/png", Omitted: 12345}})
	end()
	if in := parse(t, s.lines()[0]).Capture.Input; in.Data != "" || in.Omitted != 12345 {
		t.Errorf("%+v", in)
	}
}

func TestAnObjectIsOfOneVariantAndOneHour(t *testing.T) {
	s := &shelf{}
	k, end := start(t, s, capture.Options{})
	for _, variant := range []string{"blue", "green"} {
		for hour := range 2 {
			for range 3 {
				r := record("e")
				r.Variant, r.Time = variant, r.Time.Add(time.Duration(hour)*time.Hour)
				k.Keep(to, r)
			}
		}
	}
	end()
	if got := k.Stats(); got.Objects != 4 || got.Kept != 12 || got.Dropped != 0 {
		t.Errorf("%+v", got)
	}
	for name, text := range s.objects {
		if n := strings.Count(text, "\n"); n != 3 || !regexp.MustCompile(`/(blue|green)/2026/03/04/0[56]/`).MatchString(name) {
			t.Errorf("%s has %d lines", name, n)
		}
	}
}

func TestObjectsAreWrittenWhenFullOrOldEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		k, end := start(t, s, capture.Options{MaxObject: 900, MaxAge: time.Minute})
		defer end()
		k.Keep(to, record("a"))
		synctest.Wait()
		if got := k.Stats(); got.Objects != 0 || got.Held == 0 {
			t.Errorf("at once: %+v", got)
		}
		k.Keep(to, record("b"))
		k.Keep(to, record("c"))
		synctest.Wait()
		if got := k.Stats(); got.Objects != 1 || got.Kept != 3 || got.Held != 0 {
			t.Errorf("full: %+v", got)
		}
		k.Keep(to, record("d"))
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if got := k.Stats(); got.Objects != 1 {
			t.Errorf("young: %+v", got)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := k.Stats(); got.Objects != 2 || got.Kept != 4 {
			t.Errorf("old: %+v", got)
		}
	})
}

func TestAStoreThatComesBackGetsEverythingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{down: fault.New(fault.Unready, "down"), lost: true} // it takes them, and says no
		k, end := start(t, s, capture.Options{})
		defer end()
		for i := range 20 {
			k.Keep(to, record(string(rune('a'+i))))
			time.Sleep(5 * time.Second)
		}
		if got := k.Stats(); got.Kept != 0 || got.Dropped != 0 {
			t.Errorf("while it is down: %+v", got)
		}
		s.set(func(s *shelf) { s.down = nil })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		seen := map[string]int{}
		for _, text := range s.lines() {
			seen[parse(t, text).Metadata.Event]++
		}
		if got := k.Stats(); got.Kept != 20 || got.Dropped != 0 || got.Held != 0 || len(seen) != 20 || len(s.lines()) != 20 {
			t.Errorf("%+v, %d lines: %v", got, len(s.lines()), seen)
		}
	})
}

func TestAStoreIsNotAskedForEver(t *testing.T) {
	for name, down := range map[string]func(*shelf){
		"down":   func(s *shelf) { s.down = fault.New(fault.Unready, "down") },
		"hangs":  func(s *shelf) { s.hangs = true },
		"denies": func(s *shelf) { s.down = fault.New(fault.Denied, "no") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &shelf{}
				down(s)
				k, end := start(t, s, capture.Options{})
				defer end()
				k.Keep(to, record("a"))
				time.Sleep(11 * time.Minute)
				synctest.Wait()
				if got := k.Stats(); got.Dropped != 1 || got.Held != 0 || s.asked == 0 || s.asked > 40 || name == "denies" && s.asked != 1 {
					t.Errorf("%+v after %d tries", got, s.asked)
				}
			})
		})
	}
}

func TestTheEndWaitsForTheStoreAsLongAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{hangs: true}
		k, end := start(t, s, capture.Options{})
		for range 10 {
			k.Keep(to, record("a"))
		}
		began := time.Now()
		end()
		if took, got := time.Since(began), k.Stats(); took != 10*time.Second || got.Dropped != 10 {
			t.Errorf("%v: %+v", took, got)
		}
		k.Keep(to, record("late"))
		if got := k.Stats(); got.Dropped != 11 || got.Held != 0 {
			t.Errorf("after the end: %+v", got)
		}
	})
}

// Whoever hands records over is never held up, the memory they take is bounded, and each is at last
// kept or counted as dropped.
func TestNothingWaitsAndNothingIsUncounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 64 << 10
		s := &shelf{hangs: true}
		k, end := start(t, s, capture.Options{MaxMemory: bound, MaxObject: 4 << 10})
		began := time.Now()
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				for range 500 {
					k.Keep(to, record("x"))
				}
			})
		}
		wait.Wait()
		synctest.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		// An object's buffer doubles as it grows, beyond what its records were reckoned at.
		if held := k.Stats().Held; held > 2*bound {
			t.Errorf("%d bytes are held", held)
		}
		if k.Stats().Dropped == 0 {
			t.Error("4000 records fit into the bound: nothing was tried")
		}
		s.set(func(s *shelf) { s.hangs = false })
		end()
		if got := k.Stats(); got.Kept+got.Dropped != 4000 || got.Kept == 0 || int64(len(s.lines())) != got.Kept {
			t.Errorf("%+v, and %d lines", got, len(s.lines()))
		}
	})
}

func BenchmarkKeep(b *testing.B) {
	k := capture.New(&shelf{}, capture.Options{})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	r := record("e")
	b.ReportAllocs()
	for b.Loop() {
		k.Keep(to, r)
	}
	b.StopTimer()
	cancel()
	<-done
	b.ReportMetric(float64(k.Stats().Dropped)/float64(b.N), "dropped/op")
}
