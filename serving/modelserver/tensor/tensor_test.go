package tensor_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// Joined and cut again, tensors are what they were.
func TestJoinedTensorsAreCutAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []tensor.Tensor
		for range rapid.IntRange(1, 5).Draw(t, "parts") {
			rows := rapid.IntRange(0, 4).Draw(t, "rows")
			parts = append(parts, tensor.Tensor{
				Type: tensor.Int16, Shape: []int64{int64(rows), 1, 2}, Data: rapid.SliceOfN(rapid.Int16(), 2*rows, 2*rows).Draw(t, "data"),
			})
		}
		joined, ok := tensor.Join(parts)
		if !ok || joined.Check() != nil {
			t.Fatalf("%v, %v", joined, joined.Check())
		}
		at := 0
		for _, p := range parts {
			got := joined.Cut(at, at+p.Rows())
			if fmt.Sprint(got) != fmt.Sprint(p) || got.Check() != nil {
				t.Fatalf("%v, want %v", got, p)
			}
			at += p.Rows()
		}
	})
}

func TestUnlikeTensorsAreNotJoined(t *testing.T) {
	a := tensor.Tensor{Type: tensor.Float32, Shape: []int64{1, 2}, Data: []float32{1, 2}}
	for _, b := range []tensor.Tensor{
		{Type: tensor.Float64, Shape: []int64{1, 2}, Data: []float64{1, 2}},
		{Type: tensor.Float32, Shape: []int64{1, 1}, Data: []float32{1}},
		{Type: tensor.Float32, Shape: []int64{2}, Data: []float32{1, 2}},
		{Type: tensor.Float32, Data: []float32{1}},
	} {
		if _, ok := tensor.Join([]tensor.Tensor{a, b}); ok {
			t.Errorf("%v is joined to %v", b, a)
		}
	}
}

func TestShapesThatCannotBeHaveNoVolume(t *testing.T) {
	for _, c := range []struct {
		shape []int64
		want  int
	}{
		{nil, 1},
		{[]int64{3, 4}, 12},
		{[]int64{0, 4}, 0},
		{[]int64{-1, 4}, -1},
		{[]int64{math.MaxInt64, 2}, -1},
		{[]int64{1 << 32, 1 << 32, 1 << 32}, -1},
	} {
		if got := tensor.Volume(c.shape); got != c.want {
			t.Errorf("%v: %d, want %d", c.shape, got, c.want)
		}
	}
}

func TestRequestsAreMatchedToAModel(t *testing.T) {
	ports := []tensor.Port{{Name: "a", Type: tensor.Float32, Shape: []int64{-1, 2}}, {Name: "b", Type: tensor.Bytes, Shape: []int64{-1}}}
	a := tensor.Tensor{Name: "a", Type: tensor.Float32, Shape: []int64{2, 2}, Data: make([]float32, 4)}
	b := tensor.Tensor{Name: "b", Type: tensor.Bytes, Shape: []int64{2, 1}, Data: make([]string, 2)}
	got, rows, err := tensor.Match(ports, []tensor.Tensor{b, a})
	if err != nil || rows != 2 || got[0].Name != "a" || len(got[1].Shape) != 1 {
		t.Errorf("%v, %d, %v", got, rows, err)
	}
	named := func(t tensor.Tensor, name string, shape ...int64) tensor.Tensor {
		t.Name, t.Shape = name, shape
		return t
	}
	for says, tensors := range map[string][]tensor.Tensor{
		"input \"b\" is missing":      {a},
		"input \"c\" is none":         {a, b, named(b, "c", 2)},
		"is given twice":              {a, b, a},
		"the model takes [-1 2]":      {named(a, "a", 4, 1), b},
		"the model takes [-1]":        {a, named(b, "b", 1, 2)},
		"has 1 rows, and \"a\" has 2": {a, named(b, "b", 1)},
		"the request has no rows":     {named(a, "a", 0, 2), named(b, "b", 0)},
		"input \"a\" is missing":      {b},
	} {
		_, _, err := tensor.Match(ports, tensors)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q", err, says)
		}
	}
}
