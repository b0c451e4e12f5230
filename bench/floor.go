package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"
)

// floor is the least that could do Rollcall's job on one machine: an ordinary server with Echo and
// gorilla/websocket that serves its own sockets and asks nobody. For a push it looks at the key, reads the
// JSON, makes an id and a frame, writes it to the user's socket and answers. An emit is one write to each
// socket.
type floor struct {
	// static after construction
	upgrader *websocket.Upgrader

	mu sync.RWMutex
	// mu guards the following
	conns map[string]net.Conn // by user; never removed
}

// serveFloor serves in a process of its own until that is killed.
func serveFloor(addr string) error {
	debug.SetGCPercent(400) // as an instance with so few sockets sets for itself
	upgrader := &websocket.Upgrader{ReadBufferSize: 256, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{}}
	f := &floor{upgrader: upgrader, conns: map[string]net.Conn{}}
	e := echo.New()
	e.GET("/readyz", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	e.GET("/free", func(echo.Context) error {
		debug.FreeOSMemory() // as an instance does when it is idle
		return nil
	})
	e.GET("/ws", f.connect)
	e.POST("/push/:user", f.push)
	e.POST("/emit/all", f.emit)
	return http.ListenAndServe(addr, e)
}

// connect keeps a socket in one goroutine outside the HTTP handler, which frees the handler's buffers.
func (f *floor) connect(c echo.Context) error {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(bearer(c), &claims); err != nil {
		return err
	}
	conn, err := f.upgrader.Upgrade(c.Response().Writer, c.Request(), nil)
	c.Response().Committed = true
	if err != nil {
		return err
	}
	const welcome = `{"event":"rollcall:welcome","data":{"reachable":true}}`
	if err := conn.WriteMessage(websocket.TextMessage, []byte(welcome)); err != nil {
		return err
	}
	f.mu.Lock()
	f.conns[claims.Subject] = conn.NetConn()
	f.mu.Unlock()
	go func() {
		defer conn.Close()
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	return nil
}

func bearer(c echo.Context) string {
	return strings.TrimPrefix(c.Request().Header.Get("Authorization"), "Bearer ")
}

func (f *floor) push(c echo.Context) error {
	user := c.Param("user")
	f.mu.RLock()
	conn := f.conns[user]
	f.mu.RUnlock()
	if conn == nil || bearer(c) == "" {
		return echo.ErrUnauthorized
	}
	frame, id, err := readFrame(c)
	if err != nil {
		return err
	}
	if _, err := conn.Write(frame); err != nil { // a net.Conn lets one write through at a time
		return err
	}
	return c.JSON(http.StatusOK, struct {
		ID        uuid.UUID `json:"id"`
		User      string    `json:"user"`
		State     string    `json:"state"`
		Instances int       `json:"instances"`
	}{id, user, "online", 1})
}

func (f *floor) emit(c echo.Context) error {
	frame, _, err := readFrame(c)
	if err != nil {
		return err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, conn := range f.conns {
		if _, err := conn.Write(frame); err != nil {
			return err
		}
	}
	return c.JSONBlob(http.StatusOK, []byte(`{"instances":1}`))
}

// readFrame makes of a request what its sockets get: a text frame of 126 to 65,535 bytes (RFC 6455, 5.2).
func readFrame(c echo.Context) (frame []byte, id uuid.UUID, err error) {
	text, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, 64<<10))
	if err != nil {
		return nil, id, err
	}
	var body struct {
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return nil, id, err
	}
	if id, err = uuid.NewV7(); err != nil {
		return nil, id, err
	}
	message := fmt.Appendf(nil, `{"event":%q,"data":%s,"id":"%s"}`, body.Event, body.Data, id)
	const finalText, lengthFollows = 0x80 | websocket.TextMessage, 126
	frame = binary.BigEndian.AppendUint16([]byte{finalText, lengthFollows}, uint16(len(message)))
	return append(frame, message...), id, nil
}
