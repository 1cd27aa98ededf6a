package cluster

import (
	"fmt"
	"math"
	"strings"
)

// Model is a named line of versions in the registry.
type Model struct {
	Name    string
	Text    string // what it is for
	Owner   string // may approve, alias and delete
	Created int64
	Next    int64            // number of the next version, from 1: none is given twice
	Count   int64            // versions that there are
	Aliases map[string]int64 // names of versions, such as champion
	// Deleted counts versions that are gone.
	Deleted  int64
	Revision uint64
}

// ModelVersion is one artifact of a model, with where it came from and what is thought of it.
// Its artifact never changes, and is its own: it stays when the job that made it is deleted.
type ModelVersion struct {
	Model     string
	Number    int64 // from 1
	Text      string
	Owner     string // who registered it
	Created   int64
	RequestID string // of an import: the same request twice is one version

	Artifact  Output // Name is its file's
	Framework string // clary, torch, sklearn, …; "" if nobody said
	Format    string // tar.gz, onnx, pickle, …: what kind of file it is

	Approval    Approval
	Lineage     Lineage
	Evaluations []Evaluation // in the order of their names
	Deleting    bool         // nobody may use it any more, and it will be gone
	Revision    uint64
}

// ApprovalState is what was decided about a version.
//
//	pending ──▶ approved ◀──▶ rejected ◀── pending
type ApprovalState string

// The approval states.
const (
	ApprovalPending  ApprovalState = "pending"
	ApprovalApproved ApprovalState = "approved"
	ApprovalRejected ApprovalState = "rejected"
)

var approvalEdges = edges[ApprovalState]{
	ApprovalPending:  {ApprovalApproved, ApprovalRejected},
	ApprovalApproved: {ApprovalRejected},
	ApprovalRejected: {ApprovalApproved},
}

// CanBecome reports whether a version's approval may go from one state to the other.
func (s ApprovalState) CanBecome(next ApprovalState) bool { return approvalEdges.has(s, next) }

// Approval is a decision: by whom, when, and why.
type Approval struct {
	State ApprovalState
	By    string
	At    int64
	Why   string
}

// Lineage is where a version came from.
type Lineage struct {
	Job       string // that made it; "" for one that was imported
	Kind      Kind   // of the job
	Submitted int64  // tells jobs of one name apart
	Attempt   int32
	Output    string // of the job's outputs, the one that became the artifact
	Source    string // s3:// address or file that it was imported from

	Code       Code
	Data       []DataRef  // what the job read, by channel
	Models     []ModelPin // versions that the job read, or that it was made from
	Parameters map[string]string
	Metrics    map[string]float64 // what the job said last
}

// Code is what made a model.
type Code struct {
	What   string // an address, an image or a command
	Digest string // sha256:HEX, etag:TEXT; "" if it cannot be known
}

// DataRef is data as it was when the version was registered.
type DataRef struct {
	Channel string
	URI     string
	Digest  string // sha256:HEX of the names, sizes and ETags of its objects
	Objects int64
	Bytes   int64
	Changed bool // since the job began
}

// ModelPin is what a reference meant when it was resolved.
type ModelPin struct {
	Ref    string // as it was written: model://NAME@3, model://NAME:ALIAS
	Model  string
	Number int64
	URI    string
	SHA256 string
}

// Evaluation is a report about a version.
type Evaluation struct {
	Name    string
	Metrics map[string]float64
	Rows    int64
	Data    string // what it was judged by
	Digest  string // of that: sha256:HEX
	Against string // MODEL@N that it was compared with
	Report  string // s3:// address of the page, in the version's folder
	Details string // s3:// address of all figures as JSON, in the version's folder
	By      string
	At      int64
}

// ModelScheme begins a reference to a version.
const ModelScheme = "model://"

// modelsPrefix is where artifacts are kept.
const modelsPrefix = "s3://clary/models/"

// Limits on models.
const (
	MaxModelVersions   = 10_000 // of one model at a time
	MaxModelNumber     = 999_999_999
	MaxModelAliases    = 64
	MaxEvaluations     = 64 // of one version
	MaxModelText       = 1024
	MaxModelParameters = 512 // of a version's lineage; as many metrics
	MaxModelPins       = MaxInputs
	maxModelKey        = 255
	maxModelValue      = 1024
	maxLineage         = 256 << 10 // bytes of parameters
	maxModelURI        = 2048
)

// ModelFolder is the s3:// prefix of all that belongs to one version. Keys are never used again.
func ModelFolder(model, key string) string { return ModelPrefix(model) + key + "/" }

// ModelPrefix is the s3:// prefix of all that belongs to a model.
func ModelPrefix(model string) string { return modelsPrefix + model + "/" }

// ModelVersionID is "model/000000003", in the order of numbers.
func ModelVersionID(model string, number int64) string { return fmt.Sprintf("%s/%09d", model, number) }

// ID is the version's key.
func (v ModelVersion) ID() string { return ModelVersionID(v.Model, v.Number) }

// Ref is "model@3".
func (v ModelVersion) Ref() string { return fmt.Sprintf("%s@%d", v.Model, v.Number) }

// Folder is the s3:// prefix of all that belongs to the version.
func (v ModelVersion) Folder() string {
	return v.Artifact.URI[:strings.LastIndexByte(v.Artifact.URI, '/')+1]
}

// Evaluation is the named evaluation.
func (v ModelVersion) Evaluation(name string) (Evaluation, bool) {
	for _, e := range v.Evaluations {
		if e.Name == name {
			return e, true
		}
	}
	return Evaluation{}, false
}

// Pin is the version as what a reference meant.
func (v ModelVersion) Pin(ref string) ModelPin {
	return ModelPin{Ref: ref, Model: v.Model, Number: v.Number, URI: v.Artifact.URI, SHA256: v.Artifact.SHA256}
}

// ID is the key of the version that the pin names.
func (p ModelPin) ID() string { return ModelVersionID(p.Model, p.Number) }

// Validate reports every mistake in the model.
func (m Model) Validate() Problems {
	var p Problems
	CheckName(&p, "name", m.Name)
	checkText(&p, "text", m.Text, MaxModelText)
	checkOwner(&p, m.Owner)
	checkRange(&p, "next", m.Next, 1, MaxModelNumber+1)
	checkRange(&p, "count", m.Count, 0, MaxModelVersions)
	if m.Count+m.Deleted != m.Next-1 || m.Deleted < 0 {
		p.Add("count", "%d versions and %d that were deleted, and the next is %d", m.Count, m.Deleted, m.Next)
	}
	if len(m.Aliases) > MaxModelAliases {
		p.Add("aliases", "%d: at most %d: take some away", len(m.Aliases), MaxModelAliases)
	}
	for _, alias := range sortedKeys(m.Aliases) {
		CheckName(&p, "aliases", alias)
		checkRange(&p, "aliases."+Clip(alias), m.Aliases[alias], 1, m.Next-1)
	}
	return p
}

// Validate reports every mistake in the version.
func (v ModelVersion) Validate() Problems {
	var p Problems
	CheckName(&p, "model", v.Model)
	checkRange(&p, "number", v.Number, 1, MaxModelNumber)
	checkText(&p, "text", v.Text, MaxModelText)
	checkOwner(&p, v.Owner)
	if len(v.RequestID) > 128 {
		p.Add("request_id", "%d bytes: at most 128", len(v.RequestID))
	}
	p.Under("artifact", v.checkArtifact())
	for field, word := range map[string]string{"framework": v.Framework, "format": v.Format} {
		if word != "" {
			CheckModelWord(&p, field, word)
		}
	}
	if _, known := approvalEdges[v.Approval.State]; !known {
		p.Add("approval.state", "%q is unknown: pending, approved or rejected", Clip(string(v.Approval.State)))
	}
	checkText(&p, "approval.why", v.Approval.Why, MaxModelText)
	checkText(&p, "approval.by", v.Approval.By, 128)
	p.Under("lineage", v.Lineage.validate())
	if len(v.Evaluations) > MaxEvaluations {
		p.Add("evaluations", "%d: at most %d: delete some", len(v.Evaluations), MaxEvaluations)
	}
	for i, e := range v.Evaluations {
		field := fmt.Sprintf("evaluations[%d]", i)
		p.Under(field, e.validate(v))
		if i > 0 && e.Name <= v.Evaluations[i-1].Name {
			p.Add(field+".name", "%q is there twice, or not in order", Clip(e.Name))
		}
	}
	return p
}

func (v ModelVersion) checkArtifact() Problems {
	var p Problems
	a := v.Artifact
	rest, below := strings.CutPrefix(a.URI, ModelPrefix(v.Model))
	if key, file, deep := strings.Cut(rest, "/"); !below || !deep || key == "" || file == "" || file != a.Name || strings.Contains(file, "/") || len(a.URI) > maxModelURI {
		p.Add("uri", "%q is not the file %q in a folder of its own below %s", Clip(a.URI), Clip(a.Name), ModelPrefix(v.Model))
	}
	if !isDigest(a.SHA256) {
		p.Add("sha256", "%q is not 64 of 0-9 and a-f", Clip(a.SHA256))
	}
	if a.Size < 1 {
		p.Add("size", "%d bytes: there is nothing in it", a.Size)
	}
	return p
}

func (l Lineage) validate() Problems {
	var p Problems
	if l.Job != "" {
		CheckName(&p, "job", l.Job)
	}
	for field, text := range map[string]string{"source": l.Source, "code.what": l.Code.What, "code.digest": l.Code.Digest} {
		checkText(&p, field, text, maxModelURI)
	}
	if len(l.Data) > MaxInputs {
		p.Add("data", "%d channels: at most %d", len(l.Data), MaxInputs)
	}
	p.Under("models", checkPins(l.Models))
	size := 0
	for _, key := range sortedKeys(l.Parameters) {
		size += len(key) + len(l.Parameters[key])
		if key == "" || len(key) > maxModelKey || len(l.Parameters[key]) > maxModelValue {
			p.Add("parameters", "%q: keys take 1 to %d bytes, values up to %d", Clip(key), maxModelKey, maxModelValue)
		}
	}
	if len(l.Parameters) > MaxModelParameters || size > maxLineage {
		p.Add("parameters", "%d with %d bytes: at most %d with %d", len(l.Parameters), size, MaxModelParameters, maxLineage)
	}
	checkFigures(&p, "metrics", l.Metrics)
	return p
}

func (e Evaluation) validate(of ModelVersion) Problems {
	var p Problems
	CheckName(&p, "name", e.Name)
	checkFigures(&p, "metrics", e.Metrics)
	if len(e.Metrics) == 0 {
		p.Add("metrics", "is empty: an evaluation has at least one figure")
	}
	for field, text := range map[string]string{"data": e.Data, "digest": e.Digest, "by": e.By} {
		checkText(&p, field, text, maxModelURI)
	}
	if e.Rows < 0 {
		p.Add("rows", "%d is negative", e.Rows)
	}
	if e.Against != "" {
		switch ref, err := ParseModelRef(e.Against); {
		case err != nil || ref.String() != e.Against || ref.Number == 0:
			p.Add("against", "%q is not MODEL@VERSION", Clip(e.Against))
		case e.Against == of.Ref():
			p.Add("against", "%q is the version itself", e.Against)
		}
	}
	for field, uri := range map[string]string{"report": e.Report, "details": e.Details} {
		if uri != "" && (!strings.HasPrefix(uri, of.Folder()) || uri == of.Folder() || uri == of.Artifact.URI || len(uri) > maxModelURI) {
			p.Add(field, "%q is not in the version's own folder %s", Clip(uri), of.Folder())
		}
	}
	return p
}

func checkPins(pins []ModelPin) Problems {
	var p Problems
	if len(pins) > MaxModelPins {
		p.Add("", "%d models: at most %d", len(pins), MaxModelPins)
	}
	for i, pin := range pins {
		field := fmt.Sprintf("[%d]", i)
		CheckName(&p, field+".model", pin.Model)
		checkRange(&p, field+".number", pin.Number, 1, MaxModelNumber)
		if !strings.HasPrefix(pin.URI, ModelPrefix(pin.Model)) || !isDigest(pin.SHA256) || len(pin.Ref) > maxModelURI || len(pin.URI) > maxModelURI {
			p.Add(field, "%q is not the artifact of a version of %s", Clip(pin.URI), Clip(pin.Model))
		}
	}
	return p
}

func checkFigures(p *Problems, field string, figures map[string]float64) {
	if len(figures) > MaxModelParameters {
		p.Add(field, "%d: at most %d", len(figures), MaxModelParameters)
	}
	for _, name := range sortedKeys(figures) {
		if v := figures[name]; name == "" || len(name) > maxModelKey || math.IsNaN(v) || math.IsInf(v, 0) {
			p.Add(field, "%q is %v: names take 1 to %d bytes, and figures are finite", Clip(name), v, maxModelKey)
		}
	}
}

func isDigest(text string) bool {
	return len(text) == 64 && strings.Trim(text, "0123456789abcdef") == ""
}

func checkText(p *Problems, field, text string, most int) {
	if len(text) > most {
		p.Add(field, "%d bytes: at most %d", len(text), most)
	}
}

func checkOwner(p *Problems, owner string) {
	if owner == "" || len(owner) > 128 {
		p.Add("owner", "%q: takes 1 to 128 bytes", Clip(owner))
	}
}

// CheckModelWord reports what is no framework or format.
func CheckModelWord(p *Problems, field, word string) {
	if len(word) < 1 || len(word) > 32 || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789.+_-") != "" {
		p.Add(field, "%q: use 1 to 32 of a-z, 0-9, '.', '+', '_' and '-', as in onnx or tar.gz", Clip(word))
	}
}
