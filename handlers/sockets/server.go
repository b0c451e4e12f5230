package sockets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"rollcall/fanout"
	"rollcall/handlers/nbconn"
	"rollcall/presence"
)

// Options are what a Server needs. Each is required unless its comment says otherwise.
type Options struct {
	Context  context.Context // under which clients' events are handled; it ends when the server is gone
	Instance string          // its id, for the welcome
	Mirror   Mirror
	Bus      Bus
	Handlers map[string]Handler // by the names of their events
	Meter    Meter              // nil: nobody counts
	Log      *slog.Logger

	MaxMessageBytes int // of a frame
	MaxSockets      int // 0: no cap
	ClientRate      int // frames a second of one socket; 0: no cap
}

// Mirror says to all instances which sockets are here: a *presence.Mirror.
type Mirror interface {
	Join(ctx context.Context, socket *presence.Socket) (reachable bool)
	Leave(socket *presence.Socket, onPurpose bool)
	Retire(ctx context.Context, sockets []*presence.Socket) error
}

// Bus sends to the sockets of a user, on all instances: a *fanout.Bus.
type Bus interface {
	Begin(pushes []fanout.Push, until time.Time) *fanout.Ticket
	// Barrier waits until everything that was sent to this instance earlier is on its way to the sockets.
	Barrier(ctx context.Context) error
}

// Meter is told what happens to sockets. It must be quick. No client can choose what the strings are.
type Meter interface {
	// Opened is told of each socket, when it is connected.
	Opened()
	// Closed is told of each of these, when it is gone.
	Closed(by Closer, code int)
	// Handled is told of each event of a client: by the name under which its handler is registered, and with
	// what result.
	Handled(handler, result string, took time.Duration)
}

// Closer is who closed a socket.
type Closer string

// Who closes a socket.
const (
	ByServer  Closer = "server"  // this side has sent the first close frame, or cut the connection
	ByClient  Closer = "client"  // the client has sent the first close frame
	ByNetwork Closer = "network" // the connection ended without one
)

// Why Serve refuses a client before its handshake.
var (
	ErrDraining = errors.New("sockets: this instance is shutting down")
	ErrFull     = errors.New("sockets: this instance has as many sockets as it may")
)

// HandshakeError says that a request is no handshake of a WebSocket, though it seems to be one.
type HandshakeError struct {
	Status int // of HTTP, to answer with; 0: the connection broke, and there is nobody to answer
	Reason error
}

func (e *HandshakeError) Error() string { return fmt.Sprintf("sockets: handshake: %v", e.Reason) }

// Server serves the WebSockets of one instance.
type Server struct {
	// static after construction
	options    Options
	melody     *engine
	dispatcher *dispatcher
	started    time.Time
	door       chan struct{} // capacity 1: frames of clients come in one at a time; see standBack

	registry *registry
	conns    nbconn.Group // waits for all goroutines and timers of sockets

	// Counts of what was refused or closed.
	Counts struct {
		TooSlow     atomic.Int64 // sockets closed because their client did not read
		Full        atomic.Int64 // handshakes refused because there were as many sockets as may be
		RateLimited atomic.Int64 // frames not handled because their client sends too many
		Floods      atomic.Int64 // sockets closed because their client went on sending too many frames
		Unfinished  atomic.Int64 // sockets closed for a message that came too slowly, or for its room
	}
}

// New makes a server.
func New(o Options) *Server {
	if o.Meter == nil {
		o.Meter = noMeter{}
	}
	s := &Server{
		options: o, started: time.Now(), door: make(chan struct{}, 1), registry: newRegistry(),
		dispatcher: &dispatcher{handlers: o.Handlers, bus: o.Bus, log: o.Log, meter: o.Meter},
	}
	s.conns.Limits = s.limits()
	s.melody = s.newMelody()
	return s
}

// Number is how many sockets there are, with those whose handshake is under way.
func (s *Server) Number() int { return s.registry.number() }

// now is the time since this server started, which no change of the clock moves.
func (s *Server) now() time.Duration { return time.Since(s.started) }

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Opened()                               {}
func (noMeter) Closed(Closer, int)                    {}
func (noMeter) Handled(string, string, time.Duration) {}
