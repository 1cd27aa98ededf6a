package rpc_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/object"
)

func (w *world) endpoints(who string) claryv1.EndpointsClient {
	return claryv1.NewEndpointsClient(w.as(who))
}

// twoVariants are blue and green, of a program that is a server.
const twoVariants = `{"variants": [{"name": "blue", "weight": 90, "replicas": 2, "program": {"command": ["serve"]}, "resources": {"cores": 1}},
	{"name": "green", "weight": 10, "program": {"command": ["serve"]}, "resources": {"cores": 1}}]}`

// deployed has a node of four cores, and an endpoint there whose replicas have begun.
func (w *world) deployed(name, spec string) {
	w.Helper()
	w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "10.0.0.9", State: cluster.NodeReady, MilliCPU: 4000, Memory: 64 << 30, PortFirst: 1000, PortLast: 2000}})
	if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name, j.Kind, j.Spec = name, cluster.KindEndpoint, []byte(spec) }); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
}

// serves has a replica's first task run and answer.
func (w *world) serves(endpoint, gang string) string {
	w.Helper()
	task := fmt.Sprintf("%s/%s/server-0.1", endpoint, gang)
	now := time.Now().UnixNano()
	w.propose(command.ReportTasks{Node: "n1", Reports: []command.TaskReport{{Task: task, Status: cluster.TaskStatus{State: cluster.TaskRunning, Started: now, Healthy: now}}}})
	synctest.Wait()
	return task
}

func (w *world) endpoint(name string) *claryv1.EndpointView {
	w.Helper()
	view, err := w.endpoints(cluster.RoleViewer).Get(w.Context(), &claryv1.GetEndpointRequest{Name: name})
	if err != nil {
		w.Fatal(err)
	}
	return view
}

// replicaIn is one of a view, by its gang.
func replicaIn(view *claryv1.EndpointView, gang string) *claryv1.ReplicaView {
	for _, r := range view.GetReplicas() {
		if r.GetGang() == gang {
			return r
		}
	}
	return nil
}

func TestAnEndpointIsShownWithItsReplicasAndWhatRoutersSee(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deployed("churn", strings.Replace(twoVariants, `"replicas": 2`, `"replicas": 4`, 1))
		task := w.serves("churn", "blue-1-0")
		w.propose(command.ReportTasks{Node: "n1", Reports: []command.TaskReport{{Task: "churn/blue-1-1/server-0.1", Status: cluster.TaskStatus{State: cluster.TaskFailed, Reason: "exit code 7", ExitCode: 7}}}})
		synctest.Wait()
		w.traffic.routers = []rpc.Router{{ID: "c1", URL: "https://10.0.0.1:7424"}, {ID: "n1", URL: "https://10.0.0.9:7424", Ingress: true}}
		w.traffic.see("churn", rpc.Seen{
			Known: true, Replicas: map[string]rpc.ReplicaSeen{task: {InFlight: 3, Ejected: true, Why: "5 errors in a row"}},
			Fleets: []rpc.FleetSeen{{Variant: "blue", Generation: 1, Requests: 12.5, P99: time.Second, Shadow: &rpc.FleetSeen{Requests: 1}}},
		})
		view := w.endpoint("churn")
		if len(view.GetReplicas()) != 5 || len(view.GetRouters()) != 2 || !view.GetRouters()[1].GetIngress() || !view.GetKnown() {
			w.Fatalf("%v", view)
		}
		if f := view.GetFigures()[0]; f.GetRequests() != 12.5 || f.GetP99() != int64(time.Second) || f.GetShadow().GetRequests() != 1 {
			w.Errorf("figures: %v", f)
		}
		if r := replicaIn(view, "blue-1-0"); r.GetState() != "healthy" || r.GetNode() != "n1" || r.GetInFlight() != 3 || !r.GetEjected() || r.GetEjectedWhy() != "5 errors in a row" || r.GetTask() != task {
			w.Errorf("a healthy replica: %v", r)
		}
		if r := replicaIn(view, "blue-1-1"); r.GetFailedTask() != "churn/blue-1-1/server-0.1" || r.GetFailure() != "exit code 7" || r.GetAttempt() != 2 || r.GetState() == "healthy" {
			w.Errorf("one that failed: %v", r)
		}
		starting, waiting := 0, 0
		for _, r := range view.GetReplicas() {
			switch r.GetState() {
			case "starting":
				starting++
			case "waiting":
				if waiting++; !strings.Contains(r.GetReason(), "core") {
					w.Errorf("it waits and says %q", r.GetReason())
				}
			}
		}
		if waiting == 0 || starting == 0 {
			w.Errorf("%d start and %d wait, of five on a node with room for four: %v", starting, waiting, view.GetReplicas())
		}
		list, err := w.endpoints(cluster.RoleViewer).List(w.Context(), &claryv1.ListEndpointsRequest{})
		if err != nil || len(list.GetEndpoints()) != 1 || list.GetEndpoints()[0].GetEndpoint().GetSpec() != nil || len(list.GetEndpoints()[0].GetReplicas()) != 5 {
			w.Errorf("%v, %v", list, err)
		}
		if answer, err := w.endpoints(cluster.RoleUser).Routers(w.Context(), &claryv1.ListRoutersRequest{}); err != nil || len(answer.GetRouters()) != 2 {
			w.Errorf("%v, %v", answer, err)
		}
	})
}

func TestARefusedChangeOfAnEndpointChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deployed("churn", twoVariants)
		if _, err := w.submit(cluster.RoleUser, nil); err != nil {
			w.Fatal(err)
		}
		other := w.user("eve", cluster.RoleUser)
		synctest.Wait()
		before := w.revision()
		three := int32(3)
		weights := func(who, name string, weights map[string]float64) func() error {
			return func() error {
				_, err := w.endpoints(who).Weights(w.Context(), &claryv1.SetWeightsRequest{Name: name, Weights: weights})
				return err
			}
		}
		scale := func(who, name string, variants ...*claryv1.VariantScale) func() error {
			return func() error {
				_, err := w.endpoints(who).Scale(w.Context(), &claryv1.ScaleEndpointRequest{Name: name, Variants: variants})
				return err
			}
		}
		update := func(who string, request *claryv1.UpdateEndpointRequest) func() error {
			return func() error { _, err := w.endpoints(who).Update(w.Context(), request); return err }
		}
		rollback := func(who string, request *claryv1.RollbackEndpointRequest) func() error {
			return func() error { _, err := w.endpoints(who).Rollback(w.Context(), request); return err }
		}
		compare := func(who, spec string) func() error {
			return func() error {
				_, err := w.endpoints(who).Experiment(w.Context(), &claryv1.ExperimentRequest{Name: "churn", Spec: []byte(spec)})
				return err
			}
		}
		user := cluster.RoleUser
		for name, row := range map[string]struct {
			ask  func() error
			kind fault.Kind
			want string
		}{
			"by a viewer":                {weights(cluster.RoleViewer, "churn", map[string]float64{"blue": 1}), fault.Denied, "viewer"},
			"by another user":            {weights(other, "churn", map[string]float64{"blue": 1}), fault.Denied, "belongs to the-user"},
			"of nothing":                 {weights(user, "none", map[string]float64{"blue": 1}), fault.NotFound, `no "none"`},
			"of another kind":            {weights(user, "digits", map[string]float64{"blue": 1}), fault.Invalid, "of kind training"},
			"no weights":                 {weights(user, "churn", nil), fault.Invalid, "at least one of blue, green"},
			"an unknown variant":         {weights(user, "churn", map[string]float64{"blue": 1, "red": 1}), fault.Invalid, `"red" is no variant`},
			"weights of 0":               {weights(user, "churn", map[string]float64{"blue": 0, "green": 0}), fault.Invalid, "all be 0"},
			"a negative weight":          {weights(user, "churn", map[string]float64{"blue": -1}), fault.Invalid, "out of range"},
			"no scale":                   {scale(user, "churn"), fault.Invalid, "variants: is empty"},
			"a scale without a count":    {scale(user, "churn", &claryv1.VariantScale{Variant: "blue"}), fault.Invalid, "either replicas, or min and max"},
			"bounds of what has a count": {scale(user, "churn", &claryv1.VariantScale{Variant: "blue", Max: &three}), fault.Invalid, "does not scale by itself"},
			"one good and one bad": {
				scale(user, "churn", &claryv1.VariantScale{Variant: "blue", Replicas: &three}, &claryv1.VariantScale{Variant: "red", Replicas: &three}), fault.Invalid, `"red" is none`,
			},
			"a scale by another user": {scale(other, "churn", &claryv1.VariantScale{Replicas: &three}), fault.Denied, "belongs to the-user"},
			"rubbish":                 {update(user, &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte("{")}), fault.Invalid, "spec"},
			"a mistake": {
				update(user, &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(`{"variants": [{"wait": 1}]}`)}), fault.Invalid, "spec.variants[0].wait",
			},
			"what could never run": {
				update(user, &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(`{"variants": [{"program": {"command": ["serve"]}, "resources": {"cores": 99}}]}`)}), fault.Exhausted, "could never run",
			},
			"a secret that is not there": {
				update(user, &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(`{"variants": [{"program": {"command": ["serve"]}, "secrets": [{"name": "key", "env": "KEY"}]}]}`)}), fault.Invalid, "no secret",
			},
			"a model that is not there": {
				update(user, &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(`{"variants": [{"model": "model://none@1"}]}`)}), fault.NotFound, "none",
			},
			"on what has changed":                 {update(user, &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(twoVariants), Expect: 7}), fault.Conflict, "expect: generation 7 is not the newest of endpoint churn, 1 is"},
			"a dry run":                           {update(user, &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(`{"variants": [{"program": {"command": ["other"]}}]}`), DryRun: true}), 0, ""},
			"no way back":                         {rollback(user, &claryv1.RollbackEndpointRequest{Name: "churn"}), fault.Conflict, "nothing to go back to"},
			"a comparison by another user":        {compare(other, `{"metric": "latency"}`), fault.Denied, "belongs to the-user"},
			"a comparison by a viewer":            {compare(cluster.RoleViewer, `{"metric": "latency"}`), fault.Denied, "viewer"},
			"a comparison by nothing":             {compare(user, `{"metric": "speed"}`), fault.Invalid, `experiment: metric: "speed" is unknown`},
			"a comparison of rubbish":             {compare(user, `{"metrik": 1}`), fault.Invalid, "metrik"},
			"the end of no comparison":            {compare(user, ""), fault.Conflict, "no experiment is in progress"},
			"a comparison with what is not there": {compare(user, `{"metric": "errors", "a": "blue", "b": "red"}`), fault.Invalid, `"red" is no variant`},
			"back from elsewhere":                 {rollback(user, &claryv1.RollbackEndpointRequest{Name: "churn", Expect: 3}), fault.Conflict, "expect: generation 3"},
		} {
			err := wire.FromStatus(row.ask())
			if row.want == "" && err != nil || row.want != "" && (!fault.Is(err, row.kind) || !strings.Contains(err.Error(), row.want)) {
				w.Errorf("%s: %v", name, err)
			}
		}
		if after := w.revision(); after != before {
			w.Errorf("revision %d became %d", before, after)
		}
	})
}

func TestVariantsAreComparedUntilTheComparisonEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deployed("churn", twoVariants)
		client := w.endpoints(cluster.RoleUser)
		begin := &claryv1.ExperimentRequest{Name: "churn", Spec: []byte(`{"metric": "errors", "margin": 0.01, "a": "blue", "b": "green"}`)}
		view, err := client.Experiment(w.Context(), begin)
		if err != nil {
			w.Fatal(err)
		}
		if x := view.GetEndpoint().GetExperiment(); x.GetStarted() == 0 || x.GetEnded() != 0 || x.GetBy() != "the-user" || !strings.Contains(string(x.GetSpec()), `"b":"green"`) {
			w.Errorf("it began as %v", x)
		}
		if again, err := client.Experiment(w.Context(), begin); err != nil || again.GetEndpoint().GetRevision() != view.GetEndpoint().GetRevision() {
			w.Errorf("the same again, whose answer was lost: %v, %v", again, err)
		}
		other := &claryv1.ExperimentRequest{Name: "churn", Spec: []byte(`{"metric": "latency"}`)}
		if _, err := client.Experiment(w.Context(), other); !fault.Is(wire.FromStatus(err), fault.Conflict) {
			w.Errorf("a second one: %v", err)
		}
		view, err = client.Experiment(w.Context(), &claryv1.ExperimentRequest{Name: "churn", Reason: "enough"})
		if err != nil {
			w.Fatal(err)
		}
		if x := view.GetEndpoint().GetExperiment(); x.GetEnded() == 0 || x.GetVerdict() != "stopped by the-user: enough" {
			w.Errorf("it ended as %v", x)
		}
		if _, err := client.Experiment(w.Context(), &claryv1.ExperimentRequest{Name: "churn", Reason: "enough"}); err != nil {
			w.Errorf("the same again, whose answer was lost: %v", err)
		}
		if _, err := client.Experiment(w.Context(), &claryv1.ExperimentRequest{Name: "churn", Reason: "once more"}); !fault.Is(wire.FromStatus(err), fault.Conflict) {
			w.Errorf("one that is over was stopped: %v", err)
		}
	})
}

func TestChangesAtTheSameTimeAreAllMade(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deployed("churn", twoVariants)
		client := w.endpoints(cluster.RoleUser)
		var asking sync.WaitGroup
		const n = 8
		for i := range n {
			asking.Go(func() {
				if _, err := client.Weights(w.Context(), &claryv1.SetWeightsRequest{Name: "churn", Weights: map[string]float64{"green": float64(i + 1)}}); err != nil {
					w.Error(err)
				}
			})
			asking.Go(func() {
				count := int32(1 + i%2)
				if _, err := client.Scale(w.Context(), &claryv1.ScaleEndpointRequest{Name: "churn", Variants: []*claryv1.VariantScale{{Variant: "blue", Replicas: &count}}}); err != nil {
					w.Error(err)
				}
			})
		}
		asking.Wait()
		made := map[string]int{}
		for _, note := range w.endpoint("churn").GetEndpoint().GetNotes() {
			made[note.GetWhat()+note.GetBy()]++
		}
		if made["weightsthe-user"] != n || made["scaledthe-user"] != n {
			w.Errorf("%v were made of %d and %d", made, n, n)
		}
	})
}

func TestAnUpdateThatIsAskedForTwiceIsOneAndOverwritesNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deployed("churn", twoVariants)
		for _, gang := range []string{"blue-1-0", "blue-1-1", "green-1-0"} {
			w.serves("churn", gang)
		}
		client := w.endpoints(cluster.RoleUser)
		second := &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(strings.ReplaceAll(twoVariants, `["serve"]`, `["serve", "2"]`)), Expect: 1}
		for range 2 {
			view, err := client.Update(w.Context(), second)
			if err != nil || view.GetEndpoint().GetLast() != 2 || view.GetEndpoint().GetRollout().GetTo() != 2 {
				w.Fatalf("%v: %v", err, view.GetEndpoint().GetRollout())
			}
		}
		third := &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(strings.ReplaceAll(twoVariants, `["serve"]`, `["serve", "3"]`)), Expect: 1}
		if _, err := client.Update(w.Context(), third); !fault.Is(wire.FromStatus(err), fault.Conflict) {
			w.Errorf("who has not seen the newest: %v", err)
		}
		third.Expect = 2
		if _, err := client.Update(w.Context(), third); !fault.Is(wire.FromStatus(err), fault.Conflict) || !strings.Contains(err.Error(), "in progress") {
			w.Errorf("into another: %v", err)
		}
		back := &claryv1.RollbackEndpointRequest{Name: "churn", Expect: 2, Updating: true, Reason: "no"}
		for range 2 {
			if _, err := client.Rollback(w.Context(), back); err != nil {
				w.Fatal(err)
			}
			synctest.Wait()
		}
		if e := w.endpoint("churn").GetEndpoint(); e.GetGeneration() != 1 || e.GetLast() != 2 {
			w.Errorf("at %d of %d", e.GetGeneration(), e.GetLast())
		}
	})
}

func TestAnUpdateServesWhatItsReferenceMeantThen(t *testing.T) {
	inWorld(t, func(w *world) {
		w.made("digits")
		for range 1 {
			if _, _, err := w.register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Job: "digits"}); err != nil {
				w.Fatal(err)
			}
		}
		w.artifacts.Write("s3://lab/m.tar.gz", "better", time.Now())
		if _, _, err := w.register(cluster.RoleUser, &claryv1.RegisterModelRequest{Model: "net", Uri: "s3://lab/m.tar.gz"}); err != nil {
			w.Fatal(err)
		}
		alias := func(number int64) {
			if _, err := w.models(cluster.RoleUser).Alias(w.Context(), &claryv1.AliasModelRequest{Model: "net", Alias: "champion", Number: number}); err != nil {
				w.Fatal(err)
			}
		}
		alias(1)
		w.deployed("churn", `{"variants": [{"model": "model://net:champion"}]}`)
		alias(2)
		uses := func() string {
			var pins []string
			for _, fleet := range w.endpoint("churn").GetEndpoint().GetFleets() {
				for _, pin := range fleet.GetModels() {
					pins = append(pins, fmt.Sprintf("%d:%s@%d", fleet.GetGeneration(), pin.GetModel(), pin.GetNumber()))
				}
			}
			return strings.Join(pins, " ")
		}
		if got := uses(); got != "1:net@1" {
			w.Errorf("it serves %s", got)
		}
		if _, err := w.endpoints(cluster.RoleUser).Update(w.Context(), &claryv1.UpdateEndpointRequest{Name: "churn", Spec: []byte(`{"variants": [{"model": "model://net:champion"}]}`)}); err != nil {
			w.Fatal(err)
		}
		alias(1)
		if got := uses(); got != "1:net@1 2:net@2" {
			w.Errorf("it serves %s", got)
		}
		w.refusesDeletion("net@2", "churn")
	})
}

func TestWatchingAnEndpointEndsWithIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.deployed("churn", twoVariants)
		stream, err := w.endpoints(cluster.RoleViewer).Watch(w.Context(), &claryv1.WatchEndpointRequest{Name: "churn"})
		if err != nil {
			w.Fatal(err)
		}
		var mu sync.Mutex
		var views []*claryv1.EndpointView
		var watching sync.WaitGroup
		watching.Go(func() {
			for view, err := stream.Recv(); err == nil; view, err = stream.Recv() {
				mu.Lock()
				views = append(views, view)
				mu.Unlock()
			}
		})
		newest := func() (*claryv1.EndpointView, int) {
			time.Sleep(1500 * time.Millisecond) // figures are looked at once a second
			mu.Lock()
			defer mu.Unlock()
			return views[len(views)-1], len(views)
		}
		if view, n := newest(); view.GetJob().GetState() != "queued" || n != 1 {
			w.Errorf("at first %d views, the last %v", n, view.GetJob())
		}
		task := w.serves("churn", "blue-1-0")
		if view, _ := newest(); view.GetJob().GetState() != "running" || view.GetKnown() {
			w.Errorf("with a replica that answers: %v", view.GetJob())
		}
		w.traffic.see("churn", rpc.Seen{Known: true, Fleets: []rpc.FleetSeen{{Variant: "blue", Generation: 1, Requests: 3}}})
		view, n := newest()
		if !view.GetKnown() || view.GetFigures()[0].GetRequests() != 3 {
			w.Errorf("when routers have told: %v", view.GetFigures())
		}
		if _, again := newest(); again != n {
			w.Errorf("%d views came of nothing", again-n)
		}
		if _, err := claryv1.NewJobsClient(w.as(cluster.RoleUser)).Cancel(w.Context(), &claryv1.CancelJobRequest{Name: "churn"}); err != nil {
			w.Fatal(err)
		}
		view, _ = newest()
		if !view.GetJob().GetCancel() || replicaIn(view, "blue-1-0").GetState() != "draining" || replicaIn(view, "blue-1-0").GetTask() != task {
			w.Errorf("cancelled: %v", view)
		}
		// Nobody speaks for the node: it is lost, and with it what drains there.
		watching.Wait()
		if view := views[len(views)-1]; view.GetJob().GetState() != "cancelled" || len(view.GetReplicas()) > 0 {
			w.Errorf("last %v with %v", view.GetJob(), view.GetReplicas())
		}
		if _, err := w.endpoints(cluster.RoleUser).Weights(w.Context(), &claryv1.SetWeightsRequest{Name: "churn", Weights: map[string]float64{"blue": 1}}); !fault.Is(wire.FromStatus(err), fault.Conflict) {
			w.Errorf("of one that has ended: %v", err)
		}
	})
}

// requests is a bucket of what waits for endpoints, as S3 shows it.
type requests struct {
	mu   sync.Mutex
	keys []string
}

func (r *requests) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Header().Set("Connection", "close") // no connection outlives the bubble
	switch key := strings.TrimPrefix(q.URL.Path, "/clary/"); q.Method {
	case http.MethodGet:
		fmt.Fprint(w, "<ListBucketResult><Name>clary</Name><IsTruncated>false</IsTruncated>")
		for _, k := range r.keys {
			if strings.HasPrefix(k, q.URL.Query().Get("prefix")) {
				fmt.Fprintf(w, `<Contents><Key>%s</Key><LastModified>2026-01-02T15:04:05.000Z</LastModified><ETag>"e"</ETag><Size>1</Size></Contents>`, k)
			}
		}
		fmt.Fprint(w, "</ListBucketResult>")
	case http.MethodDelete:
		r.keys = slices.DeleteFunc(r.keys, func(k string) bool { return k == key })
		w.WriteHeader(http.StatusNoContent)
	}
}

// A later endpoint of the same name must not be asked what was meant for the one before.
func TestWhatWaitsForAnEndpointGoesWithIt(t *testing.T) {
	bucket := &requests{keys: []string{"endpoints/shop/async/inbox/1.json", "endpoints/shop/async/input/1", "endpoints/shopping/async/inbox/1.json"}}
	server := httptest.NewServer(bucket)
	defer server.Close()
	inWorld(t, func(w *world) {
		var err error
		if w.store, err = object.Open(object.Config{Endpoint: server.Listener.Addr().String(), AccessKey: "a", SecretKey: "secret-secret", Insecure: true}); err != nil {
			w.Fatal(err)
		}
		w.deployed("shop", twoVariants)
		jobs := claryv1.NewJobsClient(w.as(cluster.RoleUser))
		if _, err := jobs.Cancel(w.Context(), &claryv1.CancelJobRequest{Name: "shop"}); err != nil {
			w.Fatal(err)
		}
		for _, task := range w.endpoint("shop").GetReplicas() {
			w.propose(command.ReportTasks{Node: "n1", Reports: []command.TaskReport{{Task: task.GetTask(), Status: cluster.TaskStatus{State: cluster.TaskStopped}}}})
		}
		synctest.Wait()
		if _, err := jobs.Delete(w.Context(), &claryv1.DeleteJobRequest{Name: "shop"}); err != nil {
			w.Fatal(err)
		}
	})
	if want := []string{"endpoints/shopping/async/inbox/1.json"}; !slices.Equal(bucket.keys, want) {
		t.Errorf("left: %v, want %v", bucket.keys, want)
	}
}
