package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

//go:embed page.html
var pageHTML string

// page is one text of the repository, and the page of it.
type page struct {
	Source string // path in the repository
	Name   string // file in docs/
	Title  string // its first heading
	Body   template.HTML
	Pages  []*page // all of them, for the list
}

// documentation renders every page, with links that hold inside of the bundle.
func (r release) documentation(b *bundle) error {
	pages, err := r.pages()
	if err != nil {
		return err
	}
	site := site{pages: map[string]*page{}, bundle: b}
	for _, p := range pages {
		site.pages[p.Source] = p
	}
	shape, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return err
	}
	for _, p := range pages {
		source, err := os.ReadFile(filepath.Join(r.root, p.Source))
		if err != nil {
			return err
		}
		if err := site.render(p, source); err != nil {
			return fmt.Errorf("%s: %w", p.Source, err)
		}
	}
	for _, p := range pages { // when all titles are known
		p.Pages = pages
		var out bytes.Buffer
		if err := shape.Execute(&out, p); err != nil {
			return err
		}
		b.add("docs/"+p.Name, out.Bytes(), false)
	}
	return nil
}

// pages are those that there are, the front page first.
func (r release) pages() ([]*page, error) {
	pages := []*page{
		{Source: "README.md", Name: "index.html"},
		{Source: "DESIGN.md", Name: "design.html"},
		{Source: "CONTRIBUTING.md", Name: "contributing.html"},
		{Source: "deploy/README.md", Name: "deploy.html"},
		{Source: "sdk/python/README.md", Name: "sdk-python.html"},
	}
	found, err := filepath.Glob(filepath.Join(r.root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	for _, at := range found {
		name := filepath.Base(at)
		pages = append(pages, &page{Source: "docs/" + name, Name: strings.TrimSuffix(name, ".md") + ".html"})
	}
	slices.SortStableFunc(pages[1:], func(a, b *page) int { return cmp.Compare(a.Name, b.Name) })
	return pages, nil
}

// site knows where links lead.
type site struct {
	pages  map[string]*page
	bundle *bundle
}

// render makes a page's body and finds its title.
func (s site) render(p *page, source []byte) error {
	md := goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	document := md.Parser().Parse(text.NewReader(source))
	var dead []ast.Node
	err := ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch node := node.(type) {
		case *ast.Heading:
			if p.Title == "" {
				p.Title = plain(node, source)
			}
		case *ast.Link:
			target, ok := s.link(p, string(node.Destination))
			if !ok {
				dead = append(dead, node)
			}
			node.Destination = []byte(target)
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		return err
	}
	for _, link := range dead { // its words stay
		for child := link.FirstChild(); child != nil; child = link.FirstChild() {
			link.Parent().InsertBefore(link.Parent(), link, child)
		}
		link.Parent().RemoveChild(link.Parent(), link)
	}
	var out bytes.Buffer
	if err := md.Renderer().Render(&out, source, document); err != nil {
		return err
	}
	p.Body = template.HTML(out.String()) //nolint:gosec // made of our own texts, raw HTML left out
	return nil
}

// plain is the text of a node.
func plain(node ast.Node, source []byte) string {
	var words strings.Builder
	_ = ast.Walk(node, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if leaf, ok := node.(*ast.Text); ok && entering {
			words.Write(leaf.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return words.String()
}

// link is where a link of the repository leads inside of the bundle; false if what it
// names is not in it.
func (s site) link(p *page, destination string) (string, bool) {
	if strings.HasPrefix(destination, "#") || strings.Contains(destination, "://") || strings.HasPrefix(destination, "mailto:") {
		return destination, true
	}
	file, anchor, anchored := strings.Cut(destination, "#")
	target := path.Join(path.Dir(p.Source), file)
	if anchored {
		anchor = "#" + anchor
	}
	if to := s.pages[target]; to != nil {
		return to.Name + anchor, true
	}
	if target == "LICENSE" { // the bundle's own, and after the installation that of the licences
		return "licenses/clary/LICENSE", true
	}
	inside := strings.TrimPrefix(target, "deploy/")
	if s.bundle.holds("docs/" + inside) {
		return inside, true
	}
	return "", false
}

// holds says whether the bundle has a file, or a folder, of a name.
func (b *bundle) holds(name string) bool {
	if _, ok := b.files[name]; ok {
		return true
	}
	for other := range b.files {
		if strings.HasPrefix(other, name+"/") {
			return true
		}
	}
	return false
}
