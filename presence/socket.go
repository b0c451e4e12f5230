package presence

import (
	"sync"

	"github.com/google/uuid"
)

// Socket is one WebSocket connection.
type Socket struct {
	ID   uuid.UUID
	User string // empty: anonymous
	Conn Conn

	retired bool // does not count any more, but still gets what is pushed. Guarded by the socket's stripe
}

// Conn is the connection under a socket.
type Conn interface {
	// Send sends text frames in this order, or queues them. It never blocks. It returns false if some will
	// not be sent: the socket is closed, or is closed now because its client is too slow. The trackers of the
	// messages are told what becomes of their frames in any case.
	Send(messages ...Message) bool
	// Close sends a close frame after what waits to be written, and closes. It never blocks.
	Close(code int, reason string)
	// Reachable tells the client that pushes from every instance find it from now on.
	Reachable()
}

// Message is a frame for a socket.
type Message struct {
	Frame   []byte   // shared: nobody may change it
	Shared  *Shared  // of a frame that many users' sockets get; nil: there is nothing to share
	Tracker *Tracker // is told what becomes of the frame; nil: nobody wants to know
}

// Shared holds the form in which a frame is written, for example with its header. The first of the sockets
// that get the frame makes it.
type Shared struct {
	once sync.Once
	form any
}

// Form returns what was made, or makes it.
func (s *Shared) Form(make func() any) any {
	s.once.Do(func() { s.form = make() })
	return s.form
}

// Audience is who an emit is for.
type Audience int

const (
	Everybody     Audience = iota // every socket
	Authenticated                 // every socket that has a user
)
