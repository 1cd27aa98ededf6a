package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
	"github.com/clary-ml/clary/internal/request"
	"github.com/clary-ml/clary/serving/ingress"
)

// memberFlags are the flags that coordinators and agents share.
type memberFlags struct {
	id, data, join   string
	token, tokenFile string
	logLevel, format string
	metrics          string
	level            slog.LevelVar
}

func (f *memberFlags) add(command *cobra.Command, what, metrics string) {
	flags := command.Flags()
	flags.StringVar(&f.id, "id", hostName(), "name of this "+what+", unique in the cluster")
	flags.StringVar(&f.data, "data", "/var/lib/clary/"+what, "folder of everything that lasts")
	flags.StringVar(&f.join, "join", "", "host:port of any coordinator, for the first start")
	flags.StringVar(&f.token, "token", "", "join token, for the first start (other users of this machine can see it: prefer --token-file)")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the join token; it may be deleted when the machine has joined")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.format, "log-format", "text", "text or json")
	flags.StringVar(&f.metrics, "metrics-listen", metrics, "host:port of /metrics, /healthz and /readyz, or "+ops.Off+": plain HTTP on loopback, else TLS and a token of the cluster")
	command.MarkFlagsMutuallyExclusive("token", "token-file")
}

// addFront adds the flags of a node's router.
func addFront(flags *pflag.FlagSet, front *ingress.Front, prefix, listen string) {
	off := ""
	if listen != "" {
		off = ", or " + ingress.Off
	}
	flags.StringVar(&front.Listen, prefix+"-listen", listen, "host:port on which requests for endpoints are taken"+off)
	flags.StringVar(&front.URL, prefix+"-url", "", "URL under which clients reach --"+prefix+"-listen (default: made of it)")
	flags.StringVar(&front.Cert, prefix+"-cert", "", "PEM file of the certificate shown to clients, read again when it changes (default: the cluster's own)")
	flags.StringVar(&front.Key, prefix+"-key", "", "PEM file of its key")
	flags.BoolVar(&front.Plaintext, prefix+"-plaintext", false, "take plain HTTP; loopback addresses only")
}

// memberFile is in the data folder of every machine that has joined.
const memberFile = "member.json"

// secret is the join token, wherever it was given. A machine that has joined needs none, so the file of one that is used up
// may be gone, though its service still names it.
func (f *memberFlags) secret() (string, error) {
	if f.tokenFile == "" {
		return f.token, nil
	}
	text, err := os.ReadFile(f.tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, missing := os.Stat(filepath.Join(f.data, memberFile)); missing == nil {
			return "", nil
		}
	}
	if err != nil {
		return "", fault.New(fault.Invalid, "--token-file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// logger writes to standard error, as service managers expect.
func (f *memberFlags) logger() (*slog.Logger, error) {
	if err := f.level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fault.New(fault.Invalid, "--log-level: %q is unknown: debug, info, warn or error", f.logLevel)
	}
	options := &slog.HandlerOptions{Level: &f.level}
	switch f.format {
	case "text":
		return slog.New(request.LogHandler(slog.NewTextHandler(os.Stderr, options))), nil
	case "json":
		return slog.New(request.LogHandler(slog.NewJSONHandler(os.Stderr, options))), nil
	}
	return nil, fault.New(fault.Invalid, "--log-format: %q is unknown: text or json", f.format)
}

// hostName is this machine's name as a member's: lower case, up to the first dot.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name), "-")
}
