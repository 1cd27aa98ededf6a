package models

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
)

const modelHelp = "MODEL is a folder, a model.tar.gz, an s3:// address of one, a version in the registry as model://NAME@VERSION or\nmodel://NAME:ALIAS, or the name of a job that made one."

func (a app) predictCommand() *cobra.Command {
	var input string
	command := &cobra.Command{
		Use:     "predict MODEL",
		Short:   "Predict for CSV rows without labels, on this machine",
		Long:    "Predict for CSV rows of features, without a label, from standard input or a file, on this machine.\n" + modelHelp,
		Example: "  clary predict digits < rows.csv\n  clary predict ./model --rows rows.csv -o json",
		Args:    shell.Takes("MODEL"), ValidArgsFunction: a.CompleteModels(),
	}
	command.Flags().StringVar(&input, "rows", "-", "the rows: a file or s3:// address; - is standard input")
	command.RunE = a.WithScratch(func(ctx context.Context, s *transfer.Scratch, args []string) error {
		model, err := s.Model(ctx, args[0])
		if err != nil {
			return err
		}
		rows := a.In
		if input != "-" {
			local, err := s.Data(ctx, input)
			if err != nil {
				return err
			}
			file, err := os.Open(local)
			if err != nil {
				return fault.New(fault.Invalid, "read the rows: %w", err)
			}
			defer file.Close()
			rows = file
		}
		return a.predict(ctx, model, rows)
	})
	return command
}

// predict writes a line for each row: the label, or with -o json an object.
func (a app) predict(ctx context.Context, model string, rows io.Reader) error {
	out := bufio.NewWriter(a.Out)
	err := inference.Predict(ctx, model, rows, blas(), func(p inference.Prediction) error {
		if a.ForPeople() {
			_, err := fmt.Fprintln(out, p.Label)
			return err
		}
		text, err := json.Marshal(p)
		if err == nil && a.Format == "yaml" {
			text = append([]byte("- "), text...) // a list whose items are JSON is YAML
		}
		if err == nil {
			_, err = out.Write(append(text, '\n'))
		}
		return err
	})
	return errors.Join(err, out.Flush())
}

func blas() network.BLAS {
	found, _ := network.FindBLAS(runtime.GOMAXPROCS(0))
	return found
}
