package staging

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Bounds on manifests.
const (
	maxManifestItems = 1_000_000
	maxManifestBytes = 256 << 20
	maxLine          = 1 << 20 // bytes of one line of an augmented manifest
)

// parseManifest reads SageMaker's list of objects: a JSON list whose first element is
// {"prefix": "s3://bucket/some/prefix/"} and whose others are names to put behind it.
func parseManifest(from io.Reader) ([]Item, error) {
	limited := &io.LimitedReader{R: from, N: maxManifestBytes}
	decoder := json.NewDecoder(limited)
	if token, err := decoder.Token(); err != nil || token != json.Delim('[') {
		return nil, rubbish(limited, "it is no JSON list", err)
	}
	bucket, prefix, err := manifestPrefix(decoder)
	if err != nil {
		return nil, err
	}
	var items []Item
	for decoder.More() {
		if len(items) == maxManifestItems {
			return nil, fault.New(fault.Invalid, "the manifest names more than %d objects", maxManifestItems)
		}
		var name string
		if err := decoder.Decode(&name); err != nil {
			return nil, rubbish(limited, fmt.Sprintf("element %d is no text", len(items)+1), err)
		}
		// The name stands behind the prefix as it is, and is the file's; so it must be one.
		if _, err := relative(name, ""); err != nil {
			return nil, fault.New(fault.Invalid, "the manifest's element %d: %w", len(items)+1, err)
		}
		items = append(items, Item{Bucket: bucket, Object: Object{Key: prefix + name}, Name: name})
	}
	if _, err := decoder.Token(); err != nil {
		return nil, rubbish(limited, "the list has no end", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, rubbish(limited, "something follows the list", err)
	}
	return items, nil
}

func manifestPrefix(decoder *json.Decoder) (bucket, prefix string, err error) {
	if !decoder.More() {
		return "", "", fault.New(fault.Invalid, `the manifest is empty: its first element must be {"prefix": "s3://bucket/prefix/"}`)
	}
	var first struct {
		Prefix string `json:"prefix"`
	}
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&first); err != nil || first.Prefix == "" {
		return "", "", fault.New(fault.Invalid, `the manifest's first element must be {"prefix": "s3://bucket/prefix/"}`)
	}
	if bucket, prefix, err = ParseURI(first.Prefix); err != nil {
		return "", "", fault.New(fault.Invalid, "the manifest's prefix: %w", err)
	}
	return bucket, prefix, nil
}

// rubbish says what is wrong with a manifest. What the connection did to it is not its fault.
func rubbish(limited *io.LimitedReader, what string, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case limited.N <= 0:
		return fault.New(fault.Invalid, "the manifest is larger than %d MiB", maxManifestBytes>>20)
	case err == nil, errors.As(err, &syntax), errors.As(err, &kind), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Invalid, "the manifest cannot be read: %s", what)
	}
	return fault.New(fault.Unready, "read the manifest: %w", err)
}

// Value is one attribute of a line of an augmented manifest: bytes that stand in the line,
// or an object that it names.
type Value struct {
	Inline []byte
	Bucket string // "" if it stands inline
	Object Object
}

// refSuffix marks attributes that name an object.
const refSuffix = "-ref"

// Lines reads the task's share of an augmented manifest, one JSON object a line, and gives
// the attributes that the input names to each, in that order. The n-th line belongs to the
// task whose index is n modulo their count.
func Lines(ctx context.Context, store Reader, input cluster.Input, share Share, each func([]Value) error) error {
	err := lines(ctx, store, input, share, each)
	if err != nil {
		return fault.New(fault.KindOf(err), "input %s: %s: %w", input.Channel, input.URI, err)
	}
	return nil
}

func lines(ctx context.Context, store Reader, input cluster.Input, share Share, each func([]Value) error) error {
	bucket, key, err := ParseURI(input.URI)
	if err != nil {
		return err
	}
	object, err := store.Stat(ctx, bucket, key)
	if err != nil {
		return err
	}
	body := OpenWhole(ctx, store, bucket, object)
	defer body.Close() //nolint:errcheck // only read
	scanner := bufio.NewScanner(body)
	scanner.Buffer(make([]byte, 64<<10), maxLine)
	number, seen := 0, 0
	for ; scanner.Scan(); number++ {
		line := bytes.TrimSpace(scanner.Bytes())
		if len(line) == 0 {
			continue
		}
		seen++
		if input.Sharded && share.Count > 1 && (seen-1)%share.Count != share.Index {
			continue
		}
		values, err := parseLine(line, input.Attributes)
		if err != nil {
			return fault.New(fault.Invalid, "line %d: %w", number+1, err)
		}
		if err := each(values); err != nil {
			return err
		}
	}
	switch err := scanner.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fault.New(fault.Invalid, "line %d is longer than %d bytes", number+1, maxLine)
	case err != nil:
		return err
	case seen == 0:
		return fault.New(fault.Invalid, "the augmented manifest is empty")
	}
	return nil
}

// parseLine reads the attributes of one line. A text is its characters, all else its JSON.
func parseLine(line []byte, attributes []string) ([]Value, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil || fields == nil {
		return nil, fault.New(fault.Invalid, "it is no JSON object: %q", cluster.Clip(string(line)))
	}
	values := make([]Value, 0, len(attributes))
	for _, name := range attributes {
		raw, ok := fields[name]
		if !ok {
			return nil, fault.New(fault.Invalid, "it has no attribute %q", cluster.Clip(name))
		}
		var text string
		isText := json.Unmarshal(raw, &text) == nil && len(raw) > 0 && raw[0] == '"'
		switch {
		case !strings.HasSuffix(name, refSuffix) && isText:
			values = append(values, Value{Inline: []byte(text)})
		case !strings.HasSuffix(name, refSuffix):
			values = append(values, Value{Inline: bytes.Clone(raw)})
		default:
			bucket, key, err := ParseURI(text)
			if !isText || err != nil || key == "" {
				return nil, fault.New(fault.Invalid, "attribute %q must be the s3:// address of an object", cluster.Clip(name))
			}
			values = append(values, Value{Bucket: bucket, Object: Object{Key: key}})
		}
	}
	return values, nil
}
