package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
	"mvdan.cc/sh/v3/syntax"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// shown is a command that a text shows: whole, or only named with some of its flags, as in a sentence.
type shown struct {
	words []string // after clary
	whole bool
}

// inPage are the commands of a page's blocks of code, and those within its sentences.
func inPage(page []byte) (found []shown, err error) {
	document := goldmark.DefaultParser().Parse(text.NewReader(page))
	walked := ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch node.Kind() {
		case ast.KindCodeBlock, ast.KindFencedCodeBlock:
			commands, wrong := inScript(string(node.Lines().Value(page)))
			found, err = append(found, commands...), errors.Join(err, wrong)
		case ast.KindCodeSpan:
			var words strings.Builder
			for child := node.FirstChild(); child != nil; child = child.NextSibling() {
				words.Write(child.(*ast.Text).Value(page))
			}
			found = append(found, named(words.String())...)
		}
		return ast.WalkContinue, nil
	})
	return found, errors.Join(err, walked)
}

// named are the commands that a sentence names: clary token create|list names two.
func named(span string) (found []shown) {
	words := strings.Fields(span)
	if len(words) < 2 || words[0] != "clary" {
		return nil
	}
	for _, one := range strings.Split(words[len(words)-1], "|") {
		found = append(found, shown{words: append(slices.Clone(words[1:len(words)-1]), one)})
	}
	return found
}

var (
	promptOf = regexp.MustCompile(`(?m)^\$ `)
	ours     = regexp.MustCompile(`^(\$ )?((\./)?bin/)?clary [a-z]`)
)

// inScript are the commands of a block: a script, or lines that somebody typed with what they were answered.
func inScript(block string) ([]shown, error) {
	if commands, err := parsed(block); err == nil && !promptOf.MatchString(block) {
		return commands, nil
	}
	var found []shown
	for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		commands, err := parsed(promptOf.ReplaceAllString(line, ""))
		if err != nil && ours.MatchString(line) {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		found = append(found, commands...)
	}
	return found, nil
}

func parsed(script string) (found []shown, err error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), "")
	if err != nil {
		return nil, err
	}
	syntax.Walk(file, func(node syntax.Node) bool {
		if call, ok := node.(*syntax.CallExpr); ok && len(call.Args) > 1 {
			if program := word(call.Args[0]); program == "clary" || strings.HasSuffix(program, "/clary") {
				command := shown{whole: true}
				for _, arg := range call.Args[1:] {
					command.words = append(command.words, word(arg))
				}
				found = append(found, command)
			}
		}
		return true
	})
	return found, nil
}

// word is what the shell would make of one; what is known only when it runs is "1".
func word(of *syntax.Word) string {
	var said strings.Builder
	var add func(parts []syntax.WordPart)
	add = func(parts []syntax.WordPart) {
		for _, part := range parts {
			switch part := part.(type) {
			case *syntax.Lit:
				said.WriteString(part.Value)
			case *syntax.SglQuoted:
				said.WriteString(part.Value)
			case *syntax.DblQuoted:
				add(part.Parts)
			default:
				said.WriteString("1")
			}
		}
	}
	add(of.Parts)
	return said.String()
}

// stands matches a word in the place of another, as NAME is one for a name.
var stands = regexp.MustCompile(`^[A-Z][A-Z_]*$`)

// tree is all that the program takes.
func tree() *cobra.Command {
	root := newRoot(shell.System(kinds()))
	var profile profile
	profile.addTo(root)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// taken says what is wrong with a command, as the program itself would before it does anything.
func taken(root *cobra.Command, command shown) error {
	words := slices.Clone(command.words)
	if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "...") || strings.HasPrefix(w, "…") }); i >= 0 {
		words, command.whole = words[:i], false // more of it would be said here
	}
	if len(words) == 0 || stands.MatchString(words[0]) {
		return nil
	}
	found, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	found.InitDefaultHelpFlag()
	flags := found.Flags()
	flags.VisitAll(func(flag *pflag.Flag) { flag.Changed = false })
	if err := parse(found, rest, command.whole); err != nil {
		return err
	}
	switch {
	case !found.Runnable() && flags.NArg() > 0:
		return fmt.Errorf("%s has no command %s", found.CommandPath(), flags.Arg(0))
	case !command.whole || flags.Changed("help"):
		return nil
	case !found.Runnable():
		return fmt.Errorf("%s alone does nothing", found.CommandPath())
	}
	return errors.Join(found.ValidateArgs(flags.Args()), found.ValidateRequiredFlags(), found.ValidateFlagGroups())
}

// parse reads a command's flags. A sentence may leave out the value of the last, and say N for a number.
func parse(command *cobra.Command, words []string, whole bool) error {
	for {
		err := command.ParseFlags(words)
		var none *pflag.ValueRequiredError
		var wrong *pflag.InvalidValueError
		switch {
		case !whole && errors.As(err, &none):
			return nil
		case !whole && errors.As(err, &wrong) && stands.MatchString(wrong.GetValue()):
			at := slices.Index(words, wrong.GetValue())
			if at < 1 {
				return err
			}
			words = slices.Delete(slices.Clone(words), at-1, at+1)
		default:
			return err
		}
	}
}

func TestEveryCommandInTheDocumentationIsTaken(t *testing.T) {
	root := tree()
	pages, commands := 0, 0
	err := fs.WalkDir(os.DirFS("../.."), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "bin") {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		page, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			return err
		}
		found, err := inPage(page)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, command := range found {
			if err := taken(root, command); err != nil {
				t.Errorf("%s: clary %s: %v", path, strings.Join(command.words, " "), err)
			}
		}
		pages, commands = pages+1, commands+len(found)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages < 25 || commands < 250 {
		t.Errorf("only %d pages with %d commands were found", pages, commands)
	}
	t.Logf("%d commands on %d pages", commands, pages)
}

func TestEveryExampleInHelpIsTaken(t *testing.T) {
	root := tree()
	examples := 0
	var visit func(command *cobra.Command)
	visit = func(command *cobra.Command) {
		for _, below := range command.Commands() {
			visit(below)
		}
		found, err := inScript(command.Example)
		if err != nil {
			t.Errorf("%s: %v", command.CommandPath(), err)
		}
		for _, example := range found {
			if err := taken(root, example); err != nil {
				t.Errorf("%s shows: clary %s: %v", command.CommandPath(), strings.Join(example.words, " "), err)
			}
		}
		examples += len(found)
	}
	visit(root)
	if examples < 150 {
		t.Errorf("only %d examples were found", examples)
	}
	t.Logf("%d examples", examples)
}

// started matches what units and the compose file start.
var started = regexp.MustCompile(`(?m)^(?:ExecStart=/usr/local/bin/clary| *command:) ([a-z].*)$`)

func TestWhatIsDeployedStartsWhatThereIs(t *testing.T) {
	root := tree()
	for pattern, want := range map[string]int{"../../deploy/systemd/*.service": 3, "../../deploy/compose/compose.yaml": 5} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		commands := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range started.FindAllStringSubmatch(string(text), -1) {
				commands++
				words := slices.DeleteFunc(strings.Fields(line[1]), func(w string) bool { return strings.HasPrefix(w, "$") })
				if err := taken(root, shown{words: words, whole: true}); err != nil {
					t.Errorf("%s: clary %s: %v", file, line[1], err)
				}
			}
		}
		if commands != want {
			t.Errorf("%s: %d commands were found, want %d", pattern, commands, want)
		}
	}
}
