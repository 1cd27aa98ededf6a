package shell

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Confirm asks a person before what cannot be undone. Where nobody can be asked, --yes must stand.
func (a *App) Confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !a.Terminal || a.ReadSecret == nil {
		return fault.New(fault.Invalid, "%s: nobody can be asked here: say --yes", question)
	}
	fmt.Fprintf(a.Err, "%s? [y/N] ", question)
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() { // after Ctrl-C it waits for a line until the process ends
		line, err := bufio.NewReader(a.In).ReadString('\n')
		answered <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.Err)
		return ctx.Err()
	case got := <-answered:
		word := strings.ToLower(strings.TrimSpace(got.line))
		switch {
		case word == "y" || word == "yes":
			return nil
		case got.err != nil && word == "":
			return fault.New(fault.Invalid, "nothing was changed: no answer: %w", got.err)
		}
		return fault.New(fault.Invalid, "nothing was changed")
	}
}
