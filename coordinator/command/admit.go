package command

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// crowd tells how many jobs have not ended.
type crowd interface {
	Settings() cluster.Settings
	Crowd(owner string) (unended, waiting int64)
}

// CheckCrowd refuses one more job of an owner where the settings' limits are reached. Jobs that another made are counted and not
// refused: their number is limited by what made them.
func CheckCrowd(c crowd, job cluster.Job) error {
	limits := c.Settings().Limits
	if job.Parent != "" || limits.Jobs|limits.UserJobs|limits.QueuedJobs|limits.UserQueuedJobs == 0 {
		return nil
	}
	unended, waiting := c.Crowd("")
	own, ownWaiting := c.Crowd(job.Owner)
	for _, limit := range []struct {
		path       string
		used, most int64
		of         string
	}{
		{"user_queued_jobs", ownWaiting, limits.UserQueuedJobs, "jobs of " + job.Owner + " wait"},
		{"user_jobs", own, limits.UserJobs, "jobs of " + job.Owner + " have not ended"},
		{"queued_jobs", waiting, limits.QueuedJobs, "jobs of all users wait"},
		{"jobs", unended, limits.Jobs, "jobs of all users have not ended"},
	} {
		if limit.most > 0 && limit.used >= limit.most {
			return fault.New(fault.Exhausted, "job %q: %d %s, and at most %d may (limits.%s): submit it again when there are fewer, or have an admin raise it with clary settings set limits.%s=N",
				job.Name, limit.used, limit.of, limit.most, limit.path, limit.path)
		}
	}
	return nil
}
