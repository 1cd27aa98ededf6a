package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) settingsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "settings",
		Short: "See and change how the cluster behaves: what it keeps, and for how long",
		Long: "See and change how the cluster behaves: what it keeps, and for how long. A change holds\n" +
			"at once, on all coordinators, without a restart; a refused one changes nothing.",
		Example: "  clary settings show\n  clary settings set retention.audit=180d\n  clary settings edit",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.showSettingsCommand(), a.setSettingsCommand(), a.editSettingsCommand(), a.applySettingsCommand())
	return command
}

func (a app) showSettingsCommand() *cobra.Command {
	var changed, stale bool
	command := &cobra.Command{
		Use: "show", Short: "Show every setting: its value, its default and what it means", Args: shell.Takes(),
		Long:    "Show every setting: its value, its default and what it means. With -o yaml it is what clary settings apply reads.",
		Example: "  clary settings show\n  clary settings show --changed -o yaml >settings.yaml",
	}
	command.Flags().BoolVar(&changed, "changed", false, "only those that are not at their default")
	command.Flags().BoolVar(&stale, "stale", false, "what the nearest coordinator knows, which may be a moment old")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		settings, _, err := c.Settings(ctx, stale)
		if err != nil {
			return err
		}
		tree, rows := settingsTree{}, [][]string{}
		for _, s := range settings {
			if changed && s.Value == s.Default {
				continue
			}
			tree.put(s)
			open := ""
			if s.Value != s.Default {
				open = valueOrNone(s.Default)
			}
			rows = append(rows, []string{s.Path, s.Value, open, s.Means})
		}
		return a.Print(tree, func(out io.Writer) error {
			return shell.Table(out, []string{"setting", "value", "default", "what it is"}, rows)
		})
	})
	return command
}

func valueOrNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// settingsTree is settings by group and name, as -o json and yaml show them and a file has them.
type settingsTree map[string]map[string]any

func (t settingsTree) put(s client.Setting) {
	group, name, _ := strings.Cut(s.Path, ".")
	if t[group] == nil {
		t[group] = map[string]any{}
	}
	var value any = s.Value
	if s.Unit == "count" || s.Unit == "percent" {
		var n int64
		if _, err := fmt.Sscan(s.Value, &n); err == nil {
			value = n
		}
	}
	t[group][name] = value
}

func (a app) setSettingsCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "set KEY=VALUE…", Short: "Change settings, all that are named or none",
		Long:    "Change settings, all that are named or none. KEY= with nothing behind it is the default again.",
		Example: "  clary settings set retention.audit=180d\n  clary settings set retention.jobs=0 retention.jobs_most=0   # keep ended jobs for ever\n  clary settings set retention.audit=",
		Args:    shell.Takes("KEY=VALUE..."),
		ValidArgsFunction: a.Complete(func(ctx context.Context, c *client.Client) []string {
			settings, _, _ := c.Settings(ctx, true)
			var names []string
			for _, s := range settings {
				names = append(names, cobra.CompletionWithDesc(s.Path+"=", s.Means))
			}
			return names
		}),
	}
	dry := addDryRun(command)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		edit := client.SettingsEdit{Put: map[string]string{}, DryRun: *dry}
		for _, arg := range args {
			path, value, ok := strings.Cut(arg, "=")
			if !ok {
				return fault.New(fault.Invalid, "%q is not KEY=VALUE, like retention.audit=180d", cluster.Clip(arg))
			}
			if _, twice := edit.Put[path]; twice {
				return fault.New(fault.Invalid, "%s is there twice", path)
			}
			edit.Put[path] = value
		}
		return a.changeSettings(ctx, c, edit)
	})
	return command
}

func (a app) applySettingsCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "apply -f FILE", Short: "Make the settings what a file says, all of it or nothing", Args: shell.Takes(),
		Long: "Make the settings what a file says, all of it or nothing. Those that the file does not name get their defaults; with --keep\n" +
			"they stay as they are. clary settings show -o yaml writes such a file.",
		Example: "  clary settings show --changed -o yaml >settings.yaml\n  clary settings apply -f settings.yaml --dry-run\n  clary settings apply -f settings.yaml",
	}
	path, keep, dry := addApply(command, "settings")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		data, err := a.readFile(*path, maxSettingsFile)
		if err != nil {
			return err
		}
		put, err := parseSettings(data)
		if err != nil {
			return fault.New(fault.KindOf(err), "%s: %w", *path, err)
		}
		return a.changeSettings(ctx, c, client.SettingsEdit{Put: put, Replace: !*keep, DryRun: *dry})
	})
	return command
}

func (a app) editSettingsCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "edit", Short: "Change settings in an editor", Args: shell.Takes(),
		Long: "Change settings in an editor: the one that VISUAL or EDITOR names. What the file says when the editor ends is applied, unless\n" +
			"somebody else has changed the settings meanwhile; what was refused is kept in a file.",
		Example: "  clary settings edit\n  EDITOR='code --wait' clary settings edit",
	}
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		settings, revision, err := c.Settings(ctx, false)
		if err != nil {
			return err
		}
		text, err := a.inEditor(settingsFile(settings))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(text)) == 0 {
			return fault.New(fault.Invalid, "the file is empty: nothing was changed (lines that begin with # stand for defaults)")
		}
		ctx = context.WithoutCancel(ctx) // a Ctrl-C was meant for the editor
		put, err := parseSettings(text)
		if err == nil {
			err = a.changeSettings(ctx, c, client.SettingsEdit{Put: put, Replace: true, Expect: &revision})
		}
		if err != nil {
			return a.keepEdited(text, err)
		}
		return nil
	})
	return command
}

// keepEdited leaves what somebody has written and the cluster did not take.
func (a app) keepEdited(text []byte, refusal error) error {
	file, err := os.CreateTemp("", "clary-settings-*.yaml")
	if err != nil {
		return refusal
	}
	_, err = file.Write(text)
	if errors.Join(err, file.Close()) == nil {
		a.Note("what you wrote is in %s: correct it and run clary settings apply -f %[1]s", file.Name())
	}
	return refusal
}

// settingsFile is every setting with what it means, those at their default commented out.
func settingsFile(settings []client.Setting) []byte {
	var text bytes.Buffer
	text.WriteString("# What has a # before it has its default. Remove the # to set it.\n")
	group := ""
	for _, s := range settings {
		head, name, _ := strings.Cut(s.Path, ".")
		if head != group {
			fmt.Fprintf(&text, "\n%s:\n", head)
			group = head
		}
		mark, value := "", s.Value
		if value == s.Default {
			mark = "# "
		}
		if s.Unit == "text" {
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&text, "  # %s", s.Means)
		if s.Range != "" {
			fmt.Fprintf(&text, " (%s)", s.Range)
		}
		fmt.Fprintf(&text, "\n  %s%s: %s\n", mark, name, value)
	}
	return text.Bytes()
}

// inEditor lets a person change a text. A Ctrl-C there is the editor's, however often it comes.
func (a app) inEditor(text []byte) ([]byte, error) {
	editor := a.Getenv("VISUAL")
	if editor == "" {
		editor = a.Getenv("EDITOR")
	}
	words := strings.Fields(editor)
	if len(words) == 0 {
		return nil, fault.New(fault.Invalid, "neither VISUAL nor EDITOR is set: name an editor, or use clary settings set or apply")
	}
	folder, err := os.MkdirTemp("", "clary-settings-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	path := folder + "/settings.yaml"
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	defer signal.Stop(signals)
	process := exec.Command(words[0], append(words[1:], path)...)
	process.Stdin, process.Stdout, process.Stderr = a.In, a.Out, a.Err
	if err := process.Run(); err != nil {
		return nil, fault.New(fault.Invalid, "the editor %q: %w: nothing was changed", editor, err)
	}
	return os.ReadFile(path)
}

const maxSettingsFile = 1 << 20

// parseSettings reads groups of settings: values by path.
func parseSettings(data []byte) (map[string]string, error) {
	if len(data) > maxSettingsFile {
		return nil, fault.New(fault.Invalid, "a file of settings has at most %d bytes", maxSettingsFile)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var groups map[string]yaml.Node
	if err := decoder.Decode(&groups); err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "there is more than one document in the file: put all settings into one")
	}
	put := map[string]string{}
	for group, node := range groups {
		if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
			continue // all of its settings are commented out
		}
		if node.Kind != yaml.MappingNode {
			return nil, fault.New(fault.Invalid, "line %d: settings.%s: settings stand below their group, like retention: and below it audit: 90d", node.Line, cluster.Clip(group))
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			path := group + "." + key.Value
			if value.Kind != yaml.ScalarNode {
				return nil, fault.New(fault.Invalid, "line %d: settings.%s: a setting is a number or a text", value.Line, cluster.Clip(path))
			}
			if _, twice := put[path]; twice {
				return nil, fault.New(fault.Invalid, "line %d: settings.%s is there twice", key.Line, cluster.Clip(path))
			}
			put[path] = value.Value
		}
	}
	return put, nil
}

// changeSettings changes settings and says what has changed.
func (a app) changeSettings(ctx context.Context, c *client.Client, edit client.SettingsEdit) error {
	changes, err := c.EditSettings(ctx, edit)
	if err != nil {
		return err
	}
	err = a.Print(changes, func(out io.Writer) error {
		for _, change := range changes {
			if _, err := fmt.Fprintf(out, "%s: %s -> %s\n", change.Path, valueOrNone(change.Before), valueOrNone(change.After)); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(changes) == 0:
		a.Note("nothing changes")
	case edit.DryRun:
		a.Note("nothing was changed: this was a dry run")
	}
	return nil
}
