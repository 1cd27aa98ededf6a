package script

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver"
)

// process is one run of the script.
type process struct {
	command *exec.Cmd
	in, out *os.File // requests to it, answers from it
	said    *tail
	ended   chan struct{}
	once    sync.Once
}

// A frame's header is at most maxHeader bytes, its body maxBody.
const (
	maxHeader = 1 << 20
	maxBody   = 1 << 30
)

// leaveWithin is how long a process may take to end once there are no more requests.
const leaveWithin = 5 * time.Second

// header is that of a frame, to the script or from it.
type header struct {
	ContentType string `json:"content_type"`
	Accept      string `json:"accept"`
	Ready       bool   `json:"ready,omitempty"`
	More        bool   `json:"more,omitempty"` // this is a part, and another frame follows
	Error       string `json:"error,omitempty"`
	Kind        string `json:"kind,omitempty"`
	Step        string `json:"step,omitempty"`
}

// start runs the script until its model is loaded.
func (p *Program) start(ctx context.Context) (*process, error) {
	requests, in, err := os.Pipe()
	if err != nil {
		return nil, fault.New(fault.Internal, "start the script: %w", err)
	}
	out, answers, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fault.New(fault.Internal, "start the script: %w", err), requests.Close(), in.Close())
	}
	one := &process{in: in, out: out, said: &tail{to: p.options.Out}, ended: make(chan struct{})}
	one.command = exec.Command(p.options.Python, "-u", filepath.Join(p.folder, "driver.py"), p.options.Script, p.options.ModelDir)
	one.command.ExtraFiles = []*os.File{requests, answers}
	one.command.Stdout, one.command.Stderr, one.command.Env = one.said, one.said, p.options.Env
	one.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	one.command.WaitDelay = time.Second // for what its children hold open
	err = one.command.Start()
	_, _ = requests.Close(), answers.Close() // the process has its own
	if err != nil {
		_, _ = in.Close(), out.Close()
		return nil, fault.New(fault.NotFound, "start the script: %w: name an interpreter that is there", err)
	}
	go func() {
		_ = one.command.Wait() // exit says how it ended
		close(one.ended)
	}()
	within, cancel := context.WithTimeout(ctx, p.options.StartWithin)
	defer cancel()
	h, _, err := one.receive(within)
	switch {
	case err == nil && h.Ready:
		return one, nil
	case within.Err() != nil && ctx.Err() == nil:
		err = fault.New(fault.Unready, "the script was not ready within %v: model_fn hangs, or takes longer%s", p.options.StartWithin, one.said)
	case err == nil:
		err = errGarbage("something else than that it is ready", one.said)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrClosed):
		err = one.exit("before it was ready")
	}
	one.kill()
	return nil, err
}

// call gives the process a request. usable is false when it cannot be given another.
func (one *process) call(r *request) (a answer, usable bool) {
	if r.ctx.Err() != nil {
		return answer{err: context.Cause(r.ctx)}, true // nobody waits for it any more
	}
	err := one.send(r.ctx, header{ContentType: r.contentType, Accept: r.accept}, r.body)
	var h header
	var body []byte
	if err == nil {
		h, body, err = one.receive(r.ctx)
	}
	if err == nil && h.More {
		return one.stream(r, h, body)
	}
	return one.told(r, h, body, err)
}

// told is what a frame that is the last says, or that there was none.
func (one *process) told(r *request, h header, body []byte, err error) (a answer, usable bool) {
	switch {
	case err == nil && h.Error == "":
		return answer{body: body, contentType: h.ContentType}, true
	case err == nil:
		return answer{err: h.fault()}, true
	case r.ctx.Err() != nil:
		// It may be at this request for ever: only its end makes it free again.
		return answer{err: fault.New(fault.Unready, "the script did not answer in time and was started again: %w", context.Cause(r.ctx))}, false
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE):
		return answer{err: one.exit("while it was at a request")}, false
	}
	return answer{err: err}, false
}

// abandoned is how long a script may go on with an answer that nobody wants any more, before it is ended
// for it.
const abandoned = 5 * time.Second

// stream hands an answer's parts on as they come. When nobody takes them any more the rest is let go by,
// if it comes soon.
func (one *process) stream(r *request, h header, body []byte) (answer, bool) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.ctx))
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() {
		timer := time.AfterFunc(abandoned, func() { cancel(context.Cause(r.ctx)) })
		context.AfterFunc(ctx, func() { timer.Stop() })
	})()
	var err error
	for err == nil && h.More {
		select {
		case r.parts <- answer{body: body, contentType: h.ContentType}:
		case <-r.ctx.Done():
		}
		h, body, err = one.receive(ctx)
	}
	return one.told(r, h, body, err)
}

func (h header) fault() error {
	switch h.Kind {
	case "invalid":
		return fault.New(fault.Invalid, "the script's %s: %s", h.Step, h.Error)
	case "unsupported":
		return fault.New(fault.Invalid, "%w: the script's %s: %s", modelserver.ErrUnsupported, h.Step, h.Error)
	}
	return fault.New(fault.Internal, "the script's %s failed: %s", h.Step, h.Error)
}

func errGarbage(what string, said *tail) error {
	return fault.New(fault.Internal, "the script's process answered garbage, %s: does the script write to descriptor 4?%s", what, said)
}

// send writes a frame, at most until ctx ends.
func (one *process) send(ctx context.Context, h header, body []byte) error {
	head, err := json.Marshal(h)
	if err != nil || len(body) > maxBody {
		return fault.New(fault.Invalid, "the request is too large for the script")
	}
	defer until(ctx, one.in.SetWriteDeadline)()
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, 8+len(head)), uint32(len(head)))
	frame = append(binary.LittleEndian.AppendUint32(frame, uint32(len(body))), head...)
	if _, err = one.in.Write(frame); err == nil {
		_, err = one.in.Write(body)
	}
	return err
}

// until ends reading or writing with ctx, until it is called off.
func until(ctx context.Context, deadline func(time.Time) error) (off func()) {
	passed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = deadline(time.Unix(1, 0)) // a pipe has deadlines
		close(passed)
	})
	return func() {
		if !stop() {
			<-passed
			_ = deadline(time.Time{})
		}
	}
}

// receive reads a frame, at most until ctx ends.
func (one *process) receive(ctx context.Context) (h header, body []byte, err error) {
	defer until(ctx, one.out.SetReadDeadline)()
	var lengths [8]byte
	if _, err := io.ReadFull(one.out, lengths[:]); err != nil {
		return h, nil, err
	}
	head, size := binary.LittleEndian.Uint32(lengths[:]), binary.LittleEndian.Uint32(lengths[4:])
	if head > maxHeader || size > maxBody {
		return h, nil, errGarbage("a frame of impossible length", one.said)
	}
	text := make([]byte, head)
	if _, err := io.ReadFull(one.out, text); err != nil {
		return h, nil, err
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, nil, errGarbage("a header that is no JSON", one.said)
	}
	// It grows as it comes: a length alone takes no memory.
	var buffer bytes.Buffer
	if n, err := io.CopyN(&buffer, one.out, int64(size)); err != nil {
		if n > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, err
	}
	return h, buffer.Bytes(), nil
}

// exit says how the process ended.
func (one *process) exit(when string) error {
	select {
	case <-one.ended:
	case <-time.After(leaveWithin): // it has closed its end and goes on
		return fault.New(fault.Internal, "the script's process closed its connection %s%s", when, one.said)
	}
	return fault.New(fault.Internal, "the script's process ended %s: %s%s", when, one.command.ProcessState, one.said)
}

// leave lets the process end by itself.
func (one *process) leave() {
	_ = one.in.Close()
	select {
	case <-one.ended:
	case <-time.After(leaveWithin):
	}
}

// kill ends the process and what it has started, and waits for it.
func (one *process) kill() {
	one.once.Do(func() {
		_ = syscall.Kill(-one.command.Process.Pid, syscall.SIGKILL) // it may be gone
		<-one.ended
		_, _ = one.in.Close(), one.out.Close()
	})
}

// tail hands on what a script writes, and keeps the end for errors.
type tail struct {
	to   io.Writer
	mu   sync.Mutex
	kept []byte
}

const keptBytes = 2000

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept = append(t.kept, p...); len(t.kept) > keptBytes {
		t.kept = append([]byte(nil), t.kept[len(t.kept)-keptBytes:]...)
	}
	_, _ = t.to.Write(p) // that nobody listens is no reason for the script to end
	return len(p), nil
}

// String is the end of what was written, for the end of an error.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.kept), ""))
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	return "\nit wrote: " + strings.Join(lines[max(0, len(lines)-8):], "\n")
}
