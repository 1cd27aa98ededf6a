package fastfile

// Wait returns when nobody sees the folder any more: it was unmounted everywhere.
func (m *Mounted) Wait() { m.server.Wait() }
