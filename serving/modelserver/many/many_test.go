package many_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/many"
)

// stage has a folder of models and sees what becomes of them. A model says what its file says; one
// whose file says "broken" cannot be opened, one that says "slow" takes a minute.
type stage struct {
	folder, scratch string

	mu                   sync.Mutex
	opened               map[string]int // by name
	open                 int            // now
	most                 int
	answering            map[*int]int // by instance
	closedWhileAnswering bool
}

func newStage(t *testing.T) *stage {
	return &stage{folder: t.TempDir(), scratch: t.TempDir(), opened: map[string]int{}, answering: map[*int]int{}}
}

// write puts a model into the folder at once, as of a time.
func (s *stage) write(t testing.TB, name, text string, at time.Time) {
	t.Helper()
	path, draft := filepath.Join(s.folder, name), filepath.Join(s.folder, ".draft")
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(draft, []byte(text), 0o600)
	}
	if err == nil {
		err = os.Chtimes(draft, at, at)
	}
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// unpack makes a folder of an archive, which is its one file.
func (s *stage) unpack(_ context.Context, archive string, most int64) (string, error) {
	text, err := os.ReadFile(archive)
	if err != nil {
		return "", err
	}
	if string(text) == "no archive" || int64(len(text)) > most {
		return "", errors.New("it is no archive")
	}
	folder, err := os.MkdirTemp(s.scratch, "model-")
	if err != nil {
		return "", err
	}
	return folder, os.WriteFile(filepath.Join(folder, "text"), text, 0o600)
}

func (s *stage) openModel(ctx context.Context, name, path string) (many.Model, error) {
	s.mu.Lock()
	s.opened[name]++
	s.mu.Unlock()
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "text")
	}
	read, err := os.ReadFile(path)
	if err != nil {
		return many.Model{}, err
	}
	text := strings.TrimRight(string(read), "x")
	switch text {
	case "broken":
		return many.Model{}, errors.New("its weights are missing")
	case "slow":
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return many.Model{}, ctx.Err()
		}
	}
	self := new(int)
	s.mu.Lock()
	s.open++
	s.most = max(s.most, s.open)
	s.mu.Unlock()
	return many.Model{
		Name: "inner",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			s.count(self, 1)
			defer s.count(self, -1)
			if d, err := time.ParseDuration(string(body)); err == nil {
				time.Sleep(d)
			}
			fmt.Fprintf(w, "%s %s %s", r.URL.Path, text, body)
		}),
		Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
		Close: func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.open--
			s.closedWhileAnswering = s.closedWhileAnswering || s.answering[self] > 0
			return nil
		},
	}, nil
}

func (s *stage) count(self *int, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answering[self] += by
}

func (s *stage) opens(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[name]
}

// set makes a set of the stage's models. The end closes it, and checks that nothing is left.
func (s *stage) set(t *testing.T, o many.Options) (set *many.Set, end func()) {
	t.Helper()
	o.Folder, o.Unpack, o.Open = s.folder, s.unpack, s.openModel
	set, err := many.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return set, func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
		left, err := os.ReadDir(s.scratch)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open != 0 || len(left) != 0 || err != nil || s.closedWhileAnswering {
			t.Errorf("%d models are open at the end, %d unpacked, %v; one was closed while it answered: %v", s.open, len(left), err, s.closedWhileAnswering)
		}
	}
}

// ask has a model answer a body.
func ask(ctx context.Context, set *many.Set, name, body string) (string, error) {
	w := httptest.NewRecorder()
	err := set.Use(ctx, name, func(m many.Model) {
		m.Handler.ServeHTTP(w, httptest.NewRequest("POST", "/invocations", strings.NewReader(body)))
	})
	return w.Body.String(), err
}

// wants asks, and compares.
func wants(t *testing.T, set *many.Set, name, says string) {
	t.Helper()
	if got, err := ask(t.Context(), set, name, "?"); err != nil || got != "/invocations "+says+" ?" {
		t.Errorf("%s says %q, %v; want %q", name, got, err, says)
	}
}

func TestAModelIsLoadedOnceHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.write(t, "a.tar.gz", "slow", time.Now())
		s.write(t, "b/text", "folder", time.Now())
		s.write(t, "team/c.onnx", "file", time.Now())
		set, end := s.set(t, many.Options{})
		defer end()
		began := time.Now()
		var wait sync.WaitGroup
		for range 50 {
			wait.Go(func() { wants(t, set, "a", "slow") })
		}
		wait.Go(func() { wants(t, set, "b", "folder") })
		wait.Go(func() { wants(t, set, "team/c.onnx", "file") })
		wait.Wait()
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
		for _, name := range []string{"a", "b", "team/c.onnx"} {
			if n := s.opens(name); n != 1 {
				t.Errorf("%s was loaded %d times", name, n)
			}
		}
	})
}

func TestWhatWasNotAskedForLongestGoes(t *testing.T) {
	for name, o := range map[string]many.Options{"by number": {MaxModels: 3}, "by bytes": {MaxBytes: 3500}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				for _, name := range []string{"a", "b", "c", "d"} {
					s.write(t, name+".tar.gz", name+strings.Repeat("x", 999), time.Now())
				}
				set, end := s.set(t, o)
				defer end()
				for _, name := range []string{"a", "b", "c", "a", "d", "a", "c", "d", "b"} {
					wants(t, set, name, name)
				}
				got := fmt.Sprint(s.opens("a"), s.opens("b"), s.opens("c"), s.opens("d"))
				if got != "1 2 1 1" || s.most > 3 {
					t.Errorf("a, b, c and d were loaded %s times, and %d at once", got, s.most)
				}
			})
		})
	}
}

func TestAModelThatAnswersStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.write(t, "a.tar.gz", "a", time.Now())
		s.write(t, "b.tar.gz", "b", time.Now())
		set, end := s.set(t, many.Options{MaxModels: 1, LoadWithin: time.Hour})
		defer end()
		var wait sync.WaitGroup
		wait.Go(func() {
			if got, err := ask(t.Context(), set, "a", "10m"); err != nil || got != "/invocations a 10m" {
				t.Errorf("a: %q, %v", got, err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := ask(ctx, set, "b", "?"); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "is being loaded: try again") {
			t.Errorf("b, impatient: %v", err)
		}
		began := time.Now()
		wants(t, set, "b", "b")
		if took := time.Since(began); took != 9*time.Minute {
			t.Errorf("b came after %v", took)
		}
		wait.Wait()
	})
}

// Loads that wait for others to answer leave the places of loading to those that fit.
func TestAModelWithoutRoomHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.write(t, "busy.tar.gz", "busy"+strings.Repeat("x", 496), time.Now())
		s.write(t, "packed.tar.gz", "packed"+strings.Repeat("x", 794), time.Now())
		s.write(t, "large/text", "large"+strings.Repeat("x", 795), time.Now())
		s.write(t, "small.tar.gz", "small"+strings.Repeat("x", 95), time.Now())
		set, end := s.set(t, many.Options{MaxBytes: 1000, Loads: 1})
		defer end()
		var wait sync.WaitGroup
		wait.Go(func() { _, _ = ask(t.Context(), set, "busy", "3m") })
		synctest.Wait()
		for _, name := range []string{"packed", "large"} {
			wait.Go(func() { wants(t, set, name, name) })
		}
		synctest.Wait()
		began := time.Now()
		wants(t, set, "small", "small")
		if took := time.Since(began); took != 0 {
			t.Errorf("small came after %v", took)
		}
		if left, err := os.ReadDir(s.scratch); err != nil || len(left) != 2 {
			t.Errorf("%d archives are unpacked while two models are loaded, %v", len(left), err)
		}
		wait.Wait()
		if took := time.Since(began); took != 3*time.Minute {
			t.Errorf("packed and large came after %v", took)
		}
	})
}

func TestWhoWaitsForOneModelLeavesPlacesForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.write(t, "a.tar.gz", "slow", time.Now())
		set, end := s.set(t, many.Options{MaxRequests: 30})
		defer end()
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() { wants(t, set, "a", "slow") })
		}
		synctest.Wait()
		if _, err := ask(t.Context(), set, "a", "?"); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "3 requests wait for it already") {
			t.Errorf("a fourth: %v", err)
		}
		wait.Wait()
		wants(t, set, "a", "slow")
	})
}

func TestWithoutRoomARequestIsRefusedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.write(t, "a.tar.gz", "a", time.Now())
		s.write(t, "b.tar.gz", "b", time.Now())
		s.write(t, "huge.tar.gz", strings.Repeat("x", 2000), time.Now())
		set, end := s.set(t, many.Options{MaxModels: 1, LoadWithin: time.Minute, MaxBytes: 1000})
		defer end()
		var wait sync.WaitGroup
		wait.Go(func() { _, _ = ask(t.Context(), set, "a", "10m") })
		synctest.Wait()
		if _, err := ask(t.Context(), set, "b", "?"); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "all that are loaded answer") {
			t.Errorf("b: %v", err)
		}
		if _, err := ask(t.Context(), set, "huge", "?"); !fault.Is(err, fault.Invalid) {
			t.Errorf("huge: %v", err)
		}
		wait.Wait()
		wants(t, set, "b", "b")
	})
}

func TestAModelThatCannotBeLoadedIsNotTriedAgainUntilItMayHelp(t *testing.T) {
	for text, says := range map[string]string{"broken": "its weights are missing", "no archive": "it is no archive"} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.write(t, "a.tar.gz", text, time.Now())
			s.write(t, "b.tar.gz", "b", time.Now())
			set, end := s.set(t, many.Options{})
			defer end()
			tried := 0
			try := func(name, want string) {
				t.Helper()
				if _, err := ask(t.Context(), set, "a", "?"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), `the model "a" cannot be loaded`) {
					t.Errorf("%s: %v", name, err)
				}
			}
			try("at first", says)
			try("at once", says)
			if text == "broken" {
				if tried = s.opens("a"); tried != 1 {
					t.Errorf("it was tried %d times", tried)
				}
			}
			wants(t, set, "b", "b") // which does not mind
			time.Sleep(31 * time.Second)
			try("later", says)
			if n := s.opens("a"); text == "broken" && n != 2 {
				t.Errorf("it was tried %d times", n)
			}
			s.write(t, "a.tar.gz", "well", time.Now().Add(time.Second))
			wants(t, set, "a", "well")
		})
	}
}

func TestAChangedModelIsLoadedBesideTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		begin := time.Now()
		s.write(t, "a.tar.gz", "one", begin)
		s.write(t, "b/text", "one", begin)
		set, end := s.set(t, many.Options{})
		defer end()
		for _, name := range []string{"a", "b"} {
			file := map[string]string{"a": "a.tar.gz", "b": "b/text"}[name]
			next := func() { time.Sleep(3 * time.Second) }
			wants(t, set, name, "one")
			s.write(t, file, "slow", begin.Add(time.Hour))
			next()
			wants(t, set, name, "one") // while the new state is loaded
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			wants(t, set, name, "slow")
			s.write(t, file, "broken", begin.Add(2*time.Hour))
			next()
			for range 3 {
				wants(t, set, name, "slow")
				next()
				synctest.Wait()
			}
			if n := s.opens(name); n != 3 {
				t.Errorf("%s was loaded %d times: the broken state is tried once", name, n)
			}
			s.write(t, file, "well", begin.Add(3*time.Hour))
			next()
			_, _ = ask(t.Context(), set, name, "?")
			synctest.Wait()
			wants(t, set, name, "well")
			if err := os.RemoveAll(filepath.Join(s.folder, strings.TrimSuffix(file, "/text"))); err != nil {
				t.Fatal(err)
			}
			wants(t, set, name, "well") // nobody has looked yet
			next()
			if _, err := ask(t.Context(), set, name, "?"); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "there is no model") {
				t.Errorf("%s, deleted: %v", name, err)
			}
		}
	})
}

func TestTheEndEndsLoadsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.write(t, "a.tar.gz", "slow", time.Now())
		set, end := s.set(t, many.Options{})
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := ask(t.Context(), set, "a", "?"); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "is ending") {
				t.Errorf("while it is loaded: %v", err)
			}
		})
		synctest.Wait()
		began := time.Now()
		end()
		wait.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		if _, err := ask(t.Context(), set, "a", "?"); !fault.Is(err, fault.Unready) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestNothingOutsideOfTheFolderIsFound(t *testing.T) {
	s := newStage(t)
	s.write(t, "a.tar.gz", "a", time.Now())
	outside := filepath.Join(s.scratch, "secret.tar.gz")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(outside)
	for link, to := range map[string]string{"link.tar.gz": outside, "folder": s.scratch, "up": "..", "self": "self", "inside.tar.gz": "a.tar.gz"} {
		if err := os.Symlink(to, filepath.Join(s.folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, "holds/text", "a", time.Now())
	if err := os.Symlink(outside, filepath.Join(s.folder, "holds", "weights")); err != nil {
		t.Fatal(err)
	}
	set, _ := s.set(t, many.Options{})
	defer set.Close()
	for _, name := range []string{
		"", ".", "..", "/", "../a", "a/../a", "./a", "a/", "/a", "a//b", "a\\b", "a b", "a\x00", "ä", ".hidden", "x/.hidden", "a?b", "a%2fb",
		strings.Repeat("a", 257), outside, "link", "link.tar.gz", "folder/secret", "up/a", "self", "holds", "nothing", "a.tar.gz/text",
	} {
		if got, err := ask(t.Context(), set, name, "?"); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.NotFound) {
			t.Errorf("%q says %q, %v", name, got, err)
		}
	}
	wants(t, set, "inside", "a")
	wants(t, set, "a.tar.gz", "a")
}

func FuzzNames(f *testing.F) {
	folder := f.TempDir()
	inside := filepath.Join(folder, "models")
	for path, text := range map[string]string{"secret": "secret", "models/a": "a", "models/b/c": "c"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(folder, path)), 0o700), os.WriteFile(filepath.Join(folder, path), []byte(text), 0o600)); err != nil {
			f.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b/c", "b", "../secret", "b/../../secret", inside, "", "%2e%2e/secret"} {
		f.Add(name)
	}
	set, err := many.New(many.Options{Folder: inside, Open: func(_ context.Context, name, path string) (many.Model, error) {
		if text, err := os.ReadFile(path); string(text) == "secret" || !strings.HasPrefix(path, inside+"/") {
			panic(fmt.Sprint(name, " opens ", path, err))
		}
		return many.Model{Run: func(ctx context.Context) error { <-ctx.Done(); return nil }, Close: func() error { return nil }}, nil
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = set.Close() })
	f.Fuzz(func(t *testing.T, name string) {
		if err := set.Use(t.Context(), name, func(many.Model) {}); err != nil && !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", name, err)
		}
	})
}

// Whatever is asked at once: every answer is the right model's, no more are loaded than there is room
// for, none is unloaded while it answers, and at the end nothing is left.
func TestTheBoundsHoldWhateverIsAsked(t *testing.T) {
	answered, refused, unloads := 0, 0, 0
	rapid.Check(t, func(r *rapid.T) {
		models := rapid.IntRange(1, 6).Draw(r, "models")
		most := rapid.IntRange(1, 4).Draw(r, "most")
		bytes := rapid.Int64Range(1000, 5000).Draw(r, "bytes")
		type call struct {
			model int
			at    time.Duration
			takes string
		}
		calls := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) call {
			return call{
				rapid.IntRange(0, models-1).Draw(t, "model"), time.Duration(rapid.IntRange(0, 20).Draw(t, "at")) * time.Second,
				rapid.SampledFrom([]string{"0s", "1s", "30s"}).Draw(t, "takes"),
			}
		}), 1, 30).Draw(r, "calls")
		texts := rapid.SliceOfN(rapid.SampledFrom([]string{"quick", "slow", "broken"}), models, models).Draw(r, "texts")
		changes := rapid.SliceOfN(rapid.IntRange(0, models-1), 0, 5).Draw(r, "changes")
		var problem string
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			path := func(i int) string { return fmt.Sprintf("%d.tar.gz", i) }
			for i, text := range texts {
				s.write(t, path(i), text+strings.Repeat("x", 900), time.Now())
			}
			set, end := s.set(t, many.Options{MaxModels: most, MaxBytes: bytes, LoadWithin: 10 * time.Minute})
			var mu sync.Mutex
			var wait sync.WaitGroup
			for _, c := range calls {
				wait.Go(func() {
					time.Sleep(c.at)
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
					defer cancel()
					got, err := ask(ctx, set, fmt.Sprint(c.model), c.takes)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err != nil:
						refused++
						if texts[c.model] == "quick" && !fault.Is(err, fault.Unready) {
							problem = fmt.Sprintf("%d: %v", c.model, err)
						}
					case texts[c.model] == "broken" || got != "/invocations "+texts[c.model]+" "+c.takes:
						problem = fmt.Sprintf("%d, which is %s, says %q", c.model, texts[c.model], got)
					default:
						answered++
					}
				})
			}
			for n, i := range changes {
				time.Sleep(5 * time.Second)
				s.write(t, path(i), texts[i]+strings.Repeat("x", 900), time.Now().Add(time.Duration(n+1)*time.Hour))
			}
			wait.Wait()
			end()
			for i := range models {
				unloads += max(s.opens(fmt.Sprint(i))-1, 0)
			}
			if s.most > most {
				problem = fmt.Sprintf("%d were loaded at once, of %d", s.most, most)
			}
		})
		if problem != "" {
			r.Fatal(problem)
		}
	})
	if answered == 0 || refused == 0 || unloads == 0 {
		t.Errorf("%d answered, %d refused, %d loaded again: nothing was tried", answered, refused, unloads)
	}
}
