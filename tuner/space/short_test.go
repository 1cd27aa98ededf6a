package space_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/clary-ml/clary/tuner/space"
)

func TestTheShortFormSaysWhatTheLongOneDoes(t *testing.T) {
	for text, want := range map[string]string{
		`lr=log:1e-4..1e-1`:          `{"name":"lr","type":"float","low":0.0001,"high":0.1,"scale":"log"}`,
		`dropout=0.0..0.5`:           `{"name":"dropout","type":"float","low":0,"high":0.5}`,
		`depth=1..8`:                 `{"name":"depth","type":"int","low":1,"high":8}`,
		`shift=-8..-1`:               `{"name":"shift","type":"int","low":-8,"high":-1}`,
		`n=1e3..1e6`:                 `{"name":"n","type":"float","low":1000,"high":1000000}`,
		`n=int:log:1e3..1e6`:         `{"name":"n","type":"int","low":1000,"high":1000000,"scale":"log"}`,
		`n=log:int:1..1000`:          `{"name":"n","type":"int","low":1,"high":1000,"scale":"log"}`,
		`share=float:0..1`:           `{"name":"share","type":"float","low":0,"high":1}`,
		`units=32..512:32`:           `{"name":"units","type":"int","low":32,"high":512,"step":32}`,
		`x=0..1:0.25`:                `{"name":"x","type":"float","low":0,"high":1,"step":0.25}`,
		`m=reverse_log:0.5..0.999`:   `{"name":"m","type":"float","low":0.5,"high":0.999,"scale":"reverse_log"}`,
		`p=logit:.01...99`:           `{"name":"p","type":"float","low":0.01,"high":0.99,"scale":"logit"}`,
		`act=relu,tanh`:              `{"name":"act","type":"categorical","choices":["relu","tanh"]}`,
		`act=relu , tanh`:            `{"name":"act","type":"categorical","choices":["relu","tanh"]}`,
		`x=1,2.5,true,"true","a, b"`: `{"name":"x","type":"categorical","choices":[1,2.5,true,"true","a, b"]}`,
		`x="1..3"`:                   `{"name":"x","type":"constant","value":"1..3"}`,
		`x=../a,../b`:                `{"name":"x","type":"categorical","choices":["../a","../b"]}`,
		`x=resnet:18,resnet:34`:      `{"name":"x","type":"categorical","choices":["resnet:18","resnet:34"]}`,
		`x=categorical:a`:            `{"name":"x","type":"categorical","choices":["a"]}`,
		`batch=ordered:16,32`:        `{"name":"batch","type":"ordered","choices":[16,32]}`,
		`seed=7`:                     `{"name":"seed","type":"constant","value":7}`,
		`mode="say \"a\""`:           `{"name":"mode","type":"constant","value":"say \"a\""}`,
		`optimizer.adam.rate=1..2`:   `{"name":"optimizer.adam.rate","type":"int","low":1,"high":2}`,
		`lr=log:1e-4..0.1 default 0.01 if opt=sgd, lamb`: `{"name":"lr","type":"float","low":0.0001,"high":0.1,"scale":"log","default":0.01,"when":{"parameter":"opt","in":["sgd","lamb"]}}`,
		`wd=0.0..0.1 if opt="a b" default 0`:             `{"name":"wd","type":"float","low":0,"high":0.1,"default":0,"when":{"parameter":"opt","in":["a b"]}}`,
	} {
		got, err := space.ParseShort(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		written, err := json.Marshal(got)
		if err != nil || string(written) != want {
			t.Errorf("%s:\n%s %v\nwant\n%s", text, written, err, want)
		}
		if again, err := space.ParseShort(got.Short()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s is written %s, which is %+v, %v", text, got.Short(), again, err)
		}
	}
}

func TestRubbishInTheShortFormIsRefusedWithTheRemedy(t *testing.T) {
	for text, want := range map[string]string{
		``:                              `"" is not NAME=VALUES`,
		`lr`:                            `"lr" is not NAME=VALUES`,
		`=1..2`:                         `is not NAME=VALUES`,
		`lr=`:                           "lr: it has no values: give a range",
		`lr= `:                          "lr: it has no values",
		`lr=1..`:                        "lr: a bound is missing: a range is LOW..HIGH",
		`lr=..2`:                        "a bound is missing",
		`lr=1..2:`:                      "a bound is missing",
		`lr=1...`:                       `"." is no number`,
		`lr=1..x`:                       `"x" is no number`,
		`lr=low..high`:                  `"low" is no number: a range is LOW..HIGH or LOW..HIGH:STEP; a text that holds ..`,
		`lr=1..inf`:                     `"inf" is no number`,
		`lr=nan..1`:                     `"nan" is no number`,
		`lr=0x1..0x2`:                   `"0x1" is no number`,
		`lr=1..1e999`:                   `"1e999" is no number`,
		`lr=1..2..3`:                    `"2..3" is no number`,
		`lr=1..2,3`:                     `"1..2": a range stands alone`,
		`lr=log:a,b`:                    `"a,b": a scale is for a range, as in log:`,
		`lr=log:3`:                      `a scale is for a range`,
		`lr=int:a,b`:                    `"a,b": int: is for a range`,
		`lr=float:3`:                    `float: is for a range`,
		`lr=constant:a,b`:               `constant: is for one value`,
		`lr=ordered:1..3`:               `"1..3": a range is float or int, not ordered`,
		`act=relu,,tanh`:                "a value is empty",
		`act=relu,`:                     "a value is empty",
		`act=,`:                         "a value is empty",
		`act="relu`:                     "a double quote has no other",
		`act="relu"x`:                   "is no text in double quotes",
		`act="\q"`:                      "is no text in double quotes",
		`act=re"lu`:                     "a double quote has no other",
		`act=re"l"u`:                    "a text with a double quote stands in double quotes itself",
		`act=relu tanh`:                 `"tanh" is left over`,
		`act=relu,tanh default`:         `"default" is left over`,
		`x=1..2 default 1 default 2`:    `"default" is left over`,
		`x=1..2 default "`:              "a double quote has no other",
		`x=1..2 if y`:                   "if y: give NAME=VALUE,VALUE",
		`x=1..2 if y=`:                  "if y=: give NAME=VALUE",
		`x=1..2 if =3`:                  "if =3: give NAME=VALUE",
		`x=1..2 if y=1..3`:              `"1..3": a range stands alone`,
		`x=1..2 unless y=3`:             `"unless" is left over`,
		"a=\xff":                        "is not UTF-8",
		strings.Repeat("x", 1000):       "is not NAME=VALUES",
		`x=1,` + strings.Repeat(`"`, 3): "a double quote has no other",
	} {
		if got, err := space.ParseShort(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v\nwant\n%s", text, got, err, want)
		}
	}
}

// What is a form, but no parameter, is found where all specs are checked.
func TestShortFormsThatAreNoParameterAreRefusedByTheSpec(t *testing.T) {
	for text, want := range map[string]string{
		`lr=2..1`:              "high: 1 is below low 2: exchange them",
		`lr=log:0..1`:          "low: 0: on the scale log values lie above 0",
		`lr=0..9:0`:            "step: 0: give a number above 0",
		`lr=int:0.5..2`:        "low: 0.5: an int needs a whole number",
		`act=relu,relu`:        `choices[1]: "relu" is choice 0 already`,
		`act=a,b default c`:    `default: "c" is none of the choices`,
		`lr=1..2 default 3`:    "default: 3 is outside",
		`lr=1..2 if nothing=1`: `when.parameter: there is no parameter "nothing"`,
	} {
		p, err := space.ParseShort(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := (space.Spec{Parameters: []space.Parameter{p}}).Validate().Error(); !strings.Contains(got, "parameters[0]."+want) {
			t.Errorf("%s: %s\nwant\n%s", text, got, want)
		}
	}
}

// FuzzParseShort shows that rubbish is refused, and that what is read can be written so
// that it reads the same.
func FuzzParseShort(f *testing.F) {
	for _, text := range []string{
		`lr=log:1e-4..1e-1 default 0.01 if opt=sgd,"a b"`, `units=32..512:32`, `act=ordered:1,"x\n",true`, `x=reverse_log:float:0..0.5`,
		`a="\ud800"`, `a=-0..0`, `a=1_0..2`, `a=+1..+2`, `=..,:`, `a=categorical:..`, "a=\x00,b",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := space.ParseShort(text)
		if err != nil {
			return
		}
		written := p.Short()
		again, err := space.ParseShort(written)
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%q is written %q, which is\n%+v %v\nnot\n%+v", text, written, again, err, p)
		}
	})
}
