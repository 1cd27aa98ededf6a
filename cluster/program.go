package cluster

import (
	"fmt"
	"math"
	"path"
	"regexp"
	"strings"
	"time"
)

// Program is what a task runs. The contract inside is SageMaker's: see agent/contract.
type Program struct {
	// Image is a container image: a registry's reference, or the s3:// address of an OCI
	// archive or a "docker save" file. "" runs a process on the node itself.
	Image      string
	Entrypoint []string // instead of the image's own
	Command    []string // argv; of a container the arguments, instead of the image's own
	Env        map[string]string
	Dir        string // working folder; the task's own folder, or its code, if empty

	Contract        Contract          // what it finds when it starts
	Spec            []byte            // written to the file that CLARY_SPEC names, if any
	Hyperparameters map[string]string // written to hyperparameters.json
	Inputs          []Input
	Source          string  // s3:// address of a .tar.gz that is unpacked as the task's code
	Script          string  // the user's entry point in Source: the SM_ variables are set
	Python          *Python // environment that the command runs in; nil for the node's own
	Secrets         []SecretRef
	Metrics         []MetricDefinition
	Track           *Tracking

	Cluster     Engine        // whose cluster its tasks become; its starter is put beside what the task finds
	Framework   Framework     // how the tasks of the gang find each other
	Network     Network       // what the task may reach
	Grace       time.Duration // between SIGTERM and SIGKILL
	Disk        int64         // most bytes that it may write on the node's disk; 0 leaves it to the node
	ReadOnly    bool          // a container's own root cannot be written
	Checkpoints bool          // mirror the checkpoints folder, restore it before a restart
	Restore     string        // s3:// prefix of another job's checkpoints to begin with
	Outputs     bool          // upload the model and output folders after success
	Exports     []Export      // folders whose files go to the store after success, or as they come
	HardCPU     bool          // hold to the asked cores even when the node idles
	Exclusive   bool          // stop when the node's lease ends
	Clary       bool          // argv[0] is replaced by the node's own clary binary
	// Service is what the gang's other tasks need: it is stopped when they have succeeded. Until
	// then it must not end.
	Service bool
	// Port is where the program listens that cannot be told: no two tasks of a node have it at a time.
	Port int32
	// Probe asks the task, while it runs, whether it serves; nil for what serves nothing.
	Probe *Probe
}

// Input is a prefix, an object or a manifest in the store, given to the task as a channel.
type Input struct {
	Channel     string // folder below input/data, unless Folder names one
	Folder      string // below the contract's base
	URI         string // s3://bucket/key or s3://bucket/prefix/
	Mode        InputMode
	Type        InputType
	Attributes  []string // of an augmented manifest, in the order in which they are read
	ContentType string
	Sharded     bool   // each task of the role gets its share of the objects, not all
	Gzip        bool   // objects are decompressed on the way
	RecordIO    bool   // in pipe mode, each object or attribute is wrapped as one record
	SHA256      string // hex; if it is set the input is one object, and no other content is taken for it
	Model       bool   // it is a model: it goes to the model folder, unpacked if it is a .tar.gz
}

// InputMode says how a task reads a channel.
type InputMode string

// The input modes.
const (
	InputFile     InputMode = ""          // files, fetched before the task starts
	InputFastFile InputMode = "fast_file" // files, fetched as they are read
	InputPipe     InputMode = "pipe"      // one FIFO an epoch: CHANNEL_0, CHANNEL_1, …
)

// InputType says what an input's URI names.
type InputType string

// The input types.
const (
	InputPrefix            InputType = ""                   // an object, or all below a prefix
	InputManifest          InputType = "manifest"           // a JSON list of objects
	InputAugmentedManifest InputType = "augmented_manifest" // JSON lines; pipe mode only
)

// Python is an environment that a node builds once for each set of requirements.
type Python struct {
	Interpreter  string // on the node; "python3" if empty
	Requirements string // the text of a requirements.txt; "" is an empty environment
}

// SecretRef hands a secret of the job's queue to a task.
type SecretRef struct {
	Name string
	Env  string // variable that holds it; "" for none
	File string // name below /run/secrets; the secret's own if Env is empty too
}

// MetricDefinition finds a metric in what a task writes.
type MetricDefinition struct {
	Name  string
	Regex string // RE2; its first group is the number
}

// Tracking keeps the curve of a metric with a task's progress: the points that are wanted,
// and the newest.
type Tracking struct {
	Metric string
	Steps  []float64 // wanted: the first point at or after each
	ByStep bool      // points are counted in steps, not in epochs
}

// Framework is a way in which the tasks of a gang find each other. With any, tasks start
// only when all of the gang are ready to.
type Framework string

// The frameworks.
const (
	FrameworkNone  Framework = ""
	FrameworkHosts Framework = "hosts" // addresses and ranks in the environment
	FrameworkTorch Framework = "torch" // what torchrun and torch.distributed read
)

// Network is what a task may reach.
type Network string

// The networks.
const (
	NetworkHost   Network = ""       // the node's own
	NetworkNone   Network = "none"   // nothing but itself
	NetworkBridge Network = "bridge" // a container's own address behind the node's
)

// Limits on one program.
const (
	MaxCommand      = 256 << 10 // bytes of argv, environment and hyperparameters together
	MaxInputs       = 64
	MaxSecrets      = 64
	MaxMetrics      = 64
	MaxTracked      = 64       // steps that are wanted of a curve
	MaxRequirements = 64 << 10 // bytes
)

// CheckpointsOf is the s3:// prefix below which a job's attempts keep their checkpoints.
func CheckpointsOf(job string) string { return "s3://clary/jobs/" + job + "/checkpoints/" }

// AttemptsOf is the s3:// prefix below which a job's attempts keep what is theirs, each task's as
// ATTEMPT/ROLE-INDEX/.
func AttemptsOf(job string) string { return "s3://clary/jobs/" + job + "/attempts/" }

// Validate reports every mistake in the program.
func (g Program) Validate() Problems {
	var p Problems
	g.checkCommand(&p)
	if len(g.Spec) > MaxSpec {
		p.Add("spec", "%d bytes: at most %d", len(g.Spec), MaxSpec)
	}
	if g.Dir != "" && !path.IsAbs(g.Dir) {
		p.Add("dir", "%q is not absolute", Clip(g.Dir))
	}
	if g.Source != "" {
		checkURI(&p, "source", g.Source)
	}
	if g.Restore != "" {
		checkURI(&p, "restore", g.Restore)
	}
	if strings.HasPrefix(g.Image, "s3://") {
		checkURI(&p, "image", g.Image)
	}
	if g.Python != nil {
		p.Under("python", g.Python.validate(g.Image))
	}
	checkOneOf(&p, "framework", g.Framework, FrameworkNone, FrameworkHosts, FrameworkTorch)
	checkOneOf(&p, "network", g.Network, NetworkHost, NetworkNone, NetworkBridge)
	if g.Network == NetworkBridge && g.Image == "" {
		p.Add("network", "%q is for a container: name an image", g.Network)
	}
	checkDuration(&p, "grace", g.Grace, 0, time.Hour)
	checkRange(&p, "port", int64(g.Port), 0, math.MaxUint16)
	if g.Probe != nil {
		p.Under("probe", g.Probe.Validate())
	}
	if g.Disk < 0 {
		p.Add("disk", "%d is negative: name an amount like 20GiB, or nothing", g.Disk)
	}
	if g.ReadOnly && g.Image == "" {
		p.Add("read_only_root", "is for a container: a process sees the node's root read-only anyway")
	}
	p.Under("inputs", checkInputs(g.Inputs))
	g.checkExports(&p)
	p.Under("secrets", checkSecrets(g.Secrets))
	p.Under("metrics", CheckMetrics(g.Metrics))
	if g.Track != nil {
		p.Under("track", g.Track.Validate())
	}
	return p
}

func (g Program) checkCommand(p *Problems) {
	switch {
	case g.Image == "" && (len(g.Command) == 0 || g.Command[0] == ""):
		p.Add("command", "is empty: name the program to run")
	case g.Image == "" && len(g.Entrypoint) > 0:
		p.Add("entrypoint", "is for a container: name an image, or use command")
	case g.Image != "" && g.Clary:
		p.Add("image", "is set, and the program is the node's own clary binary")
	}
	size := 0
	for _, argument := range append(g.Entrypoint[:len(g.Entrypoint):len(g.Entrypoint)], g.Command...) {
		size += len(argument) + 1
		if strings.ContainsRune(argument, 0) {
			p.Add("command", "holds a NUL byte")
		}
	}
	for _, key := range sortedKeys(g.Env) {
		size += len(key) + len(g.Env[key]) + 2
		if !isVariable(key) || strings.ContainsRune(g.Env[key], 0) {
			p.Add("env", "%q is not a variable's name, or its value holds a NUL byte", Clip(key))
		}
	}
	for key, value := range g.Hyperparameters {
		size += len(key) + len(value) + 2
	}
	if size > MaxCommand {
		p.Add("command", "%d bytes with the environment and hyperparameters: at most %d", size, MaxCommand)
	}
}

func (y Python) validate(image string) Problems {
	var p Problems
	if image != "" {
		p.Add("", "is for a process: a container brings its own Python")
	}
	if len(y.Requirements) > MaxRequirements {
		p.Add("requirements", "%d bytes: at most %d", len(y.Requirements), MaxRequirements)
	}
	if strings.ContainsRune(y.Interpreter, 0) || strings.ContainsRune(y.Requirements, 0) {
		p.Add("", "holds a NUL byte")
	}
	return p
}

// Validate reports every mistake in what is tracked.
func (t Tracking) Validate() Problems {
	var p Problems
	if t.Metric == "" || len(t.Metric) > 255 {
		p.Add("metric", "%q: takes 1 to 255 bytes", Clip(t.Metric))
	}
	if len(t.Steps) > MaxTracked {
		p.Add("steps", "%d: at most %d", len(t.Steps), MaxTracked)
	}
	for i, step := range t.Steps {
		if !(step > 0) || math.IsInf(step, 0) || i > 0 && step <= t.Steps[i-1] {
			p.Add("steps", "%v: steps are above 0 and ascend", step)
		}
	}
	return p
}

func checkInputs(inputs []Input) Problems {
	var p Problems
	if len(inputs) > MaxInputs {
		p.Add("", "%d inputs: at most %d", len(inputs), MaxInputs)
	}
	p = append(p, CheckPipes(inputs)...)
	seen := map[string]bool{}
	for i, input := range inputs {
		field := fmt.Sprintf("[%d]", i)
		p.Under(field, input.CheckChannel())
		if seen[input.Channel] {
			p.Add(field+".channel", "%q is there twice", Clip(input.Channel))
		}
		seen[input.Channel] = true
		CheckInputAddress(&p, field+".uri", input.URI)
		p.Under(field, input.CheckModelInput())
		if input.SHA256 != "" && (!isDigest(input.SHA256) || input.Mode != InputFile || input.Type != InputPrefix) {
			p.Add(field+".sha256", "%q is for one object that is read as a file, and has 64 of 0-9 and a-f", Clip(input.SHA256))
		}
		if input.Model && (input.Mode != InputFile || input.Type != InputPrefix || input.Sharded || input.Gzip || input.Folder != "") {
			p.Add(field+".model", "a model is an object or a prefix, fetched whole before the task starts, to a folder of its own")
		}
		if input.Folder != "" {
			checkFolder(&p, field+".folder", input.Folder)
		}
		p.Under(field, input.CheckMode())
	}
	return p
}

// channelName is what SageMaker takes. A name that begins with a dot is none here: it would
// be hidden, or another folder.
var channelName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// CheckChannel reports a name that no channel can have.
func (i Input) CheckChannel() Problems {
	var p Problems
	if !channelName.MatchString(i.Channel) {
		p.Add("channel", "%q is no channel: use 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', not beginning with '.'", Clip(i.Channel))
	}
	return p
}

// epochOf is the channel whose pipe has a name, "" for a name that no pipe has.
func epochOf(name string) string {
	at := strings.LastIndexByte(name, '_')
	if at <= 0 || strings.Trim(name[at+1:], "0123456789") != "" {
		return ""
	}
	return name[:at]
}

// CheckPipes reports channels whose folder would stand where another one's pipes do.
func CheckPipes(inputs []Input) Problems {
	piped := map[string]bool{}
	for _, input := range inputs {
		piped[input.Channel] = input.Mode == InputPipe
	}
	var p Problems
	for _, input := range inputs {
		if of := epochOf(input.Channel); piped[of] {
			p.Add("", "channel %q would stand where a pipe of channel %q does: rename it", Clip(input.Channel), Clip(of))
		}
	}
	return p
}

// CheckMode reports what of the input does not go together.
func (i Input) CheckMode() Problems {
	var p Problems
	checkOneOf(&p, "mode", i.Mode, InputFile, InputFastFile, InputPipe)
	checkOneOf(&p, "type", i.Type, InputPrefix, InputManifest, InputAugmentedManifest)
	augmented := i.Type == InputAugmentedManifest
	switch {
	case augmented && i.Mode != InputPipe:
		p.Add("type", "an augmented manifest is read in pipe mode only")
	case augmented && len(i.Attributes) == 0:
		p.Add("attributes", "is empty: name what to read of each line of the augmented manifest")
	case !augmented && len(i.Attributes) > 0:
		p.Add("attributes", "is for an augmented manifest")
	}
	if i.RecordIO && i.Mode != InputPipe {
		p.Add("record_io", "is for pipe mode")
	}
	if i.Gzip && i.Mode == InputFastFile {
		p.Add("gzip", "is not for fast_file mode, which reads at any offset: use file or pipe")
	}
	return p
}

func checkSecrets(secrets []SecretRef) Problems {
	var p Problems
	if len(secrets) > MaxSecrets {
		p.Add("", "%d secrets: at most %d", len(secrets), MaxSecrets)
	}
	for i, secret := range secrets {
		field := fmt.Sprintf("[%d]", i)
		CheckName(&p, field+".name", secret.Name)
		if secret.Env != "" && !isVariable(secret.Env) {
			p.Add(field+".env", "%q is not a variable's name", Clip(secret.Env))
		}
		if secret.File != "" && (path.Base(secret.File) != secret.File || secret.File[0] == '.' || len(secret.File) > 255) {
			p.Add(field+".file", "%q is not a plain file name", Clip(secret.File))
		}
	}
	return p
}

// CheckMetrics reports every mistake in definitions of metrics.
func CheckMetrics(metrics []MetricDefinition) Problems {
	var p Problems
	if len(metrics) > MaxMetrics {
		p.Add("", "%d definitions: at most %d", len(metrics), MaxMetrics)
	}
	for i, metric := range metrics {
		field := fmt.Sprintf("[%d]", i)
		if metric.Name == "" || len(metric.Name) > 255 {
			p.Add(field+".name", "%q: takes 1 to 255 bytes", Clip(metric.Name))
		}
		compiled, err := regexp.Compile(metric.Regex)
		switch {
		case len(metric.Regex) > 500:
			p.Add(field+".regex", "%d bytes: at most 500", len(metric.Regex))
		case err != nil:
			p.Add(field+".regex", "%s", err)
		case compiled.NumSubexp() < 1:
			p.Add(field+".regex", "%q has no group: put parentheses around the number", Clip(metric.Regex))
		}
	}
	return p
}

func checkURI(p *Problems, field, uri string) {
	rest, isS3 := strings.CutPrefix(uri, "s3://")
	if bucket, _, _ := strings.Cut(rest, "/"); !isS3 || bucket == "" {
		p.Add(field, "%q is not s3://bucket/key", Clip(uri))
	}
}

func isVariable(name string) bool { return name != "" && !strings.ContainsAny(name, "=\x00") }

func checkOneOf[T ~string](p *Problems, field string, value T, known ...T) {
	var names []string
	for _, one := range known {
		if value == one {
			return
		}
		if one != "" {
			names = append(names, string(one))
		}
	}
	p.Add(field, "%q is unknown: %s, or nothing", Clip(string(value)), strings.Join(names, ", "))
}
