package chaos_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/spec"
)

// work is what is asked of the cluster, and how it has to end.
type work struct {
	mu    sync.Mutex
	jobs  []promised
	kinds map[string]int
	// The same work leaves the same to the bit, whatever happens: what undisturbed runs left, by kind.
	undisturbed map[string]string
}

// promised is a job that was accepted, and how it must end.
type promised struct {
	name, kind string
	code       int // of its program
}

func (w *work) accepted(name, kind string, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs = append(w.jobs, promised{name, kind, code})
	w.kinds[kind]++
}

// patience is how long a submission may take while there are faults, and a job when there are none any more.
const patience = 3 * time.Minute

// mostRuntime is what no job takes, but a clock that is set may say so.
const mostRuntime = 9 * time.Minute

// submit hands a job in until it is accepted.
func (d *field) submitJob(c *client.Client, h *history, job cluster.Job) bool {
	job.RequestID = job.Name
	for deadline := time.Now().Add(patience); ; {
		_, err := c.Submit(context.Background(), job)
		if err == nil {
			return true
		}
		full := fault.Is(err, fault.Exhausted) && h.diskIsFull()
		if full {
			h.keptOut()
			time.Sleep(250 * time.Millisecond) // it is refused at once
		}
		if !full && !fault.Is(err, fault.Unready) || time.Now().After(deadline) {
			d.t.Errorf("%s could not be submitted: %v", job.Name, err)
			return false
		}
	}
}

// programs submits jobs of beating programs: plain ones, pairs that need ports, some that want a GPU, and exclusive ones. An
// exit code of their own is final; what else may end an attempt is tried again.
func (d *field) programs(ctx context.Context, c *client.Client, h *history, me int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 300+uint64(me)))
	const longest = 300
	for n := 0; ctx.Err() == nil; n++ {
		pause(ctx, time.Duration(200+random.IntN(2200))*time.Millisecond)
		code := []int{0, 0, 0, 3, 17}[random.IntN(5)]
		how, times := "", random.IntN(100)
		resources := map[string]any{"cores": 0.2, "memory": "32MiB"}
		body := map[string]any{"resources": resources, "grace": "1s"}
		kind := []string{"program", "pair", "gpu", "exclusive"}[random.IntN(4)]
		switch kind {
		case "pair":
			body["instances"] = 2
		case "gpu":
			resources["gpus"] = 1 + random.IntN(2)
		case "exclusive":
			how, times, body["exclusive"] = "exclusive", 40+random.IntN(longest-40), true
		}
		body["program"] = map[string]any{"command": beating(d.beacon, how, times, code)}
		text, err := json.Marshal(body)
		if err != nil {
			d.t.Error(err)
			return
		}
		name := fmt.Sprintf("%s-%d-%d", kind, me, n)
		job := cluster.Job{Name: name, Kind: cluster.KindTraining, Spec: text, MaxRuntime: mostRuntime, Retry: cluster.Retry{Limit: 100, Never: []int32{3, 17}}}
		if !d.submitJob(c, h, job) {
			return
		}
		d.work.accepted(name, kind, code)
	}
}

// outlasting submits exclusive tasks that last longer than a fault that cuts a node off, and waits until they run, or nothing has come of that:
// one that does not heed its node's lease is there still when its next attempt begins on another.
func (d *field) outlasting(c *client.Client, h *history, fault int) {
	var names []string
	for i := range 4 {
		name := fmt.Sprintf("exclusive-%d-lasts-%d", i, fault)
		body, err := json.Marshal(map[string]any{
			"resources": map[string]any{"cores": 0.1, "memory": "32MiB"}, "grace": "1s", "exclusive": true,
			"placement": map[string]any{"constraints": []string{"node = " + nodes[i%len(nodes)] + " weight 100"}}, // on each, as whichever may be cut off
			"program":   map[string]any{"command": beating(d.beacon, "exclusive", 500, 0)},
		})
		if err != nil {
			d.t.Error(err)
			return
		}
		if d.submitJob(c, h, cluster.Job{Name: name, Kind: cluster.KindTraining, Spec: body, MaxRuntime: mostRuntime, Retry: cluster.Retry{Limit: 100}}) {
			d.work.accepted(name, "exclusive", 0)
			names = append(names, name)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if !slices.ContainsFunc(names, func(name string) bool { return !d.beats.heard("exclusive " + name + "/main/worker-0") }) {
			return
		}
	}
}

// command runs a command of the client until it does what it should.
func (d *field) command(args ...string) bool {
	for deadline := time.Now().Add(patience); ; {
		out, err := d.Try(args...)
		if err == nil || strings.Contains(out, "exists") {
			return true
		}
		if time.Now().After(deadline) {
			d.t.Errorf("clary %s: %v: %s", strings.Join(args, " "), err, out)
			return false
		}
	}
}

func (d *field) train(name string) bool {
	return d.command("train", "-f", "../../examples/digits/digits.yaml", "--name", name, "--detach", "--workers", "2", "--servers", "1", "--epochs", "4", "--seed", "7", "--retries", "100")
}

func (d *field) transform(name string) bool {
	return d.command("transform", "--name", name, "--model", d.Path("sides"), "--input", d.Path("rows.csv"), "--output", "s3://clary/scored/"+name+"/", "--split", "line",
		"--content-type", "text/csv", "--max-payload", "1KiB", "--cores", "0.4", "--memory", "192MiB", "--retries", "100", "--detach")
}

func (d *field) search(c *client.Client, h *history, name string) bool {
	return d.submitJob(c, h, cluster.Job{Name: name, Kind: cluster.KindTuning, Spec: []byte(sweep), Retry: cluster.Retry{Limit: 100}})
}

// sweep is six trials of a small network, none of which depends on what others came to.
const sweep = `{
	"space": {"parameters": [{"name": "rate", "type": "float", "low": 1e-4, "high": 0.1, "scale": "log", "path": "optimizer.adam.rate"}]},
	"objectives": [{"name": "validation_loss"}], "seed": 7, "sampler": "random", "budget": {"trials": 6}, "parallel": 2,
	"trial": {
		"network": {"input": [64], "layers": [{"dense": {"units": 10}}], "loss": "cross_entropy"},
		"optimizer": {"adam": {"rate": 1}}, "data": {"format": "csv", "label": "last", "scale": 16, "validation_fraction": 0.2},
		"epochs": 2, "batch": 64, "seed": 42, "inputs": {"train": "s3://clary/chaos/train.csv.gz"},
		"resources": {"cores": 0.3, "memory": "256MiB"}, "server_resources": {"cores": 0.1, "memory": "128MiB"}}}`

// series submits larger jobs, one of a kind after the other.
func (d *field) series(ctx context.Context, c *client.Client, h *history) {
	for n := 0; ctx.Err() == nil; n++ {
		name, kind := "", []string{"training", "sweep", "transform"}[n%3]
		name = fmt.Sprintf("%s-%d", kind, n)
		ok := false
		switch kind {
		case "training":
			ok = d.train(name)
		case "transform":
			ok = d.transform(name)
		case "sweep":
			ok = d.search(c, h, name)
		}
		if !ok {
			return
		}
		d.work.accepted(name, kind, 0)
		for view, err := range c.Watch(ctx, name) { // one at a time: the machine is small
			if err != nil || view.Job.State.Ended() {
				break
			}
		}
	}
}

// sides is a stored model that says left where the first number is the greater.
func (d *field) sides() {
	d.t.Helper()
	manifest := checkpoint.Manifest{
		Network: spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
		Data:    spec.Data{Format: spec.FormatCSV, Classes: []string{"left", "right"}},
	}
	if err := checkpoint.SaveModel(d.Path("sides"), manifest, []float32{1, 0, 0, 1, 0, 0}); err != nil {
		d.t.Fatal(err)
	}
	var rows strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&rows, "%d,%d\n", i*7%13, i*5%11)
	}
	d.File("rows.csv", rows.String())
}

// result is the digest of what a job left: the content of all objects below a prefix, but for their times.
func (d *field) result(c *client.Client, prefix string) (string, error) {
	page, err := c.ListObjects(context.Background(), prefix, true, 1000, "")
	if err != nil {
		return "", err
	}
	digest := sha256.New()
	for _, object := range page.Objects {
		fmt.Fprintln(digest, strings.TrimPrefix(object.URI, prefix))
		if _, err := c.GetObject(context.Background(), object.URI, 0, digest, nil); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d objects %x", len(page.Objects), digest.Sum(nil)), nil
}

// asked counts what became of requests to an endpoint.
type asked struct {
	mu                       sync.Mutex
	answered, failed, hidden int // hidden: another router answered
	longest                  time.Duration
	last                     time.Time
	wrong                    []string
}

// ask asks the endpoint, at one router after the other until one answers.
func (d *field) ask(ctx context.Context, count *asked) {
	token, err := os.ReadFile(filepath.Join(d.Path("s1"), "admin.token"))
	if err != nil {
		d.t.Error(err)
		return
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // whose it is says another test
		DialContext:     (&net.Dialer{Timeout: time.Second}).DialContext,
	}
	defer transport.CloseIdleConnections()
	asking := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	urls := slices.Sorted(maps.Values(d.Serve))
	count.last = time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		pause(ctx, 50*time.Millisecond)
		for try := range urls {
			answer, err := ask(ctx, asking, urls[(n+try)%len(urls)], strings.TrimSpace(string(token)))
			if ctx.Err() != nil {
				return
			}
			count.note(try, len(urls), answer, err)
			if err == nil {
				break
			}
		}
	}
}

func (a *asked) note(try, of int, answer string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.answered++
		if try > 0 {
			a.hidden++
		}
		if !strings.Contains(answer, "left") && len(a.wrong) < 5 {
			a.wrong = append(a.wrong, answer)
		}
		a.longest = max(a.longest, time.Since(a.last))
		a.last = time.Now()
	case try == of-1:
		a.failed++
	}
}

func ask(ctx context.Context, c *http.Client, url, token string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/endpoints/sides/invocations", strings.NewReader("3,1\n"))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "text/csv")
	response, err := c.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(text))
	}
	return string(text), err
}
