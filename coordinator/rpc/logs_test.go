package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
	"github.com/clary-ml/clary/storage/journal/archive"
	"github.com/clary-ml/clary/storage/journal/archive/archivetest"
	"github.com/clary-ml/clary/storage/object"
)

// agents are those of nodes that can be asked for logs.
type agents struct {
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func (a *agents) Conn(id string) (*grpc.ClientConn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if conn := a.conns[id]; conn != nil {
		return conn, nil
	}
	return nobody{}.Conn(id)
}

// logStores are the logs in the object store, by prefix.
type logStores struct {
	mu     sync.Mutex
	stores map[string]*archivetest.Store
}

func (l *logStores) at(prefix string) *archivetest.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stores == nil {
		l.stores = map[string]*archivetest.Store{}
	}
	if l.stores[prefix] == nil {
		l.stores[prefix] = &archivetest.Store{}
	}
	return l.stores[prefix]
}

func (l *logStores) below(uri object.URI) (archive.Store, error) { return l.at(uri.Key), nil }

// agent is one node's, which tells what tasks wrote.
type agent struct {
	claryv1.UnimplementedTaskLogsServer
	w      *world
	node   string
	server *grpc.Server

	mu      sync.Mutex
	tasks   map[string][]journal.Entry
	running map[string]bool
	changed chan struct{}
	asked   int
}

const logsPort = ":7421"

// node adds a node with an agent.
func (w *world) node(id string, number int) *agent {
	w.Helper()
	a := &agent{w: w, node: id, tasks: map[string][]journal.Entry{}, running: map[string]bool{}, changed: make(chan struct{})}
	ip := fmt.Sprintf("10.0.1.%d", number)
	w.propose(command.PutNode{Node: cluster.Node{ID: id, Address: ip, State: cluster.NodeReady, MilliCPU: 4000, Memory: 8 << 30, PortFirst: 20000, PortLast: 20999}})
	a.serve(ip)
	w.Cleanup(func() { a.server.Stop() })
	conn, err := grpc.NewClient("passthrough:///"+ip+logsPort, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(w.net.Host(server).Dial))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	w.agents.mu.Lock()
	defer w.agents.mu.Unlock()
	if w.agents.conns == nil {
		w.agents.conns = map[string]*grpc.ClientConn{}
	}
	w.agents.conns[id] = conn
	return a
}

func (a *agent) serve(ip string) {
	listener, err := a.w.net.Host(ip).Listen(ip + logsPort)
	if err != nil {
		a.w.Fatal(err)
	}
	a.server = grpc.NewServer()
	claryv1.RegisterTaskLogsServer(a.server, a)
	go func() { _ = a.server.Serve(listener) }()
}

// say has a task write lines; an instant is in seconds after the bubble's beginning.
func (a *agent) say(task string, entries ...journal.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tasks[task] = append(a.tasks[task], entries...)
	close(a.changed)
	a.changed = make(chan struct{})
}

// drop has the agent let go of a task's log.
func (a *agent) drop(task string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tasks, task)
}

// run says whether a task runs.
func (a *agent) run(task string, runs bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running[task] = runs
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) Read(request *claryv1.ReadLogsRequest, stream grpc.ServerStreamingServer[claryv1.ReadLogsResponse]) error {
	query, err := wire.LogQuery(request)
	if err != nil {
		return wire.ToStatus(err)
	}
	query.After, query.Streams = request.GetAfter(), request.GetStreams()
	name := request.GetTask()
	if request.GetRecord() == "metrics" {
		name = "metrics of " + name
	}
	for first := true; ; first = false {
		a.mu.Lock()
		entries, there := a.tasks[name]
		entries, changed, runs := slices.Clone(entries), a.changed, a.running[request.GetTask()]
		a.asked++
		a.mu.Unlock()
		if !there && first {
			return wire.ToStatus(fault.New(fault.NotFound, "task %s is not on this node", request.GetTask()))
		}
		if query, err = query.Cut(nil, func(part journal.Query, sink journal.Sink) error { return pick(entries, part, sink) }); err != nil {
			return err
		}
		err := pick(entries, query, func(batch []journal.Entry) error {
			query.After = batch[len(batch)-1].Time
			return stream.Send(&claryv1.ReadLogsResponse{Entries: wire.EntriesToProto(batch)})
		})
		if err != nil || !query.Follow || !runs {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func pick(entries []journal.Entry, query journal.Query, sink journal.Sink) error {
	selection := query.Select()
	var batch []journal.Entry
	for _, e := range entries {
		if e, ok := selection.Pick(e); ok {
			batch = append(batch, e)
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return sink(batch)
}

// at is a line at a second after a job's start.
func at(began time.Time, second int, stream, text string) journal.Entry {
	return journal.Entry{Time: began.Add(time.Duration(second) * time.Second).UnixNano(), Stream: stream, Text: []byte(text)}
}

// starts submits a job of n tasks, which start now, and returns them by node.
func (w *world) starts(name string, n int, nodes ...string) (tasks []cluster.Task, began time.Time) {
	w.Helper()
	spec := fmt.Sprintf(`{"program": {"command": ["true"]}, "instances": %d, "resources": {"cores": 4}}`, n)
	if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name, j.Spec = name, []byte(spec) }); err != nil {
		w.Fatal(err)
	}
	began = time.Now()
	for _, node := range nodes {
		task := w.on(name, node)
		began = time.Now()
		w.propose(command.ReportTasks{Node: node, Reports: []command.TaskReport{{
			Task: task.ID, Status: cluster.TaskStatus{State: cluster.TaskRunning, Started: began.UnixNano()},
		}}})
		tasks = append(tasks, task)
	}
	return tasks, began
}

// on waits for a job's task on a node.
func (w *world) on(name, node string) cluster.Task {
	w.Helper()
	for range 100 {
		snapshot, err := w.replica.Read(w.Context(), false)
		if err != nil {
			w.Fatal(err)
		}
		for task := range snapshot.TasksOn(node) {
			if task.Job == name {
				snapshot.Close()
				return task
			}
		}
		snapshot.Close()
		time.Sleep(10 * time.Millisecond)
	}
	w.Fatalf("%s is not placed on %s", name, node)
	return cluster.Task{}
}

// archived brings a task's log to the store, whole or what there was at an instant.
func (w *world) archived(task cluster.Task, whole bool, entries ...journal.Entry) {
	w.Helper()
	prefix := fmt.Sprintf("jobs/%s/attempts/%d/%s-%d/logs", task.Job, task.Attempt, task.Role, task.Index)
	store := w.logs.at(prefix)
	shipper := archive.Shipper{Store: store, Read: func(_ context.Context, query journal.Query, sink journal.Sink) error {
		return pick(entries, query, sink)
	}}
	if err := shipper.Ship(w.Context()); err != nil {
		w.Fatal(err)
	}
	if !whole {
		if err := store.Delete(w.Context(), "complete"); err != nil {
			w.Fatal(err)
		}
	}
}

// told is what a request for logs is answered with: "worker-0 text", and notes.
type told struct {
	lines, notes []string
	responses    int
}

func (w *world) ask(ctx context.Context, request *claryv1.LogsRequest, heard func(*told)) (*told, error) {
	request.Job = "digits"
	stream, err := claryv1.NewJobsClient(w.as(cluster.RoleViewer)).Logs(ctx, request)
	if err != nil {
		return nil, err
	}
	all := &told{}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, wire.FromStatus(err)
		}
		all.responses++
		for _, chunk := range response.GetChunks() {
			short := chunk.GetTask()[strings.LastIndexByte(chunk.GetTask(), '/')+1:]
			for _, e := range chunk.GetEntries() {
				all.lines = append(all.lines, short+" "+string(e.GetText()))
			}
			if chunk.GetNote() != "" {
				all.notes = append(all.notes, chunk.GetNote())
			}
		}
		if heard != nil {
			heard(all)
		}
	}
}

// logs wants the lines, and a note about each word.
func (w *world) wants(request *claryv1.LogsRequest, lines []string, notes ...string) {
	w.Helper()
	got, err := w.ask(w.Context(), request, nil)
	if err != nil {
		w.Errorf("%v: %v", request, err)
		return
	}
	if !slices.Equal(got.lines, lines) || len(got.notes) != len(notes) {
		w.Errorf("%v: told %q and %q, want %q and %q", request, got.lines, got.notes, lines, notes)
		return
	}
	for i, note := range notes {
		if !strings.Contains(got.notes[i], note) {
			w.Errorf("%v: the note is %q, want one of %q", request, got.notes[i], note)
		}
	}
}

func TestLogsOfTasksAreMergedByTimeAndAskedForByTimeStreamAndText(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node("n1", 1), w.node("n2", 2)
		tasks, began := w.starts("digits", 2, "n1", "n2")
		a.say(tasks[0].ID, at(began, 1, "stdout", "one"), at(began, 4, "stderr", "four"), at(began, 5, "stdout", "five"))
		b.say(tasks[1].ID, at(began, 2, "stdout", "two"), at(began, 3, "stdout", "three"), at(began, 6, "stdout", "six"))
		x, y := tasks[0].ID[len("digits/main/"):], tasks[1].ID[len("digits/main/"):]
		whole := []string{x + " one", y + " two", y + " three", x + " four", x + " five", y + " six"}
		second := func(n int) int64 { return began.Add(time.Duration(n) * time.Second).UnixNano() }
		w.wants(&claryv1.LogsRequest{}, whole)
		w.wants(&claryv1.LogsRequest{Since: second(2), Until: second(5)}, whole[1:4])
		w.wants(&claryv1.LogsRequest{Stderr: true}, whole[3:4])
		w.wants(&claryv1.LogsRequest{Stdout: true, Tail: 1}, whole[4:])
		w.wants(&claryv1.LogsRequest{Match: "^t|^f"}, whole[1:5])
		w.wants(&claryv1.LogsRequest{Task: strings.TrimSuffix(x, ".1")}, []string{whole[0], whole[3], whole[4]})
		// A second request goes on after what the first told.
		w.wants(&claryv1.LogsRequest{After: map[string]int64{tasks[0].ID: second(1), tasks[1].ID: second(3)}, Tail: 1}, whole[3:])
		for field, request := range map[string]*claryv1.LogsRequest{
			"match": {Match: "a(b"}, "until": {Since: second(2), Until: second(1)}, "since": {Since: -1}, "tail": {Tail: 1 << 30},
			`task: "workers" is no task of job digits: name a role of it (worker)`: {Job: "digits", Task: "workers"},
			"name: there is no job": {Job: "another"},
		} {
			stream, err := claryv1.NewJobsClient(w.as(cluster.RoleViewer)).Logs(w.Context(), request)
			if err == nil {
				_, err = stream.Recv()
			}
			if err = wire.FromStatus(err); !strings.Contains(err.Error(), field) || !fault.Is(err, fault.Invalid) && request.GetJob() != "another" {
				w.Errorf("%v: %v", request, err)
			}
		}
	})
}

func TestManyLinesTravelInFewMessages(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node("n1", 1), w.node("n2", 2)
		tasks, began := w.starts("digits", 2, "n1", "n2")
		for i, agent := range []*agent{a, b} {
			var lines []journal.Entry
			for n := range 10_000 {
				lines = append(lines, journal.Entry{Time: began.UnixNano() + int64(2*n+i) + 1, Stream: "stdout", Text: []byte("a line")})
			}
			agent.say(tasks[i].ID, lines...)
		}
		got, err := w.ask(w.Context(), &claryv1.LogsRequest{}, nil)
		if err != nil || len(got.lines) != 20_000 || got.responses > 200 {
			w.Fatalf("%d lines in %d messages, %v", len(got.lines), got.responses, err)
		}
		if got.lines[0] == got.lines[1] {
			w.Error("tasks that write in turn are not told in turn")
		}
	})
}

func TestMoreLogsThanACoordinatorHasMemoryForAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.node("n1", 1)
		tasks, began := w.starts("digits", 1, "n1")
		a.run(tasks[0].ID, true)
		a.say(tasks[0].ID, at(began, 1, "stdout", "one"))
		const most = 256
		ctx, cancel := context.WithCancel(w.Context())
		heard := make(chan struct{}, most)
		var following sync.WaitGroup
		for range most {
			following.Go(func() {
				if _, err := w.ask(ctx, &claryv1.LogsRequest{Follow: true}, func(*told) { heard <- struct{}{} }); ctx.Err() == nil {
					w.Errorf("it was not followed to the end: %v", err)
					heard <- struct{}{}
				}
			})
			<-heard // one connects after the other: a listener takes only so many at once
		}
		if _, err := w.ask(w.Context(), &claryv1.LogsRequest{}, nil); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "shows 256 logs at once") {
			w.Errorf("one more: %v", err)
		}
		cancel()
		following.Wait()
		synctest.Wait() // until the server has noticed
		a.run(tasks[0].ID, false)
		if got, err := w.ask(w.Context(), &claryv1.LogsRequest{}, nil); err != nil || len(got.lines) != 1 {
			w.Errorf("after they have ended: %+v, %v", got, err)
		}
	})
}

// Each task's log that is read may hold what its agent sent ahead, while nobody reads what is told: it is their number that costs memory.
func TestLogsOfMoreTasksThanACoordinatorHasMemoryForAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		const tasksEach, most = 8, 1024
		var nodes []string
		var agents []*agent
		for i := range tasksEach {
			id := fmt.Sprint("n", i+1)
			agents = append(agents, w.node(id, i+1))
			nodes = append(nodes, id)
		}
		tasks, began := w.starts("digits", tasksEach, nodes...)
		for i, task := range tasks {
			a := agents[i]
			a.run(task.ID, true)
			a.say(task.ID, at(began, 1, "stdout", "one"))
		}
		ctx, cancel := context.WithCancel(w.Context())
		heard := make(chan struct{}, most)
		var following sync.WaitGroup
		for range most / tasksEach {
			following.Go(func() {
				_, err := w.ask(ctx, &claryv1.LogsRequest{Follow: true}, func(all *told) {
					if len(all.lines) == tasksEach {
						heard <- struct{}{}
					}
				})
				if ctx.Err() == nil {
					w.Errorf("it was not followed to the end: %v", err)
					heard <- struct{}{}
				}
			})
			<-heard // one connects after the other: a listener takes only so many at once
		}
		for _, follow := range []bool{true, false} {
			if _, err := w.ask(w.Context(), &claryv1.LogsRequest{Follow: follow}, nil); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "reads the logs of 1024 tasks at once") {
				w.Errorf("one more, followed %t: %v", follow, err)
			}
		}
		cancel()
		following.Wait()
		synctest.Wait() // until the server has noticed
		for i, task := range tasks {
			agents[i].run(task.ID, false)
		}
		if got, err := w.ask(w.Context(), &claryv1.LogsRequest{}, nil); err != nil || len(got.lines) != tasksEach {
			w.Errorf("after they have ended: %+v, %v", got, err)
		}
	})
}

func TestLogsComeFromTheStoreOnceAnAgentHasThemNoMore(t *testing.T) {
	inWorld(t, func(w *world) {
		w.node("n1", 1)
		tasks, began := w.starts("digits", 1, "n1")
		// The first line is of an earlier job of the same name.
		w.archived(tasks[0], true, at(began, -60, "stdout", "of another"), at(began, 1, "stdout", "one"), at(began, 2, "stderr", "two"))
		w.wants(&claryv1.LogsRequest{}, []string{"worker-0.1 one", "worker-0.1 two"})
		w.wants(&claryv1.LogsRequest{Stderr: true, Tail: 5}, []string{"worker-0.1 two"})
		w.wants(&claryv1.LogsRequest{Match: "^o", Since: began.UnixNano()}, []string{"worker-0.1 one"})
	})
}

func TestOfALostNodeIsToldWhatTheStoreHasAndThatTheRestIsLost(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.node("n1", 1)
		tasks, began := w.starts("digits", 1, "n1")
		a.say(tasks[0].ID, at(began, 1, "stdout", "one"), at(began, 2, "stdout", "two"))
		w.archived(tasks[0], false, at(began, 1, "stdout", "one"))
		a.server.Stop()
		w.wants(&claryv1.LogsRequest{}, []string{"worker-0.1 one"}, "node n1 cannot be asked")
		w.propose(command.SetNodeState{Node: "n1", State: cluster.NodeLost})
		w.wants(&claryv1.LogsRequest{}, []string{"worker-0.1 one"}, "its node is lost") // the next attempt has not begun
		w.wants(&claryv1.LogsRequest{Attempt: 1}, []string{"worker-0.1 one"}, "its node is lost")
		w.wants(&claryv1.LogsRequest{Attempt: 1, Follow: true, Until: time.Now().Add(5 * time.Second).UnixNano()}, []string{"worker-0.1 one"}, "its node is lost")
	})
}

func TestAFollowedLogGoesOnWhenItsAgentIsStartedAgainAndWhenItLetsGo(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.node("n1", 1)
		tasks, began := w.starts("digits", 1, "n1")
		id := tasks[0].ID
		a.run(id, true)
		a.say(id, at(began, 1, "stdout", "one"))
		done := map[int]bool{}
		ctx, cancel := context.WithCancel(w.Context())
		defer cancel()
		got, err := w.ask(ctx, &claryv1.LogsRequest{Follow: true, Tail: 1}, func(so *told) {
			n := len(so.lines)
			if done[n] {
				return
			}
			done[n] = true
			switch n {
			case 1: // the agent is killed, and the next one goes on
				a.server.Stop()
				a.serve("10.0.1.1")
				a.say(id, at(began, 2, "stdout", "two"))
			case 2: // and when the task has ended its log goes to the store
				w.archived(tasks[0], true, at(began, 1, "stdout", "one"), at(began, 2, "stdout", "two"), at(began, 3, "stdout", "three"))
				a.server.Stop()
				a.drop(id)
				a.serve("10.0.1.1")
			case 3:
				cancel()
			}
		})
		if !slices.Equal(got.lines, []string{"worker-0.1 one", "worker-0.1 two", "worker-0.1 three"}) || len(got.notes) > 0 {
			w.Errorf("told %q and %q, %v", got.lines, got.notes, err)
		}
	})
}

func TestLogsOfAnAttemptThatIsNotOnRecordAnyMoreAreInTheStore(t *testing.T) {
	inWorld(t, func(w *world) {
		if _, err := w.submit(cluster.RoleUser, nil); err != nil {
			w.Fatal(err)
		}
		snapshot, err := w.replica.Read(w.Context(), false)
		if err != nil {
			w.Fatal(err)
		}
		job, _ := snapshot.Job("digits")
		gang, _ := snapshot.Gang("digits/main")
		snapshot.Close()
		old := cluster.Task{Job: "digits", Role: "worker", Attempt: 1}
		began := time.Now()
		w.archived(old, true, at(began, 1, "stdout", "of the first"))
		for _, name := range w.logs.at("jobs/digits/attempts/1/worker-0/logs").Names() { // as a listing of the attempt shows it
			if err := w.logs.at("jobs/digits/attempts/1/").Put(w.Context(), "worker-0/logs/"+name, nil); err != nil {
				w.Fatal(err)
			}
		}
		for range 4 {
			job.Attempt, gang.Attempt = job.Attempt+1, gang.Attempt+1
			w.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}, {Expect: gang.Revision, Gang: &gang}}})
			snapshot, err := w.replica.Read(w.Context(), false)
			if err != nil {
				w.Fatal(err)
			}
			job, _ = snapshot.Job("digits")
			gang, _ = snapshot.Gang("digits/main")
			snapshot.Close()
		}
		w.wants(&claryv1.LogsRequest{Attempt: 1}, []string{"worker-0.1 of the first"})
		w.wants(&claryv1.LogsRequest{Attempt: 2}, nil)
		w.wants(&claryv1.LogsRequest{}, nil)
	})
}

var _ rpc.Conns = (*agents)(nil)
