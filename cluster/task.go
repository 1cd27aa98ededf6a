package cluster

// TaskState is where a task stands in its life.
//
//	assigned ──▶ staging ──▶ ready ──▶ running ──▶ uploading ──▶ succeeded
//	    │           │          │          │            │
//	    ├───────────┴──────────┴──────────┴────────────┴──▶ failed   its own fault, or its node's
//	    ├───────────┴──────────┴──────────┴────────────┴──▶ stopped  it was told to
//	    └───────────┴──────────┴──────────┴────────────┴──▶ lost     nobody knows how it ended
//
// A report may skip states that passed unseen, but never goes back.
type TaskState string

// The states of a task.
const (
	TaskAssigned  TaskState = "assigned"  // the plan is committed, the agent has not yet answered
	TaskStaging   TaskState = "staging"   // inputs are being fetched
	TaskReady     TaskState = "ready"     // all is there, it waits for the others of its gang
	TaskRunning   TaskState = "running"   // its process runs
	TaskUploading TaskState = "uploading" // exit 0, outputs are on their way
	TaskSucceeded TaskState = "succeeded"
	TaskFailed    TaskState = "failed"
	TaskStopped   TaskState = "stopped"
	TaskLost      TaskState = "lost"
)

var taskEdges = edges[TaskState]{
	TaskAssigned:  {TaskStaging, TaskReady, TaskRunning, TaskUploading, TaskSucceeded, TaskFailed, TaskStopped, TaskLost},
	TaskStaging:   {TaskReady, TaskRunning, TaskUploading, TaskSucceeded, TaskFailed, TaskStopped, TaskLost},
	TaskReady:     {TaskRunning, TaskUploading, TaskSucceeded, TaskFailed, TaskStopped, TaskLost},
	TaskRunning:   {TaskUploading, TaskSucceeded, TaskFailed, TaskStopped, TaskLost},
	TaskUploading: {TaskSucceeded, TaskFailed, TaskStopped, TaskLost},
	TaskSucceeded: {},
	TaskFailed:    {},
	TaskStopped:   {},
	TaskLost:      {},
}

// CanBecome reports whether a task may go from one state to the other.
func (s TaskState) CanBecome(next TaskState) bool { return taskEdges.has(s, next) }

// Ended reports whether the task holds nothing any more.
func (s TaskState) Ended() bool {
	next, known := taskEdges[s]
	return known && len(next) == 0
}

// Allocation binds a task to a node, with what it may use there.
type Allocation struct {
	Node      string
	Resources Resources
}

// Task is one process on one node, for one attempt of its gang. It belongs to the
// ledger: made by committing a plan, changed by reports and by losing its node.
type Task struct {
	ID      string // "job/gang/role-index.attempt"
	Job     string
	Gang    string // gang's ID, "job/gang"
	Role    string
	Index   int32 // from 0
	Attempt int32

	Allocation Allocation
	Claim      Claim // what it is charged, to whom: that of the gang when it was placed
	Status     TaskStatus
	Assigned   int64
	Revision   uint64
}

// TaskStatus is what an agent reports of a task.
type TaskStatus struct {
	State    TaskState
	Reason   string // why it failed, was stopped or lost, in words
	ExitCode int32  // of the process, 128+n for signal n; 0 while it runs
	Started  int64  // of the process
	Ended    int64
	Progress Progress
	Message  string   // what it left for whoever asks how it ended: at most MaxMessage bytes
	Outputs  []Output // uploaded under the attempt's own prefix, not yet published
	Healthy  int64    // since when it answers its program's probe with 200; 0 while it does not
}

// Progress is the newest that a task said of its work.
type Progress struct {
	Epoch   int32
	Step    int64
	Total   int64 // steps in all; 0 if unknown
	Metrics map[string]float64
	Curve   []CurvePoint // of the metric that the program has tracked
	// Checkpoint is when the newest of its checkpoints was written that is whole in the store, by its
	// node's clock; 0 if none is.
	Checkpoint int64
}

// MaxMessage is how much of a task's exit message is kept, in bytes.
const MaxMessage = 1024

// Output is an object that a task uploaded, or a listing of several: see Files.
type Output struct {
	Name   string // "model", "output", or another the task's contract names
	URI    string // below the attempt's prefix
	SHA256 string // hex
	Size   int64  // bytes; of a listing's objects together
	Files  int64  // how many objects the listing at URI names; 0: it is no listing
}

// Publication is the committed set of a job's outputs: the pointer that makes an
// attempt's uploads the job's. It belongs to the ledger, fenced by the gang's attempt.
type Publication struct {
	Job       string
	Attempt   int32
	Outputs   []Output
	Published int64
	Revision  uint64
}
