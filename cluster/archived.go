package cluster

// Archived is what stays in the state of a job that has ended when all else of it has gone to its record in the object store,
// beside what it left there: its name stays taken, and it can be listed.
type Archived struct {
	Name      string
	Kind      Kind
	Owner     string
	Queue     string
	State     JobState
	Submitted int64
	Started   int64
	Ended     int64
	At        int64 // when it was archived

	Revision uint64
}

// Archive is what stays of an ended job.
func (j Job) Archive(at int64) Archived {
	return Archived{Name: j.Name, Kind: j.Kind, Owner: j.Owner, Queue: j.Queue, State: j.State, Submitted: j.Submitted, Started: j.Started, Ended: j.Ended, At: at}
}

// Job is what is still known of the job without its record.
func (a Archived) Job() Job {
	return Job{Name: a.Name, Kind: a.Kind, Owner: a.Owner, Queue: a.Queue, State: a.State, Submitted: a.Submitted, Started: a.Started, Ended: a.Ended, Revision: a.Revision}
}
