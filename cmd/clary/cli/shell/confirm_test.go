package shell

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

func TestAQuestionIsAnsweredByAPersonOrNothingIsDone(t *testing.T) {
	person := func(string) (string, error) { return "", nil }
	for _, c := range []struct {
		answer         string
		yes, terminal  bool
		agrees         bool
		asked, refused string
	}{
		{answer: "y\n", terminal: true, agrees: true, asked: "Burn it? [y/N]"},
		{answer: " YES \n", terminal: true, agrees: true},
		{answer: "y", terminal: true, agrees: true}, // the end of the input, and no line's
		{answer: "n\n", terminal: true, refused: "nothing was changed"},
		{answer: "\n", terminal: true, refused: "nothing was changed"},
		{answer: "", terminal: true, refused: "no answer"},
		{answer: "y\n", refused: "nobody can be asked here: say --yes"},
		{yes: true, agrees: true},
	} {
		var said strings.Builder
		a := &App{In: strings.NewReader(c.answer), Err: &said, Terminal: c.terminal, ReadSecret: person}
		err := a.Confirm(t.Context(), c.yes, "Burn it")
		if (err == nil) != c.agrees || !strings.Contains(said.String(), c.asked) {
			t.Errorf("%+v: %v, asked %q", c, err, said.String())
		}
		if c.refused != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestCtrlCEndsAQuestionThatNobodyAnswers(t *testing.T) {
	silent, writer := io.Pipe()
	defer writer.Close()
	a := &App{In: silent, Err: io.Discard, Terminal: true, ReadSecret: func(string) (string, error) { return "", nil }}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Confirm(ctx, false, "Burn it") }()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for an answer still")
	}
}
