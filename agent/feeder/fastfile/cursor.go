package fastfile

import "sync"

// cursor is one open file: how it is read decides how far ahead is fetched.
type cursor struct {
	file *source

	mu     sync.Mutex
	next   int64 // where the last read ended
	window int64 // blocks ahead
}

// slack is by how much reads may come out of order, as the kernel sends several at once.
const slack = 2 * blockSize

// advance notes a read and returns how many blocks to fetch ahead: none after a jump,
// twice as many as before while it goes straight on.
func (c *cursor) advance(offset, length int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch straight := offset >= c.next-slack && offset <= c.next+slack; {
	case !straight:
		c.window, c.next = 0, offset+length
	case offset+length > c.next:
		if crossed := (offset+length)/blockSize > c.next/blockSize; crossed || c.window == 0 {
			c.window = min(max(1, 2*c.window), maxWindow)
		}
		c.next = offset + length
	}
	return c.window
}
