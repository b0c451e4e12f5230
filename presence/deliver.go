package presence

import (
	"sync"

	"github.com/google/uuid"
)

// List is all sockets of one user here. It is never changed.
type List []*Socket

// Deliver sends a message to all sockets of the list except one (uuid.Nil: to all), and returns how many took
// it.
func (l List) Deliver(exclude uuid.UUID, message Message) int {
	w := l.Sending(exclude, message)
	w.Next(len(l))
	return w.took
}

// Close closes all sockets of the list except one (uuid.Nil: all), and returns how many. The tracker counts
// them as written.
func (l List) Close(except uuid.UUID, code int, reason string, tracker *Tracker) int {
	w := l.Closing(except, code, reason, tracker)
	w.Next(len(l))
	return w.took
}

// Walk goes through a list of sockets, some at a time, and sends a message to each or closes it. A user with
// thousands of sockets must not hold up other users. The zero Walk has nothing to do.
type Walk struct {
	to      List // the sockets still to come
	exclude uuid.UUID
	message []Message // one; a slice, because Send takes that
	tracker *Tracker

	code   int // sockets are closed with this code; 0: they get the message
	reason string

	took int
}

// Sending is the Walk that sends a message to all sockets except one (uuid.Nil: to all).
func (l List) Sending(exclude uuid.UUID, message Message) Walk {
	return Walk{to: l, exclude: exclude, message: []Message{message}, tracker: message.Tracker}
}

// Closing is the Walk that closes all sockets except one (uuid.Nil: all). The tracker counts them as written.
func (l List) Closing(except uuid.UUID, code int, reason string, tracker *Tracker) Walk {
	return Walk{to: l, exclude: except, code: code, reason: reason, tracker: tracker}
}

// Next serves at most so many more sockets, and says whether that was the last of them.
func (w *Walk) Next(most int) (over bool) {
	now := w.to[:min(most, len(w.to))]
	w.to = w.to[len(now):]
	for _, socket := range now {
		switch {
		case socket.ID == w.exclude:
		case w.code != 0:
			closeSocket(socket, w.code, w.reason, w.tracker)
			w.took++
		case send(socket, w.message):
			w.took++
		}
	}
	if len(w.to) > 0 {
		return false
	}
	w.tracker.sent()
	return true
}

// Emit is a frame for an audience.
type Emit struct {
	To Audience
	Message
	Took int // how many sockets took it; set by Sockets.Emit
}

// Emit sends frames to all sockets of their audiences, in one walk.
func (s *Sockets) Emit(emits []*Emit) {
	forUsers, forAnonymous := messages(emits)
	users, anonymous := 0, 0
	s.each(func(socket *Socket) {
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

// messages returns what sockets with a user get, and what anonymous ones get.
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

// Find returns the socket with an id in a list; an empty list if it is not here. It looks at all sockets.
func (s *Sockets) Find(id uuid.UUID) (found List) {
	s.each(func(socket *Socket) {
		if socket.ID == id {
			found = List{socket}
		}
	})
	return found
}

func closeSocket(socket *Socket, code int, reason string, tracker *Tracker) {
	tracker.add()
	tracker.Report(Written)
	socket.Conn.Close(code, reason)
}

func send(socket *Socket, messages []Message) bool {
	for _, message := range messages {
		message.Tracker.add()
	}
	return socket.Conn.Send(messages...)
}

// stripeSockets are lists in which each notes the sockets of one stripe. They are reused, so that an emit
// needs no memory that grows with the sockets.
var stripeSockets = sync.Pool{New: func() any { return new([]*Socket) }}

// each calls f with every socket that is in the map all the time. No lock is held meanwhile.
func (s *Sockets) each(f func(*Socket)) {
	list := stripeSockets.Get().(*[]*Socket)
	for i := range s.stripes {
		*list = s.stripes[i].appendTo((*list)[:0])
		for _, socket := range *list {
			f(socket)
		}
	}
	clear((*list)[:cap(*list)]) // or it would keep closed sockets alive
	stripeSockets.Put(list)
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
