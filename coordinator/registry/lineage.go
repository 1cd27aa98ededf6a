package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

const (
	// maxCode is how large code may be to be read for its digest.
	maxCode = 64 << 20
	// What is kept of parameters.
	keyBytes, valueBytes = 255, 1024
	parameterBytes       = 128 << 10
)

// describe finds out where what a job made came from: from its gang, which says what ran, what it
// was given and what it read, whatever the job's kind.
func describe(ctx context.Context, store Store, made Made) (cluster.Lineage, string, error) {
	job := made.Job
	lineage := cluster.Lineage{
		Job: job.Name, Kind: job.Kind, Submitted: job.Submitted, Attempt: made.Publication.Attempt, Output: made.Output, Models: job.Models,
	}
	role, ok := maker(made.Gangs)
	if !ok {
		return lineage, "", nil
	}
	program := role.Program
	lineage.Metrics = said(made, role.Name)
	lineage.Parameters = parameters(program)
	var err error
	if lineage.Code, err = codeOf(ctx, store, program); err != nil {
		return lineage, "", err
	}
	for _, input := range program.Inputs {
		if input.SHA256 != "" {
			continue // a model: it is among the job's
		}
		data, err := dataOf(ctx, store, input, job)
		if err != nil {
			return lineage, "", err
		}
		lineage.Data = append(lineage.Data, data)
	}
	return lineage, frameworkOf(program), nil
}

// maker is the role that uploads outputs.
func maker(gangs []cluster.Gang) (cluster.Role, bool) {
	for _, gang := range gangs {
		for _, role := range gang.Roles {
			if role.Program.Outputs {
				return role, true
			}
		}
	}
	return cluster.Role{}, false
}

func frameworkOf(program cluster.Program) string {
	switch {
	case program.Clary:
		return "clary"
	case program.Framework == cluster.FrameworkTorch:
		return "torch"
	}
	return ""
}

// said is what the first task of the role that said anything said last.
func said(made Made, role string) map[string]float64 {
	tasks := slices.Clone(made.Tasks)
	slices.SortFunc(tasks, func(a, b cluster.Task) int { return cmp.Compare(a.Index, b.Index) })
	for _, task := range tasks {
		if task.Attempt != made.Publication.Attempt || task.Role != role || len(task.Status.Progress.Metrics) == 0 {
			continue
		}
		metrics := map[string]float64{}
		for _, name := range slices.Sorted(maps.Keys(task.Status.Progress.Metrics)) {
			v := task.Status.Progress.Metrics[name]
			if !math.IsNaN(v) && !math.IsInf(v, 0) && len(name) <= keyBytes && len(metrics) < cluster.MaxModelParameters {
				metrics[name] = v
			}
		}
		return metrics
	}
	return nil
}

// parameters are a program's hyperparameters, or what its spec says, as field.of.field.
func parameters(program cluster.Program) map[string]string {
	all := map[string]string{}
	var spec any
	if len(program.Spec) > 0 && json.Unmarshal(program.Spec, &spec) == nil {
		flatten(all, "", spec)
	}
	maps.Copy(all, program.Hyperparameters)
	kept, size := map[string]string{}, 0
	for _, key := range slices.Sorted(maps.Keys(all)) {
		value := strings.ToValidUTF8(all[key], "?")
		if len(value) > valueBytes {
			value = strings.ToValidUTF8(value[:valueBytes-3], "") + "..."
		}
		if size += len(key) + len(value); key == "" || len(key) > keyBytes || len(kept) == cluster.MaxModelParameters || size > parameterBytes {
			continue
		}
		kept[strings.ToValidUTF8(key, "?")] = value
	}
	return kept
}

func flatten(into map[string]string, prefix string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, part := range v {
			if prefix != "" {
				key = prefix + "." + key
			}
			flatten(into, key, part)
		}
	case []any:
		if text, err := json.Marshal(v); err == nil && simple(v) {
			into[prefix] = string(text)
			return
		}
		for i, part := range v {
			flatten(into, fmt.Sprintf("%s[%d]", prefix, i), part)
		}
	case string:
		into[prefix] = v
	default:
		if text, err := json.Marshal(v); err == nil {
			into[prefix] = string(text)
		}
	}
}

// simple lists have nothing in them that has parts.
func simple(list []any) bool {
	return !slices.ContainsFunc(list, func(part any) bool {
		switch part.(type) {
		case map[string]any, []any:
			return true
		}
		return false
	})
}

// codeOf is what ran, with a digest of it where it can be known.
func codeOf(ctx context.Context, store Store, program cluster.Program) (cluster.Code, error) {
	code := cluster.Code{What: clip(strings.Join(program.Command, " "))}
	switch {
	case program.Source != "":
		code.What = clip(strings.TrimSpace(program.Script + " " + program.Source))
		digest, err := digestOf(ctx, store, program.Source)
		code.Digest = digest
		return code, err
	case program.Image != "":
		code.What = clip(program.Image)
		if _, digest, pinned := strings.Cut(program.Image, "@"); pinned {
			code.Digest = digest
		} else if strings.HasPrefix(program.Image, "s3://") {
			digest, err := digestOf(ctx, store, program.Image)
			code.Digest = digest
			return code, err
		}
	case len(program.Spec) > 0: // the code is Clary's; what it is told makes the difference
		sum := sha256.Sum256(program.Spec)
		code.Digest = "sha256:" + hex.EncodeToString(sum[:])
	}
	return code, nil
}

func clip(text string) string {
	const most = 1000
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// digestOf reads an object that is small for its digest, and takes the store's word for a large
// one. One that is gone has none.
func digestOf(ctx context.Context, store Store, uri string) (string, error) {
	at, err := object.ParseURI(uri)
	if err != nil {
		return "", err
	}
	info, err := store.Stat(ctx, at)
	switch {
	case fault.Is(err, fault.NotFound):
		return "", nil
	case err != nil:
		return "", err
	case info.SHA256 != "":
		return "sha256:" + info.SHA256, nil
	case info.Size > maxCode:
		return "etag:" + info.ETag, nil
	}
	body, err := store.Get(ctx, at, 0, -1)
	if err != nil {
		return "", err
	}
	defer body.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, body); err != nil {
		return "", fault.New(fault.Unready, "read %s: %w", uri, err)
	}
	return "sha256:" + hex.EncodeToString(digest.Sum(nil)), nil
}

// dataOf describes the objects at or below an address: as they are now, which is as the job read
// them unless Changed says otherwise. Of a manifest it is the manifest that is described.
func dataOf(ctx context.Context, store Store, input cluster.Input, job cluster.Job) (cluster.DataRef, error) {
	data := cluster.DataRef{Channel: input.Channel, URI: input.URI}
	at, err := object.ParseURI(input.URI)
	if err != nil {
		return data, err
	}
	all, err := store.List(ctx, at)
	if fault.Is(err, fault.NotFound) {
		data.Changed = true // it is gone
		return data, nil
	}
	if err != nil {
		return data, err
	}
	digest := sha256.New()
	for _, info := range all {
		rest := strings.TrimPrefix(info.URI.Key, at.Key)
		if rest != "" && !strings.HasPrefix(rest, "/") && at.Key != "" && !strings.HasSuffix(at.Key, "/") {
			continue // another object whose name begins alike
		}
		fmt.Fprintf(digest, "%q %d %s\n", rest, info.Size, info.ETag)
		data.Objects++
		data.Bytes += info.Size
		data.Changed = data.Changed || job.Started != 0 && info.Modified.UnixNano() > job.Started
	}
	data.Changed = data.Changed || data.Objects == 0
	data.Digest = "sha256:" + hex.EncodeToString(digest.Sum(nil))
	return data, nil
}
