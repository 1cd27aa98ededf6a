package cli

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

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/inference"
)

func (a *App) evaluateCommand() *cobra.Command {
	var against string
	var under []string
	command := &cobra.Command{
		Use:   "evaluate MODEL DATA",
		Short: "Judge a model by labelled rows, on this machine",
		Long: "Judge a model by labelled rows, on this machine. " + modelHelp + "\nDATA is a file, a folder or an s3:// address.\n\n" +
			"Of classes: accuracy, log loss, the areas under the ROC and the precision-recall curve, calibration, and each class\n" +
			"against the rest; of numbers: RMSE, MAE, R2, bias and the residuals. With -o json come the curves.",
		Example: "  clary evaluate digits test.csv.gz\n  clary evaluate ./model s3://data/digits/test.csv.gz -o json\n" +
			"  clary evaluate new test.csv --against old --fail-under accuracy=0.95,auc=0.99",
		Args: takes("MODEL", "DATA"), ValidArgsFunction: a.completeModels(),
	}
	command.Flags().StringVar(&against, "against", "", "another model, judged by the same rows")
	command.Flags().StringSliceVar(&under, "fail-under", nil, "fail if a figure is under a bound, as NAME=VALUE: accuracy, auc, average_precision, r2, …;\na loss or an error fails if it is over")
	command.RunE = a.withScratch(func(ctx context.Context, s *scratch, args []string) error {
		bounds, err := parseBounds(under)
		if err != nil {
			return err
		}
		data, err := s.data(ctx, args[1])
		if err != nil {
			return err
		}
		var judged []inference.Evaluation
		for _, name := range []string{args[0], against} {
			if name == "" {
				continue
			}
			model, err := s.model(ctx, name)
			if err != nil {
				return err
			}
			e, err := inference.Evaluate(ctx, model, data, blas())
			if err != nil {
				return err
			}
			e.Model = name
			judged = append(judged, e)
		}
		if err := a.showEvaluations(judged); err != nil {
			return err
		}
		return checkBounds(judged[0].Metrics(), bounds)
	})
	return command
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

func (a *App) showEvaluations(judged []inference.Evaluation) error {
	if len(judged) == 1 {
		return a.print(judged[0], func(out io.Writer) error { return showEvaluation(out, judged[0]) })
	}
	return a.print(judged, func(out io.Writer) error {
		var rows [][]string
		first, second := judged[0].Metrics(), judged[1].Metrics()
		for _, name := range slices.Sorted(maps.Keys(first)) {
			rows = append(rows, []string{name, fmt.Sprintf("%.4f", first[name]), fmt.Sprintf("%.4f", second[name])})
		}
		if err := table(out, []string{"figure", judged[0].Model, judged[1].Model}, rows); err != nil {
			return err
		}
		if judged[0].Classification == nil {
			return nil
		}
		more, se := judged[0].Difference(judged[1])
		_, err := fmt.Fprintf(out, "\n%s has %+.2f %% accuracy (standard error %.2f %%) on these %d rows\n", judged[0].Model, 100*more, 100*se, judged[0].Rows)
		return err
	})
}

func showEvaluation(out io.Writer, e inference.Evaluation) error {
	pairs := []string{"rows", strconv.Itoa(e.Rows), "loss", fmt.Sprintf("%.4f", e.Loss)}
	if r := e.Regression; r != nil {
		return fields(out, append(
			pairs, "rmse", fmt.Sprintf("%.4f", r.RMSE), "mae", fmt.Sprintf("%.4f", r.MAE), "r2", fmt.Sprintf("%.4f", r.R2), "bias", fmt.Sprintf("%.4f", r.Bias),
			"residuals", fmt.Sprintf("%.4g to %.4g, half of them %.4g to %.4g", r.Residuals[0], r.Residuals[6], r.Residuals[2], r.Residuals[4]),
		)...)
	}
	err := fields(out, append(
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
	if err := table(out, heading, rows); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nrows of a class, and what they were taken for:")
	heading = []string{"class"}
	for i, counts := range e.Confusion {
		rows[i] = []string{e.Classes[i].Name}
		heading = append(heading, e.Classes[i].Name)
		for _, count := range counts {
			rows[i] = append(rows[i], nonZero(int64(count)))
		}
	}
	return table(out, heading, rows)
}
