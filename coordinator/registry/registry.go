// Package registry makes versions of models: of what a job has published, or of an object. It
// copies the artifact to a folder of the version's own, looks up where it came from, and says
// what to put into the log. See ../DESIGN.md.
package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// Store is the object store as the registry uses it.
type Store interface {
	Stat(ctx context.Context, of object.URI) (object.Info, error)
	List(ctx context.Context, prefix object.URI) ([]object.Info, error)
	Get(ctx context.Context, from object.URI, offset, length int64) (io.ReadCloser, error)
	Put(ctx context.Context, to object.URI, content io.Reader, size int64) (object.Info, error)
	Copy(ctx context.Context, to, from object.URI) error
}

// State is what the registry reads of the replicated state.
type State interface {
	Model(name string) (cluster.Model, bool)
	ModelVersion(id string) (cluster.ModelVersion, bool)
	VersionsOf(model string, from int64) iter.Seq[cluster.ModelVersion]
}

// DefaultOutput is the output of a job that becomes a version if no other is named.
const DefaultOutput = "model"

// Resolve finds the version that a reference means.
func Resolve(s State, text string) (cluster.ModelVersion, error) {
	ref, err := cluster.ParseModelRef(text)
	if err != nil {
		return cluster.ModelVersion{}, fault.New(fault.Invalid, "model: %w", err)
	}
	if ref.Whole() {
		return cluster.ModelVersion{}, fault.New(fault.Invalid, "model: %q names no version: write %s@VERSION or %s:ALIAS, see clary models show %s", ref, ref.Model, ref.Model, ref.Model)
	}
	model, exists := s.Model(ref.Model)
	if !exists {
		return cluster.ModelVersion{}, NoModel(ref.Model)
	}
	number := ref.Number
	if ref.Alias != "" {
		if number, exists = model.Aliases[ref.Alias]; !exists {
			return cluster.ModelVersion{}, fault.New(fault.NotFound, "model %s has no alias %q: see clary models show %s", ref.Model, ref.Alias, ref.Model)
		}
	}
	version, exists := s.ModelVersion(cluster.ModelVersionID(ref.Model, number))
	switch {
	case !exists && number < model.Next:
		return version, fault.New(fault.NotFound, "version %d of model %s was deleted: see clary models show %s", number, ref.Model, ref.Model)
	case !exists:
		return version, fault.New(fault.NotFound, "model %s has no version %d: see clary models show %s", ref.Model, number, ref.Model)
	case version.Deleting:
		return version, fault.New(fault.NotFound, "version %s is being deleted: see clary models show %s", version.Ref(), ref.Model)
	}
	return version, nil
}

// NoModel says that there is no such model.
func NoModel(name string) error {
	return fault.New(fault.NotFound, "there is no model %q: see clary models", cluster.Clip(name))
}

// Pin resolves references, each to what it means now.
func Pin(s State, refs []string) ([]cluster.ModelPin, error) {
	var pins []cluster.ModelPin
	for _, ref := range refs {
		version, err := Resolve(s, ref)
		if err != nil {
			return nil, fault.New(fault.KindOf(err), "input %s: %w", cluster.Clip(ref), err)
		}
		pins = append(pins, version.Pin(ref))
	}
	return pins, nil
}

// firstLook is how many numbers Newest looks at first.
const firstLook = 32

// Newest walks a model's versions below a number backwards. It reads few more than are asked for:
// each look is at twice as many numbers as the one before, so that those of deleted versions cost
// little however many they are.
func Newest(s State, model string, below int64) iter.Seq[cluster.ModelVersion] {
	return func(yield func(cluster.ModelVersion) bool) {
		for width := int64(firstLook); below > 1; width *= 2 {
			from := max(below-width, 1)
			var found []cluster.ModelVersion
			for version := range s.VersionsOf(model, from) {
				if version.Number >= below {
					break
				}
				found = append(found, version)
			}
			for _, version := range slices.Backward(found) {
				if !yield(version) {
					return
				}
			}
			below = from
		}
	}
}

// same reports whether a version was made of the same output of the same job, or by the same
// request, as another that is about to be made.
func same(version, like cluster.ModelVersion) bool {
	a, b := version.Lineage, like.Lineage
	sameJob := b.Job != "" && a.Job == b.Job && a.Submitted == b.Submitted && a.Output == b.Output
	sameRequest := like.RequestID != "" && version.RequestID == like.RequestID && version.Owner == like.Owner
	return (sameJob || sameRequest) && !version.Deleting
}

// Existing finds the version that was made of the same output of the same job, or by the same
// request, as another that is about to be made.
func Existing(s State, like cluster.ModelVersion) (cluster.ModelVersion, bool) {
	for version := range s.VersionsOf(like.Model, 0) {
		if same(version, like) {
			return version, true
		}
	}
	return cluster.ModelVersion{}, false
}

// Add is what makes a version the next one of its model, and the model with its first one. It
// returns the version with its number; or the one that was made of the same before, and no changes.
func Add(s State, version cluster.ModelVersion, now int64) ([]command.Change, cluster.ModelVersion, error) {
	model, existed := s.Model(version.Model)
	if !existed {
		model = cluster.Model{Name: version.Model, Owner: version.Owner, Created: now, Next: 1}
	}
	var taken error
	for other := range s.VersionsOf(model.Name, 0) {
		if same(other, version) {
			return nil, other, nil
		}
		if other.Folder() == version.Folder() { // it goes with the version
			taken = fault.New(fault.Conflict, "uri: %s is in the folder of version %s: put it elsewhere, or name that version with clary models alias", version.Artifact.URI, other.Ref())
		}
	}
	if model.Count >= cluster.MaxModelVersions || model.Next > cluster.MaxModelNumber {
		return nil, version, fault.New(fault.Exhausted, "model %s has %d versions: delete some with clary models delete, or register it under another name", model.Name, model.Count)
	}
	if taken != nil {
		return nil, version, taken
	}
	expect := model.Revision
	version.Number, version.Created = model.Next, now
	version.Approval = cluster.Approval{State: cluster.ApprovalPending}
	model.Next, model.Count = model.Next+1, model.Count+1
	if err := version.Validate().Err(); err != nil {
		return nil, version, fault.New(fault.Invalid, "version %s: %w", version.Ref(), err)
	}
	return []command.Change{{Expect: expect, Model: &model}, {Version: &version}}, version, nil
}

// Made is a job with what it has published.
type Made struct {
	Job         cluster.Job
	Gangs       []cluster.Gang
	Tasks       []cluster.Task
	Publication *cluster.Publication
	Output      string // of what was published
}

// Key names a folder for what a job made: always the same one, so that a copy that is made twice
// is one.
func Key(job cluster.Job) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", job.Name, job.Submitted))
	return hex.EncodeToString(sum[:12])
}

// Published is the output of the job that is to become a version.
func (m Made) Published() (cluster.Output, error) {
	if m.Publication != nil {
		for _, output := range m.Publication.Outputs {
			if output.Name == m.Output && output.Files > 0 {
				return output, fault.New(fault.Invalid, "job %s: its output %q is %d files, and a version is one: pack them as .tar.gz", m.Job.Name, m.Output, output.Files)
			}
			if output.Name == m.Output {
				return output, nil
			}
		}
	}
	return cluster.Output{}, fault.New(fault.NotFound, "job %s is %s and has published no %q: see clary job %s", m.Job.Name, m.Job.State, m.Output, m.Job.Name)
}

// FromJob copies what a job published to the version's folder and describes it.
func FromJob(ctx context.Context, store Store, model, key string, made Made) (cluster.ModelVersion, error) {
	output, err := made.Published()
	if err != nil {
		return cluster.ModelVersion{}, err
	}
	artifact := output
	artifact.Name = path.Base(output.URI)
	artifact.URI = cluster.ModelFolder(model, key) + artifact.Name
	version := cluster.ModelVersion{Model: model, Owner: made.Job.Owner, Artifact: artifact, Format: FormatOf(artifact.Name)}
	from, err := object.ParseURI(output.URI)
	if err != nil {
		return version, err
	}
	to, err := object.ParseURI(artifact.URI)
	if err != nil {
		return version, err
	}
	if err := store.Copy(ctx, to, from); err != nil {
		return version, fmt.Errorf("copy %s to %s: %w", output.URI, artifact.URI, err)
	}
	version.Lineage, version.Framework, err = describe(ctx, store, made)
	return version, err
}

// formats are what endings of files' names say.
var formats = []struct{ ending, format string }{
	{".tar.gz", "tar.gz"},
	{".tgz", "tar.gz"},
	{".onnx", "onnx"},
	{".pkl", "pickle"},
	{".pickle", "pickle"},
	{".joblib", "joblib"},
	{".safetensors", "safetensors"},
	{".pt", "torch"},
	{".pth", "torch"},
	{".ubj", "xgboost"},
	{".zip", "zip"},
	{".h5", "hdf5"},
	{".keras", "keras"},
}

// FormatOf is what the ending of a file's name says it is, "" for nothing.
func FormatOf(name string) string {
	for _, known := range formats {
		if strings.HasSuffix(strings.ToLower(name), known.ending) {
			return known.format
		}
	}
	return ""
}

// Given is an object that is to become a version.
type Given struct {
	URI    string
	SHA256 string // that it must have; "" takes what is there
}

// FromObject makes an object a version's artifact: it is copied to the version's folder, unless it
// is in one already, and read to its end for its digest. told hears how many bytes are done.
func FromObject(ctx context.Context, store Store, model, key string, given Given, told func(done, total int64)) (cluster.Output, error) {
	from, err := object.ParseURI(given.URI)
	if err != nil {
		return cluster.Output{}, fault.New(fault.Invalid, "uri: %w", err)
	}
	if from.Key == "" || strings.HasSuffix(from.Key, "/") {
		return cluster.Output{}, fault.New(fault.Invalid, "uri: %q is no object: a version is one file; pack a folder as .tar.gz", given.URI)
	}
	info, err := store.Stat(ctx, from)
	if err != nil {
		return cluster.Output{}, err
	}
	artifact := cluster.Output{Name: path.Base(from.Key), Size: info.Size}
	artifact.URI = cluster.ModelFolder(model, key) + artifact.Name
	body, err := store.Get(ctx, from, 0, -1)
	if err != nil {
		return artifact, err
	}
	defer body.Close()
	reader := &counted{from: body, total: info.Size, told: told}
	if InFolder(model, given.URI) {
		artifact.URI = given.URI
		digest := sha256.New()
		if _, err := io.Copy(digest, reader); err != nil {
			return artifact, fault.New(fault.Unready, "read %s: %w", given.URI, err)
		}
		artifact.SHA256 = hex.EncodeToString(digest.Sum(nil))
	} else {
		to, err := object.ParseURI(artifact.URI)
		if err != nil {
			return artifact, err
		}
		put, err := store.Put(ctx, to, reader, info.Size)
		if err != nil {
			return artifact, err
		}
		artifact.SHA256 = put.SHA256
	}
	if reader.done != info.Size {
		return artifact, fault.New(fault.Conflict, "%s changed while it was read: it had %d bytes, %d came: try again", given.URI, info.Size, reader.done)
	}
	if given.SHA256 != "" && artifact.SHA256 != given.SHA256 {
		return artifact, fault.New(fault.Invalid, "sha256: %s has %s, and %s was expected: it is not the file that was meant", given.URI, artifact.SHA256, cluster.Clip(given.SHA256))
	}
	return artifact, nil
}

// InFolder reports whether an object was put where a version of the model keeps its artifact.
func InFolder(model, uri string) bool {
	rest, below := strings.CutPrefix(uri, cluster.ModelPrefix(model))
	return below && strings.Count(rest, "/") == 1
}

// counted tells how much was read.
type counted struct {
	from        io.Reader
	done, total int64
	told        func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.done += int64(n)
	if n > 0 && c.told != nil {
		c.told(c.done, c.total)
	}
	return n, err
}
