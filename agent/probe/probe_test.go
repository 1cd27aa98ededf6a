package probe_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/probe"
	"github.com/clary-ml/clary/cluster"
)

// server is one in memory whose answer a test changes: 0 refuses connections, and silent never answers.
type server struct {
	mu     sync.Mutex
	answer int
	dials  int
	asked  []time.Time
	http   http.Server
	conns  chan net.Conn
}

const silent = -1

func newServer(t *testing.T, answer int) *server {
	s := &server{answer: answer, conns: make(chan net.Conn)}
	s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, time.Now())
		answer := s.answer
		s.mu.Unlock()
		switch answer {
		case silent:
			<-r.Context().Done()
			return
		case 0:
			panic(http.ErrAbortHandler) // of a connection that was kept: it is cut
		}
		w.WriteHeader(answer)
		_, _ = w.Write([]byte("model is\nloading"))
	})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.http.Serve(listener{s}) }()
	t.Cleanup(func() { _ = s.http.Close(); <-done })
	return s
}

type listener struct{ s *server }

func (l listener) Accept() (net.Conn, error) {
	conn, open := <-l.s.conns
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (l listener) Close() error   { close(l.s.conns); return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

func (s *server) dial(context.Context) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer == 0 {
		return nil, errors.New("nobody listens")
	}
	s.dials++
	here, there := net.Pipe()
	s.conns <- there
	return here, nil
}

func (s *server) become(answer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// watch runs a probe in a bubble; news are what it has told so far, with their times.
type watch struct {
	mu   sync.Mutex
	news []probe.News
	at   []time.Duration
}

func start(t *testing.T, config probe.Config) *watch {
	w := &watch{}
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		probe.Run(ctx, config, func(n probe.News) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.news, w.at = append(w.news, n), append(w.at, time.Since(began))
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watch) last() (probe.News, time.Duration, int) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.news) == 0 {
		return probe.News{}, 0, 0
	}
	return w.news[len(w.news)-1], w.at[len(w.at)-1], len(w.news)
}

func TestAServerThatBeginsToServeIsFoundWithinATenthOfItsStart(t *testing.T) {
	for _, took := range []time.Duration{30 * time.Millisecond, 600 * time.Millisecond, 9 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, 0)
			w := start(t, probe.Config{Dial: s.dial})
			time.Sleep(took)
			s.become(http.StatusOK)
			time.Sleep(took/10 + 25*time.Millisecond)
			if news, at, count := w.last(); count != 1 || !news.Serves {
				t.Errorf("served after %s, and was found: %+v at %s", took, news, at)
			}
		})
	}
}

func TestAServerThatNeverServesFailsWithWhatItSaidLast(t *testing.T) {
	for answer, want := range map[int]string{
		http.StatusServiceUnavailable: "answered 503 Service Unavailable: model is loading", 0: "nobody listens", silent: "no answer in time", http.StatusFound: "answered 302",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, answer)
			w := start(t, probe.Config{Probe: cluster.Probe{Startup: 10 * time.Second}, Dial: s.dial})
			time.Sleep(15 * time.Second)
			news, at, count := w.last()
			if count != 1 || !strings.Contains(news.Failed, want) || !strings.Contains(news.Failed, "within 10s: GET /ping") {
				t.Errorf("answering %d: %d news, the last %+v, want %q", answer, count, news, want)
			}
			if at < 10*time.Second || at > 12*time.Second {
				t.Errorf("failed after %s, with 10 s to start", at)
			}
		})
	}
}

func TestAServerThatAnswersOtherwiseDoesNotServeFromThatAnswerOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, http.StatusOK)
		w := start(t, probe.Config{Dial: s.dial})
		time.Sleep(10 * time.Second)
		s.become(http.StatusInternalServerError)
		time.Sleep(time.Second)
		if news, _, count := w.last(); count != 2 || news.Serves || news.Failed != "" {
			t.Errorf("%d news, the last %+v", count, news)
		}
		s.become(http.StatusOK)
		time.Sleep(time.Second)
		if news, _, count := w.last(); count != 3 || !news.Serves {
			t.Errorf("%d news, the last %+v", count, news)
		}
		if s.dials != 1 {
			t.Errorf("%d connections were made for one server", s.dials)
		}
	})
}

func TestOneSilenceIsNotBelievedAndTwoAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, http.StatusOK)
		w := start(t, probe.Config{Dial: s.dial})
		time.Sleep(1500 * time.Millisecond)
		s.become(silent)
		time.Sleep(2050 * time.Millisecond) // the probe at 2 s
		s.become(http.StatusOK)
		time.Sleep(5 * time.Second)
		if _, _, count := w.last(); count != 1 {
			t.Errorf("one silence made %d news", count-1)
		}
		s.become(silent)
		time.Sleep(5200 * time.Millisecond)
		if news, _, count := w.last(); count != 2 || news.Serves {
			t.Errorf("after two silences: %d news, the last %+v", count, news)
		}
	})
}

func TestAServerFailsAfterAsManyFailuresInARowAsItMayHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, http.StatusOK)
		w := start(t, probe.Config{Probe: cluster.Probe{Failures: 3, Every: 5 * time.Second}, Dial: s.dial})
		time.Sleep(6 * time.Second)
		s.become(0)
		time.Sleep(10 * time.Second) // failures at 10 and 15 s
		s.become(http.StatusOK)
		time.Sleep(5 * time.Second)
		s.become(http.StatusBadGateway) // failures at 25, 30 and 35 s
		time.Sleep(13 * time.Second)
		if news, _, _ := w.last(); news.Failed != "" {
			t.Errorf("failed too early: %+v", news)
		}
		time.Sleep(2 * time.Second)
		if news, _, _ := w.last(); !strings.Contains(news.Failed, "3 times in a row: answered 502") {
			t.Errorf("the last news is %+v", news)
		}
	})
}

func TestAServerThatServedForAnotherIsNotNewsAndHasNoStartAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, http.StatusOK)
		w := start(t, probe.Config{Probe: cluster.Probe{Startup: time.Second}, Dial: s.dial, Serves: true})
		time.Sleep(5 * time.Second)
		if _, _, count := w.last(); count != 0 {
			t.Errorf("%d news of a server that went on serving", count)
		}
		s.become(0)
		time.Sleep(time.Minute)
		if news, _, count := w.last(); count != 1 || news.Serves || news.Failed != "" {
			t.Errorf("%d news, the last %+v: one that has served may be away for as long as it likes", count, news)
		}
	})
}
