package sockets

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"rollcall/handlers/nbconn"
	"rollcall/handlers/strict"
	"rollcall/presence"
)

// joinTime is how long the welcome waits for Redis to know the socket. After that it says "reachable": false.
const joinTime = time.Second

// socket is one connection of a client. It is the presence.Conn of its presence.Socket, and the owner of its
// nbconn.Conn.
type socket struct {
	presence.Socket
	// static after the handshake
	server *Server
	ws     *websocket.Conn // nil before the upgrade
	conn   nbconn.Conn     // under it

	outbox    outbox
	handling  sync.Mutex             // held while a handler works on a message: see dispatcher.dispatch
	closing   closing                // by whom and with which code it is closed
	closeSent atomic.Bool            // this side has sent a close frame, or cut the connection
	left      atomic.Bool            // the client closed with 1000: it will not be back
	pinged    atomic.Pointer[string] // the data of the client's last ping that is not answered yet
	lastHeard atomic.Int64           // when the client's last frame came: ns since the server started

	// owned by the goroutine that reads
	handover *handover       // nil when the handshake is over: see Server.Serve
	refused  *HandshakeError // nil: the handshake was not refused
	bucket   bucket          // limits what the client sends
	charged  int64           // what conn had received when the bucket was last charged
}

func newSocket(server *Server, user string, h *handover) *socket {
	s := &socket{server: server, handover: h}
	s.Socket = presence.Socket{ID: uuid.New(), User: user, Conn: s}
	return s
}

// connected runs when the request is upgraded, before anything is read. It returns when the socket may read.
func (s *socket) connected(ws *websocket.Conn) {
	h := s.handover
	s.ws, s.handover = ws, nil
	ws.SetPingHandler(s.receivePing)
	s.heard()
	s.server.registry.add(s)
	s.server.options.Meter.Opened()
	h.upgraded <- nil
	<-h.admitted
}

// admit makes a socket known to all instances and lets frames out, the welcome first.
func (s *Server) admit(sock *socket) {
	ctx, cancel := context.WithTimeout(s.options.Context, joinTime)
	defer cancel()
	reachable := s.options.Mirror.Join(ctx, &sock.Socket)
	sock.closeIfDue(sock.outbox.open(sock.welcome(reachable), sock))
	if s.registry.isClosed() { // Drain may have looked before this socket was there
		s.withdraw(ctx, []*socket{sock})
		sock.goAway()
	}
}

// disconnected runs when the connection has ended.
func (s *socket) disconnected() {
	s.server.registry.remove(s)
	s.server.options.Meter.Closed(s.closing.first())
	s.outbox.end()
	s.server.options.Mirror.Leave(&s.Socket, s.left.Load())
	s.handling.Lock() // for good: this socket is over when its last handler has ended
}

// heard notes that the client lives.
func (s *socket) heard() { s.lastHeard.Store(int64(s.server.now())) }

type welcome struct {
	Socket    uuid.UUID     `json:"socket"`
	User      *string       `json:"user"`
	Instance  string        `json:"instance"`
	Reachable bool          `json:"reachable"`
	Limits    welcomeLimits `json:"limits"`
}

type welcomeLimits struct {
	MessageBytes int   `json:"messageBytes"`
	HeartbeatMS  int64 `json:"heartbeatMs"` // after so much silence the client should ask: rollcall:ping
}

func (s *socket) welcome(reachable bool) []byte {
	o := &s.server.options
	data := welcome{
		Socket: s.ID, Instance: o.Instance, Reachable: reachable,
		Limits: welcomeLimits{MessageBytes: o.MaxMessageBytes, HeartbeatMS: pingPeriod.Milliseconds()},
	}
	if s.User != "" {
		data.User = &s.User
	}
	return EncodeFrame(eventWelcome, strict.Marshal(data), "", "")
}
