package submit

import (
	"reflect"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/training"
)

func TestChannelsAndTheirOptionsAreReadFromFlags(t *testing.T) {
	got, err := ChannelInputs("--channel", []string{"train=s3://d/a=b", "lines=m.json"}, []string{
		"train=fast_file,sharded", "lines=pipe,augmented_manifest,record_io", "lines=attribute:image-ref,attribute:label,content_type:a/b",
	})
	want := map[string]training.Input{
		"train": {URI: "s3://d/a=b", Mode: cluster.InputFastFile, Sharded: true},
		"lines": {
			URI: "m.json", Mode: cluster.InputPipe, Type: cluster.InputAugmentedManifest, RecordIO: true,
			Attributes: []string{"image-ref", "label"}, ContentType: "a/b",
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("they are %+v, %v", got, err)
	}
	for _, c := range []struct {
		channels, options []string
		want              string
	}{
		{[]string{"train"}, nil, `"train" is not CHANNEL=`},
		{[]string{"a=x", "a=y"}, nil, "a is named twice"},
		{[]string{"a=x"}, []string{"b=pipe"}, `there is no channel "b"`},
		{[]string{"a=x"}, []string{"a=pope"}, `"pope" is no option`},
		{[]string{"a=x"}, []string{"a=pipe:x"}, `"pipe:x" is no option`},
		{[]string{"a=x"}, []string{"a"}, `"" is no option`},
	} {
		if _, err := ChannelInputs("--channel", c.channels, c.options); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: %v", c.channels, c.options, err)
		}
	}
}
