package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Check reports every breach of the law, each as "file:line: what: why".
func (t *Tree) Check(law Law) []string {
	var breaches []string
	for _, folder := range t.Folders() {
		p := t.packages[folder]
		breaches = append(breaches, t.checkLayers(law, p)...)
		for _, ban := range law.Bans {
			breaches = append(breaches, t.checkBan(ban, p)...)
		}
		breaches = append(breaches, checkPackage(law, p)...)
	}
	return breaches
}

func checkPackage(law Law, p *pkg) []string {
	var breaches []string
	if p.name != "" && !p.doc {
		breaches = append(breaches, fmt.Sprintf("%s: package %s has no doc comment: say what it is for, in doc.go or its main file", p.folder, p.name))
	}
	if slices.Contains(law.Names, p.name) {
		breaches = append(breaches, fmt.Sprintf("%s: package %s: the name says nothing of what is inside: name it after what it provides", p.folder, p.name))
	}
	for _, f := range p.files {
		if f.generated {
			continue
		}
		if f.lines > law.MaxFile {
			breaches = append(breaches, fmt.Sprintf("%s: %d lines: at most %d, split it by idea", f.path, f.lines, law.MaxFile))
		}
		for _, function := range f.funcs {
			if function.init {
				breaches = append(breaches, fmt.Sprintf("%s:%d: func init: what a package needs is passed to it, nothing happens by being imported", f.path, function.line))
			}
			if !f.test && function.lines > law.MaxFunc {
				breaches = append(breaches, fmt.Sprintf("%s:%d: func %s has %d lines: at most %d, so that it fits a screen", f.path, function.line, function.name, function.lines, law.MaxFunc))
			}
		}
	}
	return breaches
}

// checkLayers refuses imports that point up the table of rooms.
func (t *Tree) checkLayers(law Law, p *pkg) []string {
	top, _, _ := strings.Cut(p.folder, "/")
	if p.folder == "." || slices.Contains(law.FreeFrom, top) {
		return nil
	}
	own := law.height(top)
	if own < 0 {
		return []string{fmt.Sprintf("%s: the folder is in no row of the table of rooms: add it to DESIGN.md and to internal/archtest", p.folder)}
	}
	var breaches []string
	for _, f := range p.files {
		if f.test {
			continue
		}
		for _, imported := range f.imports {
			folder, ours := t.own(imported.what)
			target, _, _ := strings.Cut(folder, "/")
			if !ours || target == top || slices.ContainsFunc(law.Below[top], func(free string) bool { return within(folder, free) }) {
				continue
			}
			if height := law.height(target); height <= own {
				breaches = append(breaches, fmt.Sprintf("%s:%d: %s imports %s: arrows point down DESIGN.md's table of rooms, and %s does not stand below %s", f.path, imported.line, p.folder, folder, target, top))
			}
		}
	}
	return breaches
}

// height is the row of a folder, -1 if it is in none.
func (l Law) height(folder string) int {
	return slices.IndexFunc(l.Layers, func(layer Layer) bool { return slices.Contains(layer.Folders, folder) })
}

func (b Ban) binds(folder string) bool {
	if b.Folder != "." && !within(folder, b.Folder) {
		return false
	}
	return !slices.ContainsFunc(b.Except, func(free string) bool { return within(folder, free) })
}

func (b Ban) forbids(t *Tree, imported string) bool {
	folder, ours := t.own(imported)
	if b.StdOnly && (ours && !within(folder, b.Folder) || !ours && strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")) {
		return true
	}
	if ours {
		imported = folder
	}
	return slices.ContainsFunc(b.Imports, func(banned string) bool { return within(imported, banned) })
}

func (t *Tree) checkBan(ban Ban, p *pkg) []string {
	if !ban.binds(p.folder) {
		return nil
	}
	var breaches []string
	for _, f := range p.files {
		if f.test {
			continue
		}
		for _, imported := range f.imports {
			way := []string{imported.what}
			if !ban.forbids(t, imported.what) {
				way = t.reach(ban, imported.what)
			}
			if way != nil {
				breaches = append(breaches, fmt.Sprintf("%s:%d: %s must not import %s: %s", f.path, imported.line, p.folder, strings.Join(way, ", which imports "), ban.Why))
			}
		}
		for _, used := range f.uses {
			if slices.Contains(ban.Uses, used.what) {
				breaches = append(breaches, fmt.Sprintf("%s:%d: %s must not call %s: %s", f.path, used.line, p.folder, used.what, ban.Why))
			}
		}
	}
	return breaches
}

// reach finds the shortest way from an import to what is banned, or nil.
func (t *Tree) reach(ban Ban, start string) []string {
	if !ban.Reach {
		return nil
	}
	seen := map[string]bool{start: true}
	for queue := [][]string{{start}}; len(queue) > 0; queue = queue[1:] {
		way := queue[0]
		folder, ours := t.own(way[len(way)-1])
		if !ours || t.packages[folder] == nil {
			continue
		}
		for _, f := range t.packages[folder].files {
			for _, next := range f.imports {
				if f.test || seen[next.what] {
					continue
				}
				seen[next.what] = true
				longer := append(slices.Clone(way), next.what)
				if ban.forbids(t, next.what) {
					return longer
				}
				queue = append(queue, longer)
			}
		}
	}
	return nil
}
