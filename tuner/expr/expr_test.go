package expr_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/clary-ml/clary/tuner/expr"
)

var types = map[string]expr.Type{
	"x": expr.Number, "y": expr.Number, "opt": expr.Text, "flag": expr.Truth, "mixed": expr.Any, "learning-rate": expr.Number,
}

var values = map[string]expr.Value{
	"x": expr.Num(3), "y": expr.Num(-0.5), "opt": expr.Str("adam"), "flag": expr.Bool(true), "mixed": expr.Num(7), "learning-rate": expr.Num(0.1),
}

func holds(t *testing.T, text string) bool {
	t.Helper()
	e, err := expr.Parse(text, types)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e.Holds(arguments(e))
}

func arguments(e *expr.Expr) []expr.Value {
	var args []expr.Value
	for _, name := range e.Names() {
		args = append(args, values[name])
	}
	return args
}

func TestExpressionsMeanWhatTheySay(t *testing.T) {
	for text, want := range map[string]bool{
		"x * 2 <= 6":                                   true,
		"x < 3":                                        false,
		"x + 2 * x == 9":                               true,
		"(x + 2) * x == 15":                            true,
		"x - 1 - 1 == 1":                               true,
		"x / 2 / 2 == 0.75":                            true,
		"-x ^ 2 == -9":                                 true,
		"2 ^ x ** 2 == 512":                            true,
		"2 ^ -1 == x - 2.5":                            true,
		"x % 2 == 1":                                   true,
		"y < 1 - x or opt == 'adam'":                   true,
		"y < 1 - x and opt == 'adam'":                  false,
		"not y < 1 - x and opt == \"adam\"":            true,
		"!(x > 1 && x < 5) || flag":                    true,
		"flag == false":                                false,
		"flag and x > 2":                               true,
		"opt in ['sgd', 'adam']":                       true,
		"opt not in ['sgd', 'adam']":                   false,
		"x in [1, 2, 3]":                               true,
		"mixed == 7 and mixed != 'auto'":               true,
		"`learning-rate` < 1e-1 * 2":                   true,
		"max(x, y, 4) - min(x, y) == 4.5":              true,
		"log2(x + 5) == 3 and abs(y) == .5":            true,
		"floor(2.5) == 2 and ceil(y) == 0 and x == 3":  true,
		"sqrt(y) < 5":                                  false, // not a number compares with nothing
		"sqrt(y) >= 5 or sqrt(y) != 5":                 false,
		"x / (y + 0.5) > 1e300":                        true, // infinite
		"round(x + 0.4) == 3 and exp(0) == x - 2":      true,
		"log10(x * 1000 / 3) == 3 and log(x - 2) == 0": true,
	} {
		if got := holds(t, text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestMistakesNameTheColumnAndTheRemedy(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "column 1: the end where a number",
		"x":                                    "is a number: a constraint is true or false",
		"1 < 2":                                "names no parameter",
		"x < ":                                 "column 5: the end where",
		"x = 3":                                `column 3: "=" is no comparison: write ==`,
		"1 < x < 3":                            "column 7: comparisons do not chain",
		"z < 3":                                `column 1: there is no parameter "z": there are flag`,
		"x < 3 4":                              `column 7: "4" does not belong here`,
		"opt < 3":                              "column 5: < compares numbers, not a text",
		"opt == 3":                             "column 5: == compares a text with a number: they are never equal",
		"x + opt > 1":                          "column 3: + takes numbers, not a text",
		"x and flag":                           "column 3: and joins what is true or false, not a number",
		"not x":                                "column 1: not takes what is true or false",
		"sinh(x) > 1":                          `column 1: there is no function "sinh": there are abs, ceil`,
		"sqrt(x, y) > 1":                       "sqrt takes 1 argument, not 2",
		"max(x) > 1":                           "max takes 2 or more arguments, not 1",
		"sqrt(opt) > 1":                        "sqrt takes numbers, not a text",
		"opt == 'adam":                         "column 8: the quote ' is not closed",
		"x < 3 # no":                           `column 7: '#' means nothing here`,
		"x < 3e":                               "is not a number",
		"x < 12x":                              "is not a number",
		"x < 1e999":                            "is not a number",
		"x in 3":                               `where "[" should be`,
		"(x < 3":                               `column 7: the end where ")" should be`,
		"mixed < 3":                            "< compares numbers, not a number, text or truth",
		"x < and":                              "where a number, a text or a parameter should be",
		strings.Repeat("(", 100):               "more than 64 parts within one another",
		"x <" + strings.Repeat("-", 100) + "1": "more than 64 parts within one another",
		strings.Repeat("not ", 100) + "flag":   "more than 64 parts within one another",
		"x < " + strings.Repeat("1 ^ ", 100) + "1": "more than 64 parts within one another",
		strings.Repeat("x", 5000):                  "5000 bytes: at most 4096",
	} {
		_, err := expr.Parse(text, types)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

// FuzzParse shows that whatever parses can be evaluated, says the same each time, and reads
// only the names that it says.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"x*2<=6 and opt in ['a'] or not flag", "max(x,y)^-2 % 3 != `learning-rate`", "mixed == 'a' || -x>.5e-3", "((x)) not in [1,2]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := expr.Parse(text, types)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		args := arguments(e)
		first := e.Holds(args)
		if again := e.Holds(args); len(args) == 0 || again != first {
			t.Fatalf("%q: names %v, unsteady", text, e.Names())
		}
		for i, name := range e.Names() {
			switch types[name] {
			case expr.Number:
				args[i] = expr.Num(math.NaN())
			case expr.Any:
				args[i] = expr.Str("other")
			}
		}
		e.Holds(args)
	})
}

func TestValuesKeepTheirTypeInJSON(t *testing.T) {
	for text, want := range map[string]expr.Value{`3`: expr.Num(3), `"3"`: expr.Str("3"), `true`: expr.Bool(true), `1e-05`: expr.Num(1e-5)} {
		var v expr.Value
		if err := json.Unmarshal([]byte(text), &v); err != nil || v != want {
			t.Errorf("%s: %v %v", text, v, err)
		}
		if again, err := json.Marshal(v); err != nil || string(again) != text {
			t.Errorf("%s comes back as %s (%v)", text, again, err)
		}
	}
	for _, text := range []string{`[]`, `{}`, `x`} {
		var v expr.Value
		if err := json.Unmarshal([]byte(text), &v); err == nil {
			t.Errorf("%s was taken as %v", text, v)
		}
	}
	if _, err := json.Marshal(expr.Num(math.Inf(1))); err == nil {
		t.Error("an infinite number was written as JSON")
	}
	if got := expr.Num(1<<40).String() + expr.Num(0.0001).String() + expr.Bool(false).String(); got != "1099511627776"+"0.0001"+"false" {
		t.Error(got)
	}
	if expr.Num(math.Copysign(0, -1)) != expr.Num(0) {
		t.Error("-0 is not 0")
	}
}
