package models

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver"
)

func TestAnONNXModelIsFoundWhateverItsFoldersNameMeansToAShell(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "model[1]")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	a := app{submit.For(&shell.App{Getenv: func(string) string { return "" }})}
	open := func() error {
		_, err := a.openONNX(serveFlags{}, folder, &modelserver.Options{})
		return err
	}
	if err := open(); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "has no") {
		t.Errorf("of an empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "m.onnx"), []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(); err == nil || strings.Contains(err.Error(), "has no") { // it is no model, or there is no library for any
		t.Errorf("of a folder with something in it: %v", err)
	}
}
