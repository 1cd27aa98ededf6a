package training_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/training"
)

func TestAnInputIsAnAddressOrSaysHowItIsRead(t *testing.T) {
	text := `{"program": {"command": ["x"]}, "inputs": {"plain": "s3://d/p", "fast": {"uri": "s3://d/f", "mode": "fast_file", "sharded": true},
		"lines": {"uri": "s3://d/m", "mode": "pipe", "type": "augmented_manifest", "attributes": ["a-ref", "b"], "record_io": true, "content_type": "x/y", "gzip": true}}}`
	s, problems := training.Parse([]byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	roles, err := s.Roles()
	if err != nil {
		t.Fatal(err)
	}
	want := []cluster.Input{
		{Channel: "fast", URI: "s3://d/f", Mode: cluster.InputFastFile, Sharded: true},
		{
			Channel: "lines", URI: "s3://d/m", Mode: cluster.InputPipe, Type: cluster.InputAugmentedManifest, Attributes: []string{"a-ref", "b"},
			RecordIO: true, ContentType: "x/y", Gzip: true,
		},
		{Channel: "plain", URI: "s3://d/p"},
	}
	if got := roles[0].Program.Inputs; !reflect.DeepEqual(got, want) {
		t.Errorf("they become %+v", got)
	}
	again, err := json.Marshal(s.Inputs)
	if err != nil || !strings.Contains(string(again), `"plain":"s3://d/p"`) {
		t.Errorf("they are written as %s, %v", again, err)
	}
	var back map[string]training.Input
	if err := json.Unmarshal(again, &back); err != nil || !reflect.DeepEqual(back, s.Inputs) {
		t.Errorf("and read again as %+v, %v", back, err)
	}
}

func TestWhatAnInputCannotBeIsRefusedByItsField(t *testing.T) {
	for input, want := range map[string]string{
		`3`:                                     "inputs.train: takes an s3:// address, or an object",
		`{"uri": "s3://d/x", "mod": "pipe"}`:    "unknown field",
		`{"mode": "pipe"}`:                      "inputs.train: \"\" is not s3://bucket/key",
		`{"uri": "s3://d/x", "mode": "stream"}`: "inputs.train.mode: \"stream\" is unknown",
		`{"uri": "s3://d/x", "type": "list"}`:   "inputs.train.type: \"list\" is unknown",
		`{"uri": "s3://d/x", "type": "augmented_manifest", "attributes": ["a"]}`: "pipe mode only",
		`{"uri": "s3://d/x", "mode": "fast_file", "gzip": true}`:                 "inputs.train.gzip",
		`{"uri": "s3://d/x", "record_io": true}`:                                 "inputs.train.record_io",
	} {
		_, problems := training.Parse([]byte(`{"program": {"command": ["x"]}, "inputs": {"train": ` + input + `}}`))
		if !strings.Contains(problemsText(problems), want) {
			t.Errorf("%s: %v", input, problems)
		}
	}
}

func TestAChannelHasAnyNameThatSageMakerTakesAndAnImageAnyMode(t *testing.T) {
	s, problems := training.Parse([]byte(`{"image": "team/tool:1", "inputs": {"sm_drivers": "s3://d/x", "Code.v2-b": "s3://d/y", "train": {"uri": "s3://d/z", "mode": "pipe"}}}`))
	if len(problems) > 0 || len(s.Inputs) != 3 {
		t.Errorf("%v, %v", s.Inputs, problems)
	}
}

func problemsText(problems cluster.Problems) string {
	if len(problems) == 0 {
		return ""
	}
	return problems.Err().Error()
}
