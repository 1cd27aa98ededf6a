package modelserver_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/proto/inference"
	"github.com/clary-ml/clary/serving/modelserver"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

func TestMoreRowsThanARequestMayHaveAreRefused(t *testing.T) {
	at, _ := serve(t, modelserver.Options{Engine: crossing(t), Name: "sides", MaxRows: 3})
	if got := post(t, "http://"+at+"/invocations", "text/csv", "", strings.Repeat("1,2\n", 3)); got.code != 200 {
		t.Errorf("three rows: %d %s", got.code, got.body)
	}
	const says = "the request has 4 rows: send at most 3 at once"
	for path, body := range map[string]string{
		"/invocations":           `[[1,2],[1,2],[1,2],[1,2]]`,
		"/v2/models/sides/infer": `{"inputs":[{"name":"input","shape":[4,2],"datatype":"FP32","data":[1,2,1,2,1,2,1,2]}]}`,
	} {
		if got := post(t, "http://"+at+path, "application/json", "", body); got.code != 413 || !strings.Contains(got.body, says) {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
	_, err := dial(t, at).ModelInfer(t.Context(), &inference.ModelInferRequest{ModelName: "sides", Inputs: []*inference.ModelInferRequest_InferInputTensor{
		{Name: "input", Datatype: "FP32", Shape: []int64{4, 2}, Contents: &inference.InferTensorContents{Fp32Contents: make([]float32, 8)}},
	}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), says) {
		t.Errorf("gRPC: %v", err)
	}
}

// asked is a context that ends once it was asked often enough.
type asked struct {
	context.Context
	left int
}

func (a *asked) Err() error {
	if a.left--; a.left < 0 {
		return context.Canceled
	}
	return nil
}

// Many rows are computed in pieces, so that a run that nobody waits for can stop.
func TestANetworkStopsBetweenItsRows(t *testing.T) {
	const rows = 1000
	e := crossing(t)
	requests := [][]tensor.Tensor{{{Name: "input", Type: tensor.Float32, Shape: []int64{rows, 2}, Data: make([]float32, 2*rows)}}}
	answers := e.Run(&asked{Context: t.Context(), left: 2}, requests)
	if !errors.Is(answers[0].Err, context.Canceled) || answers[0].Tensors != nil {
		t.Errorf("cut off midway: %v", answers[0].Err)
	}
	answers = e.Run(t.Context(), requests)
	if answers[0].Err != nil || answers[0].Tensors[0].Rows() != rows {
		t.Errorf("left alone: %v", answers[0].Err)
	}
}
