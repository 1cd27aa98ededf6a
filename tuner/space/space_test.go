package space_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/tunertest"
)

func compile(t testing.TB, text string) *space.Space {
	t.Helper()
	var spec space.Spec
	if problems := strictjson.Decode([]byte(text), &spec); len(problems) > 0 {
		t.Fatal(problems)
	}
	s, err := spec.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const tree = `{"parameters": [
	{"name": "momentum", "type": "float", "low": 0, "high": 0.999, "scale": "reverse_log", "when": {"parameter": "optimizer", "in": ["sgd"]}},
	{"name": "optimizer", "type": "categorical", "choices": ["adam", "sgd", "none"]},
	{"name": "lr", "type": "float", "low": 1e-4, "high": 1e-1, "scale": "log", "when": {"parameter": "optimizer", "in": ["adam", "sgd"]}},
	{"name": "depth", "type": "int", "low": 1, "high": 8},
	{"name": "width", "type": "int", "low": 16, "high": 1024, "step": 16},
	{"name": "batch", "type": "ordered", "choices": [16, 32, 64]},
	{"name": "epochs", "type": "constant", "value": 10}],
	"constraints": ["depth * width <= 4096", "momentum < 1 - lr"]}`

func TestEveryPointOfTheCubeIsAConfigurationAndComesBackExactly(t *testing.T) {
	var points, conditional, levels int
	rapid.Check(t, func(t *rapid.T) {
		s, err := tunertest.Specs().Draw(t, "spec").Compile()
		if err != nil {
			t.Fatal(err)
		}
		dims := s.Dims()
		x, active := make([]float64, len(dims)), make([]bool, len(dims))
		for range 10 {
			for i := range x {
				x[i] = rapid.Float64Range(0, 1).Draw(t, "x")
			}
			c := s.Decode(x)
			points++
			if problems := s.Check(c); s.Admits(c) != (len(problems) == 0) {
				t.Fatalf("%v decodes to %v: %v", x, c, problems)
			}
			byMask := make([]bool, len(dims))
			s.Active(x, byMask)
			y := make([]float64, len(dims))
			s.Encode(c, y, active)
			if !slices.Equal(active, byMask) {
				t.Fatalf("active by configuration %v, by coordinates %v", active, byMask)
			}
			for i, d := range dims {
				if !active[i] {
					conditional++
					continue
				}
				if d.Levels > 0 {
					levels++
					if y[i] != d.Snap(x[i]) || y[i] != d.At(d.LevelOf(c[d.Param])) {
						t.Fatalf("%s: %v snaps to %v but encodes as %v", d.Name, x[i], d.Snap(x[i]), y[i])
					}
				} else if math.Abs(y[i]-x[i]) > 1e-9 {
					t.Fatalf("%s: %v comes back as %v", d.Name, x[i], y[i])
				}
			}
			again := s.Decode(y)
			for i, name := range s.Names() {
				if d := slices.IndexFunc(dims, func(d space.Dim) bool { return d.Name == name }); (d < 0 || dims[d].Levels > 0) && !same(again[i], c[i]) {
					t.Fatalf("%s: %v comes back as %v", name, c[i], again[i])
				}
			}
			if parsed, problems := s.Parse(s.Values(c)); s.Admits(c) && (len(problems) > 0 || parsed.Key() != c.Key()) {
				t.Fatalf("%v is read as %v: %v", s.Values(c), parsed, problems)
			}
		}
	})
	if points == 0 || conditional == 0 || levels == 0 {
		t.Fatalf("exercised %d points, %d inactive, %d levels", points, conditional, levels)
	}
}

func same(a, b float64) bool { return a == b || a != a && b != b }

func TestConfigurationsAreCountedAndNumberedEachOnce(t *testing.T) {
	counted := 0
	rapid.Check(t, func(t *rapid.T) {
		spec := tunertest.FiniteSpecs().Draw(t, "spec")
		spec.Constraints = nil
		s, err := spec.Compile()
		if err != nil {
			t.Fatal(err)
		}
		size, finite := s.Size()
		if !finite {
			t.Fatal("not finite")
		}
		seen := make(map[string]bool)
		for n := range size {
			c := s.Nth(n)
			if problems := s.Check(c); len(problems) > 0 || seen[c.Key()] {
				t.Fatalf("number %d of %d: %v: seen %v, %v", n, size, c, seen[c.Key()], problems)
			}
			seen[c.Key()] = true
			counted++
		}
		// Every combination of levels decodes to one of them.
		x := make([]float64, len(s.Dims()))
		for range 50 {
			for i := range x {
				x[i] = rapid.Float64Range(0, 1).Draw(t, "x")
			}
			if c := s.Decode(x); !seen[c.Key()] {
				t.Fatalf("%v has no number", c)
			}
		}
	})
	if counted < 300 {
		t.Fatalf("counted %d", counted)
	}
}

func TestTheOrderOfWritingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := tunertest.Specs().Draw(t, "spec")
		other := space.Spec{Parameters: rapid.Permutation(spec.Parameters).Draw(t, "order"), Constraints: spec.Constraints}
		a, err := spec.Compile()
		if err != nil {
			t.Fatal(err)
		}
		b, err := other.Compile()
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float64, len(a.Dims()))
		for i := range x {
			x[i] = rapid.Float64Range(0, 1).Draw(t, "x")
		}
		if c, d := a.Decode(x), b.Decode(x); c.Key() != d.Key() || a.Admits(c) != b.Admits(d) {
			t.Fatalf("%v, and in another order %v", c, d)
		}
	})
}

func TestConditionsFollowTheTree(t *testing.T) {
	s := compile(t, tree)
	values := func(text string) map[string]expr.Value {
		var m map[string]expr.Value
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for text, want := range map[string]string{
		`{"optimizer":"adam","lr":0.01,"depth":2,"width":64,"batch":32}`:                   "",
		`{"optimizer":"none","depth":2,"width":64,"batch":32,"epochs":10}`:                 "",
		`{"optimizer":"adam","lr":0.01,"momentum":0.5,"depth":2,"width":64,"batch":32}`:    "momentum: is not active with optimizer as it is: leave it out",
		`{"optimizer":"sgd","lr":0.01,"depth":2,"width":64,"batch":32}`:                    "momentum: is missing: give a number from 0 to 0.999",
		`{"optimizer":"sgd","lr":0.01,"momentum":0.995,"depth":8,"width":1024,"batch":32}`: "the constraint depth * width <= 4096 does not hold\nthe constraint momentum < 1 - lr does not hold",
		`{"optimizer":"none","depth":2.5,"width":65,"batch":"32","epochs":11,"speed":1}`:   "speed: there is no such parameter\nbatch: \"32\": give one of 16, 32, 64\ndepth: \"2.5\": give an int from 1 to 8\nepochs: \"11\": give 10 or nothing\nwidth: \"65\": give an int from 16 to 1024 in steps of 16",
		`{"optimizer":"rmsprop","lr":0.01,"depth":2,"width":64,"batch":32}`:                "optimizer: \"rmsprop\": give one of adam, sgd, none",
	} {
		c, problems := s.Parse(values(text))
		if problems.Error() != want {
			t.Errorf("%s:\n%v\nwant\n%s", text, problems, want)
		}
		if again := s.Check(c); want == "" && len(again) > 0 {
			t.Errorf("%s: %v", text, again)
		}
	}
}

func TestEncodingOfGridsGivesEachLevelTheSameShare(t *testing.T) {
	s := compile(t, `{"parameters": [{"name": "n", "type": "int", "low": 3, "high": 7}]}`)
	d := s.Dims()[0]
	for k := range 5 {
		if got, want := d.At(k), (float64(k)+0.5)/5; math.Abs(got-want) > 1e-15 {
			t.Errorf("level %d at %v, want %v", k, got, want)
		}
	}
	s = compile(t, `{"parameters": [{"name": "n", "type": "float", "low": 0.1, "high": 0.55, "step": 0.1}]}`)
	if d = s.Dims()[0]; d.Levels != 5 {
		t.Fatalf("%d levels", d.Levels)
	}
	var got []float64
	for n := range uint64(5) {
		got = append(got, s.Nth(n)[0])
	}
	if !slices.Equal(got, []float64{0.1, 0.2, 0.3, 0.4, 0.5}) {
		t.Error("levels are not round:", got)
	}
}

func TestScalesSpreadWhatTheyShould(t *testing.T) {
	for scale, want := range map[string]float64{"log": 1e-3, "reverse_log": 1 - math.Sqrt(1e-5*0.99999), "logit": 0.5} {
		low, high := "1e-5", "0.99999"
		if scale == "log" {
			high = "1e-1"
		}
		s := compile(t, fmt.Sprintf(`{"parameters": [{"name": "n", "type": "float", "low": %s, "high": %s, "scale": %q}]}`, low, high, scale))
		if got := s.Start()[0]; math.Abs(got-want) > 1e-9 {
			t.Errorf("the middle of %s is %v, want %v", scale, got, want)
		}
	}
}

func TestRubbishIsRefusedWithTheFieldAndTheRemedy(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "parameters: 0 parameters: give 1 to 1000",
		`{"parameters":[{"name":"","type":"float","low":0,"high":1}]}`:                                                                             `parameters[0].name: "": give 1 to 256 bytes`,
		`{"parameters":[{"name":"a","type":"flaot"}]}`:                                                                                             `parameters[0].type: "flaot": give one of float, int`,
		`{"parameters":[{"name":"a","type":"float","low":2,"high":1}]}`:                                                                            "parameters[0].high: 1 is below low 2: exchange them",
		`{"parameters":[{"name":"a","type":"float"}]}`:                                                                                             "parameters[0].low: is missing: a parameter of type float needs low and high\nparameters[0].high: is missing",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":1,"scale":"log"}]}`:                                                              "parameters[0].low: 0: on the scale log values lie above 0",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":1,"scale":"reverse_log"}]}`:                                                      "parameters[0].high: 1: on the scale reverse_log values lie from 0 to below 1",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":1,"scale":"logit"}]}`:                                                            "parameters[0].low: 0: on the scale logit values lie between 0 and 1\nparameters[0].high: 1",
		`{"parameters":[{"name":"a","type":"float","low":-1e308,"high":1e308}]}`:                                                                   "wider than a number can say",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":1,"scale":"exp"}]}`:                                                              `parameters[0].scale: "exp": give one of linear`,
		`{"parameters":[{"name":"a","type":"int","low":0.5,"high":1e300}]}`:                                                                        "parameters[0].low: 0.5: an int needs a whole number of at most 2^53 in size\nparameters[0].high: 1e+300",
		`{"parameters":[{"name":"a","type":"int","low":0,"high":9,"step":0.5}]}`:                                                                   "parameters[0].step: 0.5: an int needs a whole step",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":9,"step":0}]}`:                                                                   "parameters[0].step: 0: give a number above 0",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":9,"step":1e-300}]}`:                                                              "makes more than 2^53 levels",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":9,"default":10}]}`:                                                               "parameters[0].default: 10 is outside low 0 and high 9",
		`{"parameters":[{"name":"a","type":"float","low":0,"high":9,"default":"x"}]}`:                                                              `parameters[0].default: "x": give a number`,
		`{"parameters":[{"name":"a","type":"int","low":0,"high":9,"default":1.5}]}`:                                                                "parameters[0].default: 1.5 is not on the grid",
		`{"parameters":[{"name":"a","type":"ordered"}]}`:                                                                                           "parameters[0].choices: 0 choices: give 1 to 100000",
		`{"parameters":[{"name":"a","type":"categorical","choices":["x",1,"x",null],"default":"y"}]}`:                                              "parameters[0].choices[2]: \"x\" is choice 0 already: leave it out\nparameters[0].choices[3]: is null: give a number, a text, or true or false\nparameters[0].default: \"y\" is none of the choices",
		`{"parameters":[{"name":"a","type":"constant","low":1}]}`:                                                                                  "parameters[0].value: is missing: a constant needs its value\nparameters[0].low: a parameter of type constant has none: leave it out",
		`{"parameters":[{"name":"a","type":"constant","value":1},{"name":"a","type":"constant","value":1}]}`:                                       `parameters[1].name: "a" is the name of parameters[0] already`,
		`{"parameters":[{"name":"a","type":"constant","value":1,"when":{"parameter":"b","in":[1]}}]}`:                                              `parameters[0].when.parameter: there is no parameter "b"`,
		`{"parameters":[{"name":"a","type":"constant","value":1,"when":{"parameter":"a","in":[1]}}]}`:                                              `parameters[0].when.parameter: "a" waits for itself`,
		`{"parameters":[{"name":"a","type":"float","low":0,"high":1},{"name":"b","type":"constant","value":1,"when":{"parameter":"a","in":[1]}}]}`: `parameters[1].when.parameter: "a" is a float without a step`,
		`{"parameters":[{"name":"a","type":"int","low":0,"high":1},{"name":"b","type":"constant","value":1,"when":{"parameter":"a","in":[2]}}]}`:   `parameters[1].when.in[0]: "2" is no value of "a"`,
		`{"parameters":[{"name":"a","type":"int","low":0,"high":1},{"name":"b","type":"constant","value":1,"when":{"parameter":"a","in":[]}}]}`:    `parameters[1].when.in: is empty`,
		`{"parameters":[{"name":"a","type":"int","low":0,"high":1}],"constraints":["a <"]}`:                                                        "constraints[0]: a <: column 4: the end where",
	} {
		var spec space.Spec
		if problems := strictjson.Decode([]byte(text), &spec); len(problems) > 0 {
			t.Errorf("%s: %v", text, problems)
			continue
		}
		if got := spec.Validate().Error(); !strings.Contains(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", text, got, want)
		}
	}
	nan := math.NaN()
	if got := (space.Spec{Parameters: []space.Parameter{{Name: "a", Type: space.Float, Low: &nan, High: &nan}}}).Validate(); len(got) != 2 {
		t.Error("NaN bounds:", got)
	}
}

func TestTenThousandCategoriesAndLongChainsOfConditions(t *testing.T) {
	many := make([]expr.Value, 10_000)
	for i := range many {
		many[i] = expr.Str(fmt.Sprint("choice ", i))
	}
	s, err := space.Spec{Parameters: []space.Parameter{{Name: "a", Type: space.Categorical, Choices: many}}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if size, finite := s.Size(); size != 10_000 || !finite {
		t.Fatal(size, finite)
	}
	if c := s.Decode([]float64{0.99999}); c[0] != 9999 {
		t.Error(c)
	}
	var chain space.Spec
	for i := range 300 {
		q := space.Parameter{Name: fmt.Sprintf("p%03d", 299-i), Type: space.Categorical, Choices: many[:3]}
		if i > 0 {
			q.When = &space.When{Parameter: fmt.Sprintf("p%03d", 300-i), In: many[:2]}
		}
		chain.Parameters = append(chain.Parameters, q)
	}
	if s, err = chain.Compile(); err != nil {
		t.Fatal(err)
	}
	if size, finite := s.Size(); finite {
		t.Error("the chain has 3*2^299 configurations, not", size)
	}
	chain.Parameters = chain.Parameters[:40]
	s, err = chain.Compile()
	if err != nil {
		t.Fatal(err)
	}
	// f(1) = 3, f(n) = 1 + 2 f(n-1): 2^(n+1) - 1.
	if size, finite := s.Size(); size != 1<<41-1 || !finite {
		t.Error(size, finite)
	}
	if c := s.Nth(1<<41 - 2); len(s.Check(c)) > 0 {
		t.Error(c)
	}
}

func TestTrialsOfAChangedSpaceAreTakenOverWhereTheyFit(t *testing.T) {
	old := compile(t, `{"parameters": [{"name": "lr", "type": "float", "low": 0.001, "high": 1, "scale": "log"}, {"name": "gone", "type": "int", "low": 0, "high": 9}, {"name": "opt", "type": "categorical", "choices": ["sgd", "adam", "lamb"]}]}`)
	now := compile(t, `{"parameters": [{"name": "opt", "type": "categorical", "choices": ["adam", "sgd"]}, {"name": "lr", "type": "float", "low": 0.01, "high": 2}, {"name": "new", "type": "int", "low": 0, "high": 9, "default": 4},
		{"name": "momentum", "type": "float", "low": 0, "high": 1, "when": {"parameter": "opt", "in": ["sgd"]}}]}`)
	for text, want := range map[string]string{
		`{"lr":0.5,"gone":1,"opt":"adam"}`:   "map[lr:0.5 new:4 opt:adam]",
		`{"lr":0.005,"gone":1,"opt":"adam"}`: "", // below the new range
		`{"lr":0.5,"gone":1,"opt":"lamb"}`:   "", // a choice that is no more
		`{"lr":0.5,"gone":1,"opt":"sgd"}`:    "", // momentum is unknown
	} {
		var values map[string]expr.Value
		if err := json.Unmarshal([]byte(text), &values); err != nil {
			t.Fatal(err)
		}
		c, problems := old.Parse(values)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		got := ""
		if translated, ok := now.Translate(old, c); ok {
			got = fmt.Sprint(now.Values(translated))
			if problems := now.Check(translated); len(problems) > 0 {
				t.Errorf("%s: %v", text, problems)
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// FuzzSpec shows that no spec, however wrong, does harm, and that what compiles works.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(tree))
	f.Add([]byte(`{"parameters":[{"name":"a","type":"float","low":1e-300,"high":1e300,"scale":"log","step":3}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var spec space.Spec
		if json.Unmarshal(text, &spec) != nil {
			return
		}
		s, err := spec.Compile()
		if err != nil {
			return
		}
		x := make([]float64, len(s.Dims()))
		for _, v := range []float64{0, 0.3, 0.5, 1} {
			for i := range x {
				x[i] = v
			}
			if c := s.Decode(x); s.Admits(c) != (len(s.Check(c)) == 0) {
				t.Fatalf("%s: %v decodes to %v: %v", text, x, c, s.Check(c))
			}
		}
		if size, finite := s.Size(); finite {
			if c := s.Nth(size - 1); s.Admits(c) != (len(s.Check(c)) == 0) {
				t.Fatalf("%s: the last is %v: %v", text, c, s.Check(c))
			}
		}
		s.Start()
	})
}
