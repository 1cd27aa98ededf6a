package data

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/workload/jobfile"
)

// preparation is what flags say where there is no file.
type preparation struct {
	file, to   string
	inputs     []string
	plan       steps.Plan
	drop       []string
	validation float64
	test       float64
	seed       uint64
	duplicates bool
}

func (a app) prepareCommand() *cobra.Command {
	var p preparation
	command := &cobra.Command{
		Use:   "prepare [DATA]",
		Short: "Clean, split, scale and encode a table, on this machine",
		Long: "Make a table ready to learn from, on this machine, reading it as a stream: CSV, JSON lines or Parquet, a file, a\n" +
			"folder or an s3:// address. Without a plan it splits off test rows if asked, fills missing cells,\n" +
			"scales numbers to [-1, 1] and encodes texts as columns of 0 and 1. A plan (-f) names the steps itself: drop, clean,\n" +
			"split, sample, scale, one_hot, pca and join, each learning from the rows to train on alone.\n\n" +
			"Below the output folder come train/, validation/ and test/, the label as last column; transform/transform.json,\n" +
			"which does the same to raw rows; quarantine/ for broken lines that were put aside; and report.json.",
		Example: "  clary prepare churn.csv --label Churn --drop customerID --test 0.2 --to prepared/\n" +
			"  clary prepare -f plan.yaml --input orders.parquet --input customers=customers.csv --to prepared/\n" +
			"  printf 'label: Churn\\nsteps:\\n- split: {test: 0.2, stratify: Churn}\\n- clean: {}\\n- one_hot: {limit: 20}\\n' > plan.yaml",
		Args: cobra.MaximumNArgs(1),
	}
	flags := command.Flags()
	flags.StringVarP(&p.file, "file", "f", "", "a plan as YAML or JSON; - is standard input")
	flags.StringArrayVar(&p.inputs, "input", nil, "the table, or NAME=TABLE for one to join; may be repeated")
	flags.StringVar(&p.to, "to", "prepared", "the folder for what comes out")
	flags.StringVar(&p.plan.Label, "label", "", "the column to predict")
	flags.StringSliceVar(&p.drop, "drop", nil, "columns to leave out")
	flags.StringSliceVar(&p.plan.Text, "text", nil, "columns that are text although they look like numbers")
	flags.StringSliceVar(&p.plan.Missing, "missing", nil, "texts that mean that a cell is missing, beside NA, NaN and null")
	flags.StringVar(&p.plan.OnBroken, "on-broken", "", "what becomes of broken lines: strict (end), skip or quarantine")
	flags.StringVar(&p.plan.Format, "format", "", "what is written: csv, jsonl or parquet")
	flags.BoolVar(&p.duplicates, "drop-duplicates", false, "drop rows that equal an earlier one")
	flags.Float64Var(&p.test, "test", 0, "the share of rows for testing, stratified by the label")
	flags.Float64Var(&p.validation, "validation", 0, "the share of rows for validation")
	flags.Uint64Var(&p.seed, "seed", 0, "which rows are drawn")
	_ = command.RegisterFlagCompletionFunc("on-broken", cobra.FixedCompletions([]string{"strict", "skip", "quarantine"}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"csv", "jsonl", "parquet"}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, args []string) error {
		if len(args) > 0 {
			p.inputs = append(p.inputs, args[0])
		}
		if len(p.inputs) == 0 {
			return shell.Usage(command, "name the table: clary prepare DATA, or --input DATA")
		}
		if p.file != "" {
			for _, name := range []string{"label", "drop", "text", "missing", "drop-duplicates", "on-broken", "format", "test", "validation", "seed"} {
				if flags.Changed(name) {
					return shell.Usage(command, "--%s stands beside -f: write it into the plan", name)
				}
			}
		}
		return a.WithScratch(func(ctx context.Context, s *transfer.Scratch, _ []string) error { return a.prepare(ctx, s, p) })(command, args)
	}
	return command
}

// steps are those that flags mean.
func (p preparation) steps() []steps.Step {
	var all []steps.Step
	if len(p.drop) > 0 {
		all = append(all, steps.Step{Drop: &steps.Drop{Columns: p.drop}})
	}
	if p.duplicates {
		all = append(all, steps.Step{Clean: &steps.Clean{Duplicates: true, Missing: steps.FillKeep}})
	}
	if p.test > 0 || p.validation > 0 {
		all = append(all, steps.Step{Split: &steps.Split{Test: p.test, Validation: p.validation, Stratify: p.plan.Label, Seed: p.seed}})
	}
	return append(all, steps.Step{Clean: &steps.Clean{}}, steps.Step{Scale: &steps.Scale{}}, steps.Step{OneHot: &steps.OneHot{}})
}

func (a app) prepare(ctx context.Context, s *transfer.Scratch, p preparation) error {
	plan, err := a.planOf(p)
	if err != nil {
		return err
	}
	run := prepare.Run{Plan: plan, Inputs: map[string]string{}, Output: p.to}
	for _, input := range p.inputs {
		name, from, named := strings.Cut(input, "=")
		if !named || strings.ContainsAny(name, "/.") {
			name, from = prepare.MainInput, input
		}
		if run.Inputs[name] != "" {
			return fault.New(fault.Invalid, "--input: %q is given twice: name the table to join, as NAME=TABLE", name)
		}
		if run.Inputs[name], err = s.Data(ctx, from); err != nil {
			return err
		}
	}
	if err := plan.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(p.to, 0o755); err != nil {
		return fault.New(fault.Invalid, "--to: %w", err)
	}
	progress := a.newCounter()
	run.Tell = progress.tell
	report, err := run.Do(ctx)
	progress.end()
	if err != nil {
		return err
	}
	return a.Print(report, func(out io.Writer) error { return showPreparation(out, p.to, report) })
}

func (a app) planOf(p preparation) (steps.Plan, error) {
	if p.file == "" {
		p.plan.Steps = p.steps()
		return p.plan, nil
	}
	text, err := io.ReadAll(a.In)
	if p.file != "-" {
		text, err = os.ReadFile(p.file)
	}
	if err != nil {
		return steps.Plan{}, fault.New(fault.Invalid, "read the plan: %w", err)
	}
	var plan steps.Plan
	if err := jobfile.Decode(text, &plan); err != nil {
		return plan, fmt.Errorf("%s: %w", p.file, err)
	}
	return plan, nil
}

func showPreparation(out io.Writer, to string, r prepare.Report) error {
	pairs := []string{"rows", strconv.FormatInt(r.Rows, 10)}
	if r.Broken > 0 {
		pairs = append(pairs, "broken", strconv.FormatInt(r.Broken, 10))
	}
	if r.Left > 0 {
		pairs = append(pairs, "left out", strconv.FormatInt(r.Left, 10))
	}
	parts := make([]string, 0, len(r.Parts))
	for part := range r.Parts {
		parts = append(parts, part)
	}
	sort.Slice(parts, func(i, j int) bool { return r.Parts[parts[i]] > r.Parts[parts[j]] })
	for _, part := range parts {
		pairs = append(pairs, part, fmt.Sprintf("%d rows in %s", r.Parts[part], filepath.Join(to, part)))
	}
	pairs = append(pairs, "columns", strconv.Itoa(len(r.Columns)), "transform", filepath.Join(to, prepare.TransformFolder, prepare.TransformFile))
	return shell.Fields(out, pairs...)
}

// counter shows how far a reading is, to people at a terminal.
type counter struct {
	app   app
	shown time.Time
	began bool
}

func (a app) newCounter() *counter { return &counter{app: a} }

func (c *counter) tell(reading int, rows int64) {
	if !c.app.Terminal || time.Since(c.shown) < 100*time.Millisecond {
		return
	}
	c.shown, c.began = time.Now(), true
	fmt.Fprintf(c.app.Err, "\r\x1b[Kreading %d: %d rows", reading, rows)
}

func (c *counter) end() {
	if c.began {
		fmt.Fprint(c.app.Err, "\r\x1b[K")
	}
}
