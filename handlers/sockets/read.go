package sockets

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"rollcall/handlers/nbconn"
	"rollcall/handlers/panics"
)

const (
	// readSlack: frames up to this many times the limit are read, and refused in words. A larger one closes
	// its socket, with 1009.
	readSlack = 4
	// frameSlack is what a message may have on the wire beyond that. It may come in many frames, but empty
	// ones cost time to read.
	frameSlack = 64 << 10
	// messageTime is how long a message may take to arrive, from its first frame on. Pings and pongs between
	// its frames do not extend it.
	messageTime = 10 * time.Second
	// unfinishedBytes is the most that an instance keeps of large messages whose end has not come yet.
	unfinishedBytes = 64 << 20
	// lingerBytes is the most that is read after a close frame, so that the client can read that frame.
	lingerBytes = 1 << 20
	// ackBytes is the longest frame that takeAck looks into. A confirmation is shorter, unless the client has
	// padded it.
	ackBytes = 256

	closeTooManyFrames = 4102 // the client sent too many frames for too long
)

// limits are those of every connection.
func (s *Server) limits() nbconn.Limits {
	return nbconn.Limits{
		Backlog: backlogBytes, Stall: writeTime,
		MessageTime: messageTime, MessageBytes: readSlack*int64(s.options.MaxMessageBytes) + frameSlack,
		Silence: pongWait, UnfinishedBytes: unfinishedBytes,
	}
}

// All of the following run on the goroutine that reads the socket, unless they say otherwise. What they have
// on the stack while they wait stays there for each idle socket, so it is little.

// receive handles a message. If the client sends faster than it may, receive then waits: meanwhile nothing is
// read, and TCP holds the client up.
func (s *socket) receive(kind int, frame []byte) {
	s.heard()
	var wait time.Duration
	s.onOwnStack(func() {
		defer panics.Log(s.server.options.Log, "message", "user", s.User)
		s.server.standBack()
		wait = s.handle(kind, frame)
	})
	s.pause(wait)
	s.conn.ExtendDeadline() // the client's pongs, or more of a message, have waited behind this one
}

// onOwnStack runs f on a stack that is thrown away: the reader's would stay grown, for each socket that is
// open.
func (s *socket) onOwnStack(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// standBack lets frames in one at a time, and each only after all else that is ready to run has had its turn.
// So if a thousand clients send all they may, they wait behind each other. Neither a push nor the renewal of
// the lease waits behind a thousand frames. standBack waits for nothing but the processor.
func (s *Server) standBack() {
	s.door <- struct{}{}
	runtime.Gosched()
	<-s.door
}

// handle has a message dispatched or refuses it. It returns how long to wait before the next. It runs on a
// goroutine of its own, while the reader waits.
func (s *socket) handle(kind int, frame []byte) (wait time.Duration) {
	if s.takeAck(kind, frame) {
		s.charged = s.conn.Received()
		return 0
	}
	wait = s.charge()
	fault := &frameError{codeRateLimited, "the frame was not handled: this client sends faster than it may"}
	most := s.server.options.MaxMessageBytes
	switch {
	case s.outbox.isSealed(): // it was told to go
		return wait
	case wait > 0:
		if s.noteRefusal() {
			return wait
		}
	case kind == websocket.BinaryMessage:
		fault = &frameError{codeBinaryFrame, "frames must be text; send the JSON as a text frame"}
	case len(frame) > most:
		fault = &frameError{codeFrameTooLarge,
			fmt.Sprintf("the frame has %d bytes; the limit is %d", len(frame), most)}
	case !utf8.Valid(frame):
		s.end(websocket.CloseInvalidFramePayloadData, "a text frame was not UTF-8")
		return wait
	default:
		s.server.dispatcher.dispatch(s.server.options.Context, s, frame)
		return wait
	}
	s.sendFrame(encodeError(fault, s.refOf(kind, frame)))
	return wait
}

// refOf is the ref in a frame that is not handled. Empty: there is none, or the frame is too long to look.
func (s *socket) refOf(kind int, frame []byte) string {
	if kind != websocket.TextMessage || len(frame) > s.server.options.MaxMessageBytes {
		return ""
	}
	m, _ := parseMessage(frame) // with an error it may still have one
	return m.ref
}

// takeAck takes a frame if it confirms a push that somebody waits for. This costs the client nothing: a
// backend may push faster than a client may send, and a client that confirms what it was asked to confirm
// must not be refused. Each push is confirmed once, so the backend sets the pace. Every other frame has its
// cost, also a confirmation that nobody waits for.
func (s *socket) takeAck(kind int, frame []byte) bool {
	if kind != websocket.TextMessage || len(frame) > ackBytes || !bytes.Contains(frame, []byte(eventAck)) {
		return false
	}
	m, err := parseMessage(frame)
	if err != nil || m.event != eventAck {
		return false
	}
	push, err := confirmedPush(m)
	return err == nil && s.outbox.ack(push)
}

// charge takes tokens for a frame, and for all bytes that came since the last. It returns how long it takes
// until they are there.
func (s *socket) charge() (wait time.Duration) {
	bytes := s.conn.Received() - s.charged
	s.charged = s.conn.Received()
	return s.bucket.take(s.server.now(), s.server.options.ClientRate, bytes)
}

// noteRefusal notes that a frame was refused for the rate. If that goes on for too long, it closes the
// socket.
func (s *socket) noteRefusal() (closed bool) {
	s.server.Counts.RateLimited.Add(1)
	if !s.bucket.refuse(s.server.now()) {
		return false
	}
	s.server.Counts.Floods.Add(1)
	rate := s.server.options.ClientRate
	s.end(closeTooManyFrames, fmt.Sprintf("more than %d frames a second for %v", rate, floodTime))
	return true
}

// pause waits, but no longer than the connection is open.
func (s *socket) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.conn.Done():
	}
}

// receiveControl notes a ping or pong of the client. Control frames cost as much as others. But no frame
// could tell the client that one was too many, so the reader only waits.
func (s *socket) receiveControl() {
	s.heard()
	if wait := s.charge(); wait > 0 {
		if !s.outbox.isSealed() {
			s.noteRefusal()
		}
		s.pause(wait)
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(pongWait)) // which does not move that of a message
}

// receiveClose runs when the client sends a close frame.
func (s *socket) receiveClose(code int) {
	s.closing.note(ByClient, code)
	s.outbox.end() // the client does not read what is written from here on
	if s.closeSent.Load() {
		return
	}
	s.left.Store(code == websocket.CloseNormalClosure)
	echo := websocket.FormatCloseMessage(code, "")
	if code == websocket.CloseNoStatusReceived {
		echo = nil
	}
	s.writeClose(echo)
}

// endReading runs when nothing more is read from a socket. It tells the client why, if it is still there.
func (s *socket) endReading(err error) {
	switch {
	case errors.Is(err, nbconn.ErrNoRoom):
		s.endUnfinished("too many clients have sent parts of messages, and this one was begun first")
	case errors.Is(err, nbconn.ErrTooLate):
		s.endUnfinished(fmt.Sprintf("a message must arrive whole within %v", messageTime))
	case errors.Is(err, nbconn.ErrTooLarge):
		s.end(websocket.CloseMessageTooBig, "a message in far too many frames")
	case errors.Is(err, websocket.ErrReadLimit): // gorilla/websocket has written the close frame
		s.closing.note(ByServer, websocket.CloseMessageTooBig)
		s.outbox.end()
		s.closeSent.Store(true)
	default:
		return
	}
	s.conn.Discard(closePatience, lingerBytes)
}

func (s *socket) endUnfinished(reason string) {
	s.server.Counts.Unfinished.Add(1)
	s.end(websocket.ClosePolicyViolation, reason)
}
