package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

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
	// frames up to this many times the limit are read and refused in words; beyond it the socket is closed with 1009
	readSlack = 4
)

// socket is one connection: Melody's session under presence's Socket.
type socket struct {
	presence.Socket
	hub       *sockets
	conn      *websocket.Conn // Melody's; nil before it is made
	line      line            // under it
	handshake chan struct{}   // nil when it is over: see serve
	refused   int             // the status with which the handshake was refused; 0: it was not, or not yet
	outbox    outbox
	left      atomic.Bool            // the client closed with 1000: it will not be back
	pinged    atomic.Pointer[string] // the last ping of the client that is not answered yet
	ended     atomic.Bool            // this side has sent a close frame, or cut the connection
	closing   closing
}

// sockets serves all connections of this instance.
type sockets struct {
	// static after construction
	melody   *melody.Melody
	mirror   *presence.Mirror
	gateway  *gateway
	options  Options
	draining func() bool

	roll roll
	open sync.WaitGroup
	slow atomic.Int64 // sockets closed because they were too slow
}

func newSockets(o Options, g *gateway, draining func() bool) *sockets {
	s := &sockets{melody: melody.New(), mirror: o.Mirror, gateway: g, options: o, draining: draining, roll: newRoll()}
	s.melody.Config.MaxMessageSize = readSlack * int64(o.MaxMessageBytes)
	// Melody reads, and we write: a WebSocket wants one writer, and what goes through Melody's costs each socket a channel and a grown
	// stack, and each message the waking of a goroutine.
	s.melody.Config.MessageBufferSize = 0
	s.melody.Config.PingPeriod = never // see sockets.ping
	s.melody.Config.PongWait = pongWait
	s.melody.Upgrader = &websocket.Upgrader{
		// Small buffers: an idle socket keeps its read buffer for ever, and borrows a write buffer only to write.
		ReadBufferSize:  128,
		WriteBufferSize: writeBufferBytes,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     func(*http.Request) bool { return true }, // done before, with a better answer
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			if maker, ok := w.(lineMaker); ok {
				maker.socket.refused = status
			}
			writeProblem(w, problem(status, codeBadHandshake, "%v", reason))
		},
	}
	s.melody.HandleConnect(s.connect)
	s.melody.HandleDisconnect(s.disconnect)
	s.melody.HandleMessage(s.receive)
	s.melody.HandleMessageBinary(func(session *melody.Session, _ []byte) {
		s.roll.of(session).sendFrame(encodeError(&frameError{codeBinaryFrame, "frames must be text; send the JSON as a text frame"}, ""))
	})
	s.melody.HandleClose(s.closed)
	s.melody.HandleError(func(session *melody.Session, err error) {
		if errors.Is(err, websocket.ErrReadLimit) { // of which gorilla/websocket has told the client
			s.roll.of(session).closing.note(ByServer, websocket.CloseMessageTooBig)
		}
	})
	return s
}

// serve upgrades a request, and returns when the client is welcomed, or with the status with which it was refused: while
// an HTTP handler runs, net/http keeps several KB for it, which an idle socket does not need. The connection lives on in
// a goroutine of its own, which s.open waits for.
func (s *sockets) serve(w http.ResponseWriter, r *http.Request, user string) (refused int) {
	handshake := make(chan struct{}) // has one message, when Melody is done; closed when the socket may read
	socket := &socket{hub: s, handshake: handshake}
	socket.Socket = presence.Socket{ID: uuid.New(), User: user, Conn: socket}
	s.open.Add(1)
	go s.run(w, r, socket)
	<-handshake
	if socket.conn != nil {
		defer close(handshake)
		s.welcomeIn(socket) // here, on a stack that ends with the request: the socket's own would stay grown
		return 0
	}
	return cmp.Or(socket.refused, http.StatusBadRequest) // without an answer if the connection broke
}

// run is the socket's goroutine: Melody upgrades the request, and then reads until the connection ends. What is on the stack here stays
// there for each idle socket, so it is little.
func (s *sockets) run(w http.ResponseWriter, r *http.Request, socket *socket) {
	defer s.ran(socket)
	if err := s.melody.HandleRequestWithKeys(lineMaker{w, socket}, r, map[string]any{"socket": socket}); err != nil {
		s.options.Log.Debug("handshake", "error", err)
	}
}

// ran ends the goroutine of a socket, also after a panic.
func (s *sockets) ran(socket *socket) {
	if p := recover(); p != nil {
		s.options.Log.Debug("handshake", "error", panicked(p))
	}
	if socket.handshake != nil { // the upgrader has refused
		socket.handshake <- struct{}{}
	}
	s.open.Done()
}

// connect runs when the client is connected, before anything is read.
func (s *sockets) connect(session *melody.Session) {
	key, _ := session.Get("socket")
	socket := key.(*socket)
	session.Request, session.Keys = nil, nil // or an idle socket would keep them
	handshake := socket.handshake
	socket.conn, socket.handshake = session.WebsocketConnection(), nil
	socket.conn.SetPingHandler(socket.pong)
	s.roll.add(session, socket)
	s.options.meter().Opened()
	handshake <- struct{}{}
	<-handshake
}

// onOwnStack runs f on a stack that is thrown away: the reader's would stay grown, for each socket that is open.
func (s *sockets) onOwnStack(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
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
	MessageBytes int `json:"messageBytes"`
}

func (s *sockets) welcome(socket *socket, reachable bool) []byte {
	data := welcome{Socket: socket.ID, Instance: s.options.Instance, Reachable: reachable, Limits: limits{s.options.MaxMessageBytes}}
	if socket.User != "" {
		data.User = &socket.User
	}
	return encodeFrame(eventWelcome, mustMarshal(data), "", "")
}

// receive handles one text frame.
func (s *sockets) receive(session *melody.Session, frame []byte) {
	socket := s.roll.of(session)
	if len(frame) > s.options.MaxMessageBytes {
		socket.sendFrame(encodeError(&frameError{codeFrameTooLarge,
			fmt.Sprintf("the frame has %d bytes; the limit is %d", len(frame), s.options.MaxMessageBytes)}, ""))
		return
	}
	s.onOwnStack(func() {
		defer logPanic(s.options.Log, "message", "user", socket.User)
		s.gateway.answer(s.options.Context, socket, frame)
	})
	_ = socket.conn.SetReadDeadline(time.Now().Add(pongWait)) // its pongs wait behind this message
}

// closed runs when the client sends a close frame.
func (s *sockets) closed(session *melody.Session, code int, _ string) error {
	socket := s.roll.of(session)
	socket.closing.note(ByClient, code)
	socket.outbox.end() // what is written from here on the client does not read
	if !socket.ended.Load() {
		socket.left.Store(code == websocket.CloseNormalClosure)
		echo := websocket.FormatCloseMessage(code, "")
		if code == websocket.CloseNoStatusReceived {
			echo = nil
		}
		socket.writeClose(echo)
	}
	return nil
}

func (s *sockets) disconnect(session *melody.Session) {
	socket := s.roll.of(session)
	s.roll.remove(session)
	s.options.meter().Closed(socket.closing.first())
	socket.outbox.end()
	s.mirror.Leave(&socket.Socket, socket.left.Load())
}
