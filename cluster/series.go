package cluster

// Series is the history of one metric of one task, oldest point first. Points of an
// earlier attempt come before those of a later one.
type Series struct {
	Task    string // "worker-0": role and index, over all attempts
	Name    string
	Attempt int32 // the newest that said anything
	Points  []Point

	// Of all points there were, also of those that were thinned out.
	Count    int64
	Min, Max float64
}

// Point is a metric's value at a time.
type Point struct {
	Time  int64 // Unix nanoseconds
	Epoch int32 // 0 if the task has said none
	Step  int64 // 0 if the task has said none
	Value float64
}

// UsagePrefix begins the names of what was not said by a task but measured of it.
const UsagePrefix = "usage/"

// GPUUse is the metric among a server's Progress by which its agent tells how busy its GPUs are, in the
// mean, from 0 to 100.
const GPUUse = "gpu"
