package shell

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// WritePage writes a page of results where --html says: a file, which is whole or not there, or
// standard output for "-".
func (a *App) WritePage(path, holds string, write func(io.Writer) error) error {
	if path == "-" {
		return write(a.Out)
	}
	var text strings.Builder
	if err := write(&text); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fault.New(fault.Invalid, "--html: %w", err)
	}
	if err := atomicfile.Write(path, []byte(text.String()), 0o644); err != nil {
		return fault.New(fault.Invalid, "--html: %w", err)
	}
	a.Note("%s holds %s", path, holds)
	return nil
}
