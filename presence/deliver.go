package presence

import (
	"sync"

	"github.com/google/uuid"
)

// List is all sockets of one user here. Nobody may change it.
type List []*Socket

// Deliver sends a message to all but one of them (uuid.Nil: but none) and says how many took it.
func (l List) Deliver(exclude uuid.UUID, message Message) int {
	took, one := 0, []Message{message}
	for _, socket := range l {
		if socket.ID != exclude && send(socket, one) {
			took++
		}
	}
	message.Tally.sent()
	return took
}

// Close closes all but one of them (uuid.Nil: but none), says how many, and counts them as written in the tally.
func (l List) Close(except uuid.UUID, code int, reason string, tally *Tally) int {
	closed := 0
	for _, socket := range l {
		if socket.ID != except {
			closeSocket(socket, code, reason, tally)
			closed++
		}
	}
	tally.sent()
	return closed
}

// Emit is a frame for an audience.
type Emit struct {
	To Audience
	Message
	Took int // sockets that took it; set by Sockets.Emit
}

// Emit sends frames to all sockets of their audiences, in one walk. What becomes of them is told to their tallies.
func (s *Sockets) Emit(emits []*Emit) {
	forUsers, forAnonymous := messages(emits)
	users, anonymous := 0, 0
	s.Each(func(socket *Socket) {
		switch {
		case socket.User != "":
			if send(socket, forUsers) {
				users++
			}
		case len(forAnonymous) > 0 && send(socket, forAnonymous):
			anonymous++
		}
	})
	for _, emit := range emits {
		if emit.Took = users; emit.To == Everybody {
			emit.Took += anonymous
		}
		emit.Tally.sent()
	}
}

// messages are those that sockets with a user get, and those without.
func messages(emits []*Emit) (forUsers, forAnonymous []Message) {
	for _, emit := range emits {
		message := emit.Message
		message.Shared = &Shared{}
		forUsers = append(forUsers, message)
		if emit.To == Everybody {
			forAnonymous = append(forAnonymous, message)
		}
	}
	return forUsers, forAnonymous
}

// CloseSocket closes the socket with an id, says how many that were, and counts it as written in the tally. It looks at all of them.
func (s *Sockets) CloseSocket(id uuid.UUID, code int, reason string, tally *Tally) int {
	closed := 0
	s.Each(func(socket *Socket) {
		if socket.ID == id {
			closeSocket(socket, code, reason, tally)
			closed++
		}
	})
	tally.sent()
	return closed
}

func closeSocket(socket *Socket, code int, reason string, tally *Tally) {
	tally.add()
	tally.Tell(Written)
	socket.Conn.Close(code, reason)
}

func send(socket *Socket, messages []Message) bool {
	for _, message := range messages {
		message.Tally.add()
	}
	return socket.Conn.Send(messages...)
}

// walks are lists in which Each notes the sockets of one stripe. They are kept, so that an emit needs no memory that grows with the
// sockets.
var walks = sync.Pool{New: func() any { return new([]*Socket) }}

// Each calls f with every socket that is there all the time. Nothing is locked meanwhile.
func (s *Sockets) Each(f func(*Socket)) {
	walk := walks.Get().(*[]*Socket)
	for i := range s.stripes {
		*walk = s.stripes[i].appendTo((*walk)[:0])
		for _, socket := range *walk {
			f(socket)
		}
	}
	clear((*walk)[:cap(*walk)]) // or closed sockets would be kept
	walks.Put(walk)
}

// appendTo appends all sockets of a stripe.
func (s *stripe) appendTo(list []*Socket) []*Socket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, local := range s.users {
		list = append(list, local.sockets...)
	}
	for socket := range s.anonymous {
		list = append(list, socket)
	}
	return list
}
