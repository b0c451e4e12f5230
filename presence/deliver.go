package presence

import "github.com/google/uuid"

// Deliver queues a frame for all of a user's sockets here but one (uuid.Nil: but none) and says how many took it. What becomes of it
// is told to the tally, if there is one.
func (s *Sockets) Deliver(user string, exclude uuid.UUID, frame []byte, tally *Tally) int {
	took := 0
	for _, socket := range s.Of(user) {
		if socket.ID != exclude && send(socket, frame, tally) {
			took++
		}
	}
	if tally != nil {
		tally.sent()
	}
	return took
}

// Emit queues a frame for all sockets of an audience and says how many took it. What becomes of it is told to the tally, if there is
// one.
func (s *Sockets) Emit(to Audience, frame []byte, tally *Tally) int {
	took := 0
	s.Each(func(socket *Socket) {
		if (to == Everybody || socket.User != "") && send(socket, frame, tally) {
			took++
		}
	})
	if tally != nil {
		tally.sent()
	}
	return took
}

// CloseUser closes all of a user's sockets here but one (uuid.Nil: but none), says how many, and counts them as written in the tally.
func (s *Sockets) CloseUser(user string, except uuid.UUID, code int, reason string, tally *Tally) int {
	closed := 0
	for _, socket := range s.Of(user) {
		if socket.ID != except {
			closeSocket(socket, code, reason, tally)
			closed++
		}
	}
	if tally != nil {
		tally.sent()
	}
	return closed
}

// CloseSocket is CloseUser for one socket. It looks at all of them.
func (s *Sockets) CloseSocket(id uuid.UUID, code int, reason string, tally *Tally) int {
	closed := 0
	s.Each(func(socket *Socket) {
		if socket.ID == id {
			closeSocket(socket, code, reason, tally)
			closed++
		}
	})
	if tally != nil {
		tally.sent()
	}
	return closed
}

func closeSocket(socket *Socket, code int, reason string, tally *Tally) {
	if tally != nil {
		tally.add()
		tally.Tell(Written)
	}
	socket.Conn.Close(code, reason)
}

func send(socket *Socket, frame []byte, tally *Tally) bool {
	if tally == nil {
		return socket.Conn.Send(frame)
	}
	tally.add()
	return socket.Conn.SendTallied(frame, tally)
}

// Each calls f with every socket. f must not block or change the map: a part of it is locked meanwhile.
func (s *Sockets) Each(f func(*Socket)) {
	for i := range s.stripes {
		stripe := &s.stripes[i]
		stripe.mu.RLock()
		for _, local := range stripe.users {
			for _, socket := range local.sockets {
				f(socket)
			}
		}
		for socket := range stripe.anonymous {
			f(socket)
		}
		stripe.mu.RUnlock()
	}
}
