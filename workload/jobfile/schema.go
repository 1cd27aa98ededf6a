package jobfile

import (
	"encoding"
	"encoding/json"
	"reflect"

	"github.com/invopop/jsonschema"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/processing"
	"github.com/clary-ml/clary/workload/training"
)

// Schema is the JSON Schema (draft 2020-12) of a job file of one kind, for editors and
// for people.
func Schema(name cluster.Kind, kind Kind) ([]byte, error) {
	reflector := jsonschema.Reflector{DoNotReference: true, Anonymous: true, Mapper: mapOwn}
	schema := reflector.Reflect(File{})
	schema.Title = "A Clary job of kind " + string(name)
	if node, ok := schema.Properties.Get("kind"); ok {
		node.Const = string(name)
	}
	if kind.Spec != nil {
		spec := reflector.Reflect(kind.Spec)
		spec.Version = ""
		schema.Properties.Set("spec", spec)
	}
	return json.MarshalIndent(schema, "", "  ")
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// mapOwn describes the types that read themselves.
func mapOwn(t reflect.Type) *jsonschema.Schema {
	textOrNumber := func(description string, examples ...any) *jsonschema.Schema {
		return &jsonschema.Schema{
			OneOf:       []*jsonschema.Schema{{Type: "string"}, {Type: "number"}},
			Description: description, Examples: examples,
		}
	}
	switch t {
	case reflect.TypeFor[quantity.Duration]():
		return textOrNumber("a duration, or a number of seconds", "90s", "1h30m", "2d")
	case reflect.TypeFor[quantity.Bytes]():
		return textOrNumber("a size, or a number of bytes", "512MiB", "1.5GiB", "2GB")
	case reflect.TypeFor[quantity.Share]():
		return textOrNumber("a share from 0 to 1", 0.1, "10%")
	case reflect.TypeFor[quantity.GPUs]():
		return textOrNumber("a number of GPUs, or a share of one", 2, 0.25)
	case reflect.TypeFor[quantity.Cores]():
		return textOrNumber("a number of cores", 2, 0.5, "500m")
	}
	long, isAddress := map[reflect.Type]any{
		reflect.TypeFor[training.Input]():    training.InputFields{},
		reflect.TypeFor[processing.Input]():  processing.InputFields{},
		reflect.TypeFor[processing.Output](): processing.OutputFields{},
	}[t]
	if isAddress {
		reflector := jsonschema.Reflector{DoNotReference: true, Anonymous: true}
		long := reflector.Reflect(long)
		long.Version = ""
		return &jsonschema.Schema{
			OneOf:       []*jsonschema.Schema{{Type: "string"}, long},
			Description: "an s3:// address, or an object with one as uri",
		}
	}
	if t.Kind() != reflect.Struct && reflect.PointerTo(t).Implements(textUnmarshaler) {
		return &jsonschema.Schema{Type: "string"}
	}
	return nil
}
