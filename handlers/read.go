package handlers

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"rollcall/handlers/nbconn"
)

const (
	// frames up to this many times the limit are read, and refused in words; beyond it the socket is closed with 1009
	readSlack = 4
	// a message may come in many frames, but not with more than this beside what readSlack allows of it: empty frames cost time to read
	frameSlack = 64 << 10
	// messageTime is for a message to arrive, from its first frame on. Pings and pongs between its frames do not extend it.
	messageTime = 10 * time.Second
	// unfinishedBytes is the most that an instance keeps of large messages whose end has not come yet.
	unfinishedBytes = 64 << 20
	// lingerBytes is the most that is read after a close frame, for the client to read that
	lingerBytes = 1 << 20
	// ackBytes is more than a confirmation needs that a client has not padded.
	ackBytes = 256

	closeTooManyFrames = 4102
)

// handleReads has Melody, which reads, hand on what it has read. All of these run on the goroutine of the socket's reader. What they have
// on the stack stays there for each idle socket, so it is little.
func (s *sockets) handleReads() {
	s.melody.Config.MaxMessageSize = readSlack * int64(s.options.MaxMessageBytes)
	s.melody.Config.PongWait = pongWait
	s.melody.HandleMessage(func(session *melody.Session, frame []byte) {
		s.roll.of(session).take(websocket.TextMessage, frame)
	})
	s.melody.HandleMessageBinary(func(session *melody.Session, frame []byte) {
		s.roll.of(session).take(websocket.BinaryMessage, frame)
	})
	s.melody.HandlePong(func(session *melody.Session) { s.roll.of(session).control() })
	s.melody.HandleClose(func(session *melody.Session, code int, _ string) error {
		s.roll.of(session).closed(code)
		return nil
	})
	s.melody.HandleError(func(session *melody.Session, err error) { s.roll.of(session).giveUp(err) })
}

// limits are those of every connection.
func (s *sockets) limits() nbconn.Limits {
	return nbconn.Limits{
		Backlog: backlogBytes, Stall: writeTime,
		MessageTime: messageTime, MessageBytes: readSlack*int64(s.options.MaxMessageBytes) + frameSlack, Silence: pongWait,
		UnfinishedBytes: unfinishedBytes,
	}
}

// heard notes that the client lives.
func (s *socket) heard() { s.lastHeard.Store(int64(s.hub.now())) }

// now is the time since this server started, which no change of the clock moves.
func (s *sockets) now() time.Duration { return time.Since(s.started) }

// take handles a message, and then waits as long as the client's rate wants it: meanwhile nothing is read, so that TCP holds a client up
// that sends too fast.
func (s *socket) take(kind int, frame []byte) {
	s.heard()
	var wait time.Duration
	s.onOwnStack(func() {
		defer logPanic(s.hub.options.Log, "message", "user", s.User)
		s.hub.standBack()
		wait = s.judge(kind, frame)
	})
	s.pause(wait)
	s.conn.ExtendDeadline() // its pongs, or more of a message, wait behind this one
}

// onOwnStack runs f on a stack that is thrown away: the reader's would stay grown, for each socket that is open.
func (s *socket) onOwnStack(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// standBack lets frames in one at a time, and each only when all else that is ready to run has had its turn. So a
// thousand clients that send all they may wait behind each other, and neither a push nor the renewal of the lease
// waits behind a thousand frames. It waits for nothing but the processor.
func (s *sockets) standBack() {
	s.door <- struct{}{}
	runtime.Gosched()
	<-s.door
}

// judge handles a message or refuses it. It returns how long to wait before the next.
func (s *socket) judge(kind int, frame []byte) (wait time.Duration) {
	if s.confirms(kind, frame) {
		s.charged = s.conn.Received()
		return 0
	}
	wait = s.charge()
	fault := &frameError{codeRateLimited, "the frame was not handled: this client sends faster than it may"}
	switch {
	case s.outbox.isSealed(): // it was told to go
		return wait
	case wait > 0:
		if s.refused() {
			return wait
		}
	case kind == websocket.BinaryMessage:
		fault = &frameError{codeBinaryFrame, "frames must be text; send the JSON as a text frame"}
	case len(frame) > s.hub.options.MaxMessageBytes:
		fault = &frameError{codeFrameTooLarge, fmt.Sprintf("the frame has %d bytes; the limit is %d", len(frame), s.hub.options.MaxMessageBytes)}
	case !utf8.Valid(frame):
		s.end(websocket.CloseInvalidFramePayloadData, "a text frame was not UTF-8")
		return wait
	default:
		s.hub.gateway.answer(s.hub.options.Context, s, frame)
		return wait
	}
	s.sendFrame(encodeError(fault, s.refOf(kind, frame)))
	return wait
}

// refOf is the ref in a frame that is not handled; empty: there is none, or the frame is too long to look.
func (s *socket) refOf(kind int, frame []byte) string {
	if kind != websocket.TextMessage || len(frame) > s.hub.options.MaxMessageBytes {
		return ""
	}
	m, _ := parseMessage(frame) // with an error it may still have one
	return m.ref
}

// confirms takes the client's word that it got a push, if it was asked for it. That costs no token: a backend may push faster than a
// client may send, and who confirms what it was asked to confirm must not be refused for it. Each push is confirmed once, so it is the
// backend that sets the pace. Every other frame costs, also a confirmation of a push that nobody waits for.
func (s *socket) confirms(kind int, frame []byte) bool {
	if kind != websocket.TextMessage || len(frame) > ackBytes || !bytes.Contains(frame, []byte(eventAck)) {
		return false
	}
	m, err := parseMessage(frame)
	if err != nil || m.event != eventAck {
		return false
	}
	push, err := confirmedPush(m)
	return err == nil && s.outbox.acked(push)
}

// charge takes tokens for a frame, and for all bytes that came since the last. It returns how long it takes until they are there.
func (s *socket) charge() (wait time.Duration) {
	bytes := s.conn.Received() - s.charged
	s.charged = s.conn.Received()
	return s.bucket.take(s.hub.now(), s.hub.options.ClientRate, bytes)
}

// refused notes that a frame was refused for the rate, and closes the socket if that goes on for too long.
func (s *socket) refused() (closed bool) {
	s.hub.rateLimited.Add(1)
	if !s.bucket.refuse(s.hub.now()) {
		return false
	}
	s.hub.floods.Add(1)
	s.end(closeTooManyFrames, fmt.Sprintf("more than %d frames a second for %v", s.hub.options.ClientRate, floodTime))
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

// control notes a ping or pong of the client. Control frames cost as much as others, but there is no frame to answer that one was too many:
// the reader only waits.
func (s *socket) control() {
	s.heard()
	if wait := s.charge(); wait > 0 {
		if !s.outbox.isSealed() {
			s.refused()
		}
		s.pause(wait)
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(pongWait)) // which does not move that of a message
}

// closed runs when the client sends a close frame.
func (s *socket) closed(code int) {
	s.closing.note(ByClient, code)
	s.outbox.end() // what is written from here on the client does not read
	if s.ended.Load() {
		return
	}
	s.left.Store(code == websocket.CloseNormalClosure)
	echo := websocket.FormatCloseMessage(code, "")
	if code == websocket.CloseNoStatusReceived {
		echo = nil
	}
	s.writeClose(echo)
}

// giveUp runs when nothing more is read from a socket. It tells the client why, if it is still there.
func (s *socket) giveUp(err error) {
	switch {
	case errors.Is(err, nbconn.ErrNoRoom):
		s.unfinished("too many clients have sent parts of messages, and this one was begun first")
	case errors.Is(err, nbconn.ErrTooLarge):
		s.end(websocket.CloseMessageTooBig, "a message in far too many frames")
	case errors.Is(err, nbconn.ErrTooLate):
		s.unfinished(fmt.Sprintf("a message must arrive whole within %v", messageTime))
	case errors.Is(err, websocket.ErrReadLimit): // the close frame is written
		s.closing.note(ByServer, websocket.CloseMessageTooBig)
		s.outbox.end()
		s.ended.Store(true)
	default:
		return
	}
	s.conn.Discard(closePatience, lingerBytes)
}

func (s *socket) unfinished(reason string) {
	s.hub.unfinishedCut.Add(1)
	s.end(websocket.ClosePolicyViolation, reason)
}
