package shell

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	value := JobToJSON(client.JobView{
		Job:         cluster.Job{Name: "a", Reason: "yes: no", Labels: map[string]string{"on": "true", "n": "12"}, Spec: []byte(`{"b":[1,2.5,"3",null]}`)},
		Tasks:       []cluster.Task{{ID: "a/main/worker-0.1", Status: cluster.TaskStatus{State: cluster.TaskFailed, ExitCode: 0}}},
		Publication: &cluster.Publication{Outputs: []cluster.Output{{Name: "model", URI: "s3://b/k"}}},
	})
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	written, err := toYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	var back any
	if err := yaml.Unmarshal(written, &back); err != nil {
		t.Fatalf("%s: %v", written, err)
	}
	again, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	var x, y any
	if json.Unmarshal(text, &x) != nil || json.Unmarshal(again, &y) != nil {
		t.Fatal("not JSON")
	}
	first, _ := json.Marshal(x)
	second, _ := json.Marshal(y)
	if !bytes.Equal(first, second) || strings.Contains(string(written), "{") {
		t.Errorf("%s\n%s\n%s", first, second, written)
	}
}

func TestSpansReadAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1234 * time.Millisecond: "1.2s", 75 * time.Second: "1m15s", 90 * time.Minute: "1h30m", 72 * time.Hour: "3d",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
