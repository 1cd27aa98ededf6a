package models

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver"
	"github.com/clary-ml/clary/serving/modelserver/native"
	"github.com/clary-ml/clary/serving/modelserver/onnx"
	"github.com/clary-ml/clary/serving/modelserver/script"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/network"
)

// usualScript is a model's own, where SageMaker's script mode looks for it.
const usualScript = "code/inference.py"

// onnxExtension is how the name of an ONNX model ends.
const onnxExtension = ".onnx"

// openModel finds out what kind of model a folder holds and makes it ready. job is what made it, if
// that is known; closer frees it.
func (a app) openModel(ctx context.Context, f serveFlags, folder string, o *modelserver.Options) (job string, closer func() error, err error) {
	path, err := f.scriptOf(a.Getenv, folder)
	if err != nil {
		return "", nil, err
	}
	if path != "" {
		program, err := script.Start(ctx, script.Options{
			Python: f.python, Script: path, ModelDir: folder, Workers: f.workers, StartWithin: f.startWithin, Out: a.Err,
			Env: append(os.Environ(), "SM_MODEL_DIR="+folder),
		})
		if err != nil {
			return "", nil, err
		}
		o.Program = program
		return "", program.Close, nil
	}
	if !exists(filepath.Join(folder, checkpoint.ManifestName)) {
		closer, err := a.openONNX(f, folder, o)
		return "", closer, err
	}
	matrices, line := network.FindBLAS(1) // batches run side by side instead
	fmt.Fprintln(a.Err, line)
	engine, err := native.Open(folder, matrices)
	if err != nil {
		return "", nil, err
	}
	o.Engine = engine
	return engine.Job(), engine.Close, nil
}

// openONNX opens the one ONNX model that a folder holds, or that folder is.
func (a app) openONNX(f serveFlags, folder string, o *modelserver.Options) (func() error, error) {
	found := []string{folder}
	if filepath.Ext(folder) != onnxExtension {
		found, _ = fs.Glob(os.DirFS(folder), "*"+onnxExtension) // the pattern is good
		for i, name := range found {
			found[i] = filepath.Join(folder, name)
		}
	}
	switch {
	case len(found) == 0:
		return nil, fault.New(fault.NotFound, "%s has no %s, no %s and no *%s: name a script that loads it with --script", folder, checkpoint.ManifestName, usualScript, onnxExtension)
	case len(found) > 1:
		return nil, fault.New(fault.Invalid, "%s has %d ONNX models: name the one to serve", folder, len(found))
	}
	library := f.onnxruntime
	if library == "" {
		library = a.Getenv("CLARY_ONNXRUNTIME")
	}
	engine, err := onnx.Open(found[0], library, 1) // batches run side by side instead
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(a.Err, engine.Library())
	o.Engine = engine
	return engine.Close, nil
}

// scriptOf is the script that the flag, the environment or the model names, or "".
func (f *serveFlags) scriptOf(getenv func(string) string, folder string) (string, error) {
	name := f.script
	if name == "" {
		name = getenv("SAGEMAKER_PROGRAM")
	}
	if name == "" {
		if usual := filepath.Join(folder, usualScript); exists(usual) && !exists(filepath.Join(folder, checkpoint.ManifestName)) {
			return usual, nil
		}
		return "", nil
	}
	places := []string{filepath.Join(folder, "code", name), name}
	if submitted := getenv("SAGEMAKER_SUBMIT_DIRECTORY"); submitted != "" && !transfer.IsRemote(submitted) {
		places = append([]string{filepath.Join(submitted, name)}, places...)
	}
	for _, place := range places {
		if exists(place) {
			return filepath.Abs(place)
		}
	}
	return "", fault.New(fault.NotFound, "there is no script %q in %s or here: name one that is there with --script", name, filepath.Join(folder, "code"))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
