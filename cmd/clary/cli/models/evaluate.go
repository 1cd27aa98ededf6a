// Package models has the commands of models: versions and approval, evaluation, prediction, serving here and scoring in bulk.
package models

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/console/axes"
	page "github.com/clary-ml/clary/console/report/evaluation"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/evaluation"
	"github.com/clary-ml/clary/trainer/inference"
	tables "github.com/clary-ml/clary/trainer/table"
)

func (a app) evaluateCommand() *cobra.Command {
	var against, html, rows string
	var under, columns []string
	var store storeFlags
	command := &cobra.Command{
		Use:   "evaluate MODEL DATA",
		Short: "Judge a model by labelled rows, on this machine",
		Long: "Judge a model by labelled rows, on this machine. " + modelHelp + "\nDATA is a file, a folder or an s3:// address.\n\n" +
			"Of classes: accuracy, log loss, the areas under the ROC and the precision-recall curve, calibration, and each class\n" +
			"against the rest; of numbers: RMSE, MAE, R2, bias and the residuals. With -o json come the curves; --html writes all of it as\n" +
			"one page that needs no network. --slice judges the rows of each value of a column, or of each quarter of a column of many\n" +
			"numbers, by themselves. Rows that may be raw or prepared, by all that is seen of them, are taken if --rows says which.\n\nOf a version in the registry figures and page are kept beside the version: see clary models.",
		Example: "  clary evaluate digits test.csv.gz\n  clary evaluate ./model s3://data/digits/test.csv.gz -o json\n" +
			"  clary evaluate new test.csv --against old --fail-under accuracy=0.95,auc=0.99\n" +
			"  clary evaluate churn test.csv --slice Contract,tenure --html churn.html\n" +
			"  clary evaluate model://digits@3 test.csv.gz --against model://digits:champion --store held-out",
		Args: shell.Takes("MODEL", "DATA"), ValidArgsFunction: a.CompleteModels(),
	}
	command.Flags().StringVar(&against, "against", "", "another model, judged by the same rows")
	command.Flags().StringSliceVar(&under, "fail-under", nil, "fail if a figure is under a bound, as NAME=VALUE: accuracy, auc, average_precision, r2, …;\na loss or an error fails if it is over")
	command.Flags().StringVar(&html, "html", "", "write a page with plots to this file; - is standard output")
	command.Flags().StringSliceVar(&columns, "slice", nil, "judge by the values of these columns of the data, too")
	command.Flags().StringVar(&rows, "rows", "", "raw or prepared: whether the rows are still to go through the model's transform (default: found out)")
	_ = command.RegisterFlagCompletionFunc("rows", cobra.FixedCompletions([]string{string(inference.RowsRaw), string(inference.RowsPrepared)}, cobra.ShellCompDirectiveNoFileComp))
	store.register(command)
	command.RunE = a.WithScratch(func(ctx context.Context, s *transfer.Scratch, args []string) error {
		if err := store.check(command, args[0]); err != nil {
			return err
		}
		said := inference.Rows(rows)
		if !slices.Contains([]inference.Rows{inference.RowsUnsaid, inference.RowsRaw, inference.RowsPrepared}, said) {
			return shell.Usage(command, "--rows %q: it is %s or %s", rows, inference.RowsRaw, inference.RowsPrepared)
		}
		bounds, err := parseBounds(under)
		if err != nil {
			return err
		}
		data, err := s.Labelled(ctx, args[1])
		if err != nil {
			return err
		}
		parts, err := partsOf(ctx, data, columns)
		if err != nil {
			return err
		}
		judged, err := judge(ctx, s, []string{args[0], against}, data, said, parts)
		if err != nil {
			return err
		}
		if html != "" {
			if err := a.WritePage(html, "the evaluation of "+args[0], func(out io.Writer) error { return writeEvaluation(out, args[1], judged) }); err != nil {
				return err
			}
		}
		if html != "-" {
			if err := a.showEvaluations(judged); err != nil {
				return err
			}
		}
		if err := storeEvaluation(ctx, s, store, args[1], data, judged); err != nil {
			return err
		}
		return checkBounds(judged[0].Metrics(), bounds)
	})
	return command
}

// judge judges models by the same rows; a name that is empty is left out.
func judge(ctx context.Context, s *transfer.Scratch, names []string, data string, said inference.Rows, parts []evaluation.Part) ([]inference.Evaluation, error) {
	var judged []inference.Evaluation
	for _, name := range names {
		if name == "" {
			continue
		}
		model, err := s.Model(ctx, name)
		if err != nil {
			return nil, err
		}
		e, err := inference.Evaluate(ctx, model, data, said, blas())
		if err != nil {
			return nil, err
		}
		e.Model = name
		for _, part := range parts {
			if err := e.Slice(part); err != nil {
				return nil, err
			}
		}
		judged = append(judged, e)
	}
	return judged, nil
}

// partsOf reads columns of labelled rows, to judge by their values.
func partsOf(ctx context.Context, data string, columns []string) ([]evaluation.Part, error) {
	if len(columns) == 0 {
		return nil, nil
	}
	source, err := tables.Open(data, tables.Options{})
	if err != nil {
		return nil, fmt.Errorf("--slice: %w", err)
	}
	parts := make([]evaluation.Part, len(columns))
	at := make([]int, len(columns))
	for i, name := range columns {
		parts[i].Column = name
		at[i] = slices.IndexFunc(source.Fields, func(f tables.Field) bool { return f.Name == name })
		if at[i] < 0 {
			var names []string
			for _, f := range source.Fields {
				names = append(names, f.Name)
			}
			return nil, fault.New(fault.Invalid, "--slice: the data have no column %q: they have %s", name, axes.Shorten(strings.Join(names, ", "), 200))
		}
	}
	if slices.ContainsFunc(source.Fields, func(f tables.Field) bool { return f.Kind != tables.Text }) { // a file that knows its kinds
		if _, err := source.Infer(ctx, columns...); err != nil {
			return nil, err
		}
	}
	_, err = source.Each(ctx, func(b tables.Batch) error {
		for i := range parts {
			for _, text := range b.Columns[at[i]].Texts {
				parts[i].Texts = append(parts[i].Texts, strings.Clone(text)) // a cell keeps all the text around it
			}
		}
		return nil
	})
	return parts, err
}

// writeEvaluation writes the page.
func writeEvaluation(out io.Writer, data string, judged []inference.Evaluation) error {
	found := page.Found{Data: data, Verdict: verdict(judged), Made: time.Now()}
	for _, e := range judged {
		found.Models = append(found.Models, page.Model{
			Name: e.Model, Classification: e.Classification, Regression: e.Regression, Metrics: e.Metrics(), Slices: e.Slices,
		})
	}
	return page.Write(out, found)
}

// verdict compares two models of classes in a sentence.
func verdict(judged []inference.Evaluation) string {
	if len(judged) < 2 || judged[0].Classification == nil {
		return ""
	}
	more, se := judged[0].Difference(judged[1])
	return fmt.Sprintf("%s has %+.2f %% accuracy (standard error %.2f %%) on these %d rows", judged[0].Model, 100*more, 100*se, judged[0].Rows)
}

func parseBounds(texts []string) (map[string]float64, error) {
	bounds := map[string]float64{}
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fault.New(fault.Invalid, "--fail-under %q: takes NAME=VALUE, as in accuracy=0.95", text)
		}
		bounds[name] = v
	}
	return bounds, nil
}

// lessIsBetter are the figures that are bounded from above.
var lessIsBetter = []string{"loss", "log_loss", "brier", "calibration_error", "rmse", "mae", "bias"}

func checkBounds(metrics, bounds map[string]float64) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(bounds)) {
		value, known := metrics[name]
		switch {
		case !known:
			errs = append(errs, fault.New(fault.Invalid, "--fail-under: there is no %q: there are %s", name, strings.Join(slices.Sorted(maps.Keys(metrics)), ", ")))
		case slices.Contains(lessIsBetter, name) && math.Abs(value) > bounds[name]:
			errs = append(errs, fault.New(fault.Invalid, "%s is %.4g: over %v", name, value, bounds[name]))
		case !slices.Contains(lessIsBetter, name) && value < bounds[name]:
			errs = append(errs, fault.New(fault.Invalid, "%s is %.4g: under %v", name, value, bounds[name]))
		}
	}
	return errors.Join(errs...)
}

func (a app) showEvaluations(judged []inference.Evaluation) error {
	if len(judged) == 1 {
		return a.Print(judged[0], func(out io.Writer) error {
			if err := showEvaluation(out, judged[0]); err != nil {
				return err
			}
			return showSlices(out, judged[0])
		})
	}
	return a.Print(judged, func(out io.Writer) error {
		if err := showFigures(out, judged); err != nil {
			return err
		}
		return showSlices(out, judged[0])
	})
}

// showFigures shows two models' side by side.
func showFigures(out io.Writer, judged []inference.Evaluation) error {
	var rows [][]string
	first, second := judged[0].Metrics(), judged[1].Metrics()
	for _, name := range slices.Sorted(maps.Keys(first)) {
		rows = append(rows, []string{name, fmt.Sprintf("%.4f", first[name]), fmt.Sprintf("%.4f", second[name])})
	}
	if err := shell.Table(out, []string{"figure", judged[0].Model, judged[1].Model}, rows); err != nil {
		return err
	}
	if text := verdict(judged); text != "" {
		_, err := fmt.Fprintf(out, "\n%s\n", text)
		return err
	}
	return nil
}

// showSlices shows a model's figures by the values of columns.
func showSlices(out io.Writer, e inference.Evaluation) error {
	names := []string{"accuracy", "log_loss", "auc"}
	if e.Regression != nil {
		names = []string{"rmse", "mae", "bias"}
	}
	var rows [][]string
	for i, s := range e.Slices {
		row := []string{s.Value, strconv.Itoa(s.Rows)}
		for _, name := range names {
			text := "-"
			if v, known := s.Metrics[name]; known {
				text = fmt.Sprintf("%.4f", v)
			}
			row = append(row, text)
		}
		rows = append(rows, append(row, fmt.Sprintf("%.4f", s.Error)))
		if i+1 < len(e.Slices) && e.Slices[i+1].Column == s.Column {
			continue
		}
		fmt.Fprintln(out)
		if err := shell.Table(out, append(append([]string{s.Column, "rows"}, names...), "standard error"), rows); err != nil {
			return err
		}
		rows = nil
	}
	return nil
}

func showEvaluation(out io.Writer, e inference.Evaluation) error {
	pairs := []string{"rows", strconv.Itoa(e.Rows), "loss", fmt.Sprintf("%.4f", e.Loss)}
	if r := e.Regression; r != nil {
		return shell.Fields(out, append(
			pairs, "rmse", fmt.Sprintf("%.4f", r.RMSE), "mae", fmt.Sprintf("%.4f", r.MAE), "r2", fmt.Sprintf("%.4f", r.R2), "bias", fmt.Sprintf("%.4f", r.Bias),
			"residuals", fmt.Sprintf("%.4g to %.4g, half of them %.4g to %.4g", r.Residuals[0], r.Residuals[6], r.Residuals[2], r.Residuals[4]),
		)...)
	}
	err := shell.Fields(out, append(
		pairs, "accuracy", fmt.Sprintf("%.2f %%", 100*e.Accuracy), "auc", fmt.Sprintf("%.4f", e.AUC),
		"average precision", fmt.Sprintf("%.4f", e.AveragePrecision), "calibration error", fmt.Sprintf("%.4f", e.CalibrationError),
	)...)
	if err != nil || len(e.Classes) > 26 {
		return err
	}
	rows := make([][]string, len(e.Classes))
	heading := []string{"class", "rows", "precision", "recall", "auc"}
	for i, c := range e.Classes {
		rows[i] = []string{c.Name, strconv.Itoa(c.Rows), fmt.Sprintf("%.3f", c.Precision), fmt.Sprintf("%.3f", c.Recall), fmt.Sprintf("%.3f", c.AUC)}
	}
	fmt.Fprintln(out)
	if err := shell.Table(out, heading, rows); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nrows of a class, and what they were taken for:")
	heading = []string{"class"}
	for i, counts := range e.Confusion {
		rows[i] = []string{e.Classes[i].Name}
		heading = append(heading, e.Classes[i].Name)
		for _, count := range counts {
			rows[i] = append(rows[i], shell.NonZero(int64(count)))
		}
	}
	return shell.Table(out, heading, rows)
}
