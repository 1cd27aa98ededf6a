package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// uploadsPrefix is where local inputs go, each below the digest of its content: the
// same file twice is one object.
const uploadsPrefix = "s3://clary/uploads/"

// inputsOf are the inputs of a spec of any kind, each an address or an object with one as uri: those
// of a sweep stand in its trial.
type inputsOf struct {
	Inputs map[string]json.RawMessage `json:"inputs"`
	Trial  *inputsOf                  `json:"trial"`
}

// addressOf is an input's address, and what else is said of it, nil for nothing.
func addressOf(input json.RawMessage) (uri string, whole map[string]json.RawMessage, err error) {
	if err = json.Unmarshal(input, &uri); err == nil {
		return uri, nil, nil
	}
	if err = json.Unmarshal(input, &whole); err == nil && whole["uri"] != nil {
		err = json.Unmarshal(whole["uri"], &uri)
	}
	return uri, whole, err
}

// localInputs are the channels of a spec whose value is a path and not an address.
func localInputs(spec []byte) (map[string]string, error) {
	var holder inputsOf
	if err := json.Unmarshal(spec, &holder); err != nil {
		return nil, fault.New(fault.Invalid, "spec: %w", err)
	}
	if holder.Trial != nil {
		holder = *holder.Trial
	}
	local := map[string]string{}
	for channel, input := range holder.Inputs {
		uri, _, err := addressOf(input)
		if err != nil {
			return nil, fault.New(fault.Invalid, "spec.inputs.%s: %w", channel, err)
		}
		if uri != "" && !strings.Contains(uri, "://") {
			local[channel] = uri
		}
	}
	return local, nil
}

// setInputs writes new values for channels of a spec.
func setInputs(spec []byte, values map[string]string) ([]byte, error) {
	if len(values) == 0 {
		return spec, nil
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(spec, &whole); err != nil {
		return nil, fault.New(fault.Invalid, "spec: %w", err)
	}
	if trial := whole["trial"]; trial != nil {
		filled, err := setInputs(trial, values)
		if err != nil {
			return nil, err
		}
		whole["trial"] = filled
		return json.Marshal(whole)
	}
	inputs := map[string]json.RawMessage{}
	if err := json.Unmarshal(whole["inputs"], &inputs); err != nil {
		return nil, fault.New(fault.Invalid, "spec.inputs: %w", err)
	}
	for channel, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		if _, fields, err := addressOf(inputs[channel]); err == nil && fields != nil {
			fields["uri"] = text
			if text, err = json.Marshal(fields); err != nil {
				return nil, err
			}
		}
		inputs[channel] = text
	}
	text, err := json.Marshal(inputs)
	if err != nil {
		return nil, err
	}
	whole["inputs"] = text
	return json.Marshal(whole)
}

// uploadInputs uploads what the job's inputs name on this machine, and puts the
// addresses in their place. Paths are relative to the folder.
func (a *App) uploadInputs(ctx context.Context, c *client.Client, job cluster.Job, folder string) (cluster.Job, error) {
	inputs, err := localInputs(job.Spec)
	if err != nil {
		return job, err
	}
	for _, channel := range sortedKeys(inputs) {
		path := inputs[channel]
		if !filepath.IsAbs(path) {
			path = filepath.Join(folder, path)
		}
		if inputs[channel], err = a.upload(ctx, c, path); err != nil {
			return job, fmt.Errorf("input %s: %w", channel, err)
		}
	}
	if job.Spec, err = setInputs(job.Spec, inputs); err == nil && job.Kind == cluster.KindEndpoint {
		job.Spec, err = mapModels(job.Spec, func(model string) (string, error) { return a.deployedModel(ctx, c, model, folder, false) })
	}
	return job, err
}

// placeInputs puts addresses in place of paths as uploadInputs would, and uploads nothing.
func placeInputs(job cluster.Job, folder string) (cluster.Job, error) {
	inputs, err := localInputs(job.Spec)
	if err != nil {
		return job, err
	}
	for channel, path := range inputs {
		if !filepath.IsAbs(path) {
			path = filepath.Join(folder, path)
		}
		if inputs[channel], err = uploadURI(path); err != nil {
			return job, err
		}
	}
	if job.Spec, err = setInputs(job.Spec, inputs); err == nil && job.Kind == cluster.KindEndpoint {
		job.Spec = placeholders(job.Spec)
	}
	return job, err
}

// upload stores a file or a folder under its digest, unless it is there already.
func (a *App) upload(ctx context.Context, c *client.Client, path string) (string, error) {
	uri, err := uploadURI(path)
	if err != nil {
		return "", err
	}
	files, err := filesBelow(path)
	if err != nil {
		return "", err
	}
	old := false
	for _, file := range files {
		target := uri
		if strings.HasSuffix(uri, "/") {
			target += file.name
		}
		if known, err := c.StatObject(ctx, target); err == nil && known.Size == file.size {
			old = old || uploadedLongAgo(known)
			continue
		} else if err != nil && !fault.Is(err, fault.NotFound) {
			return "", err
		}
		if err := a.put(ctx, c, file.path, target); err != nil {
			return "", err
		}
	}
	if old {
		return uri, useAgain(ctx, c, uri)
	}
	return uri, nil
}

// usedMark is beside what an upload holds. No file is there under that name: commas are escaped.
const usedMark = "/used,"

// renewAfter is how old an upload is when it is marked as used again: less than any cluster keeps one that nothing names.
const renewAfter = 12 * time.Hour

func uploadedLongAgo(known client.Object) bool {
	return time.Since(time.Unix(0, known.Modified)) > renewAfter
}

// useAgain marks an upload as used now, beside what it holds, so that the cluster keeps it until its job is there.
func useAgain(ctx context.Context, c *client.Client, uri string) error {
	folder, _, _ := strings.Cut(strings.TrimPrefix(uri, uploadsPrefix), "/")
	text := time.Now().UTC().Format(time.RFC3339) + "\n"
	_, err := c.PutObject(ctx, uploadsPrefix+folder+usedMark, strings.NewReader(text), int64(len(text)))
	return err
}

type localFile struct {
	path string
	name string // relative to the folder, with slashes
	size int64
}

// filesBelow is a file itself, or all files of a folder in the order of their names.
func filesBelow(path string) ([]localFile, error) {
	var files []localFile
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fault.New(fault.Invalid, "%s is not a regular file", name)
		}
		relative, err := filepath.Rel(path, name)
		files = append(files, localFile{path: name, name: filepath.ToSlash(relative), size: info.Size()})
		return err
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	if len(files) == 0 {
		return nil, fault.New(fault.Invalid, "%s holds no file", path)
	}
	return files, nil
}

// contentDigest is the SHA-256 of a file, or of all that a folder holds.
func contentDigest(path string) (string, error) {
	files, err := filesBelow(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	digest := sha256.New()
	for _, file := range files {
		if info.IsDir() {
			fmt.Fprintf(digest, "%d %s\x00%d\x00", len(file.name), file.name, file.size)
		}
		if err := hashFile(digest, file.path); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// uploadURI is where a file or folder belongs: below the digest of all it holds.
func uploadURI(path string) (string, error) {
	digest, err := contentDigest(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "%s: %w", path, err)
	}
	uri := uploadsPrefix + digest + "/" + url.PathEscape(filepath.Base(absolute))
	if info.IsDir() {
		uri += "/"
	}
	return uri, nil
}

func hashFile(digest io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	defer file.Close()
	if _, err := io.Copy(digest, file); err != nil {
		return fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	return nil
}
