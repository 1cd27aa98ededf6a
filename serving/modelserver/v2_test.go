package modelserver_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/proto/inference"
	"github.com/clary-ml/clary/serving/modelserver"
)

func TestV2OverREST(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: crossing(t), Name: "sides", Version: "3"})
	for path, want := range map[string]string{
		"/v2/health/live":                   "",
		"/v2/health/ready":                  "",
		"/v2/models/sides/ready":            "",
		"/v2":                               `"extensions":["binary_tensor_data"]`,
		"/v2/models/sides":                  `{"inputs":[{"name":"input","datatype":"FP32","shape":[-1,2]}],"name":"sides","outputs":[{"name":"label","datatype":"BYTES","shape":[-1]},{"name":"probabilities","datatype":"FP32","shape":[-1,2]}],"platform":"clary-trainer/1","versions":["3"]}`,
		"/v2/models/sides/versions/3":       `"versions":["3"]`,
		"/v2/models/sides/versions/3/ready": "",
	} {
		if got := get(t, "http://"+at+path); got.code != 200 || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
	const rows = `"inputs":[{"name":"input","shape":[2,2],"datatype":"FP32","data":[4,2,2,4]}]`
	for _, c := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"/v2/models/sides/infer", `{"id":"a",` + rows + `}`, 200, `{"model_name":"sides","model_version":"3","id":"a","outputs":[{"name":"label","datatype":"BYTES","shape":[2],"data":["left","right"]},{"name":"probabilities","datatype":"FP32","shape":[2,2],"data":[0.7310586,0.26894143,0.26894143,0.7310586]}]}`},
		{"/v2/models/sides/versions/3/infer", `{` + rows + `,"outputs":[{"name":"label"}]}`, 200, `{"model_name":"sides","model_version":"3","outputs":[{"name":"label","datatype":"BYTES","shape":[2],"data":["left","right"]}]}`},
		{"/v2/models/sides/infer", `{` + strings.ReplaceAll(rows, "FP32", "INT64") + `,"outputs":[{"name":"label"}]}`, 200, `["left","right"]`},
		{"/v2/models/other/infer", `{` + rows + `}`, 404, `ask for \"sides\"`},
		{"/v2/models/sides/versions/4/infer", `{` + rows + `}`, 404, `ask for \"3\"`},
		{"/v2/models/sides/infer", `{` + rows + `,"outputs":[{"name":"x"}]}`, 400, `output \"x\" is none`},
		{"/v2/models/sides/infer", `{` + strings.ReplaceAll(rows, `"input"`, `"x"`) + `}`, 400, `input \"input\" is missing`},
		{"/v2/models/sides/infer", `{` + strings.ReplaceAll(rows, "[2,2]", "[4,1]") + `}`, 400, "the model takes [-1 2]"},
		{"/v2/models/sides/infer", `{` + strings.ReplaceAll(strings.ReplaceAll(rows, "[2,2]", "[0,2]"), "4,2,2,4", "") + `}`, 400, "no rows"},
		{"/v2/models/sides/infer", `{"inputs":[{"name":"input","shape":[1,2],"datatype":"BYTES","data":["a","b"]}]}`, 400, "are no numbers"},
		{"/v2/models/sides/infer", `rubbish`, 400, "not JSON"},
	} {
		if got := post(t, "http://"+at+c.path, "application/json", "", c.body); got.code != c.code || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: %d %s", c.path, c.body, got.code, got.body)
		}
	}
}

func dial(t *testing.T, at string) inference.GRPCInferenceServiceClient {
	t.Helper()
	c, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return inference.NewGRPCInferenceServiceClient(c)
}

// REST and gRPC share the port and the answers.
func TestV2OverGRPC(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: spending(t), Name: "spent", MaxPayload: 4000})
	c, ctx := dial(t, at), t.Context()
	live, err := c.ServerLive(ctx, &inference.ServerLiveRequest{})
	if err != nil || !live.GetLive() {
		t.Errorf("live: %v, %v", live, err)
	}
	ready, err := c.ModelReady(ctx, &inference.ModelReadyRequest{Name: "spent", Version: "1"})
	if err != nil || !ready.GetReady() {
		t.Errorf("ready: %v, %v", ready, err)
	}
	server, err := c.ServerReady(ctx, &inference.ServerReadyRequest{})
	if err != nil || !server.GetReady() {
		t.Errorf("server ready: %v, %v", server, err)
	}
	if about, err := c.ServerMetadata(ctx, &inference.ServerMetadataRequest{}); err != nil || about.GetName() != "clary" {
		t.Errorf("server: %v, %v", about, err)
	}
	model, err := c.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "spent"})
	if err != nil || fmt.Sprintf("%d %s %v", len(model.GetInputs()), model.GetInputs()[1].GetDatatype(), model.GetOutputs()[0].GetShape()) != "2 BYTES [-1]" {
		t.Errorf("model: %v, %v", model, err)
	}
	if _, err := c.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("another model: %v", err)
	}
	ask := func(cities ...string) (*inference.ModelInferResponse, error) {
		ages, texts := []float64{}, [][]byte{}
		for i, city := range cities {
			ages, texts = append(ages, float64(i)), append(texts, []byte(city))
		}
		return c.ModelInfer(ctx, &inference.ModelInferRequest{ModelName: "spent", Id: "9", Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "city", Datatype: "BYTES", Shape: []int64{int64(len(cities)), 1}, Contents: &inference.InferTensorContents{BytesContents: texts}},
			{Name: "age", Datatype: "FP64", Shape: []int64{int64(len(cities))}, Contents: &inference.InferTensorContents{Fp64Contents: ages}},
		}})
	}
	got, err := ask("Rome", "Oslo", "Rome")
	if err != nil || got.GetId() != "9" || fmt.Sprint(got.GetOutputs()[0].GetContents().GetFp32Contents()) != "[10 2 14]" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ask(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no rows: %v", err)
	}
	if _, err := ask(strings.Repeat("x", 5000)); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "more than 4000 bytes") {
		t.Errorf("too large: %v", err)
	}
	var said map[string]any
	rest := post(t, "http://"+at+"/v2/models/spent/infer", "application/json", "", `{"inputs":[{"name":"age","shape":[1],"datatype":"FP64","data":[1]},{"name":"city","shape":[1],"datatype":"BYTES","data":["Rome"]}]}`)
	if rest.code != 200 || json.Unmarshal([]byte(rest.body), &said) != nil || !strings.Contains(rest.body, `"data":[12]`) {
		t.Errorf("REST beside it: %d %s", rest.code, rest.body)
	}
}

// A call under way at SIGTERM is answered, and connections that say nothing hold nobody up.
func TestGRPCEndsGracefully(t *testing.T) {
	g := newGated()
	at, stop := serve(t, modelserver.Options{Engine: g, Lanes: 1, Name: "m"})
	silent, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := dial(t, at)
	ask := func() error {
		_, err := c.ModelInfer(t.Context(), &inference.ModelInferRequest{ModelName: "m", Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "FP32", Shape: []int64{1, 1}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{1}}},
		}})
		return err
	}
	answered, stopped := make(chan error, 1), make(chan error, 1)
	go func() { answered <- ask() }()
	<-g.entered
	go func() { stopped <- stop() }()
	for {
		c, err := net.Dial("tcp", at)
		if err != nil {
			break
		}
		_ = c.Close()
		time.Sleep(time.Millisecond)
	}
	g.let <- struct{}{}
	if err := <-answered; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := ask(); status.Code(err) != codes.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}

// What is neither HTTP nor gRPC is dropped, and the rest goes on.
func TestRubbishOnTheWire(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: crossing(t)})
	for _, bytes := range []string{"", "P", "PRI ", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "GET", "\r\n\r\n\r\n", "PUT /x HTTP/9.9\r\n\r\n"} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(bytes)); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := post(t, "http://"+at+"/invocations", "text/csv", "", "4,2\n"); got.code != 200 {
		t.Errorf("%d %s", got.code, got.body)
	}
}
