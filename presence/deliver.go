package presence

import (
	"sync"

	"github.com/google/uuid"
)

// List is all sockets of one user here. Nobody may change it.
type List []*Socket

// Deliver sends a message to all but one of them (uuid.Nil: but none) and says how many took it.
func (l List) Deliver(exclude uuid.UUID, message Message) int {
	d := l.Sending(exclude, message)
	d.Next(len(l))
	return d.took
}

// Close closes all but one of them (uuid.Nil: but none), says how many, and counts them as written in the tally.
func (l List) Close(except uuid.UUID, code int, reason string, tally *Tracker) int {
	d := l.Closing(except, code, reason, tally)
	d.Next(len(l))
	return d.took
}

// Walk goes through a list of sockets, some at a time, and sends a message to each or closes it. A user with
// thousands of sockets must not hold up other users. The zero Walk has nothing to do.
type Walk struct {
	to      List // who are still to come
	exclude uuid.UUID
	message []Message // one; a slice, for Send takes that
	tally   *Tracker

	code   int // sockets are closed with this code; 0: they get the message
	reason string

	took int
}

// Sending is the Walk that sends a message to all of them but one (uuid.Nil: but none).
func (l List) Sending(exclude uuid.UUID, message Message) Walk {
	return Walk{to: l, exclude: exclude, message: []Message{message}, tally: message.Tracker}
}

// Closing is the Delivery that closes all of them but one (uuid.Nil: but none) and counts them as written in the tally.
func (l List) Closing(except uuid.UUID, code int, reason string, tally *Tracker) Walk {
	return Walk{to: l, exclude: except, code: code, reason: reason, tally: tally}
}

// Next serves at most so many more sockets, and says whether that was the last.
func (d *Walk) Next(most int) (over bool) {
	now := d.to[:min(most, len(d.to))]
	d.to = d.to[len(now):]
	for _, socket := range now {
		switch {
		case socket.ID == d.exclude:
		case d.code != 0:
			closeSocket(socket, d.code, d.reason, d.tally)
			d.took++
		case send(socket, d.message):
			d.took++
		}
	}
	if len(d.to) > 0 {
		return false
	}
	d.tally.sent()
	return true
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
		emit.Tracker.sent()
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

// Find is the socket with an id, in a list; an empty one if it is not here. It looks at all of them.
func (s *Sockets) Find(id uuid.UUID) (found List) {
	s.Each(func(socket *Socket) {
		if socket.ID == id {
			found = List{socket}
		}
	})
	return found
}

func closeSocket(socket *Socket, code int, reason string, tally *Tracker) {
	tally.add()
	tally.Report(Written)
	socket.Conn.Close(code, reason)
}

func send(socket *Socket, messages []Message) bool {
	for _, message := range messages {
		message.Tracker.add()
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
