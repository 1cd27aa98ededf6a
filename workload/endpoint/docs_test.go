package endpoint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/endpoint"
	"github.com/clary-ml/clary/workload/jobfile"
)

// blocks are the parts of a page that are files of endpoints: fenced, or indented by four spaces.
func blocks(page string) (files []string) {
	var block []string
	fenced := false
	end := func() {
		if file := strings.Join(block, "\n"); strings.Contains(file, "kind: endpoint") {
			files = append(files, file)
		}
		block = nil
	}
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		indented, code := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "```"):
			end()
			fenced = !fenced
		case fenced:
			block = append(block, line)
		case code:
			block = append(block, indented)
		default:
			end()
		}
	}
	end()
	return files
}

func TestTheFilesInTheDocumentationAreGood(t *testing.T) {
	kinds := map[cluster.Kind]jobfile.Kind{cluster.KindEndpoint: {Spec: endpoint.Spec{}, Check: func(data []byte) cluster.Problems {
		_, problems := endpoint.Parse(data)
		return problems
	}}}
	found := 0
	for _, page := range []string{"autoscaling.md", "endpoints.md", "ab-testing.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range blocks(string(text)) {
			found++
			if _, err := jobfile.Parse([]byte(file), kinds); err != nil {
				t.Errorf("%s: %v, of\n%s", page, err, file)
			}
		}
	}
	if found < 3 {
		t.Errorf("%d files in all pages", found)
	}
}
