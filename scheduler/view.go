// Package scheduler decides which waiting gangs are placed, and where. It is pure: the
// same view and the same asks always give the same plan, so that production and the
// simulator run the same code. See DESIGN.md.
package scheduler

import "github.com/clary-ml/clary/scheduler/room"

// View is what the scheduler knows of the nodes: what each has and what is free. Set and
// Delete keep it up to date; Schedule and Explain only read it, so several may run at
// once between two changes.
type View = room.Map

// NewView returns a view without nodes.
func NewView() *View { return room.New(nil) }
