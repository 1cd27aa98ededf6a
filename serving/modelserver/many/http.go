package many

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver"
)

// HeaderModel names the model that a request is for.
const HeaderModel = "X-Amzn-SageMaker-Target-Model"

// server answers requests for the models of a set.
type server struct {
	*Set
	gate     *modelserver.Gate
	draining atomic.Bool
}

// handler is what the set answers over HTTP.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			modelserver.Fail(w, s.options.Log, errEnded())
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.Handle("POST /invocations", s.counted("invocations", func(w http.ResponseWriter, r *http.Request) error {
		name := r.Header.Get(HeaderModel)
		if name == "" {
			return fault.New(fault.Invalid, "this server has many models: name one with %s, as its artifact is called", HeaderModel)
		}
		return s.pass(w, r, name, "/invocations")
	}))
	mux.Handle("/v2/models/{name}/{rest...}", s.counted("v2", func(w http.ResponseWriter, r *http.Request) error {
		return s.passV2(w, r, "/"+r.PathValue("rest"))
	}))
	mux.Handle("GET /v2/models/{name}", s.counted("v2", func(w http.ResponseWriter, r *http.Request) error { return s.passV2(w, r, "") }))
	mux.Handle("POST /models/{name}/invoke", s.counted("models", func(w http.ResponseWriter, r *http.Request) error {
		name := r.PathValue("name")
		if _, has := s.get(name); !has {
			return notLoaded(name)
		}
		return s.pass(w, r, name, "/invocations")
	}))
	mux.Handle("POST /models", s.counted("models", s.post))
	mux.Handle("GET /models", s.counted("models", s.list))
	mux.Handle("GET /models/{name}", s.counted("models", func(w http.ResponseWriter, r *http.Request) error {
		shown, has := s.get(r.PathValue("name"))
		if !has {
			return notLoaded(r.PathValue("name"))
		}
		return write(w, shown)
	}))
	mux.Handle("DELETE /models/{name}", s.counted("models", func(w http.ResponseWriter, r *http.Request) error {
		if !s.remove(r.PathValue("name")) {
			return notLoaded(r.PathValue("name"))
		}
		return write(w, map[string]string{"status": "the model " + r.PathValue("name") + " is unloaded"})
	}))
	return mux
}

func notLoaded(name string) error {
	return fault.New(fault.NotFound, "the model %q is not loaded: POST /models loads it", shortened(name))
}

// counted bounds and measures, and answers with the error if there is one.
func (s *server) counted(name string, answer func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		out := &coded{ResponseWriter: w, code: http.StatusOK}
		if err := s.admit(out, r, answer); err != nil {
			modelserver.Fail(out, s.options.Log, err)
		}
		s.metrics.requests.WithLabelValues(name, strconv.Itoa(out.code)).Inc()
		s.metrics.took.Observe(time.Since(began).Seconds())
	})
}

func (s *server) admit(w http.ResponseWriter, r *http.Request, answer func(http.ResponseWriter, *http.Request) error) error {
	size := r.ContentLength
	if size < 0 { // it does not say
		size = s.options.MaxPayload
	}
	if size > s.options.MaxPayload {
		return modelserver.Refuse(http.StatusRequestEntityTooLarge, fault.New(fault.Invalid, "the body has more than %d bytes: send fewer rows at once, or raise the server's max payload", s.options.MaxPayload))
	}
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	if err := s.gate.Enter(size); err != nil {
		return err
	}
	defer s.gate.Leave(size)
	return answer(w, r)
}

// coded remembers the code of an answer.
type coded struct {
	http.ResponseWriter
	code int
}

func (c *coded) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

// Unwrap lets answers be flushed.
func (c *coded) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// pass hands a request to its model, at a path of the model's own server.
func (s *server) pass(w http.ResponseWriter, r *http.Request, name, to string) error {
	return s.with(r, name, func(m Model) { m.Handler.ServeHTTP(w, at(r, to)) })
}

func (s *server) passV2(w http.ResponseWriter, r *http.Request, rest string) error {
	return s.with(r, r.PathValue("name"), func(m Model) { m.Handler.ServeHTTP(w, at(r, "/v2/models/"+m.Name+rest)) })
}

// with uses a model, and waits for it as long as a load may take. How long it answers is its own affair.
func (s *server) with(r *http.Request, name string, use func(Model)) error {
	ctx, cancel := context.WithTimeout(r.Context(), s.options.LoadWithin)
	defer cancel()
	return s.Use(ctx, name, use)
}

// at is a request at another path.
func at(r *http.Request, to string) *http.Request {
	out := r.Clone(r.Context())
	out.URL.Path, out.URL.RawPath = to, ""
	return out
}

// shown is a model as SageMaker's multi-model contract shows it.
type shown struct {
	Name string `json:"modelName"`
	URL  string `json:"modelUrl"`
}

// get shows a model that is loaded.
func (s *Set) get(name string) (shown, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.models[name]
	if m == nil || m.at == nil {
		return shown{}, false
	}
	return shown{m.name, s.path(m.artifact)}, true
}

// remove unloads a model, once it has answered.
func (s *Set) remove(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.models[name]
	if m == nil || m.at == nil {
		return false
	}
	m.deleted = true
	s.dismiss(m)
	return true
}

// post loads a model: its name, and where its artifact is below the folder of models if it is not
// called so.
func (s *server) post(w http.ResponseWriter, r *http.Request) error {
	var asked struct {
		Name string `json:"model_name"`
		URL  string `json:"url"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&asked); err != nil {
		return fault.New(fault.Invalid, `the body must be {"model_name": …, "url": …}: %w`, err)
	}
	if strings.Contains(asked.Name, "/") {
		return fault.New(fault.Invalid, "model_name %q: give a name without slashes", shortened(asked.Name))
	}
	from := asked.Name
	if asked.URL != "" {
		from = strings.TrimPrefix(asked.URL, "file://")
		if filepath.IsAbs(from) {
			below, err := filepath.Rel(s.options.Folder, from)
			if err != nil || !filepath.IsLocal(below) {
				return fault.New(fault.Invalid, "url %q: the artifact must be below %s", shortened(asked.URL), s.options.Folder)
			}
			from = below
		}
		from = path.Clean(from)
	}
	if err := errors.Join(checkName(asked.Name), checkName(from)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.options.LoadWithin)
	defer cancel()
	if err := s.open(ctx, asked.Name, from); err != nil {
		return err
	}
	return write(w, map[string]string{"status": "the model " + asked.Name + " is loaded"})
}

// open loads a model under a name, unless there is one.
func (s *Set) open(ctx context.Context, name, from string) error {
	s.mu.Lock()
	m := s.models[name]
	s.mu.Unlock()
	if m != nil {
		return fault.New(fault.Conflict, "the model %q is loaded already: DELETE /models/%s unloads it", name, name)
	}
	m, state, err := s.begin(name, from)
	if err != nil {
		return err
	}
	if state == coming {
		select {
		case <-m.ready:
		case <-ctx.Done():
			s.giveUp(m)
			return fault.New(fault.Unready, "the model %q is still being loaded: look again in a moment: %w", name, context.Cause(ctx))
		}
		if m.err != nil {
			return m.err
		}
	}
	s.release(m)
	return nil
}

// list shows the models that are loaded, in order, by pages.
func (s *server) list(w http.ResponseWriter, r *http.Request) error {
	limit := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return fault.New(fault.Invalid, "limit %q: give 1 to 1000", shortened(text))
		}
		limit = n
	}
	after := r.URL.Query().Get("next_page_token")
	var page struct {
		Models []shown `json:"models"`
		Next   string  `json:"nextPageToken,omitempty"`
	}
	page.Models = []shown{}
	s.mu.Lock()
	for name, m := range s.models {
		if m.at != nil && name > after {
			page.Models = append(page.Models, shown{name, s.path(m.artifact)})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(page.Models, func(a, b shown) int { return strings.Compare(a.Name, b.Name) })
	if len(page.Models) > limit {
		page.Models = page.Models[:limit]
		page.Next = page.Models[limit-1].Name
	}
	return write(w, page)
}

func write(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // the client may have gone
	return nil
}

// How long connections may say nothing, and bodies be on their way.
const (
	readHeader = 10 * time.Second
	idle       = 2 * time.Minute
	slowest    = 30 * time.Second
)

// Serve answers on a listener, which it closes, until ctx ends; then it takes no more connections and
// lets what goes on be finished, and unloads all models.
func (s *Set) Serve(ctx context.Context, l net.Listener) error {
	o := s.options
	server := &server{Set: s, gate: modelserver.NewGate(o.MaxRequests, o.MaxMemory)}
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	web := &http.Server{
		Handler: server.handler(), BaseContext: func(net.Listener) context.Context { return running }, ReadHeaderTimeout: readHeader, IdleTimeout: idle,
		ReadTimeout: o.LoadWithin + o.Timeout + slowest, WriteTimeout: o.LoadWithin + o.Timeout + 2*slowest,
	}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()
	select {
	case <-ctx.Done():
	case err := <-failed: // nobody told it to end
		return errors.Join(fault.New(fault.Internal, "serve: %w", err), s.Close())
	}
	server.draining.Store(true)
	within, cancel := context.WithTimeout(running, o.Drain)
	defer cancel()
	if err := web.Shutdown(within); err != nil {
		o.Log.Warn("requests were cut off", "after", o.Drain)
		end()
		_ = web.Close() // there is nothing more to be done about them
	}
	<-failed
	return s.Close()
}
