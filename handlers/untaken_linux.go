package handlers

import "golang.org/x/sys/unix"

// untaken is how many bytes the kernel keeps for the client. It says that there is room again only when a
// third of its buffer is free, which for a slow client may take longer than writeTime: so this is how one
// that reads slowly is told from one that does not read.
func (l *line) untaken() (bytes int) {
	if l.kernel == nil {
		return 0
	}
	_ = l.kernel.Control(func(fd uintptr) { // an error means that it is closed
		bytes, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	})
	return bytes
}
