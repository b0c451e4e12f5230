package handlers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const (
	// frames up to this many times the limit are read, thrown away, and refused in words; beyond it the
	// socket is closed with 1009
	readSlack = 4
	// a message may come in many frames, but not with more than this beside what readSlack allows of it:
	// empty frames cost time to read
	frameSlack = 64 << 10
	// messageTime is for a message to arrive, from its first frame on. Pings and pongs between its frames do
	// not extend it.
	messageTime = 10 * time.Second
	// lingerBytes is the most that is read after a close frame, for the client to read that
	lingerBytes = 1 << 20
	// ackBytes is more than a confirmation needs that a client has not padded.
	ackBytes = 256

	closeTooManyFrames = 4102
)

// reading is what the reader of a socket knows.
type reading struct {
	bucket    bucket
	received  int64   // what the line had received when the bucket was last charged
	inMessage bool    // a message has begun, and its end has not come yet
	room      *upload // of that message; nil unless it is large
}

// read reads what the client sends until the connection ends. Melody would keep all of a message, however
// large and slow, and would not know how long it takes; so we read ourselves, on Melody's goroutine. What is
// on the stack here stays there for each idle socket.
func (s *socket) read() {
	s.conn.SetReadLimit(readSlack * int64(s.hub.options.MaxMessageBytes))
	s.conn.SetPingHandler(s.pong)
	s.conn.SetPongHandler(s.ponged)
	s.conn.SetCloseHandler(s.closed)
	for {
		s.expectWithin(pongWait)
		kind, r, err := s.conn.NextReader()
		if err != nil {
			s.giveUp(err)
			return
		}
		s.reading.inMessage = true
		s.line.most = s.line.received + readSlack*int64(s.hub.options.MaxMessageBytes) + frameSlack
		s.expectWithin(messageTime)
		frame, size, err := s.readMessage(r)
		if err != nil {
			s.giveUp(err)
			return
		}
		s.reading.inMessage, s.line.most = false, 0
		s.heard()
		s.take(kind, frame, size)
	}
}

func (s *socket) expectWithin(d time.Duration) { _ = s.conn.SetReadDeadline(time.Now().Add(d)) }

// heard notes that the client lives.
func (s *socket) heard() { s.lastHeard.Store(int64(s.hub.now())) }

// now is the time since this server started, which no change of the clock moves.
func (s *sockets) now() time.Duration { return time.Since(s.started) }

var errNoRoom = errors.New("handlers: other clients need the room of this message")

// readMessage reads a message to its end. What is longer than the limit is not kept.
func (s *socket) readMessage(r io.Reader) (frame []byte, size int, err error) {
	frame, size, err = s.collect(r)
	if room := s.reading.room; room != nil {
		s.reading.room = nil
		if held := s.hub.unfinished.release(room); !held && err != nil {
			err = errNoRoom
		}
	}
	return frame, size, err
}

func (s *socket) collect(r io.Reader) (frame []byte, size int, err error) {
	limit := s.hub.options.MaxMessageBytes
	frame = make([]byte, 0, min(512, limit+1))
	for {
		n, err := r.Read(frame[len(frame):cap(frame)])
		frame = frame[:len(frame)+n]
		switch {
		case err == io.EOF:
			return frame, len(frame), nil
		case err != nil:
			return nil, 0, err
		case len(frame) > limit:
			size, frame = len(frame), nil
			if room := s.reading.room; room != nil {
				s.hub.unfinished.release(room)
				s.reading.room = nil
			}
			rest, err := io.Copy(io.Discard, r)
			return nil, size + int(rest), err
		case len(frame) == cap(frame):
			frame = append(make([]byte, 0, s.roomFor(min(2*cap(frame), limit+1))), frame...)
		}
	}
}

// roomFor takes room for so many bytes of the message.
func (s *socket) roomFor(bytes int) int {
	if bytes > smallMessage {
		if s.reading.room == nil {
			// the deadline wakes the reader, which says goodbye
			s.reading.room = &upload{giveUp: func() { _ = s.conn.SetReadDeadline(time.Unix(0, 0)) }}
		}
		s.hub.unfinished.grow(s.reading.room, bytes)
	}
	return bytes
}

// giveUp closes a socket of which nothing more is read, and tells the client why, if it is still there.
func (s *socket) giveUp(err error) {
	late := net.Error(nil)
	switch {
	case err == errNoRoom:
		s.unfinished("too many clients have sent parts of messages, and this one was begun first")
	case err == errLineRead:
		s.end(websocket.CloseMessageTooBig, "a message in far too many frames")
	case s.reading.inMessage && errors.As(err, &late) && late.Timeout():
		s.unfinished(fmt.Sprintf("a message must arrive whole within %v", messageTime))
	case err == websocket.ErrReadLimit: // the close frame is written
		s.outbox.end()
		s.ended.Store(true)
	default:
		return
	}
	s.line.most = 0
	s.expectWithin(closePatience)
	_, _ = io.CopyN(io.Discard, &s.line, lingerBytes) // or TCP would drop the close frame for what was not read
}

func (s *socket) unfinished(reason string) {
	s.hub.unfinishedCut.Add(1)
	s.end(websocket.ClosePolicyViolation, reason)
}

// take handles a message, and then waits as long as the client's rate wants it: meanwhile nothing is read, so
// that TCP holds a client up that sends too fast.
func (s *socket) take(kind int, frame []byte, size int) {
	var wait time.Duration
	s.onOwnStack(func() {
		defer logPanic(s.hub.options.Log, "message", "user", s.User)
		wait = s.judge(kind, frame, size)
	})
	s.pause(wait)
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

// judge handles a message or refuses it. It returns how long to wait before the next.
func (s *socket) judge(kind int, frame []byte, size int) (wait time.Duration) {
	if s.confirms(kind, frame) {
		s.reading.received = s.line.received
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
	case size > s.hub.options.MaxMessageBytes:
		fault = &frameError{codeFrameTooLarge,
			fmt.Sprintf("the frame has %d bytes; the limit is %d", size, s.hub.options.MaxMessageBytes)}
	case !utf8.Valid(frame):
		s.end(websocket.CloseInvalidFramePayloadData, "a text frame was not UTF-8")
		return wait
	default:
		s.hub.gateway.answer(s.hub.options.Context, s, frame)
		return wait
	}
	s.sendFrame(encodeError(fault, refOf(kind, frame)))
	return wait
}

// refOf is the ref in a frame that is not handled; empty: there is none.
func refOf(kind int, frame []byte) string {
	if kind != websocket.TextMessage {
		return ""
	}
	m, _ := parseMessage(frame) // with an error it may still have one
	return m.ref
}

// confirms takes the client's word that it got a push, if it was asked for it. That costs no token: a backend
// may push faster than a client may send, and who confirms what it was asked to confirm must not be refused
// for it. Each push is confirmed once, so it is the backend that sets the pace. Every other frame costs, also
// a confirmation of a push that nobody waits for.
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

// charge takes tokens for a frame, and for all bytes that came since the last. It returns how long it takes
// until they are there.
func (s *socket) charge() (wait time.Duration) {
	bytes := s.line.received - s.reading.received
	s.reading.received = s.line.received
	return s.reading.bucket.take(s.hub.now(), s.hub.options.ClientRate, bytes)
}

// refused notes that a frame was refused for the rate, and closes the socket if that goes on for too long.
func (s *socket) refused() (closed bool) {
	s.hub.rateLimited.Add(1)
	if !s.reading.bucket.refuse(s.hub.now()) {
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
	case <-s.line.ended():
	}
}

// control notes a ping or pong of the client. Control frames cost as much as others, but there is no frame to
// answer that one was too many: the reader only waits.
func (s *socket) control() {
	s.heard()
	if wait := s.charge(); wait > 0 {
		if !s.outbox.isSealed() {
			s.refused()
		}
		s.pause(wait)
	}
	if !s.reading.inMessage {
		s.expectWithin(pongWait)
	}
}

// ponged runs when the client answers a ping, or sends a pong that nobody asked for.
func (s *socket) ponged(string) error {
	s.control()
	return nil
}
