package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"
)

// serveFloor is a server that does the least Echo and gorilla/websocket can do: it answers pushes without reading them, and its sockets
// get a welcome, and what is emitted, and no more.
func serveFloor() error {
	e := echo.New()
	e.GET("/readyz", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	e.POST("/push/:user", func(c echo.Context) error { return c.JSONBlob(http.StatusOK, []byte(`{"instances":1}`)) })
	f := &floor{upgrader: &websocket.Upgrader{ReadBufferSize: 256, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{}}}
	e.GET("/ws", f.welcome)
	e.POST("/emit/all", f.emit)
	return serveAsFloor(e)
}

// welcomeFrame is what a client waits for.
const welcomeFrame = `{"event":"rollcall:welcome","data":{"reachable":true}}`

// serveAsFloor says where it listens as an instance does, and serves until it is killed.
func serveAsFloor(handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, `{"msg":"listening","addr":"%s"}`+"\n", listener.Addr())
	return http.Serve(listener, handler)
}

// floor has the sockets of such a server.
type floor struct {
	// static after construction
	upgrader *websocket.Upgrader

	mu sync.Mutex
	// mu guards the following
	conns []net.Conn // once open, for ever
}

// welcome keeps a socket in one goroutine, outside the HTTP handler, whose buffers are thus freed.
func (f *floor) welcome(c echo.Context) error {

	conn, err := f.upgrader.Upgrade(c.Response().Writer, c.Request(), nil)
	c.Response().Committed = true
	if err != nil {
		return err
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte(welcomeFrame)); err != nil {
		return err
	}
	f.mu.Lock()
	f.conns = append(f.conns, conn.NetConn())
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

// emit writes what it is given, and an id as an instance does, to each socket: one frame, made once, with one write each.
func (f *floor) emit(c echo.Context) error {
	body, err := io.ReadAll(c.Request().Body)
	if err != nil {
		return err
	}
	frame := textFrame(append(bytes.TrimSuffix(body, []byte("}")), `,"id":"00000000-0000-0000-0000-000000000000"}`...))
	f.mu.Lock()
	conns := f.conns
	f.mu.Unlock()
	for _, conn := range conns {
		if _, err := conn.Write(frame); err != nil {
			return err
		}
	}
	return c.JSONBlob(http.StatusOK, []byte(`{"instances":1}`))
}

// textFrame is a text as it goes over the wire to a client.
func textFrame(text []byte) []byte {
	const final, lengthFollows = 0x80, 126 // RFC 6455, 5.2; a text from 126 to 65,535 bytes has its length in the next two
	frame := binary.BigEndian.AppendUint16([]byte{final | websocket.TextMessage, lengthFollows}, uint16(len(text)))
	return append(frame, text...)
}
