package submit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	ignore "github.com/sabhiram/go-gitignore"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
)

// PackScript packs the code and uploads it under its digest, unless it is there already.
// It returns the entry inside of it.
func (a App) PackScript(ctx context.Context, c *client.Client, f *ScriptFlags, dryRun bool) (entry, uri string, err error) {
	folder, entry, err := f.locate()
	if err != nil {
		return "", "", err
	}
	skip := newIgnored(folder)
	if f.Source == "" {
		skip = func(name string, _ bool) bool { return name != entry }
	} else if skip(entry, false) {
		return "", "", fault.New(fault.Invalid, "--script: %s is left out of the source by a .gitignore", entry)
	}
	if err := surveySource(folder, skip); err != nil {
		return "", "", err
	}
	file, err := os.CreateTemp("", "clary-source-*.tar.gz")
	if err != nil {
		return "", "", err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	digest := sha256.New()
	if err := staging.Pack(ctx, folder, io.MultiWriter(file, digest), skip); err != nil {
		return "", "", fault.New(fault.Invalid, "--source: %s: %w", folder, err)
	}
	uri = transfer.UploadsPrefix + hex.EncodeToString(digest.Sum(nil)) + "/source.tar.gz"
	if dryRun {
		return entry, uri, nil
	}
	info, err := file.Stat()
	if err != nil {
		return "", "", err
	}
	if known, err := c.StatObject(ctx, uri); err == nil && known.Size == info.Size() {
		if transfer.UploadedLongAgo(known) {
			err = transfer.UseAgain(ctx, c, uri)
		}
		return entry, uri, err
	} else if err != nil && !fault.Is(err, fault.NotFound) {
		return "", "", err
	}
	return entry, uri, a.Put(ctx, c, file.Name(), uri)
}

// locate finds the folder of the code, and the script in it. A script is named from here
// or from the source.
func (f *ScriptFlags) locate() (folder, entry string, err error) {
	if f.Source == "" {
		info, err := os.Stat(f.Entry)
		if err != nil || !info.Mode().IsRegular() {
			return "", "", fault.New(fault.Invalid, "--script: there is no file %s", f.Entry)
		}
		return filepath.Dir(f.Entry), filepath.Base(f.Entry), nil
	}
	if info, err := os.Stat(f.Source); err != nil || !info.IsDir() {
		return "", "", fault.New(fault.Invalid, "--source: there is no folder %s", f.Source)
	}
	outside := ""
	for _, base := range []string{f.Source, "."} {
		candidate := filepath.Join(base, f.Entry)
		if filepath.IsAbs(f.Entry) {
			candidate = f.Entry
		}
		if info, err := os.Stat(candidate); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if relative, err := relativeTo(f.Source, candidate); err == nil {
			return f.Source, relative, nil
		}
		outside = candidate
	}
	if outside != "" {
		return "", "", fault.New(fault.Invalid, "--script: %s is outside of the source %s: copy it there, or name a --source that holds it", outside, f.Source)
	}
	return "", "", fault.New(fault.Invalid, "--script: there is no file %s in %s", f.Entry, f.Source)
}

// maxSource bounds what is packed as code, in bytes.
const maxSource = 1 << 30

// surveySource refuses, before anything is packed, what is surely not meant to be code: a
// gigabyte, or what is neither file, folder nor link.
func surveySource(folder string, skip func(name string, dir bool) bool) error {
	total, largest, most := int64(0), "", int64(0)
	err := filepath.WalkDir(folder, func(path string, item fs.DirEntry, err error) error {
		name, _ := filepath.Rel(folder, path)
		name = filepath.ToSlash(name)
		switch {
		case err != nil || name == ".":
			return err
		case skip(name, item.IsDir()):
			if item.IsDir() {
				return fs.SkipDir
			}
			return nil
		case item.IsDir() || item.Type()&fs.ModeSymlink != 0:
			return nil
		case !item.Type().IsRegular():
			return fault.New(fault.Invalid, "%s is neither file, folder nor link: leave it out with a .gitignore", name)
		}
		info, err := item.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		if info.Size() > most {
			largest, most = name, info.Size()
		}
		return nil
	})
	if err != nil {
		return fault.New(fault.Invalid, "--source: %s: %w", folder, err)
	}
	if total > maxSource {
		return fault.New(fault.Invalid, "--source: %s holds %s, of which %s %s; code has at most %s: leave data out with a .gitignore, and give it with --channel",
			folder, cluster.FormatBytes(total), largest, cluster.FormatBytes(most), cluster.FormatBytes(maxSource))
	}
	return nil
}

// relativeTo is a file's name inside a folder, with slashes; an error if it is outside.
func relativeTo(folder, file string) (string, error) {
	from, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	to, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	name, err := filepath.Rel(from, to)
	if err != nil || !filepath.IsLocal(name) {
		return "", fault.New(fault.Invalid, "%s is not inside %s", file, folder)
	}
	return filepath.ToSlash(name), nil
}

// newIgnored says what .gitignore files of a folder, at any depth, leave out. What git
// itself keeps is never packed.
func newIgnored(folder string) func(name string, dir bool) bool {
	rules := map[string]*ignore.GitIgnore{} // by folder; nil where there is no file
	rulesOf := func(at string) *ignore.GitIgnore {
		if known, ok := rules[at]; ok {
			return known
		}
		compiled, err := ignore.CompileIgnoreFile(filepath.Join(folder, filepath.FromSlash(at), ".gitignore"))
		if err != nil {
			compiled = nil
		}
		rules[at] = compiled
		return compiled
	}
	return func(name string, dir bool) bool {
		if path.Base(name) == ".git" {
			return true
		}
		for at := path.Dir(name); ; at = path.Dir(at) {
			relative := name
			if at != "." {
				relative = strings.TrimPrefix(name, at+"/")
			}
			if dir {
				relative += "/"
			}
			if rule := rulesOf(at); rule != nil && rule.MatchesPath(relative) {
				return true
			}
			if at == "." {
				return false
			}
		}
	}
}
