package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	ignore "github.com/sabhiram/go-gitignore"
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/training"
)

// scriptFlags are those of a training script.
type scriptFlags struct {
	entry, source, requirements, python string
	hyperparameters, channels, env      []string
	secrets                             []string
	channelOptions                      []string
	framework                           string
	instances                           int32
	isolated                            bool
	image                               imageFlags
}

// given reports whether there is a script or an image to run, and not a network.
func (f *scriptFlags) given() bool { return f.entry != "" || f.image.image != "" }

// maxRequirements is the most that a requirements file may hold, in bytes.
const maxRequirements = cluster.MaxRequirements

func (f *scriptFlags) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.entry, "script", "", "a training script to run instead of a network: .py, .sh or a program")
	flags.StringVar(&f.source, "source", "", "folder of its code, without what .gitignore names (default: the script alone)")
	flags.StringVar(&f.requirements, "requirements", "", "requirements.txt to install, once on each node")
	flags.StringVar(&f.python, "python", "", "Python interpreter on the node (default \"python3\")")
	flags.StringArrayVar(&f.hyperparameters, "hyperparameter", nil, "NAME=VALUE, given to the script as --NAME VALUE and SM_HP_NAME")
	flags.StringArrayVar(&f.channels, "channel", nil, "data for the script beside --data, as CHANNEL=s3://... or CHANNEL=PATH, which is uploaded")
	flags.StringArrayVar(&f.channelOptions, "channel-option", nil, channelOptionHelp)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable of the script's environment, as KEY=VALUE, or KEY to pass your own on")
	flags.StringVar(&f.framework, "framework", "", "how instances of the script find each other: torch, or hosts for any other")
	flags.Int32VarP(&f.instances, "instances", "n", 1, "how many of the script to start together")
	flags.BoolVar(&f.isolated, "network-isolation", false, "cut the script off from every network")
	flags.StringArrayVar(&f.secrets, "secret", nil, secretHelp)
	f.image.register(command)
	_ = command.MarkFlagFilename("script", "py", "sh")
	_ = command.MarkFlagDirname("source")
	_ = command.MarkFlagFilename("requirements", "txt")
}

// sourceOnly are flags of a script, and scriptOnly those of a script or an image.
var (
	sourceOnly = []string{"source", "requirements", "python"}
	scriptOnly = []string{"hyperparameter", "channel", "channel-option", "env", "framework", "instances", "network-isolation", "entrypoint", "secret"}
)

// notForScript are flags of a network.
var notForScript = []string{
	"file", "network", "activation", "dropout", "loss", "optimizer", "rate", "validation-fraction", "format", "label-column", "header",
	"scale", "input", "classes", "workers", "servers", "epochs", "batch", "seed", "target-accuracy",
}

// alone refuses a script's flags where there is no script.
func (f *scriptFlags) alone(command *cobra.Command) error {
	for _, name := range scriptOnly {
		if command.Flags().Changed(name) {
			return usage(command, "--%s is for a script or an image: name it with --script or --image", name)
		}
	}
	return f.noSource(command)
}

func (f *scriptFlags) noSource(command *cobra.Command) error {
	for _, name := range sourceOnly {
		if command.Flags().Changed(name) {
			return usage(command, "--%s is for a script: name it with --script", name)
		}
	}
	return nil
}

// scriptJob is the job that the flags describe, with its code uploaded unless it is a dry
// run.
func (a *App) scriptJob(ctx context.Context, c *client.Client, command *cobra.Command, f *scriptFlags, t *trainFlags, resources *resourceFlags, dryRun bool, args []string) (cluster.Job, error) {
	for _, name := range notForScript {
		if command.Flags().Changed(name) {
			return cluster.Job{}, usage(command, "--%s is for a network: give the script its own after --, or by --hyperparameter", name)
		}
	}
	s, err := a.scriptSpec(f, t, args)
	if err == nil {
		err = resources.apply(command, &s)
	}
	if err == nil {
		err = f.image.apply(ctx, a, c, command, &s, dryRun)
	}
	switch {
	case err != nil:
	case s.Script == nil:
		err = f.noSource(command)
	default:
		s.Script.Entry, s.Script.Source, err = a.packScript(ctx, c, f, dryRun)
	}
	if err != nil {
		return cluster.Job{}, err
	}
	return programJob(s)
}

func (a *App) scriptSpec(f *scriptFlags, t *trainFlags, args []string) (training.Spec, error) {
	s := training.Spec{
		Instances: f.instances, Framework: cluster.Framework(f.framework), NetworkIsolation: f.isolated, Output: t.output,
	}
	env, err := a.environment(f.env)
	if err != nil {
		return s, err
	}
	if f.entry != "" {
		s.Script = &training.Script{Python: f.python, Arguments: args, Env: env}
	} else {
		s.Program = &training.Program{Command: args, Env: env}
	}
	for channel, data := range map[string]string{"train": t.data, "validation": t.validation} {
		if data == "" {
			continue
		}
		f.channels = append(f.channels, channel+"="+data)
	}
	if s.Inputs, err = channelInputs("--channel", f.channels, f.channelOptions); err != nil {
		return s, err
	}
	if s.Secrets, err = secretRefs(f.secrets); err != nil {
		return s, err
	}
	values, err := pairs("--hyperparameter", f.hyperparameters)
	if err != nil {
		return s, err
	}
	s.Hyperparameters = hyperparameters(values)
	if f.requirements != "" {
		s.Script.Requirements, err = readRequirements(f.requirements)
	}
	return s, err
}

// hyperparameters reads each value as JSON, and as a text if it is none.
func hyperparameters(values map[string]string) map[string]json.RawMessage {
	if len(values) == 0 {
		return nil
	}
	read := map[string]json.RawMessage{}
	for name, text := range values {
		if json.Valid([]byte(text)) {
			read[name] = json.RawMessage(text)
			continue
		}
		quoted, _ := json.Marshal(text) // a text can always be written
		read[name] = quoted
	}
	return read
}

func readRequirements(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", fault.New(fault.Invalid, "--requirements: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxRequirements+1))
	switch {
	case err != nil:
		return "", fault.New(fault.Invalid, "--requirements: %w", err)
	case len(text) > maxRequirements:
		return "", fault.New(fault.Invalid, "--requirements: %s is larger than %s", name, cluster.FormatBytes(maxRequirements))
	case strings.TrimSpace(string(text)) == "":
		return "", fault.New(fault.Invalid, "--requirements: %s names no package: leave the flag out", name)
	}
	return string(text), nil
}

// packScript packs the code and uploads it under its digest, unless it is there already.
// It returns the entry inside of it.
func (a *App) packScript(ctx context.Context, c *client.Client, f *scriptFlags, dryRun bool) (entry, uri string, err error) {
	folder, entry, err := f.locate()
	if err != nil {
		return "", "", err
	}
	skip := newIgnored(folder)
	if f.source == "" {
		skip = func(name string, _ bool) bool { return name != entry }
	} else if skip(entry, false) {
		return "", "", fault.New(fault.Invalid, "--script: %s is left out of the source by a .gitignore", entry)
	}
	file, err := os.CreateTemp("", "clary-source-*.tar.gz")
	if err != nil {
		return "", "", err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	digest := sha256.New()
	if err := staging.Pack(ctx, folder, io.MultiWriter(file, digest), skip); err != nil {
		return "", "", fault.New(fault.Invalid, "--source: %s: %w", folder, err)
	}
	uri = uploadsPrefix + hex.EncodeToString(digest.Sum(nil)) + "/source.tar.gz"
	if dryRun {
		return entry, uri, nil
	}
	info, err := file.Stat()
	if err != nil {
		return "", "", err
	}
	if known, err := c.StatObject(ctx, uri); err == nil && known.Size == info.Size() {
		return entry, uri, nil
	} else if err != nil && !fault.Is(err, fault.NotFound) {
		return "", "", err
	}
	return entry, uri, a.put(ctx, c, file.Name(), uri)
}

// locate finds the folder of the code, and the script in it. A script is named from here
// or from the source.
func (f *scriptFlags) locate() (folder, entry string, err error) {
	if f.source == "" {
		info, err := os.Stat(f.entry)
		if err != nil || !info.Mode().IsRegular() {
			return "", "", fault.New(fault.Invalid, "--script: there is no file %s", f.entry)
		}
		return filepath.Dir(f.entry), filepath.Base(f.entry), nil
	}
	if info, err := os.Stat(f.source); err != nil || !info.IsDir() {
		return "", "", fault.New(fault.Invalid, "--source: there is no folder %s", f.source)
	}
	for _, base := range []string{f.source, "."} {
		candidate := filepath.Join(base, f.entry)
		if filepath.IsAbs(f.entry) {
			candidate = f.entry
		}
		relative, err := relativeTo(f.source, candidate)
		if info, stat := os.Stat(candidate); err == nil && stat == nil && info.Mode().IsRegular() {
			return f.source, relative, nil
		}
	}
	return "", "", fault.New(fault.Invalid, "--script: there is no file %s in %s", f.entry, f.source)
}

// relativeTo is a file's name inside a folder, with slashes; an error if it is outside.
func relativeTo(folder, file string) (string, error) {
	from, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	to, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	name, err := filepath.Rel(from, to)
	if err != nil || !filepath.IsLocal(name) {
		return "", fault.New(fault.Invalid, "%s is not inside %s", file, folder)
	}
	return filepath.ToSlash(name), nil
}

// newIgnored says what .gitignore files of a folder, at any depth, leave out. What git
// itself keeps is never packed.
func newIgnored(folder string) func(name string, dir bool) bool {
	rules := map[string]*ignore.GitIgnore{} // by folder; nil where there is no file
	rulesOf := func(at string) *ignore.GitIgnore {
		if known, ok := rules[at]; ok {
			return known
		}
		compiled, err := ignore.CompileIgnoreFile(filepath.Join(folder, filepath.FromSlash(at), ".gitignore"))
		if err != nil {
			compiled = nil
		}
		rules[at] = compiled
		return compiled
	}
	return func(name string, dir bool) bool {
		if path.Base(name) == ".git" {
			return true
		}
		for at := path.Dir(name); ; at = path.Dir(at) {
			relative := name
			if at != "." {
				relative = strings.TrimPrefix(name, at+"/")
			}
			if dir {
				relative += "/"
			}
			if rule := rulesOf(at); rule != nil && rule.MatchesPath(relative) {
				return true
			}
			if at == "." {
				return false
			}
		}
	}
}
