package models

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

const refHelp = "REF is NAME@VERSION or NAME:ALIAS, with or without model:// before it."

func (a app) modelsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "models",
		Short: "Keep models: versions with their lineage, approval, aliases and evaluations",
		Long: "Keep models. A model is a named line of versions. A version has an artifact that never changes and that stays when\n" +
			"the job that made it is deleted, where it came from (job, code, data, parameters, metrics), what was decided about\n" +
			"it, and evaluations. A job reads one as an input with the address model://NAME@VERSION or model://NAME:ALIAS.",
		Example: "  clary train -f digits.yaml --register digits\n  clary models register digits-7 --name digits\n  clary models show digits@3\n" +
			"  clary models approve digits@3 --why 'passed review'\n  clary models alias digits@3 champion\n  clary models compare digits@2 digits@3",
		Args: shell.Takes(),
	}
	list := a.listModelsCommand()
	command.RunE = list.RunE
	command.AddCommand(
		list, a.showModelCommand(), a.registerModelCommand(), a.importModelCommand(), a.approveModelCommand(), a.rejectModelCommand(),
		a.aliasModelCommand(), a.compareModelsCommand(), a.downloadModelCommand(), a.deleteModelCommand(),
	)
	return command
}

func (a app) listModelsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the models", Example: "  clary models list -o json", Args: shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			out, rows := []modelJSON{}, [][]string{}
			for model, err := range c.Models(ctx) {
				if err != nil {
					return err
				}
				out = append(out, modelToJSON(model))
				rows = append(rows, []string{model.Name, strconv.FormatInt(model.Count, 10), aliasesText(model.Aliases), model.Owner, shell.Ago(model.Created)})
			}
			return a.Print(out, func(w io.Writer) error {
				return shell.Table(w, []string{"name", "versions", "aliases", "owner", "age"}, rows)
			})
		}),
	}
}

// aliasesText reads like "challenger=4 champion=3".
func aliasesText(aliases map[string]int64) string {
	var texts []string
	for _, alias := range shell.SortedKeys(aliases) {
		texts = append(texts, fmt.Sprintf("%s=%d", alias, aliases[alias]))
	}
	return strings.Join(texts, " ")
}

func (a app) showModelCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "show NAME[@VERSION|:ALIAS]",
		Short: "Show a model with its versions, or a version with where it came from",
		Example: "  clary models show digits\n  clary models show digits@3\n  clary models show digits:champion --all\n" +
			"  clary models show digits:champion -o json | jq .lineage.data",
		Args: shell.Takes("NAME[@VERSION|:ALIAS]"), ValidArgsFunction: a.completeModelRefs(),
	}
	command.Flags().BoolVar(&all, "all", false, "all versions of a model, all parameters of a version")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		ref, err := parseRef(args[0])
		if err != nil {
			return err
		}
		if ref.Whole() {
			return a.showModel(ctx, c, ref.Model, all)
		}
		view, err := c.ModelVersion(ctx, args[0])
		if err != nil {
			return err
		}
		return a.Print(versionToJSON(view.Version, view.Aliases, view.Users), func(out io.Writer) error { return showVersion(out, view, all) })
	})
	return command
}

func parseRef(text string) (cluster.ModelRef, error) {
	ref, err := cluster.ParseModelRef(text)
	if err != nil {
		return ref, fault.New(fault.Invalid, "%w", err)
	}
	return ref, nil
}

// shownVersions are how many versions of a model a person sees without asking for all.
const shownVersions = 20

func (a app) showModel(ctx context.Context, c *client.Client, name string, all bool) error {
	model, err := c.Model(ctx, name)
	if err != nil {
		return err
	}
	var versions []cluster.ModelVersion
	limit := 0
	if a.ForPeople() && !all {
		limit = shownVersions
	}
	for before := int64(0); ; {
		page, next, err := c.ModelVersions(ctx, name, limit, before)
		if err != nil {
			return err
		}
		versions = append(versions, page...)
		if before = next; next == 0 || limit > 0 && len(versions) >= limit {
			break
		}
	}
	out := struct {
		modelJSON
		Version []versionJSON `json:"version"`
	}{modelJSON: modelToJSON(model), Version: []versionJSON{}}
	for _, v := range versions {
		out.Version = append(out.Version, versionToJSON(v, aliasesOf(model, v.Number), nil))
	}
	return a.Print(out, func(w io.Writer) error {
		err := shell.Fields(w, "name", model.Name, "text", shell.OneLine(model.Text), "owner", model.Owner, "aliases", aliasesText(model.Aliases))
		if err != nil {
			return err
		}
		fmt.Fprintln(w)
		if !all {
			versions = versions[:min(len(versions), shownVersions)]
		}
		var rows [][]string
		for _, v := range versions {
			rows = append(rows, []string{
				strconv.FormatInt(v.Number, 10), approvalText(v), strings.Join(aliasesOf(model, v.Number), " "), originText(v.Lineage), headline(v.Lineage.Metrics),
				cluster.FormatBytes(v.Artifact.Size), shell.Ago(v.Created),
			})
		}
		if err := shell.Table(w, []string{"version", "approval", "aliases", "from", "metrics", "size", "age"}, rows); err != nil {
			return err
		}
		if more := model.Count - int64(len(versions)); more > 0 {
			a.Note("%d older versions: see --all", more)
		}
		return nil
	})
}

func aliasesOf(model cluster.Model, number int64) []string {
	var names []string
	for _, alias := range shell.SortedKeys(model.Aliases) {
		if model.Aliases[alias] == number {
			names = append(names, alias)
		}
	}
	return names
}

func approvalText(v cluster.ModelVersion) string {
	if v.Deleting {
		return "deleting"
	}
	return string(v.Approval.State)
}

func originText(l cluster.Lineage) string {
	if l.Job != "" {
		return "job " + l.Job
	}
	return l.Source
}

// headline is some of a version's figures, those of validation first.
func headline(metrics map[string]float64) string {
	names := shell.SortedKeys(metrics)
	slices.SortStableFunc(names, func(a, b string) int {
		return boolCompare(strings.HasPrefix(b, "val"), strings.HasPrefix(a, "val"))
	})
	var texts []string
	for _, name := range names[:min(len(names), 3)] {
		texts = append(texts, fmt.Sprintf("%s=%.4g", name, metrics[name]))
	}
	return strings.Join(texts, " ")
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// shownParameters are how many parameters of a version a person sees without asking for all.
const shownParameters = 24

func showVersion(out io.Writer, view client.ModelVersionView, all bool) error {
	v, l := view.Version, view.Version.Lineage
	decided := approvalText(v)
	if v.Approval.By != "" {
		decided += fmt.Sprintf(" by %s %s ago", v.Approval.By, shell.Ago(v.Approval.At))
	}
	if v.Approval.Why != "" {
		decided += ": " + shell.OneLine(v.Approval.Why)
	}
	err := shell.Fields(
		out, "version", v.Ref(), "text", shell.OneLine(v.Text), "approval", decided, "aliases", strings.Join(view.Aliases, " "), "used by", strings.Join(view.Users, ", "),
		"framework", v.Framework, "format", v.Format, "artifact", v.Artifact.URI, "size", cluster.FormatBytes(v.Artifact.Size), "sha256", v.Artifact.SHA256,
		"registered", fmt.Sprintf("by %s %s ago", v.Owner, shell.Ago(v.Created)), "job", jobText(l), "source", l.Source, "code", shell.OneLine(strings.TrimSpace(l.Code.What+" "+l.Code.Digest)),
	)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, d := range l.Data {
		note := ""
		if d.Changed {
			note = "changed since the job began"
		}
		rows = append(rows, []string{d.Channel, d.URI, strconv.FormatInt(d.Objects, 10), cluster.FormatBytes(d.Bytes), short(d.Digest), note})
	}
	for _, pin := range l.Models {
		rows = append(rows, []string{"", fmt.Sprintf("%s (%s@%d)", pin.Ref, pin.Model, pin.Number), "1", "", short("sha256:" + pin.SHA256), ""})
	}
	if err := shell.Section(out, []string{"channel", "data", "objects", "size", "digest", "note"}, rows); err != nil {
		return err
	}
	if err := shell.Section(out, []string{"metric", "value"}, figureRows(l.Metrics)); err != nil {
		return err
	}
	rows = nil
	for _, key := range shell.SortedKeys(l.Parameters) {
		rows = append(rows, []string{key, l.Parameters[key]})
	}
	if hidden := len(rows) - shownParameters; hidden > 0 && !all {
		rows = append(rows[:shownParameters], []string{fmt.Sprintf("and %d more", hidden), "see --all"})
	}
	if err := shell.Section(out, []string{"parameter", "value"}, rows); err != nil {
		return err
	}
	for _, e := range v.Evaluations {
		fmt.Fprintln(out)
		if err := showStored(out, e); err != nil {
			return err
		}
	}
	return nil
}

func showStored(out io.Writer, e cluster.Evaluation) error {
	rows := ""
	if e.Rows > 0 {
		rows = strconv.FormatInt(e.Rows, 10)
	}
	err := shell.Fields(
		out, "evaluation", e.Name, "data", strings.TrimSpace(e.Data+" "+short(e.Digest)), "rows", rows, "against", e.Against, "report", e.Report,
		"made", fmt.Sprintf("by %s %s ago", e.By, shell.Ago(e.At)),
	)
	if err != nil {
		return err
	}
	return shell.Table(out, []string{"figure", "value"}, figureRows(e.Metrics))
}

func jobText(l cluster.Lineage) string {
	if l.Job == "" {
		return ""
	}
	return fmt.Sprintf("%s (%s, attempt %d)", l.Job, l.Kind, l.Attempt)
}

func figureRows(figures map[string]float64) [][]string {
	var rows [][]string
	for _, name := range shell.SortedKeys(figures) {
		rows = append(rows, []string{name, fmt.Sprintf("%.6g", figures[name])})
	}
	return rows
}

// short is the beginning of a digest, as people compare them.
func short(digest string) string {
	kind, hex, _ := strings.Cut(digest, ":")
	return strings.TrimSuffix(kind+":"+hex[:min(len(hex), 12)], ":")
}

// completeModelRefs offers models, and of each its aliases and newest versions.
func (a app) completeModelRefs() cobra.CompletionFunc {
	offer := a.Complete(func(ctx context.Context, c *client.Client) []string {
		var names []string
		for model, err := range c.Models(ctx) {
			if err != nil || len(names) > 500 {
				break
			}
			names = append(names, model.Name)
			for _, alias := range shell.SortedKeys(model.Aliases) {
				names = append(names, cobra.CompletionWithDesc(model.Name+":"+alias, fmt.Sprintf("version %d", model.Aliases[alias])))
			}
			for n := model.Next - 1; n >= max(model.Next-5, 1); n-- {
				names = append(names, fmt.Sprintf("%s@%d", model.Name, n))
			}
		}
		return names
	})
	return func(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if command.Name() == "compare" && len(args) == 1 || command.Name() == "delete" {
			args = nil
		}
		return offer(command, args, typed)
	}
}
