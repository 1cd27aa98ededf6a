// Package shimbin carries the built shim inside the clary binary.
//
// `make build` compiles cmd/clary-shim into the folder embedded before it compiles
// clary. A plain `go build` works too: its clary does everything but run tasks.
package shimbin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/internal/fault"
)

//go:embed embedded
var files embed.FS

// Install writes the shim into the folder, once, under a name that holds its
// content's hash, so that an upgrade never touches the program of a running shim.
func Install(dir string) (string, error) {
	program, err := files.ReadFile("embedded/clary-shim")
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault.New(fault.Unready, "this clary was built without its shim: build with `make build`")
	}
	if err != nil {
		return "", err
	}
	return install(dir, program)
}

func install(dir string, program []byte) (string, error) {
	sum := sha256.Sum256(program)
	path := filepath.Join(dir, "clary-shim-"+hex.EncodeToString(sum[:8]))
	if old, err := os.ReadFile(path); err == nil && sha256.Sum256(old) == sum {
		return path, os.Chmod(path, 0o755)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fault.New(fault.Internal, "install the shim: %w", err)
	}
	temp, err := os.CreateTemp(dir, ".shim-*")
	if err != nil {
		return "", fault.New(fault.Internal, "install the shim: %w", err)
	}
	_, err = temp.Write(program)
	err = errors.Join(err, temp.Chmod(0o755), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return "", fault.New(fault.Internal, "install the shim: %w", errors.Join(err, os.Remove(temp.Name())))
	}
	return path, nil
}
