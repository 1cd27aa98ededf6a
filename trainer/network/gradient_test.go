package network_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/spec"
)

func dense(units int, activation string) spec.Layer {
	return spec.Layer{Dense: &spec.Dense{Units: units, Activation: activation}}
}

func conv(filters, kernel, stride int, padding, activation string) spec.Layer {
	return spec.Layer{Conv2D: &spec.Conv2D{Filters: filters, Kernel: kernel, Stride: stride, Padding: padding, Activation: activation}}
}

func pool(kind string, size, stride int) spec.Layer {
	return spec.Layer{Pool: &spec.Pool{Kind: kind, Size: size, Stride: stride}}
}

func dropout(rate float64) spec.Layer { return spec.Layer{Dropout: &spec.Dropout{Rate: rate}} }

var flatten = spec.Layer{Flatten: &spec.Flatten{}}

// libraries are the BLAS that this machine has.
func libraries() map[string]network.BLAS {
	all := map[string]network.BLAS{"gonum": network.Gonum()}
	if b, err := network.OpenBLAS(2); err == nil {
		all["openblas"] = b
	}
	return all
}

func planOf(t testing.TB, n spec.Network) spec.Plan {
	t.Helper()
	p, problems := n.Plan()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return p
}

var networks = map[string]spec.Network{
	"dense":               {Input: []int{5}, Layers: []spec.Layer{dense(3, "")}, Loss: spec.CrossEntropy},
	"dense tanh":          {Input: []int{5}, Layers: []spec.Layer{dense(4, "tanh"), dense(3, "")}, Loss: spec.CrossEntropy},
	"dense sigmoid":       {Input: []int{5}, Layers: []spec.Layer{dense(4, "sigmoid"), dense(3, "")}, Loss: spec.CrossEntropy},
	"dense relu":          {Input: []int{5}, Layers: []spec.Layer{dense(8, "relu"), dense(6, "relu"), dense(3, "")}, Loss: spec.CrossEntropy},
	"dropout":             {Input: []int{5}, Layers: []spec.Layer{dense(8, "tanh"), dropout(0.4), dense(3, "")}, Loss: spec.CrossEntropy},
	"dropout first":       {Input: []int{5}, Layers: []spec.Layer{dropout(0.3), dense(3, "")}, Loss: spec.CrossEntropy},
	"conv valid":          {Input: []int{2, 5, 4}, Layers: []spec.Layer{conv(3, 3, 1, "", "tanh"), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"conv same":           {Input: []int{2, 5, 4}, Layers: []spec.Layer{conv(3, 3, 1, "same", "tanh"), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"conv even same":      {Input: []int{1, 6, 5}, Layers: []spec.Layer{conv(2, 4, 1, "same", "tanh"), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"conv stride":         {Input: []int{2, 7, 6}, Layers: []spec.Layer{conv(2, 3, 2, "same", "sigmoid"), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"conv wide kernel":    {Input: []int{1, 3, 3}, Layers: []spec.Layer{conv(2, 7, 1, "same", ""), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"conv on conv":        {Input: []int{1, 6, 6}, Layers: []spec.Layer{conv(2, 3, 1, "same", "tanh"), conv(3, 3, 2, "valid", "tanh"), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"conv alone":          {Input: []int{2, 3, 3}, Layers: []spec.Layer{conv(4, 3, 1, "valid", "")}, Loss: spec.CrossEntropy},
	"max pool":            {Input: []int{2, 5, 4}, Layers: []spec.Layer{conv(2, 3, 1, "same", ""), pool("max", 2, 0), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"max pool overlap":    {Input: []int{1, 5, 5}, Layers: []spec.Layer{conv(2, 3, 1, "same", ""), pool("max", 3, 1), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"average pool":        {Input: []int{2, 5, 4}, Layers: []spec.Layer{conv(2, 3, 1, "same", "tanh"), pool("average", 2, 1), flatten, dense(3, "")}, Loss: spec.CrossEntropy},
	"mse":                 {Input: []int{5}, Layers: []spec.Layer{dense(4, "tanh"), dense(1, "")}, Loss: spec.MeanSquaredError},
	"binary":              {Input: []int{5}, Layers: []spec.Layer{dense(4, "tanh"), dense(1, "")}, Loss: spec.BinaryCrossEntropy},
	"conv, pool, dropout": {Input: []int{1, 8, 8}, Layers: []spec.Layer{conv(3, 3, 1, "same", "tanh"), pool("max", 2, 0), dropout(0.25), flatten, dense(6, "tanh"), dropout(0.5), dense(3, "")}, Loss: spec.CrossEntropy},
}

// The gradient of every layer kind and loss is what finite differences of the loss say.
func TestGradientsAgreeWithFiniteDifferences(t *testing.T) {
	for library, b := range libraries() {
		for name, n := range networks {
			t.Run(library+"/"+name, func(t *testing.T) { checkGradient(t, planOf(t, n), b) })
		}
	}
}

func checkGradient(t *testing.T, plan spec.Plan, b network.BLAS) {
	const rows, used = 5, 4 // one row is left over, as in an epoch's last step
	g, err := network.Training(plan, rows, b)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	network.Initialize(plan, 3, g.Weights)
	batch := randomBatch(plan, used)
	loss := func() float64 {
		sum, _, err := g.Step(batch)
		if err != nil {
			t.Fatal(err)
		}
		return sum * batch.Share
	}
	loss()
	want := append([]float32(nil), g.Gradient...)
	const e = 4e-3
	checked, moved := 0, 0
	for i := range g.Weights {
		w := g.Weights[i]
		g.Weights[i] = w + e
		up := loss()
		g.Weights[i] = w - e
		down := loss()
		g.Weights[i] = w
		got := (up - down) / (2 * e)
		if math.Abs(got-float64(want[i])) > 2e-3+0.02*math.Abs(got) {
			t.Errorf("parameter %d: gradient %v, finite difference %v", i, want[i], got)
		}
		checked++
		if math.Abs(got) > 5e-3 {
			moved++
		}
	}
	if moved*4 < checked {
		t.Errorf("only %d of %d parameters matter: the check says little", moved, checked)
	}
}

func randomBatch(plan spec.Plan, rows int) network.Batch {
	r := rand.New(rand.NewPCG(5, uint64(plan.Parameters)))
	b := network.Batch{Share: 1 / float64(rows+2), Mask: network.Key{Seed: 9, Step: 4}}
	for range rows * spec.Volume(plan.Input) {
		b.Features = append(b.Features, float32(2*r.Float64()-1))
	}
	for range rows {
		label := float32(r.IntN(max(plan.Outputs, 2)))
		if plan.Loss == spec.MeanSquaredError {
			label = float32(r.Float64())
		}
		b.Labels = append(b.Labels, label)
	}
	return b
}

// Max pooling, strides and paddings come out as counted by hand.
func TestForwardByHand(t *testing.T) {
	image := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9}
	cases := []struct {
		name    string
		layers  []spec.Layer
		weights []float32
		want    []float32
	}{
		{"max pool", []spec.Layer{pool("max", 2, 1)}, nil, []float32{5, 6, 8, 9}},
		{"average pool", []spec.Layer{pool("average", 2, 1)}, nil, []float32{3, 4, 6, 7}},
		{"conv valid", []spec.Layer{conv(1, 2, 1, "valid", "")}, []float32{1, 0, 0, -1, 10}, []float32{6, 6, 6, 6}},
		{"conv same stride 2", []spec.Layer{conv(1, 3, 2, "same", "")}, []float32{0, 0, 0, 0, 1, 1, 0, 1, 1, 0}, []float32{12, 9, 15, 9}},
		{"relu", []spec.Layer{conv(1, 1, 1, "", "relu")}, []float32{1, -7}, []float32{0, 0, 0, 0, 0, 0, 0, 1, 2}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			// A dense layer of ones at the end would hide places, so the plan is made with
			// one and then cut.
			full := planOf(t, spec.Network{Input: []int{1, 3, 3}, Layers: append(c.layers, flatten, dense(2, "")), Loss: spec.CrossEntropy})
			plan := full
			plan.Stages = full.Stages[:len(c.layers)]
			plan.Outputs = spec.Volume(plan.Stages[len(plan.Stages)-1].Out)
			g, err := network.Inference(plan, 2, network.Gonum())
			if err != nil {
				t.Fatal(err)
			}
			copy(g.Weights, c.weights)
			got, err := g.Forward(image)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// The same batch, weights and mask key give the same gradient to the bit; another key
// gives another mask.
func TestStepIsReproducible(t *testing.T) {
	for library, b := range libraries() {
		plan := planOf(t, networks["conv, pool, dropout"])
		run := func(step int64) []float32 {
			g, err := network.Training(plan, 6, b)
			if err != nil {
				t.Fatal(err)
			}
			network.Initialize(plan, 1, g.Weights)
			batch := randomBatch(plan, 6)
			batch.Mask.Step = step
			if _, _, err := g.Step(batch); err != nil {
				t.Fatal(err)
			}
			return g.Gradient
		}
		if a, b := run(1), run(1); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%s: the same step gave two gradients", library)
		}
		if a, b := run(1), run(2); fmt.Sprint(a) == fmt.Sprint(b) {
			t.Errorf("%s: two steps had the same mask", library)
		}
	}
}

// Both BLAS compute the same products.
func TestOpenBLASAgreesWithGonum(t *testing.T) {
	b, err := network.OpenBLAS(2)
	if err != nil {
		t.Skip(err)
	}
	plan := planOf(t, networks["conv on conv"])
	var gradients [][]float32
	for _, library := range []network.BLAS{b, network.Gonum()} {
		g, err := network.Training(plan, 4, library)
		if err != nil {
			t.Fatal(err)
		}
		network.Initialize(plan, 1, g.Weights)
		if _, _, err := g.Step(randomBatch(plan, 4)); err != nil {
			t.Fatal(err)
		}
		gradients = append(gradients, g.Gradient)
	}
	for i, v := range gradients[0] {
		if d := math.Abs(float64(v - gradients[1][i])); d > 1e-5 {
			t.Fatalf("gradient %d: %v and %v", i, v, gradients[1][i])
		}
	}
}

// A training that diverges says so instead of going on with NaN.
func TestDivergedTrainingIsAnError(t *testing.T) {
	plan := planOf(t, networks["mse"])
	g, err := network.Training(plan, 2, network.Gonum())
	if err != nil {
		t.Fatal(err)
	}
	for i := range g.Weights {
		g.Weights[i] = float32(math.NaN())
	}
	if _, _, err := g.Step(randomBatch(plan, 2)); err == nil {
		t.Error("no error for NaN weights")
	}
}
