package processing

import (
	"path"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// engineMemory is what an instance of an engine's cluster gets where the user names nothing: the
// engines themselves take more than a program usually needs.
const engineMemory = 4 << 30

// engage has the role's tasks become the engine's cluster, and the first run what all would have.
func (s Spec) engage(role *cluster.Role) {
	program := &role.Program
	starter := `exec ` + s.python() + ` "$SAGEMAKER_BASE_DIR/config/` + cluster.EngineStarter + `" "$@"`
	driver := append(program.Entrypoint[:len(program.Entrypoint):len(program.Entrypoint)], program.Command...)
	command := append([]string{"-c", starter, "engines", string(s.Cluster)}, driver...)
	if program.Image == "" {
		program.Entrypoint, program.Command = nil, append([]string{"sh"}, command...)
	} else {
		program.Entrypoint, program.Command = []string{"sh"}, command
	}
	program.Cluster, program.Framework = s.Cluster, cluster.FrameworkHosts
	role.Ask.Ports = cluster.EnginePorts
	if s.Resources.Memory == 0 {
		role.Ask.Memory = engineMemory
	}
}

// python is the interpreter that has the engine: a script's own, or what is in PATH.
func (s Spec) python() string {
	if s.Script != nil && path.Ext(s.Script.Entry) == ".py" && s.Script.Python != "" && s.Script.Requirements == "" {
		return quoted(s.Script.Python)
	}
	return "python3"
}

func (s Spec) validateCluster(p *cluster.Problems) {
	switch s.Cluster {
	case cluster.EngineNone:
		return
	case cluster.EngineDask, cluster.EngineRay, cluster.EngineSpark:
	default:
		p.Add("cluster", "%q is unknown: ray, dask or spark", cluster.Clip(string(s.Cluster)))
	}
	if s.Framework != cluster.FrameworkNone {
		p.Add("framework", "stands beside cluster, which says how instances find each other: remove one of the two")
	}
	if s.Image != "" && s.Script == nil && (s.Program == nil || len(s.Program.Command) == 0) {
		p.Add("cluster", "needs something to run against it: name a script, or a command beside the image")
	}
	if s.ContainerNetwork == cluster.NetworkBridge {
		p.Add("container_network", "%q keeps the engine's parts from each other", s.ContainerNetwork)
	}
}

// quoted is a word for a shell.
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
