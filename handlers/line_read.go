package handlers

import "time"

// Read implements net.Conn. It gives a message messageTime to arrive, from its first byte on, and room if it is large.
func (l *line) Read(p []byte) (int, error) {
	if l.most > 0 && l.arrival.bytes >= l.most {
		return 0, errLineRead
	}
	n, err := l.Conn.Read(p)
	return n, l.follow(p[:n], err)
}

// follow notes what was read. It is a function of its own, and not put into Read by the compiler, because what
// Read has on the stack stays there for each idle socket: with 2 KB in all, its stack would have twice the size.
//
//go:noinline
func (l *line) follow(p []byte, err error) error {
	if err != nil && l.room != nil && !l.unfinished.release(l.room) {
		err = errNoRoom // which is why the deadline is over
	}
	l.received += int64(len(p))
	began := !l.arrival.begun
	l.arrival.take(p)
	if l.arrival.ended {
		l.arrival.ended, began = false, true
		l.giveRoomBack()
	}
	if began && len(p) > 0 {
		l.expectMore()
	}
	l.makeRoom()
	return err
}

// expectMore gives the message in hand its time from now on; or, if there is none, the client the time for a sign of life.
func (l *line) expectMore() {
	d := pongWait
	if l.arrival.begun {
		d = messageTime
	}
	_ = l.Conn.SetReadDeadline(time.Now().Add(d))
}

// SetReadDeadline implements net.Conn. It does not move the deadline of a message: Melody would, with each pong between its frames.
func (l *line) SetReadDeadline(at time.Time) error {
	if l.arrival.begun {
		return nil
	}
	return l.Conn.SetReadDeadline(at)
}

// makeRoom takes room for what has come of a large message, in steps.
func (l *line) makeRoom() {
	const step = 16 << 10
	if l.unfinished == nil || l.arrival.bytes <= smallMessage {
		return
	}
	if l.room == nil { // the deadline wakes the reader, which says goodbye
		l.room = &upload{giveUp: func() { _ = l.Conn.SetReadDeadline(time.Unix(0, 0)) }}
	}
	if bytes := (int(l.arrival.bytes) + step - 1) / step * step; bytes > l.room.asked {
		l.room.asked = bytes
		l.unfinished.grow(l.room, bytes)
	}
}

// giveRoomBack gives back the room of the message in hand: it has ended, or never will.
func (l *line) giveRoomBack() {
	if l.room != nil {
		l.unfinished.release(l.room)
		l.room = nil
	}
}
