package oip_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/proto/inference"
	"github.com/clary-ml/clary/serving/modelserver/oip"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

func show(r oip.Request) string {
	text := r.ID
	for _, t := range r.Inputs {
		text += fmt.Sprintf(" %s:%s%v=%q", t.Name, t.Type, t.Shape, fmt.Sprint(t.Data))
	}
	for _, o := range r.Outputs {
		text += " ?" + o.Name
		if o.Binary != nil {
			text += fmt.Sprint(*o.Binary)
		}
	}
	if r.Binary {
		text += " binary"
	}
	return text
}

func TestRequestsOverREST(t *testing.T) {
	raw := binary.LittleEndian.AppendUint32(nil, math.Float32bits(1.5))
	raw = append(raw, 1, 0, 0, 0, 'x', 0, 0, 0, 0)
	for _, c := range []struct{ json, tail, want string }{
		{`{"inputs":[{"name":"a","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4.5]]}]}`, "", ` a:FP32[2 2]="[1 2 3 4.5]"`},
		{`{"id":"7","inputs":[{"data":[1,-2],"datatype":"INT8","shape":[2],"name":"a","parameters":{"x":1}}],"outputs":[{"name":"y"},{"name":"z","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true}}`, "", `7 a:INT8[2]="[1 -2]" ?y ?zfalse binary`},
		{`{"inputs":[{"name":"t","shape":[2],"datatype":"BYTES","data":["a\nb",""]},{"name":"b","shape":[1,1],"datatype":"BOOL","data":[true]}]}`, "", ` t:BYTES[2]="[a\nb ]" b:BOOL[1 1]="[true]"`},
		{`{"inputs":[{"name":"u","shape":[1],"datatype":"UINT64","data":[18446744073709551615]}]}`, "", ` u:UINT64[1]="[18446744073709551615]"`},
		{
			`{"inputs":[{"name":"f","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}},{"name":"t","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}`,
			string(raw), ` f:FP32[1]="[1.5]" t:BYTES[2]="[x ]"`,
		},
	} {
		length := ""
		if c.tail != "" {
			length = strconv.Itoa(len(c.json))
		}
		r, err := oip.ParseRequest([]byte(c.json+c.tail), length)
		if err != nil || show(r) != c.want {
			t.Errorf("%s: %s, %v; want %s", c.json, show(r), err, c.want)
		}
	}
}

func TestRubbishOverRESTIsRefused(t *testing.T) {
	one := func(rest string) string { return `{"inputs":[{"name":"a",` + rest + `}]}` }
	for _, c := range []struct{ body, length, says string }{
		{"", "", "ends too early"},
		{"[]", "", "does not fit"},
		{"{", "", "ends too early"},
		{"{}x", "", "not JSON"},
		{`{"inputs":7}`, "", "/inputs"},
		{"{}", "3", "at most 2"},
		{"{}", "-1", "at most 2"},
		{"{}", "two", "at most 2"},
		{"{}xyz", "2", "3 bytes behind the JSON"},
		{one(`"shape":[2],"datatype":"FP32"`), "", "has no data"},
		{one(`"shape":[2],"datatype":"FP32","data":[1]`), "", "1 values for the shape [2]"},
		{one(`"shape":[1],"datatype":"FP32","data":[1,2]`), "", "more values than the shape"},
		{one(`"shape":[1],"datatype":"FP32","data":["x"]`), "", "value 1"},
		{one(`"shape":[1],"datatype":"FP32","data":[1e99]`), "", "is no FP32"},
		{one(`"shape":[1],"datatype":"INT8","data":[128]`), "", "is no INT8"},
		{one(`"shape":[1],"datatype":"INT32","data":[1.5]`), "", "is no INT32"},
		{one(`"shape":[1],"datatype":"UINT8","data":[-1]`), "", "is no UINT8"},
		{one(`"shape":[1],"datatype":"BOOL","data":[1]`), "", "is no BOOL"},
		{one(`"shape":[1],"datatype":"BYTES","data":[1]`), "", "is no string"},
		{one(`"shape":[1],"datatype":"FP16","data":[1]`), "", `datatype "FP16" is not known`},
		{one(`"shape":[1],"datatype":7,"data":[1]`), "", "datatype"},
		{one(`"shape":[-1],"datatype":"FP32","data":[1]`), "", "too short"},
		{one(`"shape":[4611686018427387904,4],"datatype":"FP32","data":[1]`), "", "too short"},
		{one(`"shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"datatype":"FP32","data":[1]`), "", "17 dimensions"},
		{one(`"shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}`), "", "0 bytes are left"},
		{one(`"shape":[1],"datatype":"FP32","parameters":{"binary_data_size":"4"}`) + "1234", "MEASURE", "binary_data_size"},
		{one(`"shape":[2],"datatype":"FP32","parameters":{"binary_data_size":4}`) + "1234", "MEASURE", "it takes 8"},
		{one(`"shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":4}`) + "\xff\xff\xff\xff", "MEASURE", "says that it has 4294967295 bytes"},
		{one(`"shape":[1000000000],"datatype":"BYTES","parameters":{"binary_data_size":4}`) + "\xff\xff\xff\xff", "MEASURE", "too few for 1000000000 texts"},
		{one(`"shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}`) + "\x00\x00\x00\x00x", "MEASURE", "1 bytes are left"},
		{`{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":1}}]}`, "", "give true or false"},
		{`{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":2}}]}`, "", "classification"},
	} {
		if c.length == "MEASURE" {
			c.length = strconv.Itoa(strings.LastIndex(c.body, "}") + 1)
		}
		if _, err := oip.ParseRequest([]byte(c.body), c.length); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v; want %q", c.body, err, c.says)
		}
	}
}

// tensors are drawn of every type.
func tensors(t *rapid.T) tensor.Tensor {
	types := []tensor.Type{
		tensor.Bool, tensor.Uint8, tensor.Uint16, tensor.Uint32, tensor.Uint64, tensor.Int8, tensor.Int16, tensor.Int32, tensor.Int64,
		tensor.Float32, tensor.Float64, tensor.Bytes,
	}
	out := tensor.Tensor{Name: rapid.StringN(1, 8, -1).Draw(t, "name"), Type: rapid.SampledFrom(types).Draw(t, "type")}
	n := rapid.IntRange(1, 5).Draw(t, "rows")
	out.Shape = []int64{int64(n)}
	switch out.Type {
	case tensor.Bool:
		out.Data = rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "data")
	case tensor.Uint8:
		out.Data = rapid.SliceOfN(rapid.Uint8(), n, n).Draw(t, "data")
	case tensor.Uint16:
		out.Data = rapid.SliceOfN(rapid.Uint16(), n, n).Draw(t, "data")
	case tensor.Uint32:
		out.Data = rapid.SliceOfN(rapid.Uint32(), n, n).Draw(t, "data")
	case tensor.Uint64:
		out.Data = rapid.SliceOfN(rapid.Uint64(), n, n).Draw(t, "data")
	case tensor.Int8:
		out.Data = rapid.SliceOfN(rapid.Int8(), n, n).Draw(t, "data")
	case tensor.Int16:
		out.Data = rapid.SliceOfN(rapid.Int16(), n, n).Draw(t, "data")
	case tensor.Int32:
		out.Data = rapid.SliceOfN(rapid.Int32(), n, n).Draw(t, "data")
	case tensor.Int64:
		out.Data = rapid.SliceOfN(rapid.Int64(), n, n).Draw(t, "data")
	case tensor.Float32:
		out.Data = rapid.SliceOfN(rapid.Float32(), n, n).Draw(t, "data")
	case tensor.Float64:
		out.Data = rapid.SliceOfN(rapid.Float64(), n, n).Draw(t, "data")
	default:
		out.Data = rapid.SliceOfN(rapid.String(), n, n).Draw(t, "data")
	}
	return out
}

// A tensor comes back as it was: as JSON, as bytes behind it, and over gRPC in both ways.
func TestTensorsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tensors(t)
		response := oip.Response{Model: "m", Version: "1", ID: "7", Outputs: []tensor.Tensor{want}}
		for _, raw := range []bool{false, true} {
			body, length, err := response.Encode([]bool{raw})
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			if raw {
				text = strconv.Itoa(length)
			}
			body = []byte(strings.Replace(string(body), `"outputs"`, `"inputs" `, 1)) // a response is almost a request
			got, err := oip.ParseRequest(body, text)
			if err != nil || len(got.Inputs) != 1 || fmt.Sprintf("%#v", got.Inputs[0]) != fmt.Sprintf("%#v", want) {
				t.Fatalf("binary %v: %s: %#v, %v; want %#v", raw, body, got.Inputs, err, want)
			}
			message, err := response.Proto(raw)
			if err != nil {
				t.Fatal(err)
			}
			asked := &inference.ModelInferRequest{RawInputContents: message.GetRawOutputContents()}
			for _, o := range message.GetOutputs() {
				asked.Inputs = append(asked.Inputs, &inference.ModelInferRequest_InferInputTensor{Name: o.GetName(), Datatype: o.GetDatatype(), Shape: o.GetShape(), Contents: o.GetContents()})
			}
			wired, err := proto.Marshal(asked)
			if err != nil {
				t.Fatal(err)
			}
			arrived := &inference.ModelInferRequest{}
			if err := proto.Unmarshal(wired, arrived); err != nil {
				t.Fatal(err)
			}
			got, _, err = oip.FromProto(arrived)
			if err != nil || len(got.Inputs) != 1 || fmt.Sprintf("%#v", got.Inputs[0]) != fmt.Sprintf("%#v", want) {
				t.Fatalf("gRPC raw %v: %#v, %v; want %#v", raw, got.Inputs, err, want)
			}
		}
	})
}

func TestRubbishOverGRPCIsRefused(t *testing.T) {
	input := func(datatype string, c *inference.InferTensorContents, shape ...int64) *inference.ModelInferRequest_InferInputTensor {
		return &inference.ModelInferRequest_InferInputTensor{Name: "a", Datatype: datatype, Shape: shape, Contents: c}
	}
	type inputs = []*inference.ModelInferRequest_InferInputTensor
	for _, c := range []struct {
		message *inference.ModelInferRequest
		says    string
	}{
		{&inference.ModelInferRequest{Inputs: inputs{input("FP32", nil, 1)}}, "0 values for the shape [1]"},
		{&inference.ModelInferRequest{Inputs: inputs{input("FP32", &inference.InferTensorContents{Fp64Contents: []float64{1}}, 1)}}, "0 values"},
		{&inference.ModelInferRequest{Inputs: inputs{input("FP32", &inference.InferTensorContents{Fp32Contents: []float32{1, 2}}, -1, -2)}}, "2 values for the shape [-1 -2]"},
		{&inference.ModelInferRequest{Inputs: inputs{input("INT8", &inference.InferTensorContents{IntContents: []int32{200}}, 1)}}, "200 is out of the range of INT8"},
		{&inference.ModelInferRequest{Inputs: inputs{input("X", nil, 1)}}, `datatype "X"`},
		{&inference.ModelInferRequest{Inputs: inputs{input("FP32", nil, 1)}, RawInputContents: [][]byte{{1}}}, "1 bytes for the shape [1] of FP32: it takes 4"},
		{&inference.ModelInferRequest{Inputs: inputs{input("FP32", nil, 1)}, RawInputContents: [][]byte{{1}, {2}}}, "2 raw_input_contents for 1 inputs"},
		{&inference.ModelInferRequest{Inputs: inputs{input("FP32", &inference.InferTensorContents{}, 1)}, RawInputContents: [][]byte{{1, 2, 3, 4}}}, "beside raw_input_contents"},
	} {
		if _, _, err := oip.FromProto(c.message); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v; want %q", c.message, err, c.says)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"inputs":[{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]}]}`), 0)
	f.Add([]byte(`{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}`+"\x01\x00\x00\x00x"), 91)
	f.Fuzz(func(t *testing.T, body []byte, length int) {
		text := ""
		if length > 0 {
			text = strconv.Itoa(length)
		}
		r, err := oip.ParseRequest(body, text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("rubbish is taken for a defect: %v", err)
			}
			return
		}
		for _, in := range r.Inputs {
			if err := in.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
