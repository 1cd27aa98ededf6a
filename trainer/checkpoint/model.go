package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
)

// Framework is what a manifest says wrote it; it changes when older programs could not
// read the model.
const Framework = "clary-trainer/1"

// transformedFramework is that of models with a transform, which older programs would leave out.
const transformedFramework = "clary-trainer/2"

// ManifestName is the file that makes a folder a model.
const ManifestName = "manifest.json"

const weightsName = "weights.bin"

// Manifest describes a model.
type Manifest struct {
	Framework string `json:"framework"`
	// Job made the model.
	Job     string       `json:"job,omitempty"`
	Network spec.Network `json:"network"`
	// Data says how rows were read, so that others are read alike: its scale, its classes.
	Data spec.Data `json:"data"`
	// Transform is what raw rows go through first; nil where there is none.
	Transform  *Transformed `json:"transform,omitempty"`
	Parameters int          `json:"parameters"`
	// SHA256 is of weights.bin.
	SHA256 string `json:"sha256"`
	Seed   int64  `json:"seed"`
	Epochs int    `json:"epochs"`
	Step   uint64 `json:"step"`
	// Metrics are of the last epoch.
	Metrics map[string]float64 `json:"metrics,omitempty"`
	// Matrices names the library that multiplied: another may differ in the last bit.
	Matrices string `json:"matrices,omitempty"`
}

// Model is a manifest with its weights and its shapes.
type Model struct {
	Manifest
	Plan    spec.Plan
	Weights []float32
}

// SaveModel writes a model into a folder. The manifest comes last: with it the model is
// whole.
func SaveModel(dir string, m Manifest, weights []float32) error {
	var body bytes.Buffer
	if err := writeValues(&body, weights); err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	sum := sha256.Sum256(body.Bytes())
	m.Framework, m.Parameters, m.SHA256 = Framework, len(weights), hex.EncodeToString(sum[:])
	type file struct {
		name string
		body []byte
	}
	files := []file{{weightsName, body.Bytes()}}
	if m.Transform != nil {
		text, written, err := m.Transform.text()
		if err != nil {
			return err
		}
		m.Framework, m.Transform = transformedFramework, written
		files = append(files, file{prepare.TransformFile, text})
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "write model: %w", err)
	}
	for _, f := range append(files, file{ManifestName, append(text, '\n')}) {
		err := writeFile(filepath.Join(dir, f.name), func(w io.Writer) error {
			_, err := w.Write(f.body)
			return err
		})
		if err != nil {
			return fmt.Errorf("write model %s: %w", dir, err)
		}
	}
	return nil
}

// LoadModel reads and verifies a model.
func LoadModel(dir string) (m Model, err error) {
	text, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return m, fault.New(fault.NotFound, "read model: %w", err)
	}
	if err := json.Unmarshal(text, &m.Manifest); err != nil {
		return m, fault.New(fault.Invalid, "model %s: %s: %w", dir, ManifestName, err)
	}
	if m.Framework != Framework && m.Framework != transformedFramework {
		return m, fault.New(fault.Invalid, "model %s was written by %q: this program reads %q", dir, m.Framework, Framework)
	}
	plan, problems := m.Network.Plan()
	if err := problems.Err(); err != nil {
		return m, fmt.Errorf("model %s: %w", dir, err)
	}
	if m.Plan = plan; plan.Parameters != m.Parameters {
		return m, fault.New(fault.Invalid, "model %s: %d parameters for a network of %d", dir, m.Parameters, plan.Parameters)
	}
	body, err := os.ReadFile(filepath.Join(dir, weightsName))
	if err != nil {
		return m, fault.New(fault.NotFound, "read model: %w", err)
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != m.SHA256 || len(body) != 4*m.Parameters {
		return m, fault.New(fault.Invalid, "model %s: %s does not match the checksum in %s: fetch it again", dir, weightsName, ManifestName)
	}
	if m.Weights, err = readValues(bytes.NewReader(body), m.Parameters); err == nil && m.Transform != nil {
		err = m.Transform.load(dir, plan)
	}
	return m, err
}
