package diskuse

import (
	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/internal/fault"
)

// Room is what a disk has.
type Room struct {
	Total int64 // bytes
	Free  int64 // bytes, for who is not root
	Taken int64 // bytes, PerFile for each file included: it grows at least as what it holds does
}

// RoomOf looks at the disk that a folder is on.
func RoomOf(folder string) (Room, error) {
	var told unix.Statfs_t
	if err := unix.Statfs(folder, &told); err != nil {
		return Room{}, fault.New(fault.Internal, "look at the disk of %s: %w", folder, err)
	}
	size := told.Bsize
	return Room{
		Total: int64(told.Blocks) * size, Free: int64(told.Bavail) * size,
		Taken: int64(told.Blocks-told.Bfree)*size + int64(told.Files-told.Ffree)*PerFile,
	}, nil
}
