package strictjson_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"pgregory.net/rapid"
)

// Base is embedded below.
type Base struct {
	Epochs int     `json:"epochs,omitempty"`
	Rate   float64 `json:"rate,omitempty"`
	Hidden string  `json:"name,omitempty"`
}

type layer struct {
	Units int8 `json:"units"`
}

type sample struct {
	Base
	Name    string            `json:"name"`
	Flag    *bool             `json:"flag,omitempty"`
	Layers  []layer           `json:"layers,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Wait    quantity.Duration `json:"wait,omitzero"`
	Memory  quantity.Bytes    `json:"memory,omitzero"`
	Any     any               `json:"any,omitempty"`
	Small   uint8             `json:"small,omitempty"`
	Skipped string            `json:"-"`
}

func TestDecodes(t *testing.T) {
	var got sample
	text := `{"epochs": 3, "rate": 1e-3, "name": "a\"b\\", "flag": true, "layers": [{"units": 4}, {"units": 5}], "env": {"A": "1"},
		"wait": "1h30m", "memory": "512MiB", "any": {"x": [1, "two"]}, "small": null}`
	if p := strictjson.Decode([]byte(text), &got); p != nil {
		t.Fatal(p)
	}
	var want sample
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) || got.Wait.Std().Minutes() != 90 || got.Memory != 512<<20 || got.Hidden != "" {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestNamesEveryMistake(t *testing.T) {
	deep := strings.Repeat("[", strictjson.MaxDepth+2) + strings.Repeat("]", strictjson.MaxDepth+2)
	tests := []struct{ claim, text, want string }{
		{"a field with a slip", `{"epohcs": 1}`, `epohcs: unknown field: did you mean "epochs"?`},
		{"a field in another spelling", `{"Epochs": 1}`, `Epochs: unknown field: did you mean "epochs"?`},
		{"a field like no other", `{"zzzzzz": 1}`, `zzzzzz: unknown field: the fields here are any, env, epochs`},
		{"a field that json hides", `{"Skipped": "x"}`, `Skipped: unknown field`},
		{"a field deep inside", `{"layers": [{"units": 1}, {"unit": 2}]}`, `layers[1].unit: unknown field: did you mean "units"?`},
		{"two at once", `{"epohcs": 1, "small": 256}`, "epohcs: unknown field: did you mean \"epochs\"?\nsmall: takes a whole number from 0 that fits 8 bits, not the number 256"},
		{"a key twice", `{"epochs": 1, "epochs": 2}`, `epochs: is there twice`},
		{"a key twice in a map", `{"env": {"A": "1", "A": "2"}}`, `env.A: is there twice`},
		{"a key twice in anything", `{"any": [{"a": 1, "a": 2}]}`, `any[0].a: is there twice`},
		{"a text for a number", `{"epochs": "3"}`, `epochs: takes a whole number that fits 64 bits, not the text "3"`},
		{"a fraction for a whole number", `{"epochs": 3.5}`, `epochs: takes a whole number that fits 64 bits, not the number 3.5`},
		{"a number too large", `{"layers": [{"units": 200}]}`, `layers[0].units: takes a whole number that fits 8 bits, not the number 200`},
		{"a number beyond floats", `{"rate": 1e999}`, `rate: takes a number, not the number 1e999`},
		{"a number for a text", `{"name": 3}`, `name: takes a text, not the number 3`},
		{"a text for a flag", `{"flag": "yes"}`, `flag: takes true or false, not the text "yes"`},
		{"an object for a list", `{"layers": {}}`, `layers: takes a list, not an object`},
		{"a list for an object", `{"env": []}`, `env: takes an object, not a list`},
		{"a list for the whole", `[]`, `takes an object, not a list`},
		{"a duration that is none", `{"wait": "soon"}`, `wait: "soon" is not a duration: write it like`},
		{"a size that is none", `{"memory": "lots"}`, `memory: "lots" is not a size: write it like`},
		{"a size of another type", `{"memory": [1]}`, `memory: takes a size`},
		{"text after the end", `{} {}`, `is not JSON: line 1: invalid character '{' after top-level value`},
		{"rubbish after the end", `{} xyz`, `is not JSON: line 1:`},
		{"an early end", "{\"epochs\":\n 1", `is not JSON: line 2: ends too early`},
		{"nothing", ``, `is not JSON: line 1: ends too early`},
		{"no JSON", "{\n\n epochs: 1}", `is not JSON: line 3`},
		{"depth", `{"any": ` + deep + `}`, `more than 32 objects and arrays within one another`},
		{"size", `{"name": "` + strings.Repeat("x", strictjson.MaxSize) + `"}`, `bytes: at most 2097152`},
		{"many mistakes", `{` + strings.Repeat(`"q": 1, `, 80) + `"q": 1}`, `and 31 more mistakes`},
	}
	for _, test := range tests {
		t.Run(test.claim, func(t *testing.T) {
			var s sample
			if got := strictjson.Decode([]byte(test.text), &s).Error(); !strings.Contains(got, test.want) {
				t.Errorf("said %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	names := []string{"workers", "servers", "max_runtime", "batch"}
	for name, want := range map[string]string{
		"worker": "workers", "wrokers": "workers", "maxRuntime": "max_runtime", "max-runtime": "max_runtime",
		"Batch": "batch", "btach": "batch", "zebra": "", "": "", strings.Repeat("x", 1000): "",
	} {
		if got := strictjson.Nearest(name, names); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", name, got, want)
		}
	}
}

// TestAgreesWithEncodingJSON: whatever encoding/json writes of a value is read as that
// value.
func TestAgreesWithEncodingJSON(t *testing.T) {
	texts := 0
	rapid.Check(t, func(t *rapid.T) {
		want := sample{
			Base: Base{Epochs: rapid.Int().Draw(t, "epochs"), Rate: rapid.Float64().Draw(t, "rate")},
			Name: rapid.String().Draw(t, "name"), Env: rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "env"),
			Layers: []layer{{rapid.Int8().Draw(t, "units")}}, Any: rapid.String().Draw(t, "any"),
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Skip(err)
		}
		var got, std sample
		if p := strictjson.Decode(text, &got); p != nil {
			t.Fatalf("%s: %v", text, p)
		}
		if err := json.Unmarshal(text, &std); err != nil {
			t.Fatal(err)
		}
		if len(want.Name) > 0 {
			texts++
		}
		if fmt.Sprint(got) != fmt.Sprint(std) {
			t.Fatalf("%s: got %+v, want %+v", text, got, std)
		}
	})
	if texts == 0 {
		t.Error("never a text")
	}
}

// FuzzDecode: what Decode accepts, encoding/json accepts too, and reads as the same.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"epochs":1}`, `{"name":"\\\"","any":{"a":[null,true,1.5,"\u00e9"]}}`, `{"memory":"1GiB","wait":3}`, `[[`, `{"flag":null}`,
		"{ \"any\" :\t[ { } , [ ] ,-2.5e3\r,\n\"\u2028,]}\xff\" ] }", `{"any":{"`, `{} {}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want sample
		if p := strictjson.Decode(data, &got); p != nil {
			return
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("accepted %q, and encoding/json says %v", data, err)
		}
		if fmt.Sprint(got.Base, got.Name, got.Layers, got.Env, got.Any) != fmt.Sprint(want.Base, want.Name, want.Layers, want.Env, want.Any) {
			t.Fatalf("%q: got %+v, want %+v", data, got, want)
		}
	})
}
