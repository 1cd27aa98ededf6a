package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	page "github.com/clary-ml/clary/console/report/profile"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/trainer/channel"
	"github.com/clary-ml/clary/trainer/prepare"
	found "github.com/clary-ml/clary/trainer/profile"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/trainer/table"
)

// profilePage is what a profile is called beside what steps have made.
const profilePage = "profile.html"

// newStepsCommand is what the task of a job of ready-made steps runs.
func newStepsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "steps",
		Short:  "Do the ready-made steps of a processing job (started by an agent)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			task, err := prepare.TaskFromEnv(os.Getenv)
			if err != nil {
				return err
			}
			task.Out = command.OutOrStdout()
			if err := doSteps(command.Context(), task); err != nil {
				task.Leave("failure", err.Error())
				return err
			}
			return nil
		},
	}
}

func doSteps(ctx context.Context, task prepare.Task) (err error) {
	tell, done, err := task.Teller()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	task.Tell = tell
	said := ""
	if task.Profile {
		p, err := profileOf(ctx, task)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		said = fmt.Sprintf("%d rows of %d columns", p.Rows, len(p.Columns))
	}
	if task.Plan != nil {
		report, err := task.Prepare(ctx)
		if err != nil {
			return err
		}
		said = report.String()
	}
	_, _ = fmt.Fprintln(task.Out, said) // that nobody reads it ends nothing
	task.Leave("message", said)
	return nil
}

// profileOf writes the page of what came in, before anything is done to it.
func profileOf(ctx context.Context, task prepare.Task) (*found.Profile, error) {
	plan := steps.Plan{}
	if task.Plan != nil {
		plan = *task.Plan
	}
	options := table.Options{Columns: plan.Columns, Missing: plan.Missing, OnBroken: table.Policy(plan.OnBroken), Workers: task.Workers}
	if options.OnBroken == table.Quarantine { // the steps put them aside
		options.OnBroken = table.Skip
	}
	if plan.Delimiter != "" {
		options.Delimiter = plan.Delimiter[0]
	}
	files, err := channel.Files(task.Input(steps.MainInput))
	if err != nil {
		return nil, err
	}
	rows, err := table.Open(task.Input(steps.MainInput), options)
	if err != nil {
		return nil, err
	}
	p, err := found.Of(ctx, rows, found.Options{Label: plan.Label, Text: plan.Text, Tell: task.Tell})
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	// Without the time: a repeated attempt leaves the bytes of an undisturbed one.
	if err := page.Write(&text, page.Found{Name: filepath.Base(files[0]), Profile: p}); err != nil {
		return nil, err
	}
	return p, atomicfile.Write(filepath.Join(task.OutputFolder(), profilePage), text.Bytes(), 0o644)
}
