package sockets

import (
	"cmp"
	"errors"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"rollcall/handlers/nbconn"
	"rollcall/handlers/panics"
)

// This is the only file that knows Melody.
//
// Melody does for us: the upgrade of a request (with gorilla/websocket), the goroutine that reads a socket,
// whole messages out of frames, and a callback for each message, pong, close frame and error, and for the
// beginning and the end of a session.
//
// We do ourselves:
//
//   - Writing. Melody wakes a goroutine for each message, drops messages without an error when its queue is
//     full, has no cap in bytes, and sends a close frame only behind that queue. We write from the goroutine
//     that pushes: see outbox. Melody's writer goroutine exists, but has nothing to do.
//   - Pings. Melody would send them from its writer, whose stack would stay grown for each idle socket. See
//     Server.Run.
//   - The way from a session to its socket. A session's Keys are a map of several hundred bytes for each
//     socket. We find the socket as the owner of the connection under the session.
//   - Ending everybody. Melody closes all at once, without a word and without waiting. See Server.Drain.
//   - Panics. Melody does not end a session whose callback has panicked. See Server.finish.

// engine is Melody under a name that other files may use.
type engine = melody.Melody

func (s *Server) newMelody() *engine {
	m := melody.New()
	m.Config.MessageBufferSize = 0
	m.Config.PingPeriod = never
	m.Config.PongWait = pongWait
	m.Config.MaxMessageSize = readSlack * int64(s.options.MaxMessageBytes)
	m.Upgrader = &websocket.Upgrader{
		// Small buffers: an idle socket keeps its read buffer, and borrows a write buffer only to write.
		ReadBufferSize:  128,
		WriteBufferSize: writeBufferBytes,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true }, // checked before, with a better answer
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			w.(*nbconn.Hijacker).Owner.(*socket).refused = &HandshakeError{status, reason}
		},
	}
	m.HandleConnect(func(session *melody.Session) {
		sock := socketOf(session)
		session.Request = nil // or an idle socket would keep it
		sock.connected(session.WebsocketConnection())
	})
	m.HandleDisconnect(func(session *melody.Session) { socketOf(session).disconnected() })
	m.HandleMessage(func(session *melody.Session, frame []byte) {
		socketOf(session).receive(websocket.TextMessage, frame)
	})
	m.HandleMessageBinary(func(session *melody.Session, frame []byte) {
		socketOf(session).receive(websocket.BinaryMessage, frame)
	})
	m.HandlePong(func(session *melody.Session) { socketOf(session).receiveControl() })
	m.HandleClose(func(session *melody.Session, code int, _ string) error {
		socketOf(session).receiveClose(code)
		return nil
	})
	m.HandleError(func(session *melody.Session, err error) { socketOf(session).endReading(err) })
	return m
}

func socketOf(session *melody.Session) *socket {
	return session.WebsocketConnection().NetConn().(*nbconn.Conn).Owner().(*socket)
}

// Serve upgrades a request to a socket of a user (empty: anonymous). It returns when the client is welcomed,
// with nil, or when there will be no socket: then with ErrDraining, ErrFull or a *HandshakeError, and nothing
// is answered yet.
//
// The socket lives on in a goroutine of its own. While an HTTP handler runs, net/http keeps several KB for
// it, which an idle socket does not need. So the goroutine of the request, "HTTP", and that of the socket,
// "Melody", hand over:
//
//	HTTP                                    Melody
//	Serve: takes room for one more socket
//	starts the other goroutine ───────────▶ run: Melody upgrades the request. nbconn.Hijacker makes the
//	waits                                   connection a non-blocking one
//	  │                                     connected: the socket is in the registry
//	  ◀──────────── upgraded (nil) ──────── waits; nothing is read yet
//	admit: Mirror.Join, then the              │
//	outbox opens with the welcome             │
//	  ──────────── admitted (closed) ───────▶ reads, until the connection ends
//	returns; the Echo handler returns       disconnected: out of the registry, Mirror.Leave
//	                                        finish: gives the room back
//
// A handshake that is refused or breaks ends in finish, which sends the error instead of nil. The socket is
// admitted by the goroutine of the request because that one's stack ends with the request; the socket's own
// would stay grown.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, user string) error {
	if err := s.registry.enter(s.options.MaxSockets, &s.conns.WaitGroup); err != nil {
		if errors.Is(err, ErrFull) {
			s.Counts.Full.Add(1)
		}
		return err
	}
	h := &handover{upgraded: make(chan error), admitted: make(chan struct{})}
	sock := newSocket(s, user, h)
	go s.run(&nbconn.Hijacker{ResponseWriter: w, Conn: &sock.conn, Group: &s.conns, Owner: sock}, r, sock)
	if err := <-h.upgraded; err != nil {
		s.options.Log.Debug("handshake", "error", err)
		return err
	}
	defer close(h.admitted)
	s.admit(sock)
	return nil
}

// handover is between the two goroutines of a handshake: see Serve.
type handover struct {
	upgraded chan error    // gets one value: nil, or why there is no socket
	admitted chan struct{} // closed when the socket may read
}

// run is the goroutine of a socket. What it has on the stack stays there for each idle socket: 100 bytes more
// make the stack twice as large.
func (s *Server) run(w *nbconn.Hijacker, r *http.Request, sock *socket) {
	defer s.finish(sock)
	if err := s.melody.HandleRequestWithKeys(w, r, nil); err != nil && sock.refused == nil {
		sock.refused = &HandshakeError{Reason: err}
	}
}

// finish ends the goroutine of a socket, also after a panic.
func (s *Server) finish(sock *socket) {
	if p := recover(); p != nil {
		s.options.Log.Error("socket", "user", sock.User, "error", panics.Error(p))
		if sock.ws != nil { // Melody does not say that the session has ended
			sock.disconnected()
		}
	}
	if sock.conn.Conn != nil { // so that no goroutine and no timer of it goes on
		_ = sock.conn.Close()
	}
	if sock.handover != nil { // it never came to connected
		sock.handover.upgraded <- cmp.Or(sock.refused, &HandshakeError{Reason: errPanic})
	}
	s.registry.leave()
	s.conns.Done()
}

var errPanic = errors.New("a panic, which was logged")
