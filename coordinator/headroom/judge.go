package headroom

// Level is how much room a disk has.
type Level int

// The levels.
const (
	Ample Level = iota
	Low         // the cluster begins nothing that needs this disk
	Out         // nothing is put onto it any more
)

// Room is what a disk has, in bytes.
type Room struct{ Free, Total int64 }

// Bounds are what a coordinator wants of its disk, in bytes.
type Bounds struct {
	Least   int64 // free, or the disk is low
	Ballast int64 // kept in a file, which is deleted when the disk is full
}

// segment is how large the next file of the raft log will be.
const segment = 64 << 20

// mostBallast is enough for that, and for the state to go on for a while.
const mostBallast = segment + 16<<20

// Parts of a disk, one in so many.
const (
	askedPart   = 20 // that does instead of what was asked, if that is more
	neededPart  = 8  // that the log and a snapshot may claim
	ballastPart = 16
)

// BoundsOf decides what is wanted of a disk: what was asked, of a small disk a part; and room for the next file of the log and the
// next snapshot of a state of some size, twice.
func BoundsOf(room Room, asked, state int64) Bounds {
	return Bounds{
		Least:   max(min(asked, room.Total/askedPart), min(2*(segment+state), room.Total/neededPart)),
		Ballast: min(mostBallast, room.Total/ballastPart),
	}
}

// plenty is from when on a disk that was low is not any more: a quarter more than it wants.
func (b Bounds) plenty() int64 { return b.Least + b.Least/4 }

// judge decides how a disk is that was at some level before, and has its ballast or not.
func judge(was Level, room Room, b Bounds, ballast bool) Level {
	out, low := b.Ballast/2, b.Least
	if was == Out {
		out = b.Ballast
	}
	if was != Ample {
		low = b.plenty()
	}
	switch {
	case room.Free < out && !ballast:
		return Out
	case room.Free < low:
		return Low
	}
	return Ample
}
