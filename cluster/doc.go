// Package cluster holds Clary's nouns: what users submit, what the coordinators
// agree on, and what agents run. It imports the standard library only, and everything
// else may import it.
//
// Units are the same everywhere: cores in thousandths, memory and disk in bytes,
// instants as Unix nanoseconds in UTC (0 means never or not yet), durations as
// time.Duration. A noun that is stored carries the Revision of the command that last
// wrote it, starting at 1; revision 0 means that the noun does not exist.
//
// Who writes a noun is part of its meaning. Jobs, gangs, queues and tokens are written
// by record commands, which replace a noun whole at the revision it was read. Tasks,
// nodes and publications belong to the ledger: only commands that re-check their
// rules on the state as it then is may write them.
package cluster
