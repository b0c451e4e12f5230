package sockets

import (
	"errors"
	"log/slog"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/presence"
)

const (
	closeTooSlow = 4290 // the client reads too slowly

	writeBufferBytes = 1024 // of gorilla/websocket; a longer frame is written in parts

	tooSlowTime   = 100 * time.Millisecond // that a client that is too slow has to read its close frame
	closePatience = time.Second            // that others have to read what waits, and their close frame
)

// Send implements presence.Conn.
func (s *socket) Send(messages ...presence.Message) bool {
	taken, full := s.outbox.push(messages)
	if full {
		s.TooSlow()
		s.writeClose(websocket.FormatCloseMessage(closeTooSlow,
			"too slow: messages waiting for this client were dropped"))
		s.conn.CloseAfter(tooSlowTime)
	}
	return taken
}

// TooSlow implements nbconn.Owner.
func (s *socket) TooSlow() {
	s.closing.note(ByServer, closeTooSlow)
	s.server.Counts.TooSlow.Add(1)
}

// sendFrame sends a frame that nobody tracks.
func (s *socket) sendFrame(frame []byte) { s.Send(presence.Message{Frame: frame}) }

// write implements writer. Only the outbox calls it, one call at a time, as gorilla/websocket wants it.
func (s *socket) write(messages []presence.Message) (sent bool) {
	var err error
	if len(messages) == 1 && len(messages[0].Frame) <= writeBufferBytes { // is one write anyway
		err = s.writeEach(messages)
	} else {
		err = s.conn.Batch(func() error { return s.writeEach(messages) })
	}
	return err == nil && s.allSent() // an error means that the connection is closed: see disconnected
}

// allSent implements writer.
func (s *socket) allSent() bool { return s.conn.Flushed() }

func (s *socket) writeEach(messages []presence.Message) error {
	for _, message := range messages {
		if err := s.writeOne(message); err != nil {
			return err
		}
		s.trace(message.Frame)
	}
	return nil
}

func (s *socket) writeOne(message presence.Message) error {
	if message.Shared == nil {
		return s.ws.WriteMessage(websocket.TextMessage, message.Frame)
	}
	prepared, ok := message.Shared.Form(func() any {
		// it never fails for text
		prepared, _ := websocket.NewPreparedMessage(websocket.TextMessage, message.Frame)
		return prepared
	}).(*websocket.PreparedMessage)
	if !ok {
		return errors.New("sockets: a shared frame has another form")
	}
	return s.ws.WritePreparedMessage(prepared)
}

func (s *socket) trace(frame []byte) {
	if log := s.server.options.Log; log.Enabled(s.server.options.Context, slog.LevelDebug) {
		log.Debug("written", "id", frameID(frame), "socket", s.ID, "user", s.User)
	}
}

// Flushed implements nbconn.Owner.
func (s *socket) Flushed() {
	s.sendPong()
	s.closeIfDue(s.outbox.written())
}

// Reachable implements presence.Conn.
func (s *socket) Reachable() {
	s.sendFrame(EncodeFrame(eventReachable, []byte("{}"), "", ""))
}

// Close implements presence.Conn. A client that was told not to come back (4000–4099) has left.
func (s *socket) Close(code int, reason string) {
	s.left.Store(4000 <= code && code < 4100)
	s.end(code, reason)
}

// end takes nothing more from the client, and closes the socket when all that waits for it is written.
func (s *socket) end(code int, reason string) {
	s.closeAfter(nil, code, reason)
	s.conn.CloseAfter(closePatience) // if the client does not go by itself
}

// closeAfter sends a last frame and a close frame after all that waits.
func (s *socket) closeAfter(last []byte, code int, reason string) {
	s.closeIfDue(s.outbox.seal(last, code, reason))
}

// closeIfDue sends a close frame that the outbox says is due; nil: none is.
func (s *socket) closeIfDue(payload []byte) {
	if payload != nil {
		s.writeClose(payload)
	}
}

// writeClose sends a close frame. The client answers with its own, which ends the reader.
func (s *socket) writeClose(payload []byte) {
	s.closing.note(ByServer, closeCode(payload))
	s.closeSent.Store(true)
	// an error means that the client is gone
	_ = s.ws.WriteControl(websocket.CloseMessage, payload, time.Now().Add(controlTime))
}

// controlTime is how long a control frame waits for gorilla/websocket's lock, which another write may hold.
// No write waits for the client, so this is short.
const controlTime = 100 * time.Millisecond

// cut closes the connection under the socket.
func (s *socket) cut() {
	s.closing.note(ByServer, websocket.CloseAbnormalClosure)
	s.closeSent.Store(true)
	_ = s.ws.Close()
}
