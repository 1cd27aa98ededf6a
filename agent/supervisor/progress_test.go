package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProgressIsReadAsItComesInAnyPieces(t *testing.T) {
	text := `{"epoch":1,"step":10,"total":40,"metrics":{"loss":0.5}}` + "\n\nrubbish\n" + `{"metrics":{"x":"y"}}` + "\n" +
		`{"epoch":2,"metrics":{"accuracy":0.9}}` + "\n" + strings.Repeat("long", maxMetricLine) + "\n" + `{"step":30}` + "\n" + `{"step":31}`
	for _, piece := range []int{1, 7, 100, 1 << 20} {
		path := filepath.Join(t.TempDir(), "metrics")
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		r := newProgressReader(filepath.Dir(path), path)
		for at := 0; at < len(text); {
			// The long line in one go, or this takes for ever.
			size := min(piece, len(text)-at)
			if strings.HasPrefix(text[at:], "longlong") {
				size = maxMetricLine
			}
			if _, err := file.WriteString(text[at : at+size]); err != nil {
				t.Fatal(err)
			}
			at += size
			r.read()
		}
		now, news := r.read()
		if news || now.Epoch != 2 || now.Step != 30 || now.Total != 40 || now.Metrics["loss"] != 0.5 || now.Metrics["accuracy"] != 0.9 {
			t.Errorf("in pieces of %d: %+v, %v", piece, now, news)
		}
	}
}

func TestATaskCannotFillTheAgentWithMetrics(t *testing.T) {
	r := newProgressReader("", "")
	for i := range 10 * maxMetrics {
		r.take([]byte(fmt.Sprintf(`{"metrics":{"m%d":1}}`+"\n", i)))
	}
	r.take([]byte(`{"metrics":{"` + strings.Repeat("n", maxMetricName+1) + `":1,"m0":2}}` + "\n"))
	if len(r.now.Metrics) != maxMetrics || r.now.Metrics["m0"] != 2 {
		t.Errorf("%d metrics are kept, m0 is %v", len(r.now.Metrics), r.now.Metrics["m0"])
	}
}

func FuzzProgress(f *testing.F) {
	f.Add([]byte(`{"epoch":1,"step":10,"total":40,"metrics":{"loss":0.5}}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newProgressReader("", "")
		r.take(text)
		if len(r.now.Metrics) > maxMetrics || len(r.rest) > maxMetricLine {
			t.Error("bounds are passed")
		}
	})
}
