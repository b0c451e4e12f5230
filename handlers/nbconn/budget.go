package nbconn

import (
	"container/list"
	"sync"
)

// smallMessage is how much of an unfinished message needs no room in the budget: less than what its socket
// needs anyway.
const smallMessage = 4 << 10

// budget counts the bytes of large messages that clients have begun to send.
type budget struct {
	mu sync.Mutex
	// mu guards the following
	bytes int
	begun list.List // of *upload, the oldest first
}

// upload is a large message that is not finished yet.
type upload struct {
	giveUp func() // called, under the budget's lock, when it must go

	asked int // bytes that room was last taken for; guarded by the connection's lock

	// the budget's lock guards the following
	bytes int
	entry *list.Element // nil: it has no room, and if it has bytes, it was told to go
}

// grow gives an upload room for so many bytes in all. If all uploads together then have more than most, the
// oldest must go, until they fit.
func (b *budget) grow(u *upload, bytes, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case u.entry != nil:
	case u.bytes > 0: // it was told to go
		return
	default:
		u.entry = b.begun.PushBack(u)
	}
	b.bytes += bytes - u.bytes
	u.bytes = bytes
	for b.bytes > most {
		oldest := b.begun.Front().Value.(*upload)
		b.removeLocked(oldest)
		oldest.giveUp()
	}
}

// has says whether an upload still has its room.
func (b *budget) has(u *upload) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return u.entry != nil
}

// release gives the room of an upload back, if it still has it.
func (b *budget) release(u *upload) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u.entry != nil {
		b.removeLocked(u)
	}
}

func (b *budget) removeLocked(u *upload) {
	b.begun.Remove(u.entry)
	b.bytes -= u.bytes
	u.entry = nil
}
