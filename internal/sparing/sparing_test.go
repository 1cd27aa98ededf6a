package sparing_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/sparing"
)

func TestAFloodOfAlikeLinesIsAFewAndACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		log := sparing.New(slog.New(slog.NewTextHandler(&text, nil)))
		for i := range 1000 {
			log.With("n", i).Warn("refused a connection from a stranger at " + fmt.Sprint(i))
		}
		log.Info("something else")
		log.Error("refused a connection from a stranger") // another level
		if lines := strings.Count(text.String(), "\n"); lines != sparing.Lines+2 {
			t.Errorf("%d lines:\n%s", lines, text.String())
		}
		text.Reset()
		time.Sleep(sparing.Span) // of the bubble
		log.Warn("refused a connection from a stranger")
		if want := fmt.Sprintf("left_out_before=%d", 1000-sparing.Lines); !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in %s", want, text.String())
		}
		text.Reset()
		for i := range 1000 { // kinds without number cannot fill memory
			for range sparing.Lines {
				log.Warn(fmt.Sprintf("%d is another kind", i))
			}
		}
		if lines := strings.Count(text.String(), "\n"); lines > 70*sparing.Lines {
			t.Errorf("%d lines of a thousand kinds", lines)
		}
		text.Reset()
		time.Sleep(sparing.Span)
		for i := range 20 { // what came long ago takes nobody's place
			for range sparing.Lines {
				log.Warn(fmt.Sprintf("%d is a later kind", i))
			}
		}
		if lines := strings.Count(text.String(), "\n"); lines != 20*sparing.Lines {
			t.Errorf("%d lines of twenty kinds, %d of each", lines, sparing.Lines)
		}
	})
}
