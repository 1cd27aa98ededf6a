package main

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// outline is where a text's links lead, and what can be linked to inside of it.
type outline struct {
	links, headings []string
}

func outlineOf(source []byte) (o outline) {
	md := goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	_ = ast.Walk(md.Parser().Parse(text.NewReader(source)), func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		switch node := node.(type) {
		case *ast.Heading:
			if id, ok := node.AttributeString("id"); entering && ok {
				o.headings = append(o.headings, string(id.([]byte)))
			}
		case *ast.Link:
			if entering {
				o.links = append(o.links, string(node.Destination))
			}
		case *ast.Image:
			if entering {
				o.links = append(o.links, string(node.Destination))
			}
		}
		return ast.WalkContinue, nil
	})
	return o
}

// texts are the outlines of all of a repository's, by path.
func texts(t *testing.T, repository fs.FS) map[string]outline {
	t.Helper()
	found := map[string]outline{}
	err := fs.WalkDir(repository, ".", func(at string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && at != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "bin"):
			return fs.SkipDir
		case path.Ext(at) != ".md":
			return nil
		}
		source, err := fs.ReadFile(repository, at)
		found[at] = outlineOf(source)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// target is the path that a link of a text names, and the heading there; false if it leads out of the repository.
func target(from, link string) (to, heading string, ok bool) {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return "", "", false
	}
	file, heading, _ := strings.Cut(link, "#")
	if file == "" {
		return from, heading, true
	}
	return path.Join(path.Dir(from), file), heading, true
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	repository := os.DirFS("../..")
	all, checked := texts(t, repository), 0
	for from, outline := range all {
		for _, link := range outline.links {
			to, heading, ok := target(from, link)
			if !ok {
				continue
			}
			checked++
			if _, err := fs.Stat(repository, to); errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s links to %s, which is not there", from, link)
			} else if heading != "" && !slices.Contains(all[to].headings, heading) {
				t.Errorf("%s links to %s, and %s has no such heading: %q", from, link, to, all[to].headings)
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d links were found", checked)
	}
}

func TestTheListOfPagesIsWhole(t *testing.T) {
	const list = "docs/README.md"
	all, pages := texts(t, os.DirFS("../..")), 0
	listed := map[string]bool{list: true}
	for _, link := range all[list].links {
		to, _, _ := target(list, link)
		listed[to] = true
	}
	for at := range all {
		if dir := path.Dir(at); dir == "docs" || dir == "deploy" || dir == "." {
			if pages++; !listed[at] {
				t.Errorf("%s does not list %s", list, at)
			}
		}
	}
	if pages < 20 {
		t.Errorf("only %d pages were found", pages)
	}
	if !slices.Contains(all["README.md"].links, list) {
		t.Errorf("README.md does not link to %s", list)
	}
}
