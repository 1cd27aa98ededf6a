package backup

import (
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload"
)

// AttemptGap is how much further on attempts begin after a restore than they had come: what the cluster began between the
// snapshot and its end is not known, and may still write below its own attempt's prefix.
const AttemptGap = 10_000

// Rebirth is how a new life of a cluster begins.
type Rebirth struct {
	Of     Header
	Life   string
	By     string // who restores it, as the machine knows them
	Now    time.Time
	Random string // of the audit's entry
}

// Reborn is what became of the state.
type Reborn struct {
	Nodes  int // that count as lost until their agents come back
	Again  int // gangs that begin again
	Tokens int // join tokens that hold no more
}

// Begin makes a state that was read from a snapshot into that of a new life: every node is lost until its agent comes, what
// ran begins again with attempts that nobody has heard of, and nobody joins with a token of before.
func (r Rebirth) Begin(store *state.Store) (Reborn, error) {
	snapshot, err := store.Snapshot()
	if err != nil {
		return Reborn{}, err
	}
	defer snapshot.Close()
	var told Reborn
	done := map[string]bool{} // gangs that have done what they were started for
	for gang := range snapshot.Gangs() {
		done[gang.ID()] = succeeded(snapshot, gang)
	}
	err = store.Batch(func(w *state.Writer) error {
		w.SetIndex(snapshot.Index())
		for node := range snapshot.Nodes() {
			lost := command.SetNodeState{Node: node.ID, State: cluster.NodeLost, Reason: "the cluster was restored from a backup"}
			if result := command.Run(w, lost, r.Now.UnixNano()); result.Err != nil {
				return result.Err
			}
			told.Nodes++
		}
		_, err := w.Do(func(tx *state.Tx) error {
			tx.Clock(r.Now.UnixNano())
			for gang := range snapshot.Gangs() {
				if !done[gang.ID()] && r.again(tx, gang) {
					told.Again++
				}
			}
			for token := range snapshot.Tokens() {
				if token.Kind == cluster.TokenJoin && !token.Revoked {
					token.Revoked = true
					tx.PutToken(token)
					told.Tokens++
				}
			}
			return r.record(tx)
		})
		return err
	})
	return told, err
}

// record puts the restore into the audit.
func (r Rebirth) record(tx *state.Tx) error {
	deed := cluster.Deed{
		ID: cluster.NewDeedID(r.Now.UnixNano(), r.Random), Time: r.Now.UnixNano(), Ended: r.Now.UnixNano(), User: r.By, Action: "cluster/restore", Outcome: cluster.OutcomeOK,
		Request: r.Random, Detail: fmt.Sprintf("a snapshot of %s at revision %d", r.Of.Made.UTC().Format(time.RFC3339), r.Of.Revision), Result: "life " + r.Life,
	}
	if err := deed.Validate().Err(); err != nil {
		return fault.New(fault.Internal, "the audit's entry: %w", err)
	}
	tx.PutDeed(deed)
	return nil
}

// succeeded reports whether all of a gang's attempt but its services has succeeded: nothing of it is to be done again.
func succeeded(snapshot *state.Snapshot, gang cluster.Gang) bool {
	some := false
	for task := range snapshot.TasksOfGang(gang.ID()) {
		role, known := gang.Role(task.Role)
		if task.Attempt != gang.Attempt || known && role.Program.Service {
			continue
		}
		if some = true; task.Status.State != cluster.TaskSucceeded {
			return false
		}
	}
	return some
}

// again has a gang begin with an attempt that is far beyond all that the cluster can have begun since, unless it is to
// begin none.
func (r Rebirth) again(tx *state.Tx, gang cluster.Gang) bool {
	job, ok := tx.Job(gang.Job)
	leaves := gang.Stop && !gang.Moves && job.Kind == cluster.KindEndpoint // a replica that is one too many
	if !ok || job.State.Ended() || job.Cancel || job.State == cluster.JobStopping || leaves {
		return false
	}
	main := gang.Name == workload.MainGang && job.Attempt == gang.Attempt
	first, last := int64(0), int64(0)
	for task := range tx.TasksOfGang(gang.ID()) {
		if task.Attempt != gang.Attempt {
			continue
		}
		if first == 0 || task.Assigned < first {
			first = task.Assigned
		}
		last = max(last, task.Status.Ended)
	}
	gang.Ran += time.Duration(max(0, last-first))
	gang.Attempt += AttemptGap
	gang.Stop, gang.StopReason, gang.Moves, gang.Handover = false, "", false, false
	gang.For, gang.Granted, gang.Held = "", nil, job.Held
	tx.PutGang(gang)
	if main {
		job.Attempt = gang.Attempt
		if job.State == cluster.JobRunning {
			job.State, job.Reason = cluster.JobQueued, "restarts: the cluster was restored from a backup"
		}
		tx.PutJob(job)
	}
	return true
}
