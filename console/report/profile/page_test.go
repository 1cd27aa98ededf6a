package profile_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	page "github.com/clary-ml/clary/console/report/profile"
	"github.com/clary-ml/clary/trainer/profile"
	"github.com/clary-ml/clary/trainer/table"
)

func of(t testing.TB, text, label string) *profile.Profile {
	t.Helper()
	name := filepath.Join(t.TempDir(), "t.csv")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := table.Open(name, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.Of(context.Background(), s, profile.Options{Label: label})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, name string, p *profile.Profile) string {
	t.Helper()
	var b bytes.Buffer
	if err := page.Write(&b, page.Found{Name: name, Profile: p, Made: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}); err != nil {
		t.Fatal(err)
	}
	if folder := os.Getenv("CLARY_REPORT_DIR"); folder != "" { // to look at
		if err := os.WriteFile(filepath.Join(folder, name+".html"), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// people is a table of all sorts of columns, some of whose texts are hostile.
func people(rows int) string {
	var b strings.Builder
	b.WriteString("id,plan,age,income,empty,one,<b>odd</b>,left\n")
	for i := range rows {
		plan := []string{"monthly", "yearly", "<script>x</script>"}[i*7%3]
		income := fmt.Sprintf("%.3f", 1000*math.Exp(math.Sin(float64(i*i))))
		fmt.Fprintf(&b, "p%d,%s,%d,%s,,4,v%d,%s\n", i, plan, 18+i*13%70, income, i%40, []string{"no", "yes"}[i*7%3/2])
	}
	return b.String()
}

func TestThePageIsWholeAndAlone(t *testing.T) {
	wide := "a"
	for i := range 300 {
		wide += fmt.Sprintf(",c%d", i)
	}
	for name, c := range map[string]struct {
		text, label string
		says        []string
	}{
		"classes":  {people(400), "left", []string{"What tells the label", "Correlations", "association", "is different in nearly every row", "is empty", "histogram of income"}},
		"mean":     {people(400), "income", []string{"mean of income"}},
		"alone":    {people(400), "", []string{"400 rows", "8 columns"}},
		"one row":  {people(1), "left", []string{"1 row"}},
		"infinite": {"a,b\n1e308,-1e308\n-1e308,1e308\n", "a", []string{"Correlations"}},
		"wide":     {wide + "\n" + strings.Repeat("1,", 300) + "2\n", "", []string{"the first 200 of 301"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := write(t, name, of(t, c.text, c.label))
			for _, want := range c.says {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if found := regexp.MustCompile(`(?i)<script|(src|href)="?(?:[a-z]+:)?//|url\(|@import|NaN|Inf\b|ZgotmplZ|<b>odd|"-?\d+(\.\d+)?e\+`).FindString(text); found != "" {
				t.Errorf("there is %q in it", found)
			}
		})
	}
}

func TestEachColumnHasACard(t *testing.T) {
	text := write(t, "cards", of(t, people(300), "left"))
	if got := strings.Count(text, `<dl class="facts">`); got != 8 {
		t.Errorf("%d cards", got)
	}
	bars := regexp.MustCompile(`aria-label="histogram of age".*?</svg>`).FindString(text)
	sum := 0
	for _, found := range regexp.MustCompile(`: (\d+) rows?</title>`).FindAllStringSubmatch(bars, -1) {
		var n int
		fmt.Sscan(found[1], &n)
		sum += n
	}
	if sum != 300 {
		t.Errorf("%d rows are in the histogram", sum)
	}
}

func TestAProfileOfNothingHasNoPage(t *testing.T) {
	if err := page.Write(&bytes.Buffer{}, page.Found{Profile: &profile.Profile{}}); err == nil {
		t.Error("it has one")
	}
}
