package handlers

import (
	"container/list"
	"sync"
)

const (
	// smallMessage is how much of an unfinished message needs no room in the budget. It is less than what the socket itself needs.
	smallMessage = 4 << 10
	// unfinishedBytes is the most that an instance keeps of large messages whose end has not come yet.
	unfinishedBytes = 64 << 20
)

// unfinished is the budget for messages that clients have begun to send. If it is used up, the message that was begun first goes, with its
// socket: clients that send as fast as they can are done long before those that fill the budget on purpose.
type unfinished struct {
	most int // 0: unfinishedBytes

	mu sync.Mutex
	// mu guards the following
	bytes int
	begun list.List // of *upload, the oldest first
}

// upload is a large message that is not finished yet.
type upload struct {
	bytes int
	cut   func() // gives it up
	entry *list.Element
}

// grow gives an upload room for so many bytes in all.
func (u *unfinished) grow(one *upload, bytes int) {
	for _, oldest := range u.take(one, bytes) {
		oldest.cut()
	}
}

// take takes the room, and returns which uploads must go for it.
func (u *unfinished) take(one *upload, bytes int) (gone []*upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if one.entry == nil {
		one.entry = u.begun.PushBack(one)
	}
	u.bytes += bytes - one.bytes
	one.bytes = bytes
	most := u.most
	if most == 0 {
		most = unfinishedBytes
	}
	for u.bytes > most && u.begun.Len() > 0 {
		oldest := u.begun.Front().Value.(*upload)
		u.removeLocked(oldest)
		gone = append(gone, oldest)
	}
	return gone
}

// release gives the room of an upload back, if it has any.
func (u *unfinished) release(one *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.removeLocked(one)
}

func (u *unfinished) removeLocked(one *upload) {
	if one.entry == nil {
		return
	}
	u.begun.Remove(one.entry)
	u.bytes -= one.bytes
	one.entry, one.bytes = nil, 0
}
