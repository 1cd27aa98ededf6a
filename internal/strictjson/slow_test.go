package strictjson_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/strictjson"
)

// TestLargeRubbishIsQuick: time grows no faster than the text, so that nobody can keep
// a coordinator busy with one.
func TestLargeRubbishIsQuick(t *testing.T) {
	fill := func(head, part, tail string) string {
		return head + strings.Repeat(part, strictjson.MaxSize/8/len(part)) + tail
	}
	for claim, text := range map[string]string{
		"quotes":       fill(`{"name": "`, `\"`, `"}`),
		"backslashes":  fill(`{"name": "`, `\\`, `"}`),
		"numbers":      fill(`{"any": [`, `1,`, `1]}`),
		"one number":   fill(`{"memory": `, `1`, `}`),
		"lists":        fill(`{"any": [`, `[],`, `1]}`),
		"keys":         fill(`{`, `"abcdefgh":1,`, `"a":1}`),
		"texts":        fill(`{"layers": [`, `"a",`, `1]}`),
		"a long key":   fill(`{"`, `e`, `":1}`),
		"blanks":       fill(`{`, ` `, `}`),
		"open objects": fill(``, `{"any":`, ``),
		"open lists":   fill(``, `[`, ``),
	} {
		var s sample
		start := time.Now()
		strictjson.Decode([]byte(text), &s)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %s", claim, took)
		} else {
			t.Log(claim, took)
		}
	}
}
