package jsonpath_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch/jsonpath"
)

const person = `{"name":"Ann", "age": 41.50, "tags":["a","b","c"], "home":{"city":"Ulm","zip":"89073"}, "a.b":1,
	"visits":[{"year":2020,"cost":1e3},{"year":2021}]}`

func TestSelectsFromJSON(t *testing.T) {
	for _, test := range []struct{ path, want string }{
		{"$.name", `"Ann"`},
		{"$['name']", `"Ann"`},
		{`$["name"]`, `"Ann"`},
		{"$.age", `41.50`}, // as it is written
		{"$.home.city", `"Ulm"`},
		{"$['home']['city']", `"Ulm"`},
		{"$['a.b']", `1`},
		{"$.tags[0]", `"a"`},
		{"$.tags[-1]", `"c"`},
		{"$.tags[0,2]", `["a","c"]`},
		{"$.tags[2,0,0]", `["c","a","a"]`},
		{"$.tags[1:]", `["b","c"]`},
		{"$.tags[:-1]", `["a","b"]`},
		{"$.tags[-2:]", `["b","c"]`},
		{"$.tags[0,-1:]", `["a","c"]`},
		{"$.tags[5:]", `[]`},
		{"$.tags[*]", `["a","b","c"]`},
		{"$.home.*", `["Ulm","89073"]`},
		{"$['name','age']", `{"name":"Ann","age":41.50}`},
		{"$['age','nothing']", `{"age":41.50}`},
		{"$.home['zip', 'city']", `{"zip":"89073","city":"Ulm"}`},
		{"$.visits[*].year", `[2020,2021]`},
		{"$.visits[*].cost", `[1e3]`},
		{"$.visits[0]", `{"year":2020,"cost":1e3}`},
		{"$.visits[:]['year','cost']", `[{"year":2020,"cost":1e3},{"year":2021}]`},
	} {
		path, err := jsonpath.Parse(test.path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := path.JSON([]byte(person))
		if err != nil || string(got) != test.want {
			t.Errorf("%s gives %s, %v; want %s", test.path, got, err, test.want)
		}
	}
	for _, path := range []string{"$.nobody", "$.name.first", "$[0]", "$.tags[7]", "$.tags.a", "$.home[0].city"} {
		parsed, err := jsonpath.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed.JSON([]byte(person)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s gives %s, %v; want an error", path, got, err)
		}
	}
	for _, path := range []string{"", "$"} {
		parsed, err := jsonpath.Parse(path)
		if err != nil || !parsed.All() {
			t.Fatalf("%q: %v", path, err)
		}
		if got, err := parsed.JSON([]byte(" [1, 2] ")); err != nil || string(got) != "[1, 2]" {
			t.Errorf("%q changes it to %s, %v", path, got, err)
		}
		if _, err := parsed.JSON([]byte("{")); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q takes what is no JSON", path)
		}
	}
}

func TestSelectsColumns(t *testing.T) {
	row := func(text string) [][]byte { return bytes.Split([]byte(text), []byte{','}) }
	for _, test := range []struct{ path, want string }{
		{"$", "a,b,c,d"},
		{"$[*]", "a,b,c,d"},
		{"$[0]", "a"},
		{"$[-1]", "d"},
		{"$[1:]", "b,c,d"},
		{"$[:2]", "a,b"},
		{"$[0,2:]", "a,c,d"},
		{"$[3,0]", "d,a"},
		{"$[1:-1]", "b,c"},
	} {
		path, err := jsonpath.Parse(test.path)
		if err != nil || path.CheckColumns() != nil {
			t.Fatalf("%s: %v, %v", test.path, err, path.CheckColumns())
		}
		got, err := path.Columns(row("a,b,c,d"))
		if text := bytes.Join(got, []byte{','}); err != nil || string(text) != test.want {
			t.Errorf("%s gives %s, %v; want %s", test.path, text, err, test.want)
		}
	}
	for _, text := range []string{"$.name", "$['a','b']", "$[0][1]"} {
		path, err := jsonpath.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if !fault.Is(path.CheckColumns(), fault.Invalid) {
			t.Errorf("%s is taken for columns", text)
		}
	}
	path, _ := jsonpath.Parse("$[7]")
	if _, err := path.Columns(row("a,b")); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "a row that has 2") {
		t.Errorf("no column is %v", err)
	}
}

func TestRefusesOtherPaths(t *testing.T) {
	for _, text := range []string{
		"name", "$$", "$.", "$..name", "$[", "$[]", "$[0", "$['a]", "$['a'", "$['a',0]", "$[0,'a']", "$[a]", "$[?(@.x)]", "$[0:1:2]", "$[--1]",
		"$[99999999999999999999]", "$[*", "$.*x", "$ .a", "$" + strings.Repeat(".a", 65), "$['" + strings.Repeat("a", 2000) + "']",
	} {
		if _, err := jsonpath.Parse(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is taken", text)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, path := range []string{"$['name','age']", "$.tags[0,-1:]", "$.visits[*].year", "$[*]", "$[0,2:]"} {
		f.Add(path, []byte(person))
		f.Add(path, []byte(`[1,[2,{"name":null}],"x"]`))
	}
	f.Fuzz(func(t *testing.T, text string, document []byte) {
		path, err := jsonpath.Parse(text)
		if err != nil {
			return
		}
		if got, err := path.JSON(document); err == nil && !json.Valid(got) {
			t.Fatalf("%q of %q gives %q", text, document, got)
		}
		if got, err := path.Columns(bytes.Split(document, []byte{','})); err == nil && len(got) == 0 {
			t.Fatalf("%q of %q gives no column and no error", text, document)
		}
	})
}
