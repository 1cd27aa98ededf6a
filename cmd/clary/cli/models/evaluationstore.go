package models

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/inference"
)

// storeFlags say whether what was found is kept beside a version of a model.
type storeFlags struct {
	name string
	none bool
}

func (f *storeFlags) register(command *cobra.Command) {
	command.Flags().StringVar(&f.name, "store", "", "the name under which figures and page are kept beside a version of a model (default: that of the data)")
	command.Flags().BoolVar(&f.none, "no-store", false, "keep nothing beside the version")
}

// check refuses, before anything is computed, what could not be kept in the end.
func (f *storeFlags) check(command *cobra.Command, model string) error {
	var p cluster.Problems
	switch {
	case f.name != "" && f.none:
		return shell.Usage(command, "--store stands beside --no-store: leave one of the two out")
	case f.name != "" && !cluster.IsModelRef(model):
		return shell.Usage(command, "--store keeps figures beside a version in the registry: name it as model://NAME@VERSION")
	case f.name != "":
		cluster.CheckName(&p, "--store", f.name)
	}
	if p != nil {
		return fault.New(fault.Invalid, "%w", p)
	}
	return nil
}

// storeEvaluation keeps figures and page of the first model beside its version.
func storeEvaluation(ctx context.Context, s *transfer.Scratch, f storeFlags, data, local string, judged []inference.Evaluation) error {
	version, known := s.Versions[judged[0].Model]
	if !known || f.none {
		return nil
	}
	c, err := s.Dial()
	if err != nil {
		return err
	}
	e := cluster.Evaluation{Name: f.name, Metrics: map[string]float64{}, Rows: int64(judged[0].Rows), Data: data}
	if e.Name == "" {
		e.Name = evaluationName(data)
	}
	for name, value := range judged[0].Metrics() {
		if !math.IsNaN(value) && !math.IsInf(value, 0) {
			e.Metrics[name] = value
		}
	}
	digest, err := transfer.ContentDigest(local)
	if err != nil {
		return err
	}
	e.Digest = "sha256:" + digest
	if len(judged) > 1 {
		if other, known := s.Versions[judged[1].Model]; known && other.Ref() != version.Ref() {
			e.Against = other.Ref()
		}
	}
	base := version.Folder() + "evaluation-" + e.Name + "-" + strings.ToLower(rand.Text()[:8])
	e.Report, e.Details = base+".html", base+".json"
	version, err = putEvaluation(ctx, c, version.Ref(), e, func(out io.Writer) error { return writeEvaluation(out, data, judged) }, judged)
	if err != nil {
		return err
	}
	s.App.Note("kept beside %s as %s: %s", version.Ref(), e.Name, e.Report)
	return nil
}

// refused reports whether the cluster has certainly not done what it was asked for. After any other
// error, such as the end of a wait, it may have been done, or be done yet.
func refused(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Denied, fault.NotFound, fault.Conflict, fault.Exhausted:
		return true
	}
	return false
}

// putEvaluation stores page and details, and then the figures. What is refused leaves nothing.
func putEvaluation(ctx context.Context, c *client.Client, ref string, e cluster.Evaluation, page func(io.Writer) error, judged []inference.Evaluation) (cluster.ModelVersion, error) {
	var html bytes.Buffer
	if err := page(&html); err != nil {
		return cluster.ModelVersion{}, err
	}
	details, err := json.MarshalIndent(judged, "", "  ")
	if err != nil {
		return cluster.ModelVersion{}, fault.New(fault.Internal, "write the figures: %w", err)
	}
	for uri, text := range map[string][]byte{e.Report: html.Bytes(), e.Details: details} {
		if _, err := c.PutObject(ctx, uri, bytes.NewReader(text), int64(len(text))); err != nil {
			return cluster.ModelVersion{}, err
		}
	}
	version, err := c.EvaluateModel(ctx, ref, e)
	if !refused(err) {
		return version, err
	}
	for _, uri := range []string{e.Report, e.Details} {
		_, gone := c.DeleteObject(context.WithoutCancel(ctx), uri, false)
		err = errors.Join(err, gone)
	}
	return version, err
}

// evaluationName is made of the data's name: "s3://data/digits/test.csv.gz" is test.
func evaluationName(data string) string {
	base, _, _ := strings.Cut(filepath.Base(strings.TrimRight(data, "/")), ".")
	name := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, base), "-")
	if name = strings.Trim(name[:min(len(name), cluster.MaxName)], "-"); name == "" {
		return "evaluation"
	}
	return name
}
