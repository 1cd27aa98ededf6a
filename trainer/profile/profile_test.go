package profile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/profile"
	"github.com/clary-ml/clary/trainer/table"
)

func of(t testing.TB, text string, o profile.Options) (*profile.Profile, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "t.csv")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := table.Open(name, table.Options{OnBroken: table.Skip})
	if err != nil {
		t.Fatal(err)
	}
	return profile.Of(context.Background(), s, o)
}

// people is a table in which plan tells the label, age goes with twice, and id is different in
// every row.
func people(rows int) string {
	var b strings.Builder
	b.WriteString("id,plan,age,twice,constant,gaps,empty,left\n")
	for i := range rows {
		plan, left, gap := "monthly", "yes", ""
		if i%3 == 0 {
			plan, left = "yearly", "no"
		}
		if i%4 == 0 {
			gap = "7"
		}
		fmt.Fprintf(&b, "p%d,%s,%d,%d,1,%s,,%s\n", i, plan, i%50, 2*(i%50)+i%2, gap, left)
	}
	return b.String()
}

func column(t testing.TB, p *profile.Profile, name string) profile.Column {
	t.Helper()
	for _, c := range p.Columns {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no column %s", name)
	return profile.Column{}
}

func TestAProfileSaysWhatIsInATable(t *testing.T) {
	p, err := of(t, people(300)+"broken\n", profile.Options{Label: "left"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Rows != 300 || p.Broken != 1 || p.Sampled != 300 || !reflect.DeepEqual(p.Classes, []string{"yes", "no"}) {
		t.Errorf("%d rows, %d broken, %d sampled, classes %v", p.Rows, p.Broken, p.Sampled, p.Classes)
	}
	age := column(t, p, "age")
	if age.Kind != table.Number || math.Abs(age.Mean-24.5) > 1e-9 || !reflect.DeepEqual(age.Quantiles, []float64{0, 2, 12, 24.5, 37, 47, 49}) {
		t.Errorf("%+v", age)
	}
	inside := int64(0)
	for _, b := range age.Histogram {
		inside += b.Count
	}
	if inside != 300 {
		t.Errorf("%d numbers are in the histogram", inside)
	}
	plan := column(t, p, "plan")
	if plan.Distinct != 2 || plan.Values[0].Text != "monthly" || plan.Values[0].Count != 200 || plan.Association < 0.99 {
		t.Errorf("%+v", plan)
	}
	if g := plan.ByLabel; len(g) != 2 || g[0].Value != "monthly" || g[0].Rows != 200 || !reflect.DeepEqual(g[0].Shares, []float64{1, 0}) {
		t.Errorf("%+v", g)
	}
	if id := column(t, p, "id"); id.Association > 0.05 { // many values go with anything by chance
		t.Errorf("an identifier has an association of %v", id.Association)
	}
	if age.Association > 0.2 {
		t.Errorf("age has an association of %v with what it does not tell", age.Association)
	}
	var notes []string
	for _, n := range p.Notes {
		notes = append(notes, n.Column+" "+n.Text)
	}
	for _, want := range []string{"id is different in nearly every row", "constant has one value only", "gaps is missing in 75 %", "empty is empty", "plan tells the label almost alone", "age and twice have a correlation of"} {
		if !strings.Contains(strings.Join(notes, "\n"), want) {
			t.Errorf("no note %q in %q", want, notes)
		}
	}
	if len(notes) != 7 { // and gaps, which has one value
		t.Errorf("%q", notes)
	}
	if _, err := json.Marshal(p); err != nil {
		t.Error(err)
	}
}

func TestALabelOfNumbersHasMeans(t *testing.T) {
	p, err := of(t, people(300), profile.Options{Label: "twice"})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Classes) != 0 || column(t, p, "age").Association < 0.9 || column(t, p, "plan").Association > 0.2 {
		t.Errorf("%v, %v, %v", p.Classes, column(t, p, "age").Association, column(t, p, "plan").Association)
	}
	g := column(t, p, "plan").ByLabel
	sum := 0.0
	for i := range 300 {
		if i%3 == 0 {
			sum += float64(2*(i%50) + i%2)
		}
	}
	if len(g) != 2 || math.Abs(g[1].Mean-sum/100) > 1e-9 || g[1].Rows != 100 {
		t.Errorf("%+v, want a mean of %v", g, sum/100)
	}
}

// A table that is larger than the sample is told from rows that are spread all over it, the same
// each time.
func TestTheSampleIsEvenAndTheSameAgain(t *testing.T) {
	var b strings.Builder
	b.WriteString("x,half\n")
	const rows = 3 * profile.MaxSample
	for i := range rows {
		fmt.Fprintf(&b, "%d,%d\n", i, 2*i/rows)
	}
	first, err := of(t, b.String(), profile.Options{Label: "half"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := of(t, b.String(), profile.Options{Label: "half"})
	if err != nil {
		t.Fatal(err)
	}
	if first.Rows != rows || first.Sampled > profile.MaxSample || first.Sampled < profile.MaxSample/3 {
		t.Errorf("%d rows are sampled of %d", first.Sampled, first.Rows)
	}
	for i, g := range column(t, first, "x").ByLabel {
		if want := float64(i / 2); math.Abs(float64(g.Rows)/float64(first.Sampled)-.25) > .01 || math.Abs(g.Shares[slices.Index(first.Classes, fmt.Sprint(want))]-1) > .02 {
			t.Errorf("%+v", g)
		}
	}
	if !reflect.DeepEqual(first, second) {
		t.Error("another sample, the second time")
	}
}

func TestWhatCannotBeProfiledIsRefused(t *testing.T) {
	if _, err := of(t, "a,b\n", profile.Options{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("without rows: %v", err)
	}
	if _, err := of(t, people(3), profile.Options{Label: "gone"}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "id, plan, age") {
		t.Errorf("%v", err)
	}
	for _, text := range []string{"a\n1\n", "a,b\nx,\n", "a,b\n1e308,-1e308\n-1e308,1e308\n", "a,b\n,\n,\n"} {
		for _, label := range []string{"", "a"} {
			p, err := of(t, text, profile.Options{Label: label})
			if err != nil {
				t.Errorf("%q: %v", text, err)
			} else if _, err := json.Marshal(p); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}
