package endpoint_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
)

const whole = `{
	"variants": [
		{"name": "blue", "model": "model://churn@3", "weight": 90, "replicas": 2, "resources": {"cores": 0.5, "memory": "256MiB"}},
		{"name": "green", "image": "team/serve:2", "port": 8080, "model": "s3://m/two.tar.gz", "weight": 10, "labels": {"zone": "x"}, "startup_timeout": "90s"},
		{"name": "dark", "program": {"command": ["python3", "serve.py"], "env": {"A": "1"}}, "weight": 0, "probe": {"path": "/v2/health/ready", "failures": 0}}
	],
	"shadow": {"variant": "dark", "share": "10%"},
	"sticky": {"header": "X-Session", "cookie": "sid"},
	"update": {"strategy": "canary", "step": "10%", "bake": "5m", "wait": "0s", "alarms": {"error_rate": "2%", "latency_p99": "200ms", "window": "1m", "min_requests": 50}},
	"capture": {"share": 0.05, "to": "s3://data/captured/", "outputs": false},
	"async": {"to": "s3://data/answers/", "failures": "s3://data/failures/", "concurrency": 2, "retries": 3},
	"limits": {"body": "6MiB", "timeout": "30s", "concurrency": 8, "queue": 100, "queue_time": "5s", "rate": 100, "per_token": 10, "burst": 20, "retries": 2, "hold_time": "1m"},
	"public": true
}`

func TestAVariantBecomesWhatAReplicaRuns(t *testing.T) {
	s, problems := endpoint.Parse([]byte(whole))
	if problems != nil {
		t.Fatal(problems)
	}
	sum := strings.Repeat("a", 64)
	pin := cluster.ModelPin{Ref: "model://churn@3", Model: "churn", Number: 3, URI: "s3://clary/models/churn/x/m.tar.gz", SHA256: sum}
	fleets, err := s.Fleets(4, []cluster.ModelPin{pin})
	if err != nil || len(fleets) != 3 {
		t.Fatal(fleets, err)
	}
	blue, green, dark := fleets[0], fleets[1], fleets[2]
	if blue.ID() != "blue-4" || blue.Weight != 90 || blue.Replicas != 2 || len(blue.Models) != 1 || blue.Models[0] != pin || blue.Role.Spread != "blue-4" {
		t.Errorf("%+v", blue)
	}
	p := blue.Role.Program
	if !p.Clary || !slices.Equal(p.Command, strings.Fields("clary serve --host 127.0.0.1 --max-payload 10GiB --timeout 1h")) || p.Contract != cluster.ContractServing || p.Service || p.Outputs || p.Inputs[0].URI != pin.URI || p.Inputs[0].SHA256 != sum || blue.Role.Ask.Ports != 1 || blue.Role.Ask.MilliCPU != 500 {
		t.Errorf("%+v", blue.Role)
	}
	if probe := p.Probe; probe == nil || probe.Path != "" || probe.Startup != 4*time.Minute || probe.Failures != 60 {
		t.Errorf("%+v", p.Probe)
	}
	p = green.Role.Program
	if p.Image != "team/serve:2" || p.Port != 8080 || p.Network != cluster.NetworkBridge || green.Role.Ask.Ports != 0 || p.Command[0] != "serve" || p.Probe.Startup != 90*time.Second || len(green.Models) != 0 {
		t.Errorf("%+v", green.Role)
	}
	p = dark.Role.Program
	if dark.Weight != 0 || dark.Replicas != 1 || p.Probe.Path != "/v2/health/ready" || p.Probe.Failures != 0 || p.Env["A"] != "1" {
		t.Errorf("%+v", dark.Role)
	}
}

func TestManyModelsAreForClarysOwnServer(t *testing.T) {
	s, problems := endpoint.Parse([]byte(`{"variants": [{}], "models": "s3://m/many/"}`))
	if problems != nil {
		t.Fatal(problems)
	}
	fleets, err := s.Fleets(1, nil)
	if err != nil || fleets[0].Variant != endpoint.DefaultVariant || fleets[0].Role.Program.Env[endpoint.ManyVariable] != "true" || fleets[0].Role.Program.Inputs[0].URI != "s3://m/many/" || fleets[0].Weight != 1 {
		t.Errorf("%+v, %v", fleets, err)
	}
}

func TestASpecNamesEveryMistake(t *testing.T) {
	with := func(rest string) string { return `{"variants": [{"model": "s3://m/a"}], ` + rest + `}` }
	variants := func(list string) string { return `{"variants": [` + list + `]}` }
	for _, test := range []struct{ claim, text, want string }{
		{"nothing", `{}`, "variants: 0: an endpoint has from 1 to 16"},
		{"no object", `[]`, "takes an object"},
		{"too many", variants(strings.TrimSuffix(strings.Repeat(`{"model": "s3://m/a"},`, 17), ",")), "variants: 17: an endpoint has from 1 to 16"},
		{"no server", variants(`{}`), "variants[0].model: is missing"},
		{"two of a name", variants(`{"model": "s3://m/a"}, {"model": "s3://m/b"}`), `variants[1].name: "main" is there twice`},
		{"a name", variants(`{"name": "Blue", "model": "s3://m/a"}`), `variants[0].name: "Blue" is not a name`},
		{"a long name", variants(`{"name": "` + strings.Repeat("b", 33) + `", "model": "s3://m/a"}`), "at most 32"},
		{"weights all 0", variants(`{"name": "a", "model": "s3://m/a", "weight": 0}, {"name": "b", "model": "s3://m/b", "weight": 0}`), "variants: the weights are all 0"},
		{"a weight below 0", variants(`{"model": "s3://m/a", "weight": -1}`), "variants[0].weight: -1 is out of range"},
		{"a weight that is no number", variants(`{"model": "s3://m/a", "weight": "NaN"}`), "variants[0].weight: takes a number"},
		{"a weight too large", variants(`{"model": "s3://m/a", "weight": 1e300}`), "variants[0].weight: 1e+300 is out of range"},
		{"replicas", variants(`{"model": "s3://m/a", "replicas": 1001}`), "variants[0].replicas: 1001 is out of range"},
		{"replicas below 0", variants(`{"model": "s3://m/a", "replicas": -1}`), "variants[0].replicas: -1 is out of range"},
		{"a slip in a variant", variants(`{"model": "s3://m/a", "wieght": 1}`), `variants[0].wieght: unknown field: did you mean "weight"?`},
		{"a model elsewhere", variants(`{"model": "/tmp/m"}`), `variants[0].model: "/tmp/m" is not s3://bucket/key`},
		{"a model without version", variants(`{"model": "model://churn"}`), "names no version"},
		{"two servers", variants(`{"program": {"command": ["x"]}, "script": {"entry": "a.py", "source": "s3://a/b"}}`), "variants[0].script: stands beside program"},
		{"a process with a port", variants(`{"program": {"command": ["x"]}, "port": 8080}`), "variants[0].port: 8080 is for a container"},
		{"a port", variants(`{"image": "x", "port": 70000}`), "variants[0].port: 70000 is out of range"},
		{"an absurd startup", variants(`{"model": "s3://m/a", "startup_timeout": "2d"}`), "variants[0].startup_timeout: 48h0m0s is out of range"},
		{"a probe's path", variants(`{"model": "s3://m/a", "probe": {"path": "ping"}}`), `variants[0].role.program.probe.path: "ping" is no path`},
		{"a probe's time", variants(`{"model": "s3://m/a", "probe": {"every": "1us"}}`), "variants[0].role.program.probe.every"},
		{"a probe's failures", variants(`{"model": "s3://m/a", "probe": {"failures": -1}}`), "variants[0].probe.failures: -1 is out of range"},
		{"replicas beside scaling", variants(`{"model": "s3://m/a", "replicas": 2, "scaling": {"max": 4}}`), "variants[0].replicas: stands beside scaling"},
		{"bounds that cross", variants(`{"model": "s3://m/a", "scaling": {"min": 4, "max": 2}}`), "variants[0].scaling.min: 4 is more than max"},
		{"a bound too large", variants(`{"model": "s3://m/a", "scaling": {"max": 5000}}`), "variants[0].scaling.max: 5000 is out of range"},
		{"a scheduled bound too large", variants(`{"model": "s3://m/a", "scaling": {"max": 5, "schedule": [{"at": "0 8 * * *", "max": 5000}]}}`), "variants[0].scaling.schedule[0].max: 5000 is out of range: from 0 to 1000"},
		{"a backlog of nothing", variants(`{"model": "s3://m/a", "scaling": {"max": 5, "policies": [{"metric": "backlog", "target": 5}]}}`), "variants[0].scaling.policies: looks at the backlog of asynchronous requests, which this endpoint does not take: give it async.to"},
		{"what is not measured", variants(`{"model": "s3://m/a", "scaling": {"max": 5, "policies": [{"metric": "latency", "target": 0.1}, {"metric": "gpu", "target": 50}]}}`), "variants[0].scaling.policies[1].metric: \"gpu\" is of replicas that have GPUs"},
		{"a slip in scaling", variants(`{"model": "s3://m/a", "scaling": {"maximum": 5}}`), "variants[0].scaling.maximum: unknown field"},
		{"a shadow of nobody", with(`"shadow": {"variant": "dark", "share": 0.1}`), `shadow.variant: "dark" is no variant: there is main`},
		{"a shadow without a share", with(`"shadow": {"variant": "main"}`), "shadow.share: 0 is out of range"},
		{"a shadow of more than all", with(`"shadow": {"variant": "main", "share": 10}`), "shadow.share: 10 is out of range"},
		{"sticky by nothing", with(`"sticky": {}`), "sticky: names neither a header nor a cookie"},
		{"sticky by rubbish", with(`"sticky": {"header": "a b"}`), `sticky.header: "a b" is no name`},
		{"a strategy", with(`"update": {"strategy": "blue_green"}`), `update.strategy: "blue_green" is unknown: all_at_once, canary or linear`},
		{"a canary without step", with(`"update": {"strategy": "canary"}`), "update.step: is missing: say which share of the requests goes over in a step, like 10%"},
		{"a step too small", with(`"update": {"strategy": "linear", "step": 0.001}`), "update.step: 0.001 is out of range"},
		{"a step too large", with(`"update": {"strategy": "linear", "step": 10}`), "update.step: 10 is out of range"},
		{"a step of nothing", with(`"update": {"step": "10%"}`), "update.step: is for canary and linear"},
		{"an absurd bake", with(`"update": {"bake": "400d"}`), "update.bake: 9600h0m0s is out of range"},
		{"a bake below 0", with(`"update": {"bake": "-1m"}`), "update.bake: -1m0s is out of range"},
		{"an absurd wait", with(`"update": {"wait": "60d"}`), "update.wait: 1440h0m0s is out of range"},
		{"an absurd start", with(`"update": {"startup": "1ms"}`), "update.startup: 1ms is out of range"},
		{"alarms of nothing", with(`"update": {"alarms": {}}`), "update.alarms: names nothing to watch"},
		{"an error rate", with(`"update": {"alarms": {"error_rate": 2}}`), "update.alarms.error_rate: 2 is out of range"},
		{"a window longer than a step", with(`"update": {"bake": "10s", "alarms": {"error_rate": 0.1, "window": "1m"}}`), "update.alarms.window: 1m0s is longer than a step, which lasts 10s"},
		{"a metric without bound", with(`"update": {"alarms": {"metric": {"name": "x"}}}`), "update.alarms.metric: has no bound"},
		{"a metric without name", with(`"update": {"alarms": {"metric": {"name": "", "above": 1}}}`), "update.alarms.metric.name"},
		{"a capture elsewhere", with(`"capture": {"share": 1, "to": "s3://clary/jobs/x/"}`), "capture.to"},
		{"a capture of nothing", with(`"capture": {"share": 0.1, "to": "s3://d/x/", "inputs": false, "outputs": false}`), "capture.inputs: is false, and outputs too"},
		{"async to nowhere", with(`"async": {"to": ""}`), "async.to"},
		{"limits", with(`"limits": {"body": -1}`), "limits.body: -1 is out of range"},
		{"a timeout", with(`"limits": {"timeout": "2h"}`), "limits.timeout: 2h0m0s is out of range"},
		{"a rate", with(`"limits": {"rate": -1}`), "limits.rate: -1 is out of range"},
		{"models beside a model", with(`"models": "s3://m/many/"`), "variants[0]: stands beside models"},
		{"models that are no prefix", `{"variants": [{}], "models": "s3://m/many"}`, `models: "s3://m/many" is no prefix: end it with a slash`},
		{"models elsewhere", `{"variants": [{}], "models": "/tmp/"}`, `models: "/tmp/" is not s3://bucket/prefix/`},
		{"a gpu too many", variants(`{"model": "s3://m/a", "resources": {"gpus": 100000}}`), "variants[0]"},
	} {
		t.Run(test.claim, func(t *testing.T) {
			if got := (endpoint.Kind{}).Check([]byte(test.text)).Error(); !strings.Contains(got, test.want) {
				t.Errorf("said %s\nwant %s", got, test.want)
			}
		})
	}
	nan := math.NaN()
	if got := (endpoint.Spec{Variants: []endpoint.Variant{{Weight: &nan}}}).Validate().Error(); !strings.Contains(got, "variants[0].weight: NaN is out of range") {
		t.Errorf("of a weight that is not a number it said %s", got)
	}
}

func TestASpecIsWrittenAsItIsRead(t *testing.T) {
	s, _ := endpoint.Parse([]byte(whole))
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again, problems := endpoint.Parse(text)
	second, err := json.Marshal(again)
	if problems != nil || err != nil || string(text) != string(second) {
		t.Errorf("%s\n%s\n%v %v", text, second, problems, err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"variants": [{"model": "s3://m/a", "weight": 1e-300}], "update": {"strategy": "linear", "step": 0.3}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if (endpoint.Kind{}).Check(data) != nil {
			return
		}
		job := cluster.Job{Name: "x", Queue: "default", Owner: "ann", Spec: data, State: cluster.JobQueued}
		changes := endpoint.Kind{}.Reconcile(workload.View{}, job, 1)
		if changes.Endpoint == nil || changes.Endpoint.Validate() != nil {
			t.Fatalf("%q passes the check and makes %+v", data, changes)
		}
		for _, gang := range changes.Gangs {
			if err := gang.Validate().Err(); err != nil {
				t.Fatalf("%q passes the check and makes a gang of which %v", data, err)
			}
		}
		s, _ := endpoint.Parse(data)
		e, err := endpoint.Update(job, *changes.Endpoint, s, nil, endpoint.Options{Anew: true}, endpoint.Asked{By: "ann", Now: 2})
		if err != nil || e.Rollout == nil {
			t.Fatalf("%q cannot be updated to: %v", data, err)
		}
	})
}

func TestAShareIsWrittenInPercentToo(t *testing.T) {
	s, _ := endpoint.Parse([]byte(whole))
	if s.Shadow.Share != quantity.Share(0.1) || s.Update.Step != 0.1 || *s.Update.Alarms.ErrorRate != 0.02 {
		t.Errorf("%+v", s)
	}
}
