package handlers

import (
	"cmp"
	"container/list"
	"sync"
)

const (
	// smallMessage is how much of an unfinished message needs no room in the budget. It is less than what the
	// socket itself needs.
	smallMessage = 4 << 10
	// unfinishedBytes is the most that an instance keeps of large messages whose end has not come yet.
	unfinishedBytes = 64 << 20
)

// unfinished is the budget for messages that clients have begun to send. If it is used up, the message that
// was begun first goes, with its socket: clients that send as fast as they can are done long before those
// that fill the budget on purpose.
type unfinished struct {
	most int // 0: unfinishedBytes

	mu sync.Mutex
	// mu guards the following
	bytes int
	begun list.List // of *upload, the oldest first
}

// upload is a large message that is not finished yet.
type upload struct {
	giveUp func() // called when it must go, under the lock
	asked  int    // bytes that its line last took room for; the reader's

	// the budget's lock guards the following
	bytes int
	entry *list.Element // nil: it has no room
}

// grow gives an upload room for so many bytes in all, and has others give up if that is too much.
func (u *unfinished) grow(one *upload, bytes int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case one.entry != nil:
	case one.bytes > 0: // it was to give up already
		return
	default:
		one.entry = u.begun.PushBack(one)
	}
	u.bytes += bytes - one.bytes
	one.bytes = bytes
	for most := cmp.Or(u.most, unfinishedBytes); u.bytes > most; {
		oldest := u.begun.Front().Value.(*upload)
		u.removeLocked(oldest)
		oldest.giveUp()
	}
}

// release gives the room of an upload back. held: it was still there.
func (u *unfinished) release(one *upload) (held bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if one.entry == nil {
		return false
	}
	u.removeLocked(one)
	return true
}

func (u *unfinished) removeLocked(one *upload) {
	u.begun.Remove(one.entry)
	u.bytes -= one.bytes
	one.entry = nil
}
