// Package archtest keeps the shape of the code by law: which folder may import which,
// what a pure package may not touch, how long a file may grow. Its test runs over the
// whole repository like any other test, and every refusal says why.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Tree is the parsed source of a module.
type Tree struct {
	module   string
	packages map[string]*pkg // by folder, "." for the root
}

type pkg struct {
	folder string
	name   string
	doc    bool
	files  []file
}

type file struct {
	path      string
	test      bool
	generated bool
	lines     int
	imports   []use
	uses      []use // selectors on imported packages, e.g. "time.Now"
	funcs     []fn
}

type use struct {
	what string
	line int
}

type fn struct {
	name  string
	line  int
	lines int
	init  bool
}

// Read parses every Go file of the tree. Folders named testdata, and those that begin
// with '.' or '_', are not Go packages and are left out.
func Read(root fs.FS, module string) (*Tree, error) {
	tree := &Tree{module: module, packages: map[string]*pkg{}}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		return tree.add(name, source)
	})
	return tree, err
}

func (t *Tree) add(name string, source []byte) error {
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	folder := path.Dir(name)
	p := t.packages[folder]
	if p == nil {
		p = &pkg{folder: folder}
		t.packages[folder] = p
	}
	f := file{
		path: name, test: strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(syntax),
		lines: strings.Count(string(source), "\n"),
	}
	if !f.test {
		p.name = syntax.Name.Name
		p.doc = p.doc || f.generated || strings.TrimSpace(syntax.Doc.Text()) != ""
	}
	local := f.readImports(set, syntax)
	f.readBodies(set, syntax, local)
	p.files = append(p.files, f)
	return nil
}

// readImports notes the imports and answers how the file calls each of them.
func (f *file) readImports(set *token.FileSet, syntax *ast.File) map[string]string {
	local := map[string]string{}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		f.imports = append(f.imports, use{imported, set.Position(spec.Pos()).Line})
		name := path.Base(imported)
		if strings.HasPrefix(name, "v") && strings.Trim(name[1:], "0123456789") == "" {
			name = path.Base(path.Dir(imported))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		local[name] = imported
	}
	return local
}

func (f *file) readBodies(set *token.FileSet, syntax *ast.File, local map[string]string) {
	for _, decl := range syntax.Decls {
		if d, ok := decl.(*ast.FuncDecl); ok {
			start, end := set.Position(d.Pos()).Line, set.Position(d.End()).Line
			f.funcs = append(f.funcs, fn{
				name: d.Name.Name, line: start, lines: end - start + 1,
				init: d.Recv == nil && d.Name.Name == "init",
			})
		}
	}
	ast.Inspect(syntax, func(node ast.Node) bool {
		if selector, ok := node.(*ast.SelectorExpr); ok {
			if id, ok := selector.X.(*ast.Ident); ok && local[id.Name] != "" {
				f.uses = append(f.uses, use{local[id.Name] + "." + selector.Sel.Name, set.Position(selector.Pos()).Line})
			}
		}
		return true
	})
}

// own returns the folder of one of the module's packages, or false for another's.
func (t *Tree) own(imported string) (string, bool) {
	if imported == t.module {
		return ".", true
	}
	return strings.CutPrefix(imported, t.module+"/")
}

// Folders are the tree's packages in order.
func (t *Tree) Folders() []string {
	folders := make([]string, 0, len(t.packages))
	for folder := range t.packages {
		folders = append(folders, folder)
	}
	slices.Sort(folders)
	return folders
}

// within reports whether a path is the folder or lies below it.
func within(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}
