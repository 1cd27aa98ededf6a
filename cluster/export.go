package cluster

import (
	"fmt"
	"path"
	"strings"
)

// Contract is which folders and files a task finds when it starts: see agent/contract.
type Contract string

// The contracts.
const (
	ContractTraining   Contract = ""           // /opt/ml/input, model, output, checkpoints
	ContractProcessing Contract = "processing" // /opt/ml/processing and /opt/ml/config
	ContractServing    Contract = "serving"    // /opt/ml/model, to be read, and SAGEMAKER_BIND_TO_PORT
)

// Engine is a system that computes over several machines, and has a cluster of its own.
type Engine string

// The engines that the instances of a job can become the cluster of.
const (
	EngineNone  Engine = ""
	EngineDask  Engine = "dask"
	EngineRay   Engine = "ray"
	EngineSpark Engine = "spark"
)

// EngineStarter is the file of the config folder that starts an engine's cluster, and EnginePorts
// how many ports each task needs for it.
const (
	EngineStarter = "engines.py"
	EnginePorts   = 3
)

// ProcessingFolder holds the inputs and outputs of a task with the processing contract, below
// the contract's base.
const ProcessingFolder = "processing"

// Export is a folder whose files are brought to the store, each as an object of its own. Links
// in it are not followed.
type Export struct {
	Name       string
	Folder     string // below the contract's base
	To         string // s3:// prefix that its files go to once they are published; "" for none
	Continuous bool   // they are at To as soon as they are whole, and not at the end only
}

// MaxExports are how many folders one program may have brought to the store.
const MaxExports = 64

func (g Program) checkExports(p *Problems) {
	checkOneOf(p, "contract", g.Contract, ContractTraining, ContractProcessing, ContractServing)
	checkOneOf(p, "cluster", g.Cluster, EngineNone, EngineDask, EngineRay, EngineSpark)
	if len(g.Exports) > MaxExports {
		p.Add("exports", "%d outputs: at most %d", len(g.Exports), MaxExports)
	}
	seen := map[string]bool{}
	for i, export := range g.Exports {
		field := fmt.Sprintf("exports[%d]", i)
		if seen[export.Name] {
			p.Add(field+".name", "%q is there twice", Clip(export.Name))
		}
		seen[export.Name] = true
		p.Under(field, export.Validate())
	}
}

// Validate reports every mistake in the export.
func (r Export) Validate() Problems {
	var p Problems
	if !channelName.MatchString(r.Name) {
		p.Add("name", "%q is no name: use 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', not beginning with '.'", Clip(r.Name))
	}
	checkFolder(&p, "folder", r.Folder)
	if r.To != "" {
		checkURI(&p, "to", r.To)
	}
	if r.Continuous && r.To == "" {
		p.Add("continuous", "is for an output that goes somewhere: name an s3:// prefix")
	}
	return p
}

// checkFolder takes a path that stays below the contract's base and is none of its own folders.
func checkFolder(p *Problems, field, folder string) {
	own := folder == ProcessingFolder || strings.HasPrefix(folder, ProcessingFolder+"/")
	if !own || path.Clean(folder) != folder || strings.ContainsRune(folder, 0) || len(folder) > 1024 {
		p.Add(field, "%q is not a folder below %s/", Clip(folder), ProcessingFolder)
	}
}
