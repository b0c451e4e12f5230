package handlers

import (
	"errors"
	"log/slog"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/presence"
)

// Send implements presence.Conn.
func (s *socket) Send(messages ...presence.Message) bool {
	taken, full := s.outbox.push(messages)
	if full {
		s.TooSlow()
		s.writeClose(websocket.FormatCloseMessage(closeTooSlow, "too slow: messages waiting for this client were dropped"))
		s.conn.CloseAfter(closeTime)
	}
	return taken
}

// TooSlow implements nbconn.Owner.
func (s *socket) TooSlow() {
	s.closing.note(ByServer, closeTooSlow)
	s.hub.slow.Add(1)
}

// sendFrame sends a frame of which nobody wants to hear.
func (s *socket) sendFrame(frame []byte) { s.Send(presence.Message{Frame: frame}) }

// write implements writer. Only the outbox calls it, one at a time, as gorilla/websocket wants it.
func (s *socket) write(messages []presence.Message) (sent bool) {
	var err error
	if len(messages) == 1 && len(messages[0].Frame) <= writeBufferBytes { // will be one write anyway
		err = s.writeEach(messages)
	} else {
		err = s.conn.Batch(func() error { return s.writeEach(messages) })
	}
	return err == nil && s.allSent() // an error means that it is closed, which disconnect deals with
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
		prepared, _ := websocket.NewPreparedMessage(websocket.TextMessage, message.Frame) // fails for no text
		return prepared
	}).(*websocket.PreparedMessage)
	if !ok {
		return errors.New("handlers: a shared frame has another form")
	}
	return s.ws.WritePreparedMessage(prepared)
}

func (s *socket) trace(frame []byte) {
	if log := s.hub.options.Log; log.Enabled(s.hub.options.Context, slog.LevelDebug) {
		log.Debug("written", "id", frameID(frame), "socket", s.ID, "user", s.User)
	}
}

// Flushed implements nbconn.Owner.
func (s *socket) Flushed() {
	s.pongLast()
	if farewell := s.outbox.written(); farewell != nil {
		s.writeClose(farewell)
	}
}

// Reachable implements presence.Conn.
func (s *socket) Reachable() {
	s.sendFrame(encodeFrame(eventReachable, []byte("{}"), "", ""))
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
	if farewell := s.outbox.seal(last, code, reason); farewell != nil {
		s.writeClose(farewell)
	}
}

// writeClose sends a close frame. The client answers with its own, which ends the reader.
func (s *socket) writeClose(payload []byte) {
	s.closing.note(ByServer, closeCode(payload))
	s.ended.Store(true)
	_ = s.ws.WriteControl(websocket.CloseMessage, payload, time.Now().Add(closeTime)) // it may be gone
}

// cut closes the connection under the socket.
func (s *socket) cut() {
	s.closing.note(ByServer, websocket.CloseAbnormalClosure)
	s.ended.Store(true)
	_ = s.ws.Close()
}
