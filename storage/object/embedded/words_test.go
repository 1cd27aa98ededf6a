package embedded

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestWhatTheStoreSaysIsOneLineEach(t *testing.T) {
	var text bytes.Buffer
	w := &words{log: slog.New(slog.NewTextHandler(&text, nil))}
	for _, part := range []string{"\x1b[31m[INTERNAL ERROR]: tls: ", "no handshake\x1b[0m\n\n  \nnext", " one\n", strings.Repeat("x", 4000), strings.Repeat("y", 4000) + "\nlast\n", "srv cert reloaded (cert: a, key: b)\n", "unended"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("%d of %d bytes, %v", n, len(part), err)
		}
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 5 || !strings.Contains(lines[0], `"[INTERNAL ERROR]: tls: no handshake"`) || !strings.Contains(lines[1], `"next one"`) ||
		!strings.Contains(lines[2], "xxx ...") || len(lines[2]) > longestLine+100 || !strings.Contains(lines[3], "level=WARN") || !strings.Contains(lines[3], "line=last") || !strings.Contains(lines[4], "level=INFO") {
		t.Errorf("%d lines:\n%s", len(lines), text.String())
	}
}
