package training

import (
	"encoding/json"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/strictjson"
)

// InputFields say where a channel's data is and how a program gets it.
type InputFields struct {
	// URI is the s3:// address of an object, a prefix or a manifest.
	URI string `json:"uri"`
	// Mode is fast_file for files that are fetched as they are read, or pipe for one named
	// pipe an epoch; by default files are fetched before the program starts.
	Mode cluster.InputMode `json:"mode,omitempty"`
	// Type is manifest or augmented_manifest; by default all objects below the address.
	Type cluster.InputType `json:"type,omitempty"`
	// Attributes are those of an augmented manifest's lines to read, in this order.
	Attributes []string `json:"attributes,omitempty"`
	// ContentType is told to the program.
	ContentType string `json:"content_type,omitempty"`
	// Sharded gives each instance its share of the objects.
	Sharded bool `json:"sharded,omitempty"`
	// Gzip decompresses the objects on the way.
	Gzip bool `json:"gzip,omitempty"`
	// RecordIO wraps each object, in pipe mode, as one record.
	RecordIO bool `json:"record_io,omitempty"`
}

// Input is InputFields, or in JSON the address alone.
type Input InputFields

// UnmarshalJSON takes a text or an object.
func (i *Input) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &i.URI) == nil {
		return nil
	}
	var fields InputFields
	if problems := strictjson.Decode(text, &fields); len(problems) > 0 {
		return fault.New(fault.Invalid, "takes an s3:// address, or an object with one as uri: %w", problems.Err())
	}
	*i = Input(fields)
	return nil
}

// MarshalJSON writes what is an address alone as such.
func (i Input) MarshalJSON() ([]byte, error) {
	if i.Mode == "" && i.Type == "" && len(i.Attributes) == 0 && i.ContentType == "" && !i.Sharded && !i.Gzip && !i.RecordIO {
		return json.Marshal(i.URI)
	}
	return json.Marshal(InputFields(i))
}

func (i Input) input(channel string) cluster.Input {
	return cluster.Input{
		Channel: channel, URI: i.URI, Mode: i.Mode, Type: i.Type, Attributes: i.Attributes, ContentType: i.ContentType,
		Sharded: i.Sharded, Gzip: i.Gzip, RecordIO: i.RecordIO,
	}
}

func (s Spec) inputs() []cluster.Input {
	var inputs []cluster.Input
	for _, channel := range sortedKeys(s.Inputs) {
		inputs = append(inputs, s.Inputs[channel].input(channel))
	}
	return inputs
}

func (s Spec) validateInputs(p *cluster.Problems) {
	p.Under("inputs", cluster.CheckPipes(s.inputs()))
	for _, channel := range sortedKeys(s.Inputs) {
		field, input := "inputs."+cluster.Clip(channel), s.Inputs[channel]
		p.Under(field, input.input(channel).CheckChannel())
		cluster.CheckInputAddress(p, field, input.URI)
		p.Under(field, input.input(channel).CheckModelInput())
		p.Under(field, input.input(channel).CheckMode())
		if input.Mode == cluster.InputPipe && s.Program == nil && s.Script == nil && s.Image == "" {
			p.Add(field+".mode", "%q is for a program or a script: a network reads files", input.Mode)
		}
	}
}
