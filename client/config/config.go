// Package config keeps what a user's commands need to reach clusters: a file of named
// contexts, each with addresses, the pin of the cluster's CA, and a token.
//
// The file holds secrets: it is written with mode 0600, by a rename, and refused when
// others may read it. Environment variables override it, so that scripts and
// containers need no file at all.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/strictjson"
)

// Environment variables that override the file.
const (
	EnvFile    = "CLARY_CONFIG"  // path of the file
	EnvContext = "CLARY_CONTEXT" // name of the context to use
	EnvAddress = "CLARY_ADDRESS" // host:port of coordinators, with commas between
	EnvToken   = "CLARY_TOKEN"
	EnvPin     = "CLARY_CA_PIN"
)

// DefaultPort is where coordinators listen unless told otherwise.
const DefaultPort = "7420"

// Context is one cluster as one user sees it.
type Context struct {
	Addresses []string `json:"addresses"`
	CAPin     string   `json:"ca_pin"`
	Token     string   `json:"token,omitempty"`
}

// File is the whole of the configuration.
type File struct {
	Current  string             `json:"current,omitempty"`
	Contexts map[string]Context `json:"contexts,omitempty"`
}

// Path is where the file lies: $CLARY_CONFIG, else clary/config.json below the user's
// configuration folder.
func Path(getenv func(string) string) (string, error) {
	if path := getenv(EnvFile); path != "" {
		return path, nil
	}
	if folder := getenv("XDG_CONFIG_HOME"); folder != "" {
		return filepath.Join(folder, "clary", "config.json"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "clary", "config.json"), nil
	}
	return "", fault.New(fault.Invalid, "there is no place for the configuration: neither %s, XDG_CONFIG_HOME nor HOME is set", EnvFile)
}

// Load reads the file; one that does not exist is empty.
func Load(path string) (File, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	if err != nil {
		return File{}, fault.New(fault.Internal, "configuration: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return File{}, fault.New(fault.Denied, "%s holds tokens and others may read it (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return File{}, fault.New(fault.Internal, "configuration: %w", err)
	}
	var file File
	if problems := strictjson.Decode(data, &file); problems != nil {
		return File{}, fault.New(fault.Invalid, "%s: %w: correct it, or remove it and run clary login", path, problems)
	}
	return file, nil
}

// Save writes the file, readable by its owner alone, all or nothing.
func Save(path string, file File) error {
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fault.New(fault.Internal, "configuration: %w", err)
	}
	if err := atomicfile.Write(path, append(data, '\n'), 0o600); err != nil {
		return fault.New(fault.Internal, "configuration: %w", err)
	}
	return nil
}

// Names are the contexts in order.
func (f File) Names() []string {
	names := make([]string, 0, len(f.Contexts))
	for name := range f.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Set adds or replaces a context and makes it the current one.
func (f *File) Set(name string, context Context) error {
	var problems cluster.Problems
	cluster.CheckName(&problems, "context", name)
	problems.Under("", context.Validate())
	if problems != nil {
		return fault.New(fault.Invalid, "%w", problems)
	}
	if f.Contexts == nil {
		f.Contexts = map[string]Context{}
	}
	f.Contexts[name] = context
	f.Current = name
	return nil
}

// Use makes a context the current one.
func (f *File) Use(name string) error {
	if _, known := f.Contexts[name]; !known {
		return f.unknown(name)
	}
	f.Current = name
	return nil
}

// Delete forgets a context.
func (f *File) Delete(name string) error {
	if _, known := f.Contexts[name]; !known {
		return f.unknown(name)
	}
	delete(f.Contexts, name)
	if f.Current == name {
		f.Current = ""
	}
	return nil
}

func (f File) unknown(name string) error {
	if len(f.Contexts) == 0 {
		return fault.New(fault.NotFound, "there is no context %q, nor any other: run clary login", cluster.Clip(name))
	}
	return fault.New(fault.NotFound, "there is no context %q: there are %s", cluster.Clip(name), strings.Join(f.Names(), ", "))
}

// Resolve is the context to use: the one named, else $CLARY_CONTEXT, else the current
// one, with what the environment overrides.
func (f File) Resolve(name string, getenv func(string) string) (Context, error) {
	if name == "" {
		name = getenv(EnvContext)
	}
	explicit := name != ""
	if !explicit {
		name = f.Current
	}
	context, known := f.Contexts[name]
	if explicit && !known {
		return Context{}, f.unknown(name)
	}
	if address := getenv(EnvAddress); address != "" {
		context.Addresses = SplitAddresses(address)
	}
	if token := getenv(EnvToken); token != "" {
		context.Token = token
	}
	if pin := getenv(EnvPin); pin != "" {
		context.CAPin = pin
	}
	if len(context.Addresses) == 0 {
		return Context{}, fault.New(fault.Invalid, "no cluster is known: run clary login ADDRESS, or set %s, %s and %s", EnvAddress, EnvPin, EnvToken)
	}
	if problems := context.Validate(); problems != nil {
		return Context{}, fault.New(fault.Invalid, "%w", problems)
	}
	return context, nil
}

// SplitAddresses reads "host:port,host" with the default port where none is named.
func SplitAddresses(text string) []string {
	var addresses []string
	for _, address := range strings.Split(text, ",") {
		if address = strings.TrimSpace(address); address == "" {
			continue
		}
		addresses = append(addresses, withPort(address))
	}
	return addresses
}

func withPort(address string) string {
	switch {
	case strings.HasSuffix(address, "]"):
		return address + ":" + DefaultPort
	case strings.Count(address, ":") > 1 && !strings.HasPrefix(address, "["): // a bare IPv6 address
		return fmt.Sprintf("[%s]:%s", address, DefaultPort)
	case !strings.Contains(address, ":"):
		return address + ":" + DefaultPort
	}
	return address
}
