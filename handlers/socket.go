package handlers

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"rollcall/handlers/nbconn"
	"rollcall/presence"
)

const (
	closeTooSlow = 4290

	writeBufferBytes = 1024

	joinTime      = time.Second            // to be mirrored, before the client is told that it is not yet reachable
	closeTime     = 100 * time.Millisecond // for a client that was too slow to take its close frame
	closePatience = time.Second            // for a client to read what waits for it, and the close frame
	// clients told to go away together come back spread over this time
	reconnectSpread = time.Second
)

// socket is one connection: Melody's session under presence's Socket.
type socket struct {
	presence.Socket
	hub       *sockets
	session   *melody.Session // nil before it is made
	ws        *websocket.Conn // the session's
	conn      nbconn.Conn     // under it
	handshake chan struct{}   // nil when it is over: see serve
	status    int             // with which the handshake was refused; 0: it was not, or not yet
	outbox    outbox
	left      atomic.Bool            // the client closed with 1000: it will not be back
	pinged    atomic.Pointer[string] // the last ping of the client that is not answered yet
	ended     atomic.Bool            // this side has sent a close frame, or cut the connection
	closing   closing
	handling  sync.Mutex   // held while a handler works on a message of this socket: see gateway.answer
	lastHeard atomic.Int64 // when a frame of the client came, in nanoseconds since the server started

	// owned by the reader
	bucket  bucket // of what the client sends
	charged int64  // what the line had received when the bucket was last charged
}

// membership says to all instances which sockets are here.
type membership interface {
	Join(ctx context.Context, socket *presence.Socket) (reachable bool)
	Leave(socket *presence.Socket, onPurpose bool)
	Retire(ctx context.Context, sockets []*presence.Socket) error
	Drain(ctx context.Context)
}

// sockets serves all connections of this instance.
type sockets struct {
	// static after construction
	melody   *melody.Melody
	mirror   membership
	gateway  *gateway
	options  Options
	draining func() bool

	started time.Time
	door    chan struct{} // capacity 1: frames of clients come in one at a time; see standBack

	roll roll
	open nbconn.Group // goroutines and timers of sockets. While a socket has any, it has the one that reads

	slow          atomic.Int64 // sockets closed because they were too slow
	full          atomic.Int64 // handshakes refused because there were as many sockets as may be
	rateLimited   atomic.Int64 // frames not handled because their client sends too many
	floods        atomic.Int64 // sockets closed because their client went on sending too many
	unfinishedCut atomic.Int64 // sockets closed because a message was not finished in time, or others needed its room

	mu sync.Mutex
	// mu guards the following
	count  int  // sockets, and handshakes under way
	closed bool // no more may come
}

func newSockets(o Options, g *gateway, draining func() bool) *sockets {
	s := &sockets{melody: melody.New(), mirror: o.Mirror, gateway: g, options: o, draining: draining, roll: newRoll(), started: time.Now(),
		door: make(chan struct{}, 1),
	}
	// Melody upgrades and reads, and we write: a WebSocket wants one writer, and what goes through Melody's costs each socket a channel and
	// a grown stack, and each message the waking of a goroutine.
	s.melody.Config.MessageBufferSize = 0
	s.melody.Config.PingPeriod = never // see sockets.ping
	s.melody.Upgrader = &websocket.Upgrader{
		// Small buffers: an idle socket keeps its read buffer for ever, and borrows a write buffer only to write.
		ReadBufferSize:  128,
		WriteBufferSize: writeBufferBytes,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true }, // done before, with a better answer
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			if hijacker, ok := w.(nbconn.Hijacker); ok {
				hijacker.Owner.(*socket).status = status
			}
			writeProblem(w, problem(status, codeBadHandshake, "%v", reason))
		},
	}
	s.melody.HandleConnect(s.connect)
	s.melody.HandleDisconnect(s.disconnect)
	s.open.Limits = s.limits()
	s.handleReads()
	return s
}

// enter makes room for one more socket, from its handshake on; leave gives it back.
func (s *sockets) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch most := s.options.MaxSockets; {
	case s.closed:
		return errDraining()
	case most > 0 && s.count >= most:
		s.full.Add(1)
		return problem(http.StatusServiceUnavailable, "full", "this instance has as many sockets as it may; connect again in a second, and another may answer")
	}
	s.count++
	s.open.Add(1) // here, so that drain never waits for what might still begin
	return nil
}

func (s *sockets) leave() {
	s.mu.Lock()
	s.count--
	s.mu.Unlock()
	s.open.Done()
}

// close lets no more sockets come.
func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// number is how many sockets there are, with those whose handshake is under way.
func (s *sockets) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// serve upgrades a request, and returns when the client is welcomed, or with the status with which it was refused: while
// an HTTP handler runs, net/http keeps several KB for it, which an idle socket does not need. The connection lives on in
// a goroutine of its own, which s.open waits for. An error is still to be answered.
func (s *sockets) serve(w http.ResponseWriter, r *http.Request, user string) (refused int, err error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	handshake := make(chan struct{}) // has one message, when Melody is done; closed when the socket may read
	socket := &socket{hub: s, handshake: handshake}
	socket.Socket = presence.Socket{ID: uuid.New(), User: user, Conn: socket}
	go s.run(w, r, socket)
	<-handshake
	if socket.ws != nil {
		defer close(handshake)
		s.welcomeIn(socket) // here, on a stack that ends with the request: the socket's own would stay grown
		return 0, nil
	}
	return cmp.Or(socket.status, http.StatusBadRequest), nil // without an answer if the connection broke
}

// run is the socket's goroutine: Melody upgrades the request, and then reads until the connection ends. What is on the stack here stays
// there for each idle socket, so it is little.
func (s *sockets) run(w http.ResponseWriter, r *http.Request, socket *socket) {
	defer s.ran(socket)
	if err := s.melody.HandleRequestWithKeys(nbconn.Hijacker{ResponseWriter: w, Conn: &socket.conn, Group: &s.open, Owner: socket}, r, map[string]any{"socket": socket}); err != nil {
		s.options.Log.Debug("handshake", "error", err)
	}
}

// ran ends the goroutine of a socket, also after a panic.
func (s *sockets) ran(socket *socket) {
	if p := recover(); p != nil {
		s.options.Log.Error("socket", "user", socket.User, "error", panicked(p))
		if socket.session != nil { // Melody does not say that it has ended
			s.disconnect(socket.session)
		}
	}
	if socket.conn.Conn != nil { // so that nothing goes on that sends, or waits to cut it
		_ = socket.conn.Close()
	}
	if socket.handshake != nil { // the upgrader has refused
		socket.handshake <- struct{}{}
	}
	s.leave()
}

// connect runs when the client is connected, before anything is read.
func (s *sockets) connect(session *melody.Session) {
	key, _ := session.Get("socket")
	socket := key.(*socket)
	session.Request, session.Keys = nil, nil // or an idle socket would keep them
	handshake := socket.handshake
	socket.session, socket.ws, socket.handshake = session, session.WebsocketConnection(), nil
	socket.ws.SetPingHandler(socket.pong)
	socket.heard()
	s.roll.add(session, socket)
	s.options.meter().Opened()
	handshake <- struct{}{}
	<-handshake
}

// welcomeIn makes a socket known and lets frames out, the welcome first.
func (s *sockets) welcomeIn(newcomer *socket) {
	ctx, cancel := context.WithTimeout(s.options.Context, joinTime)
	defer cancel()
	reachable := s.mirror.Join(ctx, &newcomer.Socket)
	if farewell := newcomer.outbox.open(s.welcome(newcomer, reachable), newcomer); farewell != nil { // it was told to go meanwhile
		newcomer.writeClose(farewell)
	}
	if s.draining() { // drain may have looked before this socket was there
		s.withdraw(ctx, []*socket{newcomer})
		newcomer.goAway()
	}
}

type welcome struct {
	Socket    uuid.UUID `json:"socket"`
	User      *string   `json:"user"`
	Instance  string    `json:"instance"`
	Reachable bool      `json:"reachable"`
	Limits    limits    `json:"limits"`
}

type limits struct {
	MessageBytes int   `json:"messageBytes"`
	HeartbeatMS  int64 `json:"heartbeatMs"` // a client that has heard nothing for so long should ask: rollcall:ping
}

func (s *sockets) welcome(socket *socket, reachable bool) []byte {
	data := welcome{
		Socket: socket.ID, Instance: s.options.Instance, Reachable: reachable,
		Limits: limits{MessageBytes: s.options.MaxMessageBytes, HeartbeatMS: pingPeriod.Milliseconds()},
	}
	if socket.User != "" {
		data.User = &socket.User
	}
	return encodeFrame(eventWelcome, mustMarshal(data), "", "")
}

func (s *sockets) disconnect(session *melody.Session) {
	socket := s.roll.of(session)
	s.roll.remove(session)
	s.options.meter().Closed(socket.closing.first())
	socket.outbox.end()
	s.mirror.Leave(&socket.Socket, socket.left.Load())
	socket.handling.Lock() // for good: this socket is over when its last handler has ended
}
