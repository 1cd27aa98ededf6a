package shimbin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
)

func TestInstallingTwiceIsOneFileAndDamageIsRepaired(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	path, err := install(dir, []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := install(dir, []byte("program"))
	if err != nil || again != path {
		t.Fatal(again, err)
	}
	text, _ := os.ReadFile(path)
	info, err := os.Stat(path)
	if err != nil || string(text) != "program" || info.Mode().Perm() != 0o755 {
		t.Errorf("%q, %v", text, info.Mode())
	}
	if other, err := install(dir, []byte("newer")); err != nil || other == path {
		t.Errorf("another program has the same name %s, %v", other, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("in the folder: %v", files)
	}
}

func TestWithoutTheShimTheRemedyIsNamed(t *testing.T) {
	if _, err := files.ReadFile("embedded/clary-shim"); err == nil {
		t.Skip("this build has its shim")
	}
	if _, err := Install(t.TempDir()); !fault.Is(err, fault.Unready) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v", err)
	}
}
