package main

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// frame is one from the server.
type frame struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	ID    string          `json:"id"`
	Ref   string          `json:"ref"`
}

// client is a socket of a user.
type client struct {
	t      *testing.T
	conn   *websocket.Conn
	frames chan frame // closed with the connection
	ended  error      // why, when frames is closed
	id     string     // from the welcome
}

// connect opens a socket and waits for its welcome; without a user it is anonymous.
func connect(t *testing.T, a *App, user string) *client {
	t.Helper()
	query := ""
	if user != "" {
		query = "?token=" + token(t, user)
	}
	return dial(t, "ws://"+a.Addr+"/ws"+query, nil)
}

// dialRaw opens a user's socket and leaves the welcome to be read.
func dialRaw(t *testing.T, a *App, user string) *client {
	t.Helper()
	return open(t, "ws://"+a.Addr+"/ws?token="+token(t, user), nil)
}

func dial(t *testing.T, address string, header http.Header) *client {
	t.Helper()
	c := open(t, address, header)
	var data struct {
		Socket string `json:"socket"`
	}
	welcome := c.next()
	if welcome.Event != "rollcall:welcome" {
		t.Fatalf("the first frame is %s", welcome.Event)
	}
	if err := json.Unmarshal(welcome.Data, &data); err != nil || data.Socket == "" {
		t.Fatalf("welcome %s: %v", welcome.Data, err)
	}
	c.id = data.Socket
	return c
}

func open(t *testing.T, address string, header http.Header) *client {
	t.Helper()
	conn, response, err := websocket.DefaultDialer.Dial(address, header)
	if err != nil {
		if response != nil {
			body, _ := io.ReadAll(response.Body)
			t.Fatalf("connect: %v: %s", err, body)
		}
		t.Fatalf("connect: %v", err)
	}
	c := &client{t: t, conn: conn, frames: make(chan frame, 10000)}
	go c.read()
	t.Cleanup(func() { conn.Close() })
	return c
}

func (c *client) read() {
	defer close(c.frames)
	for {
		var f frame
		if c.ended = c.conn.ReadJSON(&f); c.ended != nil {
			return
		}
		c.frames <- f
	}
}

// next is the next frame.
func (c *client) next() frame {
	c.t.Helper()
	select {
	case f, ok := <-c.frames:
		if !ok {
			c.t.Fatalf("the connection ended: %v", c.ended)
		}
		return f
	case <-time.After(patience):
		c.t.Fatal("no frame came")
		return frame{}
	}
}

// wantFrame wants the next frame to be this one.
func (c *client) wantFrame(event, data string) frame {
	c.t.Helper()
	f := c.next()
	if f.Event != event || !sameJSON(string(f.Data), data) {
		c.t.Fatalf("got %s %s, want %s %s", f.Event, f.Data, event, data)
	}
	return f
}

// wantError wants the next frame to be an error with this code, for this ref.
func (c *client) wantError(code, ref string) {
	c.t.Helper()
	f := c.next()
	var data struct{ Code, Message string }
	if err := json.Unmarshal(f.Data, &data); err != nil || f.Event != "rollcall:error" || data.Code != code || data.Message == "" || f.Ref != ref {
		c.t.Fatalf("got %s %s ref %q, want rollcall:error %s ref %q", f.Event, f.Data, f.Ref, code, ref)
	}
}

// wantClose wants the connection to end with a close code, after any number of frames, which it returns.
func (c *client) wantClose(code int) (frames []frame) {
	c.t.Helper()
	for {
		select {
		case f, ok := <-c.frames:
			if ok {
				frames = append(frames, f)
				continue
			}
			if !websocket.IsCloseError(c.ended, code) {
				c.t.Fatalf("the connection ended with %v, want close code %d", c.ended, code)
			}
			return frames
		case <-time.After(patience):
			c.t.Fatal("the connection did not end")
		}
	}
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// leave closes on purpose, with code 1000.
func (c *client) leave() {
	c.t.Helper()
	if err := c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	c.wantClose(1000)
}

// drop cuts the connection, as a tunnel does.
func (c *client) drop() { c.conn.Close() }
