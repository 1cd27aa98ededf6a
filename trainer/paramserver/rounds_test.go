package paramserver_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/trainer/paramserver"
	"github.com/clary-ml/clary/trainer/spec"
)

var optimizers = map[string]spec.Optimizer{
	"sgd":      {SGD: &spec.SGD{Rate: 0.1}},
	"momentum": {Momentum: &spec.Momentum{Rate: 0.1}},
	"adam":     {Adam: &spec.Adam{Rate: 0.1}},
}

// gang is servers that run in this process.
type gang struct {
	addresses []string
	options   paramserver.ServerOptions
	group     errgroup.Group
	ctx       context.Context
}

func serve(t testing.TB, servers int, o paramserver.ServerOptions) *gang {
	t.Helper()
	g := &gang{options: o, ctx: context.WithoutCancel(t.Context())}
	g.options.Servers = servers
	for i := range servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g.addresses = append(g.addresses, l.Addr().String())
		o := g.options
		o.Index = i
		g.group.Go(func() error { return paramserver.Serve(g.ctx, l, o) })
	}
	return g
}

func (g *gang) client(worker int) paramserver.ClientOptions {
	return paramserver.ClientOptions{
		Addresses: g.addresses, Worker: worker, Workers: g.options.Workers, Parameters: g.options.Parameters,
		Slots: g.options.Optimizer.Slots(), Digest: g.options.Digest, Grace: g.options.Grace,
	}
}

func gradient(n, worker int, step uint64) []float32 {
	r := rand.New(rand.NewPCG(uint64(worker), step))
	g := make([]float32, n)
	for i := range g {
		g[i] = float32(r.NormFloat64())
	}
	return g
}

// train runs one worker for so many steps and returns its weights and slots at the end.
func train(ctx context.Context, o paramserver.ClientOptions, begin paramserver.State, steps uint64) (end paramserver.State, err error) {
	c, err := paramserver.Dial(ctx, o)
	if err != nil {
		return end, err
	}
	defer c.Close()
	if o.Worker == 0 {
		if err := c.Initialize(ctx, begin); err != nil {
			return end, err
		}
	}
	weights := make([]float32, o.Parameters)
	step, err := c.Pull(ctx, weights)
	for ; err == nil && step < steps; step++ {
		var sum paramserver.Stats
		sum, err = c.PushPull(ctx, step, gradient(o.Parameters, o.Worker, step), weights, paramserver.Stats{Loss: 1, Rows: float64(o.Worker)})
		if want := float64(o.Workers); err == nil && (sum.Loss != want || sum.Rows != want*(want-1)/2) {
			err = fmt.Errorf("statistics %+v", sum)
		}
	}
	if err != nil {
		return end, err
	}
	slots, err := c.Slots(ctx)
	if err != nil {
		return end, err
	}
	return paramserver.State{Step: step, Weights: weights, Slots: slots}, c.Done(ctx)
}

// trainAll runs a whole gang and returns what worker 0 ended with.
func trainAll(t *testing.T, servers, workers, n int, o spec.Optimizer, begin paramserver.State, steps uint64, through func(string) string) paramserver.State {
	t.Helper()
	g := serve(t, servers, paramserver.ServerOptions{Workers: workers, Parameters: n, Optimizer: o, Digest: "d", Grace: 10 * time.Second})
	ends := make([]paramserver.State, workers)
	var group errgroup.Group
	for w := range workers {
		group.Go(func() (err error) {
			c := g.client(w)
			for i, a := range c.Addresses {
				if through != nil {
					c.Addresses = append(append(append([]string(nil), c.Addresses[:i]...), through(a)), c.Addresses[i+1:]...)
				}
			}
			ends[w], err = train(t.Context(), c, begin, steps)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal("workers:", err)
	}
	if err := g.group.Wait(); err != nil {
		t.Fatal("servers:", err)
	}
	for w, e := range ends {
		same(t, fmt.Sprintf("worker %d", w), e, ends[0])
	}
	return ends[0]
}

func same(t *testing.T, what string, got, want paramserver.State) {
	t.Helper()
	if got.Step != want.Step {
		t.Fatalf("%s: step %d, want %d", what, got.Step, want.Step)
	}
	pairs := append([][2][]float32(nil), [2][]float32{got.Weights, want.Weights})
	for i := range got.Slots {
		pairs = append(pairs, [2][]float32{got.Slots[i], want.Slots[i]})
	}
	for _, p := range pairs {
		for i := range p[0] {
			if p[0][i] != p[1][i] {
				t.Fatalf("%s: value %d is %v, want %v", what, i, p[0][i], p[1][i])
			}
		}
	}
}

func fresh(n int, o spec.Optimizer) paramserver.State {
	s := paramserver.State{Weights: gradient(n, 99, 0)}
	for range o.Slots() {
		s.Slots = append(s.Slots, make([]float32, n))
	}
	return s
}

// The number of servers makes no difference to any bit, nor does who comes first; and a
// training stopped in the middle and begun again from its state ends the same.
func TestModelDependsOnlyOnGradients(t *testing.T) {
	const n, workers, steps = 40_000, 3, 6
	for name, o := range optimizers {
		t.Run(name, func(t *testing.T) {
			want := trainAll(t, 1, workers, n, o, fresh(n, o), steps, nil)
			same(t, "three servers", trainAll(t, 3, workers, n, o, fresh(n, o), steps, nil), want)
			half := trainAll(t, 2, workers, n, o, fresh(n, o), steps/2, nil)
			same(t, "resumed", trainAll(t, 2, workers, n, o, half, steps, nil), want)
		})
	}
}

// One worker's rounds are the optimiser's formula.
func TestOptimizersByHand(t *testing.T) {
	g := gradient(1, 0, 0)[0]
	w := gradient(1, 99, 0)[0]
	adamStep := float32(0.1) // the first step of Adam is the rate, whatever the gradient
	if g < 0 {
		adamStep = -adamStep
	}
	for name, want := range map[string]float32{"sgd": w - 0.1*g, "momentum": w - 0.1*g, "adam": w - adamStep} {
		o := optimizers[name]
		got := trainAll(t, 1, 1, 1, o, fresh(1, o), 1, nil).Weights[0]
		if d := got - want; d > 1e-6 || d < -1e-6 {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// More servers than parameters is odd, and works.
func TestServersWithoutParametersTakePart(t *testing.T) {
	o := optimizers["momentum"]
	same(t, "five servers", trainAll(t, 5, 2, 3, o, fresh(3, o), 4, nil), trainAll(t, 1, 2, 3, o, fresh(3, o), 4, nil))
}

// cutter is a proxy that breaks each connection after some bytes.
type cutter struct {
	t     *testing.T
	cuts  atomic.Int64
	after func() int64
	only  int // so many connections are let through; 0 is no limit
	wait  sync.WaitGroup
}

func newCutter(t *testing.T, after func() int64) *cutter {
	p := &cutter{t: t, after: after}
	t.Cleanup(p.wait.Wait) // after the listeners are closed: clean-ups run last first
	return p
}

func (p *cutter) through(address string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Error(err)
		return address
	}
	p.t.Cleanup(func() { _ = l.Close() })
	p.wait.Go(func() {
		defer l.Close()
		for n := 0; p.only == 0 || n < p.only; n++ {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", address)
			if err != nil {
				_ = in.Close()
				continue
			}
			limit := p.after()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				p.wait.Go(func() {
					if n, _ := io.CopyN(pair[0], pair[1], limit); n == limit {
						p.cuts.Add(1)
					}
					_ = pair[0].Close()
					_ = pair[1].Close()
				})
			}
		}
	})
	return l.Addr().String()
}

// Connections that break anywhere, in a header or in the middle of a chunk, change no bit.
func TestBrokenConnectionsChangeNothing(t *testing.T) {
	const n, workers, steps = 70_000, 2, 8
	o := optimizers["adam"]
	want := trainAll(t, 2, workers, n, o, fresh(n, o), steps, nil)
	r := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	p := newCutter(t, func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return 500_000 + r.Int64N(900_000)
	})
	same(t, "cut", trainAll(t, 2, workers, n, o, fresh(n, o), steps, p.through), want)
	if cuts := p.cuts.Load(); cuts < 4 {
		t.Errorf("only %d connections were cut", cuts)
	}
}

// A worker that stays away ends the run for all, with its number.
func TestWorkerGoneEndsTheRun(t *testing.T) {
	g := serve(t, 2, paramserver.ServerOptions{Workers: 2, Parameters: 10, Optimizer: optimizers["sgd"], Digest: "d", Grace: 100 * time.Millisecond})
	var group errgroup.Group
	group.Go(func() error {
		_, err := train(t.Context(), g.client(0), fresh(10, g.options.Optimizer), 5)
		if err == nil || !strings.Contains(err.Error(), "worker 1 is gone") {
			return fmt.Errorf("worker 0 heard %v", err)
		}
		return nil
	})
	c, err := paramserver.Dial(t.Context(), g.client(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pull(t.Context(), make([]float32, 10)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := g.group.Wait(); err == nil || !strings.Contains(err.Error(), "worker 1 is gone") {
		t.Errorf("servers ended with %v", err)
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// A worker that fails tells everyone why, at once.
func TestFailureReachesEveryone(t *testing.T) {
	g := serve(t, 1, paramserver.ServerOptions{Workers: 2, Parameters: 10, Optimizer: optimizers["sgd"], Digest: "d", Grace: time.Minute})
	var group errgroup.Group
	group.Go(func() error {
		_, err := train(t.Context(), g.client(0), fresh(10, g.options.Optimizer), 5)
		if err == nil || !strings.Contains(err.Error(), "disk is full") {
			return fmt.Errorf("worker 0 heard %v", err)
		}
		return nil
	})
	c, err := paramserver.Dial(t.Context(), g.client(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Fail(fmt.Errorf("the disk is full"))
	c.Close()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if err := g.group.Wait(); err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("server ended with %v", err)
	}
}

// A server that cannot be reached any more ends the worker, with its number and address.
func TestServerGoneEndsTheWorker(t *testing.T) {
	g := serve(t, 1, paramserver.ServerOptions{Workers: 1, Parameters: 10, Optimizer: optimizers["sgd"], Digest: "d", Grace: 50 * time.Millisecond})
	o := g.client(0)
	p := newCutter(t, func() int64 { return 700 })
	p.only = 1
	o.Addresses = []string{p.through(g.addresses[0])}
	_, err := train(t.Context(), o, fresh(10, g.options.Optimizer), 1_000)
	if err == nil || !strings.Contains(err.Error(), "parameter server 0 at "+o.Addresses[0]+" is gone") {
		t.Errorf("ended with %v", err)
	}
	if err := g.group.Wait(); err == nil || !strings.Contains(err.Error(), "worker 0 is gone") {
		t.Errorf("server ended with %v", err)
	}
}

// A server told to stop asks the workers to, and they hear it with a round's answer.
func TestInterruptIsHeardByAllInOneRound(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	so := paramserver.ServerOptions{Servers: 1, Workers: 1, Parameters: 3, Optimizer: optimizers["sgd"], Digest: "d"}
	group.Go(func() error { return paramserver.Serve(ctx, l, so) })
	c, err := paramserver.Dial(t.Context(), paramserver.ClientOptions{Addresses: []string{l.Addr().String()}, Workers: 1, Parameters: 3, Digest: "d"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	weights := make([]float32, 3)
	if err := c.Initialize(t.Context(), fresh(3, so.Optimizer)); err != nil {
		t.Fatal(err)
	}
	for step := uint64(0); ; step++ {
		sum, err := c.PushPull(t.Context(), step, weights, weights, paramserver.Stats{})
		if err != nil {
			t.Fatal(err)
		}
		if sum.Interrupt > 0 {
			break
		}
		stop()
	}
	if err := c.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// A worker of another run, or with other numbers, is turned away at once.
func TestStrangersAreTurnedAway(t *testing.T) {
	g := serve(t, 1, paramserver.ServerOptions{Workers: 1, Parameters: 10, Optimizer: optimizers["sgd"], Digest: "d"})
	for name, change := range map[string]func(*paramserver.ClientOptions){
		"digest":     func(o *paramserver.ClientOptions) { o.Digest = "e" },
		"parameters": func(o *paramserver.ClientOptions) { o.Parameters = 11 },
		"workers":    func(o *paramserver.ClientOptions) { o.Workers = 2 },
		"servers":    func(o *paramserver.ClientOptions) { o.Addresses = append(o.Addresses, o.Addresses...) },
	} {
		o := g.client(0)
		change(&o)
		if c, err := paramserver.Dial(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another run") {
			t.Errorf("%s: %v", name, err)
			if c != nil {
				c.Close()
			}
		}
	}
	if _, err := train(t.Context(), g.client(0), fresh(10, g.options.Optimizer), 1); err != nil {
		t.Error(err)
	}
	if err := g.group.Wait(); err != nil {
		t.Error(err)
	}
}
