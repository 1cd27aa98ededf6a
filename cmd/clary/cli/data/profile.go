package data

import (
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	page "github.com/clary-ml/clary/console/report/profile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/profile"
	tables "github.com/clary-ml/clary/trainer/table"
)

func (a app) profileCommand() *cobra.Command {
	var html, broken string
	var source tables.Options
	var options profile.Options
	command := &cobra.Command{
		Use:   "profile DATA",
		Short: "Show what is in a table, on this machine",
		Long: "Show what is in a table, on this machine, reading it as a stream: CSV, JSON lines or Parquet, a file, a folder or an\n" +
			"s3:// address. Of each column there are the numbers or values, what is missing and what looks wrong; with --label, what\n" +
			"tells the label. --html writes it all as one page with plots that needs no network.",
		Example: "  clary profile churn.csv --label Churn --html churn.html\n  clary profile s3://data/orders.parquet\n  clary profile churn.csv -o json",
		Args:    shell.Takes("DATA"),
	}
	flags := command.Flags()
	flags.StringVar(&options.Label, "label", "", "the column to predict")
	flags.StringVar(&html, "html", "", "write a page with plots to this file; - is standard output")
	flags.StringSliceVar(&options.Text, "text", nil, "columns that are text although they look like numbers")
	flags.StringSliceVar(&source.Missing, "missing", nil, "texts that mean that a cell is missing, beside NA, NaN and null")
	flags.StringVar(&broken, "on-broken", string(tables.Strict), "what becomes of broken lines: strict (end) or skip")
	_ = command.RegisterFlagCompletionFunc("on-broken", cobra.FixedCompletions([]string{string(tables.Strict), string(tables.Skip)}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = a.WithScratch(func(ctx context.Context, s *transfer.Scratch, args []string) error {
		switch source.OnBroken = tables.Policy(broken); source.OnBroken {
		case tables.Strict, tables.Skip:
		default:
			return fault.New(fault.Invalid, "--on-broken %q: give strict or skip", broken)
		}
		data, err := s.Data(ctx, args[0])
		if err != nil {
			return err
		}
		rows, err := tables.Open(data, source)
		if err != nil {
			return err
		}
		progress := a.newCounter()
		options.Tell = progress.tell
		p, err := profile.Of(ctx, rows, options)
		progress.end()
		if err != nil {
			return err
		}
		if html != "" {
			found := page.Found{Name: path.Base(strings.TrimSuffix(args[0], "/")), Profile: p, Made: time.Now()}
			if err := a.WritePage(html, fmt.Sprintf("the profile of %d rows", p.Rows), func(out io.Writer) error { return page.Write(out, found) }); err != nil || html == "-" {
				return err
			}
		}
		return a.Print(p, func(out io.Writer) error { return showProfile(out, p) })
	})
	return command
}

func showProfile(out io.Writer, p *profile.Profile) error {
	pairs := []string{"rows", strconv.FormatInt(p.Rows, 10)}
	if p.Broken > 0 {
		pairs = append(pairs, "broken", strconv.FormatInt(p.Broken, 10))
	}
	if p.Label != "" && int64(p.Sampled) < p.Rows {
		pairs = append(pairs, "sampled", fmt.Sprintf("%d rows for what tells the label", p.Sampled))
	}
	if err := shell.Fields(out, pairs...); err != nil {
		return err
	}
	heading := []string{"column", "kind", "missing", "holds"}
	if p.Label != "" {
		heading = append(heading, "tells "+p.Label)
	}
	rows := make([][]string, len(p.Columns))
	for i, c := range p.Columns {
		rows[i] = []string{c.Name, string(c.Kind), shell.NonZero(c.Missing), contents(c)}
		switch {
		case p.Label == c.Name:
			rows[i] = append(rows[i], "(label)")
		case p.Label != "":
			rows[i] = append(rows[i], fmt.Sprintf("%.2f", c.Association))
		}
	}
	fmt.Fprintln(out)
	if err := shell.Table(out, heading, rows); err != nil {
		return err
	}
	for i, n := range p.Notes {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out, strings.TrimSpace("! "+n.Column+" "+n.Text))
	}
	return nil
}

// contents is what is in a column, in a few words.
func contents(c profile.Column) string {
	if q := c.Quantiles; len(q) == 7 {
		return fmt.Sprintf("%.4g to %.4g, median %.4g, mean %.4g", q[0], q[6], q[3], c.Mean)
	}
	if len(c.Values) == 0 {
		return ""
	}
	more := ""
	if c.More {
		more = " or more"
	}
	if c.Values[0].Count == 1 {
		return fmt.Sprintf("%d%s different", c.Distinct, more)
	}
	named := make([]string, 0, 3)
	for _, v := range c.Values[:min(len(c.Values), 3)] {
		named = append(named, fmt.Sprintf("%s (%d)", v.Text, v.Count))
	}
	return fmt.Sprintf("%d%s different: %s", c.Distinct, more, strings.Join(named, ", "))
}
