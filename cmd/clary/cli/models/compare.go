package models

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// difference is one line of a comparison.
type difference struct {
	What string `json:"what"` // parameter epochs, metric loss, data train, …
	A    string `json:"a"`
	B    string `json:"b"`
	Same bool   `json:"same,omitempty"`
}

func (a app) compareModelsCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "compare A B",
		Short: "Show two versions side by side: where they came from, and how good they are",
		Long: "Show two versions side by side: artifact, approval, code, data, parameters, metrics and the evaluations that both have.\n" +
			"Only what differs is shown, and all metrics.\nA and B are NAME@VERSION or NAME:ALIAS.",
		Example: "  clary models compare digits@2 digits@3\n  clary models compare digits:champion digits:challenger --all\n  clary models compare digits@2 digits@3 -o json",
		Args:    shell.Takes("A", "B"), ValidArgsFunction: a.completeModelRefs(),
	}
	command.Flags().BoolVar(&all, "all", false, "what is the same too")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		first, err := c.ModelVersion(ctx, args[0])
		if err != nil {
			return err
		}
		second, err := c.ModelVersion(ctx, args[1])
		if err != nil {
			return err
		}
		lines := compareVersions(first.Version, second.Version)
		value := struct {
			A           versionJSON  `json:"a"`
			B           versionJSON  `json:"b"`
			Differences []difference `json:"differences"`
		}{versionToJSON(first.Version, first.Aliases, first.Users), versionToJSON(second.Version, second.Aliases, second.Users), []difference{}}
		var rows [][]string
		for _, line := range lines {
			if !line.Same {
				value.Differences = append(value.Differences, line)
			}
			if !line.Same || all || line.figure() {
				rows = append(rows, []string{line.What, line.A, line.B})
			}
		}
		return a.Print(value, func(out io.Writer) error {
			return shell.Table(out, []string{"", first.Version.Ref(), second.Version.Ref()}, rows)
		})
	})
	return command
}

// figure lines are shown even if both versions have the same.
func (d difference) figure() bool {
	var kind string
	_, _ = fmt.Sscan(d.What, &kind)
	return kind == "metric" || kind == "evaluation"
}

func compareVersions(a, b cluster.ModelVersion) []difference {
	var lines []difference
	add := func(what, left, right string) {
		if left != "" || right != "" {
			lines = append(lines, difference{What: what, A: left, B: right, Same: left == right})
		}
	}
	both := func(kind string, left, right map[string]string) {
		for _, name := range union(left, right) {
			add(kind+" "+name, left[name], right[name])
		}
	}
	add("artifact", short("sha256:"+a.Artifact.SHA256), short("sha256:"+b.Artifact.SHA256))
	add("size", cluster.FormatBytes(a.Artifact.Size), cluster.FormatBytes(b.Artifact.Size))
	add("framework", a.Framework, b.Framework)
	add("format", a.Format, b.Format)
	add("approval", approvalText(a), approvalText(b))
	add("from", originText(a.Lineage), originText(b.Lineage))
	add("code", a.Lineage.Code.What, b.Lineage.Code.What)
	add("code digest", short(a.Lineage.Code.Digest), short(b.Lineage.Code.Digest))
	both("data", dataTexts(a.Lineage), dataTexts(b.Lineage))
	both("parameter", a.Lineage.Parameters, b.Lineage.Parameters)
	both("metric", figureTexts("", a.Lineage.Metrics), figureTexts("", b.Lineage.Metrics))
	both("evaluation", evaluationTexts(a), evaluationTexts(b))
	return lines
}

func union(a, b map[string]string) []string {
	all := maps.Clone(b)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, a)
	return slices.Sorted(maps.Keys(all))
}

// dataTexts are the digests of what was read, by channel.
func dataTexts(l cluster.Lineage) map[string]string {
	texts := map[string]string{}
	for _, d := range l.Data {
		texts[d.Channel] = fmt.Sprintf("%s (%d objects, %s)", short(d.Digest), d.Objects, cluster.FormatBytes(d.Bytes))
	}
	for _, p := range l.Models {
		texts[cluster.ModelScheme+p.Model] = fmt.Sprintf("%s@%d", p.Model, p.Number)
	}
	return texts
}

func figureTexts(prefix string, figures map[string]float64) map[string]string {
	texts := map[string]string{}
	for name, value := range figures {
		texts[prefix+name] = fmt.Sprintf("%.6g", value)
	}
	return texts
}

// evaluationTexts are the figures of all evaluations; those of another data set stand apart.
func evaluationTexts(v cluster.ModelVersion) map[string]string {
	texts := map[string]string{}
	for _, e := range v.Evaluations {
		maps.Copy(texts, figureTexts(e.Name+" ", e.Metrics))
		texts[e.Name+" data"] = short(e.Digest)
	}
	return texts
}
