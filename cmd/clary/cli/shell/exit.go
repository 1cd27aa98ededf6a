package shell

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes of the commands, where a task's own code does not decide.
const (
	ExitFailed      = 1
	ExitUsage       = 2
	ExitInterrupted = 130
)

// exitError ends the process with a code; its text, if any, is shown.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// Exitf is an error that ends the process with a code of its own, and says why.
func Exitf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Sprintf(format, args...)}
}

// ExitWith is an error that ends the process with a code of its own.
func ExitWith(code int, err error) error { return &exitError{code, err.Error()} }

// GaveUp is what a wait ends with whose own time is over.
func GaveUp(ctx context.Context) error {
	exit, ok := context.Cause(ctx).(*exitError)
	if !ok {
		return nil
	}
	return exit
}

// Exit says how the process ends after an error: what to print and with which code.
func Exit(err error) (message string, code int) {
	if err == nil {
		return "", 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.text, exit.code
	}
	if errors.Is(err, context.Canceled) {
		return "", ExitInterrupted
	}
	if strings.HasPrefix(err.Error(), "unknown command ") { // which is cobra's, of no command of ours
		return err.Error(), ExitUsage
	}
	return err.Error(), ExitFailed
}

// StrictUsage gives what cobra itself finds wrong in a call of a command, or of one below it, the exit code of wrong usage.
func StrictUsage(command *cobra.Command) {
	if check := command.Args; check != nil {
		command.Args = func(command *cobra.Command, args []string) error { return asUsage(command, check(command, args)) }
	}
	before := command.PreRunE
	command.PreRunE = func(command *cobra.Command, args []string) error {
		err := command.ValidateRequiredFlags()
		if err == nil {
			err = command.ValidateFlagGroups()
		}
		if err != nil || before == nil {
			return asUsage(command, err)
		}
		return before(command, args)
	}
	for _, below := range command.Commands() {
		StrictUsage(below)
	}
}

func asUsage(command *cobra.Command, err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return Usage(command, "%v", err)
}

// Usage is a mistake in how a command was called.
func Usage(command *cobra.Command, format string, args ...any) error {
	return &exitError{ExitUsage, fmt.Sprintf(format, args...) + "\nsee " + command.CommandPath() + " --help"}
}

// Takes checks the number of arguments, which have the given names: "JOB", or "[JOB]"
// where it may be left out, or "JOB..." where it may be repeated.
func Takes(names ...string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		least, most := 0, len(names)
		for _, name := range names {
			if !strings.HasSuffix(strings.TrimSuffix(name, "..."), "]") { // [LOCAL:]REMOTE is one that must be there
				least++
			}
			if strings.HasSuffix(name, "...") {
				most = 1 << 20
			}
		}
		switch {
		case len(args) < least:
			return Usage(command, "%s is missing: %s %s", strings.TrimSuffix(names[len(args)], "..."), command.CommandPath(), strings.Join(names, " "))
		case len(args) > most && most == 0:
			return Usage(command, "%q is too much: %s takes no arguments", args[0], command.CommandPath())
		case len(args) > most:
			return Usage(command, "%q is too much: %s %s", args[most], command.CommandPath(), strings.Join(names, " "))
		}
		return nil
	}
}

// FlagError gives a flag that cannot be read the exit code of wrong usage.
func FlagError(command *cobra.Command, err error) error { return Usage(command, "%v", err) }

// StaleFlag adds --stale, which every command that only reads has.
func StaleFlag(command *cobra.Command, stale *bool) {
	command.Flags().BoolVar(stale, "stale", false, "take what any one coordinator has: also while there is no leader, perhaps a moment old")
}
