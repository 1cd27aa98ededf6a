package jobfile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/workload/jobfile"
)

// spec is a stand-in for a kind's spec.
type spec struct {
	Epochs  int            `json:"epochs"`
	Memory  quantity.Bytes `json:"memory"`
	Command []string       `json:"command"`
	Layers  []layer        `json:"layers"`
}

type layer struct {
	Units int `json:"units"`
}

var kinds = map[cluster.Kind]jobfile.Kind{
	"training": {
		Spec: spec{},
		Check: func(data []byte) cluster.Problems {
			var s spec
			p := strictjson.Decode(data, &s)
			if p == nil && s.Epochs < 1 {
				p.Add("epochs", "%d is out of range: at least 1", s.Epochs)
			}
			return p
		},
	},
}

const whole = `# a comment
name: digits
queue: default
priority: 5
labels: {team: vision, "1": "2"}
max_runtime: 1h30m
retries: 2
backoff: 10
hold: true
spec:
  epochs: 20
  memory: 512MiB
  command: [sh, -c, "echo hi"]
  layers:
    - &l {units: 128}
    - *l
`

func TestAWholeFileBecomesAJob(t *testing.T) {
	job, err := jobfile.Parse([]byte(whole), kinds)
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.Job{
		Name: "digits", Kind: "training", Queue: "default", Priority: 5,
		MaxRuntime: 90 * time.Minute, Held: true, Retry: cluster.Retry{Limit: 2, Backoff: 10 * time.Second},
	}
	if job.Name != want.Name || job.Kind != want.Kind || job.Queue != want.Queue || job.Priority != want.Priority ||
		job.MaxRuntime != want.MaxRuntime || !job.Held || !reflect.DeepEqual(job.Retry, want.Retry) || job.Labels["team"] != "vision" || job.Labels["1"] != "2" {
		t.Errorf("%+v", job)
	}
	if got, want := string(job.Spec), `{"epochs":20,"memory":"512MiB","command":["sh","-c","echo hi"],"layers":[{"units":128},{"units":128}]}`; got != want {
		t.Errorf("spec %s, want %s", got, want)
	}
}

func TestYAMLAndJSONSayTheSame(t *testing.T) {
	fromYAML, err := jobfile.Parse([]byte(whole), kinds)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jobfile.FromJob(fromYAML))
	if err != nil {
		t.Fatal(err)
	}
	fromJSON, err := jobfile.Parse(text, kinds)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	a, _ := json.Marshal(fromYAML)
	b, _ := json.Marshal(fromJSON)
	if string(a) != string(b) {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestRubbishIsRefusedWithItsLineAndTheRemedy(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"nothing", "", "the file is empty"},
		{"blanks", " \n\n", "the file is empty"},
		{"comments alone", "# todo\n", "nothing but comments"},
		{"a list", "- name: a\n", "line 1: the file is not a list of fields"},
		{"a word", "digits", "not a list of fields"},
		{"not YAML", "name: [a\nspec: {", "this is not YAML"},
		{"a tab", "spec:\n\tepochs: 1\n", "this is not YAML"},
		{"two documents", "spec: {epochs: 1}\n---\nspec: {epochs: 2}\n", "a second document"},
		{"no spec", "name: a\n", "spec: is missing"},
		{"an unknown field", "name: a\nspec: {epochs: 1}\nmax-runtime: 1h\n", `line 3: max-runtime: unknown field`},
		{"with the nearest right one", "nmae: a\nspec: {epochs: 1}\n", `"name"`},
		{"an unknown field of the spec", "name: a\nspec:\n  epochs: 1\n  comand: [a]\n", `line 4: spec.comand: unknown field`},
		{"deep in the spec", "spec:\n  epochs: 1\n  layers:\n    - units: 1\n    - unitz: 2\n", `line 5: spec.layers[1].unitz`},
		{"a key twice", "name: a\nname: b\nspec: {epochs: 1}\n", "name: is there twice"},
		{"a key twice in the spec", "spec:\n  epochs: 1\n  epochs: 2\n", "spec.epochs: is there twice"},
		{"a wrong type", "name: 5\nspec: {epochs: 1}\n", "line 1: name: takes a text"},
		{"a text for a number", "spec:\n  epochs: many\n", "line 2: spec.epochs"},
		{"a fraction for a whole number", "retries: 1.5\nspec: {epochs: 1}\n", "line 1: retries"},
		{"a number that overflows", "priority: 99999999999\nspec: {epochs: 1}\n", "line 1: priority"},
		{"infinity", "priority: .inf\nspec: {epochs: 1}\n", "line 1: priority: \".inf\" is not a number"},
		{"a name in capitals", "name: Digits\nspec: {epochs: 1}\n", "line 1: name: \"Digits\" is not a name"},
		{"a kind nobody knows", "kind: trainign\nspec: {epochs: 1}\n", `line 1: kind: "trainign" is unknown, perhaps "training" is meant`},
		{"no duration", "max_runtime: soon\nspec: {epochs: 1}\n", "line 1: max_runtime"},
		{"no size", "spec:\n  epochs: 1\n  memory: lots\n", "line 3: spec.memory"},
		{"what the kind refuses", "spec:\n  epochs: 0\n", "line 2: spec.epochs: 0 is out of range"},
		{"a merge", "a: &a {x: 1}\nspec:\n  <<: *a\n", "line 3: spec: merging"},
		{"a tag", "name: !!binary aGk=\nspec: {epochs: 1}\n", "tag !!binary"},
		{"a list for a key", "? [a]\n: 1\n", "a field's name is a word"},
		{"an alias to itself", "spec: &s\n  layers: [*s]\n", ""},
		{"a billion laughs", laughs(), "too large or too deep"},
		{"a hundred thousand brackets", "spec: " + strings.Repeat("[", 5000), ""},
		{"broken JSON", `{"name": "a",`, "JSON"},
		{"an unknown field in JSON", "{\"spec\": {\"epochs\": 1},\n\"nmae\": \"a\"}", "line 2: nmae: unknown field"},
		{"a key twice in JSON", `{"name": "a", "name": "b", "spec": {"epochs": 1}}`, "is there twice"},
		{"a file too large", "name: " + strings.Repeat("a", jobfile.MaxSize), "at most"},
		{"in the file and in the spec at once", "nmae: A\nspec:\n  epochs: 0\n", "line 3: spec.epochs"},
		{"every mistake at once", "name: A\nretries: -1\nspec: {epochs: 1}\n", "line 2: retries"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := jobfile.Parse([]byte(row.text), kinds)
			var mistakes jobfile.Mistakes
			if !errors.As(err, &mistakes) || len(mistakes) == 0 || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

func laughs() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 12; i++ {
		tenfold := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ",")
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, tenfold)
	}
	return b.String()
}

func TestTheSchemaIsJSONThatNamesEveryField(t *testing.T) {
	text, err := jobfile.Schema("training", kinds["training"])
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
		Required []string `json:"required"`
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for _, field := range []string{"name", "kind", "queue", "priority", "labels", "max_runtime", "retries", "backoff", "hold", "spec"} {
		if _, ok := schema.Properties[field]; !ok {
			t.Errorf("%s is missing in %s", field, text)
		}
	}
	if len(schema.Properties["spec"].Properties) != 4 || len(schema.Required) != 1 {
		t.Errorf("the spec's fields, and that it alone is required: %s", text)
	}
}

// What any file is turned into is either a job that passes its own rules, or mistakes
// that say something.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"name":"a","spec":{"epochs":1}}`))
	f.Add([]byte(laughs()))
	f.Add([]byte("spec: &s {epochs: 1, layers: [*s]}"))
	f.Add([]byte("? a\n: b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		job, err := jobfile.Parse(data, kinds)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		if !json.Valid(job.Spec) {
			t.Errorf("the spec %q is not JSON", job.Spec)
		}
		again, err := json.Marshal(jobfile.FromJob(job))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jobfile.Parse(again, kinds); err != nil {
			t.Errorf("%s: %v", again, err)
		}
	})
}
