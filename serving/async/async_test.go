package async_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/storage/object"
)

var churn = async.Endpoint{Name: "churn", Async: route.Async{To: "s3://clary/answers/", Failures: "s3://clary/broken/"}, Replicas: 1}

func endpoints(es ...async.Endpoint) func() []async.Endpoint {
	return func() []async.Endpoint { return es }
}

// submit leaves a request with a body.
func submit(ctx context.Context, store async.Store, body string, header ...string) (async.Receipt, error) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return async.Submit(ctx, store, async.Submission{Endpoint: "churn", Async: churn.Async, Header: h, Body: strings.NewReader(body), Size: int64(len(body))})
}

func said(status int, text string) (async.Answer, error) {
	return async.Answer{Status: status, Body: io.NopCloser(strings.NewReader(text)), Size: -1}, nil
}

// model answers a body with itself in capitals, or does what it says.
func model(_ context.Context, r async.Request) (async.Answer, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return async.Answer{}, err
	}
	return said(200, strings.ToUpper(string(body)))
}

// run has a worker work until the test or stop ends it.
func run(t *testing.T, store async.Store, invoke async.Invoke, o async.Options, es ...async.Endpoint) (w *async.Worker, stop func()) {
	t.Helper()
	w = async.New(store, invoke, o)
	if len(es) == 0 {
		es = []async.Endpoint{churn}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, endpoints(es...)) }()
	return w, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func left(s *shelf) []string { return s.below(async.Folder("churn").String()) }

func TestAnAnswerIsWhereTheReceiptSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		store := s.machine(nil)
		s.put("s3://elsewhere/rows.csv", "named")
		got := make(chan async.Request, 2)
		_, stop := run(t, store, func(ctx context.Context, r async.Request) (async.Answer, error) {
			got <- r
			return model(ctx, r)
		}, async.Options{})
		defer stop()
		sent, err := submit(t.Context(), store, "sent", "Content-Type", "text/csv", "Accept", "application/json", async.HeaderInference, "order-7",
			async.HeaderVariant, "blue", async.HeaderModel, "a.tar.gz", async.HeaderCustom, "x=1")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		named, err := submit(t.Context(), store, "", async.HeaderInput, "s3://elsewhere/rows.csv")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for r, want := range map[async.Receipt]string{sent: "SENT", named: "NAMED"} {
			if text, has := s.get(r.Output); !has || text != want || !strings.HasPrefix(r.Output, "s3://clary/answers/") {
				t.Errorf("%s has %q, want %q", r.Output, text, want)
			}
		}
		if sent.Inference != "order-7" || named.Inference == "" {
			t.Errorf("the inferences are %q and %q", sent.Inference, named.Inference)
		}
		r := <-got
		r.Body, r.ID = nil, ""
		if want := (async.Request{Endpoint: "churn", Inference: "order-7", ContentType: "text/csv", Accept: "application/json", Attributes: "x=1", Variant: "blue", Model: "a.tar.gz", Size: 4}); r != want {
			t.Errorf("asked %+v, want %+v", r, want)
		}
		if l := left(s); len(l) != 0 {
			t.Errorf("left: %v", l)
		}
		if _, has := s.get("s3://elsewhere/rows.csv"); !has {
			t.Error("an input that was only named is gone")
		}
	})
}

func TestAReceiptIsSageMakers(t *testing.T) {
	w := httptest.NewRecorder()
	async.Receipt{Inference: "a", Output: "s3://b/o", Failure: "s3://b/f"}.Write(w)
	if w.Code != http.StatusAccepted || w.Header().Get("X-Amzn-SageMaker-OutputLocation") != "s3://b/o" || w.Header().Get("X-Amzn-SageMaker-FailureLocation") != "s3://b/f" ||
		w.Body.String() != `{"InferenceId":"a","OutputLocation":"s3://b/o","FailureLocation":"s3://b/f"}`+"\n" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestWhatCannotBeTakenIsRefusedAndNothingIsLeft(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*async.Submission)
		says   string
	}{
		{"no input", func(s *async.Submission) { s.Size = 0 }, "there is no input"},
		{"two inputs", func(s *async.Submission) { s.Header.Set(async.HeaderInput, "s3://clary/x") }, "two inputs"},
		{"an input that is not there", func(s *async.Submission) { s.Header.Set(async.HeaderInput, "s3://clary/x"); s.Size = 0 }, "there is no object s3://clary/x"},
		{"an input elsewhere", func(s *async.Submission) { s.Header.Set(async.HeaderInput, "/etc/passwd"); s.Size = 0 }, "must look like s3://"},
		{"a body too large", func(s *async.Submission) { s.MaxBody = 3 }, "more than 3 bytes"},
		{"a body too large that does not say so", func(s *async.Submission) { s.MaxBody, s.Size = 3, -1 }, "more than 3 bytes"},
		{"a body that breaks off", func(s *async.Submission) { s.Body, s.Size = iotest.ErrReader(errors.New("reset")), -1 }, "broke off: reset"},
		{"a bad name", func(s *async.Submission) { s.Header.Set(async.HeaderInference, strings.Repeat("x", 65)) }, "1 to 64 visible characters"},
		{"a bad time to live", func(s *async.Submission) { s.Header.Set(async.HeaderTTL, "0") }, "give 1 to 21600 seconds"},
		{"a bad timeout", func(s *async.Submission) { s.Header.Set(async.HeaderTimeout, "1h") }, "give 1 to 3600 seconds"},
		{"long headers", func(s *async.Submission) { s.Header.Set("Accept", strings.Repeat("x", 70000)) }, "headers have more than 65536 bytes"},
		{"nowhere to answer", func(s *async.Submission) { s.Async.To = "answers" }, "async.to"},
		{"nowhere to fail", func(s *async.Submission) { s.Async.Failures = "answers" }, "async.failures"},
	} {
		s := newShelf()
		sub := async.Submission{Endpoint: "churn", Async: churn.Async, Header: http.Header{}, Body: strings.NewReader("four"), Size: 4}
		c.change(&sub)
		if _, err := async.Submit(t.Context(), s.machine(nil), sub); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
		if l := s.below("s3://clary/endpoints/churn/async/inbox/"); len(l) != 0 {
			t.Errorf("%s: left %v", c.name, l)
		}
	}
}

// failure waits for a request's end without an answer.
func failure(t *testing.T, s *shelf, r async.Receipt) (f async.Failure) {
	t.Helper()
	time.Sleep(10 * time.Hour) // of the bubble
	synctest.Wait()
	text, has := s.get(r.Failure)
	if !has {
		t.Fatalf("there is no failure; left: %v", left(s))
	}
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	if _, has := s.get(r.Output); has {
		t.Error("there is an answer too")
	}
	if l := left(s); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
	return f
}

func TestWhyThereIsNoAnswerIsTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		invoke async.Invoke
		says   string
		status int
		tries  int
	}{
		{"refused", func(context.Context, async.Request) (async.Answer, error) { return said(400, "line 3: no number") }, "answered 400 Bad Request", 400, 1},
		{"fails always", func(context.Context, async.Request) (async.Answer, error) { return said(500, "line 3: no number") }, "answered 500", 500, 4},
		{"never there", func(context.Context, async.Request) (async.Answer, error) { return said(503, "line 3: no number") }, "it was not answered by", 0, 0},
		{"never any room", func(context.Context, async.Request) (async.Answer, error) {
			return async.Answer{}, fault.New(fault.Exhausted, "full")
		}, "it was not answered by", 0, 0},
		{"breaks down", func(context.Context, async.Request) (async.Answer, error) {
			return async.Answer{}, errors.New("connection reset")
		}, "connection reset", 0, 4},
		{"breaks off", func(context.Context, async.Request) (async.Answer, error) {
			return async.Answer{Status: 200, Size: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("reset"))))}, nil
		}, "the answer broke off: reset", 200, 4},
		{"is too large", func(context.Context, async.Request) (async.Answer, error) { return said(200, strings.Repeat("x", 101)) }, "more than 100 bytes", 200, 1},
		{"says that it is too large", func(context.Context, async.Request) (async.Answer, error) {
			return async.Answer{Status: 200, Size: 101, Body: io.NopCloser(strings.NewReader(""))}, nil
		}, "more than 100 bytes", 200, 1},
		{"hangs", func(ctx context.Context, _ async.Request) (async.Answer, error) {
			<-ctx.Done()
			return async.Answer{}, ctx.Err()
		}, "no answer within 1m", 0, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf()
				ends := make(chan bool, 10)
				w, stop := run(t, s.machine(nil), c.invoke, async.Options{Poll: time.Minute, MaxAnswer: 100, Ended: func(_ string, failed bool, _ time.Duration) { ends <- failed }})
				defer stop()
				r, err := submit(t.Context(), s.machine(nil), "rows", async.HeaderTimeout, "60")
				if err != nil {
					t.Fatal(err)
				}
				f := failure(t, s, r)
				if !strings.Contains(f.Error, c.says) || f.Status != c.status || f.Tries != c.tries || f.Inference != r.Inference || f.Endpoint != "churn" || f.Failed.Before(f.Submitted) {
					t.Errorf("%+v; want %q, %d, %d tries", f, c.says, c.status, c.tries)
				}
				if c.status >= 400 && f.Body != "line 3: no number" {
					t.Errorf("its body is %q", f.Body)
				}
				if b, known := w.Backlog("churn"); !known || b.Requests != 0 {
					t.Errorf("%+v wait", b)
				}
				if len(ends) != 1 || !<-ends {
					t.Error("its end was not told, once")
				}
			})
		})
	}
}

func TestAnEndpointThatHasNoRoomForHoursLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		began := time.Now()
		_, stop := run(t, s.machine(nil), func(ctx context.Context, r async.Request) (async.Answer, error) {
			if time.Since(began) < 5*time.Hour {
				return said(503, "starting")
			}
			return model(ctx, r)
		}, async.Options{})
		defer stop()
		r, err := submit(t.Context(), s.machine(nil), "rows")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Hour + 2*time.Minute)
		synctest.Wait()
		if text, _ := s.get(r.Output); text != "ROWS" {
			t.Errorf("the answer is %q", text)
		}
	})
}

func TestAnAnswerOfAnySizeComesWhole(t *testing.T) {
	for _, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 20} {
		for _, known := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf()
				text := bytes.Repeat([]byte("y"), size)
				_, stop := run(t, s.machine(nil), func(context.Context, async.Request) (async.Answer, error) {
					a := async.Answer{Status: 200, Size: -1, Body: io.NopCloser(bytes.NewReader(text))}
					if known {
						a.Size = int64(size)
					}
					return a, nil
				}, async.Options{})
				defer stop()
				r, err := submit(t.Context(), s.machine(nil), "rows")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if got, has := s.get(r.Output); !has || got != string(text) {
					t.Errorf("%d bytes (known %v) came as %d", size, known, len(got))
				}
			})
		}
	}
}

// The oldest come first, no more are asked at once than may be, and the backlog tells how many wait.
func TestTheBoundsOfWorkAreKept(t *testing.T) {
	for _, c := range []struct {
		name string
		o    async.Options
		e    async.Endpoint
		most int
	}{
		{"usually", async.Options{}, async.Endpoint{Name: "churn", Async: churn.Async}, 4},
		{"for each replica", async.Options{}, async.Endpoint{Name: "churn", Async: route.Async{To: churn.Async.To, Concurrency: 3}, Replicas: 2}, 6},
		{"altogether", async.Options{Most: 5}, async.Endpoint{Name: "churn", Async: churn.Async, Replicas: 100}, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf()
				store := s.machine(nil)
				for i := range 30 {
					if _, err := submit(t.Context(), store, fmt.Sprintf("%02d", i)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Millisecond)
				}
				var mu sync.Mutex
				at, most := 0, 0
				var order []string
				w, stop := run(t, store, func(ctx context.Context, r async.Request) (async.Answer, error) {
					a, err := model(ctx, r)
					text, _ := io.ReadAll(a.Body)
					mu.Lock()
					order = append(order, string(text))
					at++
					most = max(most, at)
					mu.Unlock()
					time.Sleep(time.Minute)
					mu.Lock()
					at--
					mu.Unlock()
					return a, err
				}, c.o, c.e)
				defer stop()
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if b, known := w.Backlog("churn"); !known || b.Requests != 30 || b.Working != c.most || time.Since(b.Oldest) < 30*time.Second || time.Since(b.Oldest) > 31*time.Second {
					t.Errorf("%+v, want 30 of which %d are worked on", b, c.most)
				}
				if all, b := w.Backlogs(), w.Backlogs()["churn"]; len(all) != 1 || b.Requests != 30 {
					t.Errorf("of all endpoints: %+v", all)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if b, _ := w.Backlog("churn"); b.Requests != 30-c.most {
					t.Errorf("a minute later %+v wait", b)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if most != c.most || len(order) != 30 || len(left(s)) != 0 {
					t.Errorf("%d at once, want %d; %d were asked", most, c.most, len(order))
				}
				for i, body := range order[:c.most] {
					if body >= fmt.Sprintf("%02d", c.most) {
						t.Errorf("%d began as number %d", i, c.most)
					}
				}
			})
		})
	}
}

// Where there are fewer places than requests, each endpoint gets its turn.
func TestAnEndpointWithALongBacklogLeavesOthersTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		store := s.machine(nil)
		var last async.Receipt
		all := []async.Endpoint{{Name: "a", Async: churn.Async, Replicas: 100}, {Name: "b", Async: churn.Async}, {Name: "z", Async: churn.Async}}
		for _, e := range all {
			for range map[string]int{"a": 200, "b": 2, "z": 2}[e.Name] {
				var err error
				if last, err = async.Submit(t.Context(), store, async.Submission{Endpoint: e.Name, Async: e.Async, Header: http.Header{}, Body: strings.NewReader("rows"), Size: 4}); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, stop := run(t, store, func(ctx context.Context, r async.Request) (async.Answer, error) {
			a, err := model(ctx, r)
			time.Sleep(time.Minute)
			return a, err
		}, async.Options{Most: 4}, all...)
		defer stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if text, _ := s.get(last.Output); text != "ROWS" {
			t.Errorf("the last endpoint's answer is %q while the first has %d requests left", text, len(s.below(async.Folder("a").String()))/2)
		}
	})
}

// rewinding is a store that has to read content twice, as one does that makes a bucket first.
type rewinding struct{ async.Store }

func (r rewinding) Put(ctx context.Context, to object.URI, content io.Reader, size int64) (object.Info, error) {
	again, is := content.(io.Seeker)
	if !is {
		return object.Info{}, fault.New(fault.Unready, "the content cannot be read again")
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return object.Info{}, err
	}
	if _, err := again.Seek(0, io.SeekStart); err != nil {
		return object.Info{}, err
	}
	return r.Store.Put(ctx, to, content, size)
}

func TestAModelIsAskedOnceWhereTheStoreReadsItsAnswerTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		r, err := submit(t.Context(), s.machine(nil), "rows")
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan bool, 100)
		_, stop := run(t, rewinding{s.machine(nil)}, func(ctx context.Context, r async.Request) (async.Answer, error) {
			asked <- true
			return model(ctx, r)
		}, async.Options{})
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if text, _ := s.get(r.Output); text != "ROWS" || len(asked) != 1 {
			t.Errorf("the answer is %q, asked %d times", text, len(asked))
		}
	})
}

func TestAnEndpointThatGoesIsAskedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		store := s.machine(nil)
		for range 10 {
			if _, err := submit(t.Context(), store, "rows"); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		there, asked := []async.Endpoint{churn}, 0
		w := async.New(store, func(ctx context.Context, r async.Request) (async.Answer, error) {
			mu.Lock()
			there, asked = nil, asked+1
			mu.Unlock()
			return said(500, "")
		}, async.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.Run(ctx, func() []async.Endpoint {
			mu.Lock()
			defer mu.Unlock()
			return there
		}); err != nil {
			t.Error(err)
		}
		if _, known := w.Backlog("churn"); known || asked != 4 {
			t.Errorf("asked %d times; its backlog is known: %v", asked, known)
		}
	})
}

func TestRubbishInAnInboxHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		in := async.Folder("churn").String() + "inbox/"
		for name, text := range map[string]string{"a.json": "{", "b.json": `{"id":"other","endpoint":"churn"}`, "c.json": strings.Repeat("x", 70000), "d.txt": "what", "e/f.json": "{}"} {
			s.put(in+name, text)
		}
		_, stop := run(t, s.machine(nil), model, async.Options{})
		defer stop()
		r, err := submit(t.Context(), s.machine(nil), "rows")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if text, _ := s.get(r.Output); text != "ROWS" {
			t.Errorf("the answer is %q", text)
		}
		if l := left(s); len(l) != 2 { // d and e are not the worker's
			t.Errorf("left: %v", l)
		}
		if b := s.below("s3://clary/broken/"); len(b) != 3 {
			t.Errorf("told: %v", b)
		}
	})
}

func TestBodiesThatNobodyAcknowledgedAreDeletedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		steps := 0
		front := s.machine(func() fate { steps++; return []fate{well, dies}[steps-1] })
		if _, err := submit(t.Context(), front, "rows"); err == nil {
			t.Fatal("it was acknowledged")
		}
		_, stop := run(t, s.machine(nil), model, async.Options{})
		defer stop()
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		if l := left(s); len(l) != 1 {
			t.Fatalf("after half a day: %v", l)
		}
		time.Sleep(14 * time.Hour)
		synctest.Wait()
		if l := left(s); len(l) != 0 {
			t.Errorf("after a day: %v", l)
		}
	})
}
