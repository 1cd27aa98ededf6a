package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/table"
)

// Transformed says that a model's rows went through a transform, which lies beside its weights.
type Transformed struct {
	// SHA256 is of transform.json, and Inputs of the names and kinds of the raw columns.
	SHA256 string `json:"sha256"`
	Inputs string `json:"inputs"`
	// Transform is what the file holds.
	Transform *prepare.Transform `json:"-"`
}

// SchemaDigest is the digest of the names, kinds and order of columns.
func SchemaDigest(fields []table.Field) string {
	text, _ := json.Marshal(fields) // strings can always be written
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// CheckTransform refuses a transform whose rows are not those of the network.
func CheckTransform(t *prepare.Transform, plan spec.Plan) error {
	if len(plan.Input) != 1 || plan.Input[0] != len(t.Output) {
		return fault.New(fault.Invalid, "the transform makes %d columns, and the network's input is %v: give the transform that its data was prepared with", len(t.Output), plan.Input)
	}
	texts := map[string]bool{}
	probe := table.NewBatch(t.Input, 0)
	if err := t.Apply(&probe); err != nil {
		return err
	}
	for _, c := range probe.Columns {
		if c.Kind != table.Number {
			texts[c.Name] = true
		}
	}
	for _, name := range t.Output {
		if texts[name] {
			return fault.New(fault.Invalid, "the transform leaves column %q as text, and a network needs numbers: encode it by one_hot, or drop it", name)
		}
	}
	return nil
}

// text writes the transform, and the digests into the manifest's copy.
func (t Transformed) text() ([]byte, *Transformed, error) {
	text, err := json.MarshalIndent(t.Transform, "", "  ")
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "write the transform: %w", err)
	}
	text = append(text, '\n')
	sum := sha256.Sum256(text)
	return text, &Transformed{SHA256: hex.EncodeToString(sum[:]), Inputs: SchemaDigest(t.Transform.Input), Transform: t.Transform}, nil
}

// load reads the transform of a model, and refuses one that is not its own.
func (t *Transformed) load(dir string, plan spec.Plan) error {
	text, err := os.ReadFile(filepath.Join(dir, prepare.TransformFile))
	if err != nil {
		return fault.New(fault.NotFound, "read the model's transform: %w", err)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != t.SHA256 {
		return fault.New(fault.Invalid, "model %s: %s is not the one it was trained with (its digest differs from that in %s): fetch the model again", dir, prepare.TransformFile, ManifestName)
	}
	if t.Transform, err = prepare.Parse(text); err != nil {
		return fault.New(fault.Invalid, "model %s: %s %w", dir, prepare.TransformFile, err)
	}
	if digest := SchemaDigest(t.Transform.Input); digest != t.Inputs {
		return fault.New(fault.Invalid, "model %s: its transform takes other columns than %s says: fetch the model again", dir, ManifestName)
	}
	if err := CheckTransform(t.Transform, plan); err != nil {
		return fault.New(fault.Invalid, "model %s: %w", dir, err)
	}
	return nil
}
