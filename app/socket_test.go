package main

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rollcall/lua/redistest"
)

// frame is one from the server.
type frame struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	ID    string          `json:"id"`
	Ref   string          `json:"ref"`
}

// socket is a socket of a user.
type socket struct {
	t      *testing.T
	conn   *websocket.Conn
	frames chan frame // closed with the connection
	ended  error      // why, when frames is closed
	id     string     // from the welcome
}

// connect opens a socket and waits for its welcome. Without a user it is anonymous.
func connect(t *testing.T, a *App, user string) *socket {
	t.Helper()
	query := ""
	if user != "" {
		query = "?token=" + token(t, user)
	}
	return dial(t, "ws://"+a.Addr+"/ws"+query, nil)
}

// dialRaw opens a user's socket. Its welcome is the first frame to be read.
func dialRaw(t *testing.T, a *App, user string) *socket {
	t.Helper()
	return open(t, "ws://"+a.Addr+"/ws?token="+token(t, user), nil)
}

func dial(t *testing.T, address string, header http.Header) *socket {
	t.Helper()
	s := open(t, address, header)
	var data struct {
		Socket string `json:"socket"`
	}
	welcome := s.next()
	if welcome.Event != "rollcall:welcome" {
		t.Fatalf("the first frame is %s", welcome.Event)
	}
	if err := json.Unmarshal(welcome.Data, &data); err != nil || data.Socket == "" {
		t.Fatalf("welcome %s: %v", welcome.Data, err)
	}
	s.id = data.Socket
	return s
}

func open(t *testing.T, address string, header http.Header) *socket {
	t.Helper()
	conn, response, err := websocket.DefaultDialer.Dial(address, header)
	if err != nil {
		if response != nil {
			body, _ := io.ReadAll(response.Body)
			t.Fatalf("connect: %v: %s", err, body)
		}
		t.Fatalf("connect: %v", err)
	}
	s := &socket{t: t, conn: conn, frames: make(chan frame, 10000)}
	go s.read()
	t.Cleanup(func() { conn.Close() })
	return s
}

func (s *socket) read() {
	defer close(s.frames)
	for {
		var f frame
		if s.ended = s.conn.ReadJSON(&f); s.ended != nil {
			return
		}
		s.frames <- f
	}
}

// next waits for the next frame.
func (s *socket) next() frame {
	s.t.Helper()
	select {
	case f, ok := <-s.frames:
		if !ok {
			s.t.Fatalf("the connection ended: %v", s.ended)
		}
		return f
	case <-time.After(redistest.Patience):
		s.t.Fatal("no frame came")
		return frame{}
	}
}

// wantFrame checks that the next frame is this one.
func (s *socket) wantFrame(event, data string) frame {
	s.t.Helper()
	f := s.next()
	if f.Event != event || !sameJSON(string(f.Data), data) {
		s.t.Fatalf("got %s %s, want %s %s", f.Event, f.Data, event, data)
	}
	return f
}

// wantError checks that the next frame is an error with this code and ref.
func (s *socket) wantError(code, ref string) {
	s.t.Helper()
	f := s.next()
	var data struct{ Code, Message string }
	if err := json.Unmarshal(f.Data, &data); err != nil || f.Event != "rollcall:error" || data.Code != code ||
		data.Message == "" || f.Ref != ref {
		s.t.Fatalf("got %s %s ref %q, want rollcall:error %s ref %q", f.Event, f.Data, f.Ref, code, ref)
	}
}

// wantClose waits until the connection ends with a close code, and returns the frames that came before.
func (s *socket) wantClose(code int) (frames []frame) {
	s.t.Helper()
	for {
		select {
		case f, ok := <-s.frames:
			if ok {
				frames = append(frames, f)
				continue
			}
			if !websocket.IsCloseError(s.ended, code) {
				s.t.Fatalf("the connection ended with %v, want close code %d", s.ended, code)
			}
			return frames
		case <-time.After(redistest.Patience):
			s.t.Fatal("the connection did not end")
		}
	}
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := s.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// leave closes on purpose, with code 1000.
func (s *socket) leave() {
	s.t.Helper()
	if err := s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""),
		time.Now().Add(redistest.Patience)); err != nil {
		s.t.Fatal(err)
	}
	s.wantClose(1000)
}

// drop cuts the connection, as a tunnel does.
func (s *socket) drop() { s.conn.Close() }
