package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func goodGang() Gang {
	return Gang{
		Job: "digits", Name: "main", Queue: "default", Attempt: 1,
		Roles: []Role{{Name: "worker", Count: 2, Ask: Ask{MilliCPU: 1000, Memory: 1 << 20}, Program: Program{Command: []string{"true"}}}},
	}
}

func TestValidateReportsEveryMistakeWithItsField(t *testing.T) {
	gang := goodGang()
	gang.Queue = "Not A Queue"
	gang.Roles = append(gang.Roles, Role{
		Name: "worker", Count: 0,
		Ask:     Ask{MilliCPU: -1, Memory: 1 << 60, GPUModel: "A100"},
		Program: Program{Env: map[string]string{"A=B": ""}, Dir: "relative", Grace: 2 * time.Hour, Inputs: []Input{{Channel: "train", URI: "http://x"}, {Channel: "train", URI: "s3://b/k"}}},
	})
	found := map[string]bool{}
	for _, problem := range gang.Validate() {
		found[problem.Field] = true
	}
	for _, field := range []string{
		"queue", "roles[1].name", "roles[1].count", "roles[1].ask.milli_cpu", "roles[1].ask.memory", "roles[1].ask.gpu_model",
		"roles[1].program.command", "roles[1].program.env", "roles[1].program.dir", "roles[1].program.grace",
		"roles[1].program.inputs[0].uri", "roles[1].program.inputs[1].channel",
	} {
		if !found[field] {
			t.Errorf("no mistake reported at %s; found %v", field, gang.Validate())
		}
		delete(found, field)
	}
	if len(found) != 0 {
		t.Errorf("mistakes that are none: %v", found)
	}
}

func TestValidateAcceptsWhatIsRight(t *testing.T) {
	job := Job{Name: "digits", Kind: KindTraining, Owner: "ada", Queue: DefaultQueue, State: JobQueued}
	node := Node{ID: "n1", Address: "10.0.0.1", LogsAddr: "10.0.0.1:7000", State: NodeReady, PortFirst: 20000, PortLast: 20999}
	queue := Queue{Name: "default", Weight: 1}
	token := Token{ID: "abc", Kind: TokenUser, Name: "ada", Role: RoleUser, Hash: make([]byte, 32)}
	for name, problems := range map[string]Problems{
		"gang": goodGang().Validate(), "job": job.Validate(), "node": node.Validate(), "queue": queue.Validate(), "token": token.Validate(),
	} {
		if err := problems.Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateRefusesRubbish(t *testing.T) {
	long := strings.Repeat("x", 1000)
	cases := map[string]Problems{
		"job name upper":     Job{Name: "Digits"}.Validate(),
		"job name long":      Job{Name: long}.Validate(),
		"job priority":       Job{Priority: MaxPriority + 1}.Validate(),
		"job retries":        Job{Retry: Retry{Limit: -1}}.Validate(),
		"job runtime":        Job{MaxRuntime: -1}.Validate(),
		"job state":          Job{State: "asleep"}.Validate(),
		"endpoint that ends": Job{Name: "e", Kind: KindEndpoint, Owner: "ada", Queue: DefaultQueue, State: JobQueued, MaxRuntime: time.Hour}.Validate(),
		"node state":         Node{State: "asleep"}.Validate(),
		"node ports":         Node{PortFirst: 10, PortLast: 5}.Validate(),
		"node memory":        Node{Memory: -1}.Validate(),
		"node device twice":  Node{Devices: []Device{{UUID: "a"}, {UUID: "a"}}}.Validate(),
		"queue weight":       Queue{Name: "q"}.Validate(),
		"token role of kind": Token{Kind: TokenJoin, Role: RoleAdmin}.Validate(),
	}
	for name, problems := range cases {
		if problems.Err() == nil {
			t.Errorf("%s: accepted", name)
		}
		if text := problems.Error(); strings.Contains(text, long) {
			t.Errorf("%s: the message repeats all of a stranger's text", name)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("a-b")
	f.Fuzz(func(t *testing.T, name string) {
		var p Problems
		CheckName(&p, "name", name)
		if len(p) == 0 && (len(name) == 0 || len(name) > MaxName || strings.ToLower(name) != name || strings.ContainsAny(name, "/. \x00")) {
			t.Errorf("%q passed for a name", name)
		}
		if len(p) > 0 && len(p.Error()) > 500 { // 80 bytes, each quoted as four, and the remedy
			t.Errorf("an error of %d bytes", len(p.Error()))
		}
	})
}

func TestAmountsReadLikeWords(t *testing.T) {
	for got, want := range map[string]string{
		FormatCores(1000): "1 core", FormatCores(2500): "2.5 cores", FormatBytes(512 << 20): "512 MiB", FormatBytes(0): "0 B", FormatBytes(3 << 29): "1.5 GiB",
		Ask{MilliCPU: 1000, Memory: 1 << 30, GPUs: 2, GPUModel: "A100"}.String(): "1 core, 1 GiB, 2 GPUs (A100)",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAProbeNamesEachOfItsMistakes(t *testing.T) {
	bad := Probe{Path: "http://elsewhere/ping", Startup: -1, Every: time.Microsecond, Timeout: 2 * time.Hour, Failures: -1}
	got := bad.Validate()
	for _, field := range []string{"path", "startup", "every", "timeout", "failures"} {
		if !slices.ContainsFunc(got, func(p Problem) bool { return p.Field == field }) {
			t.Errorf("nothing is said of %s: %v", field, got)
		}
	}
	for _, good := range []Probe{{}, {Path: "/v2/health/ready"}, Probe{}.WithDefaults()} {
		if problems := good.Validate(); len(problems) > 0 {
			t.Errorf("%+v: %v", good, problems)
		}
	}
}
