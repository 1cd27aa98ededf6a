package main

import (
	"io"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

func TestWrongUsageExitsWithTwoWhoeverFindsIt(t *testing.T) {
	for call, says := range map[string]string{
		"nodse":                              `unknown command "nodse"`,
		"nodes a b":                          `"b" is too much`,
		"nodes --nowhere":                    "unknown flag: --nowhere",
		"nodes drain a --move --deadline 1m": "[deadline move]",
		"queue apply":                        `"file" not set`,
		"settings set":                       "KEY=VALUE is missing",
		"metrics":                            "requires at least 1 arg",
		"agent now":                          `unknown command "now"`,
		"router":                             `"table" not set`,
		"keys rotate bread":                  `"bread" cannot be rotated`,
	} {
		root := newRoot(&shell.App{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }})
		root.SetArgs(strings.Fields(call))
		message, code := shell.Exit(root.ExecuteContext(t.Context()))
		if code != shell.ExitUsage || !strings.Contains(message, says) {
			t.Errorf("clary %s: exit code %d, %q", call, code, message)
		}
	}
}
