package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v5"
)

// serveFloor is a server that does the least Echo and gorilla/websocket can do: it answers pushes without reading them, and its sockets
// get a welcome and then nothing.
func serveFloor() error {
	e := echo.New()
	e.GET("/readyz", func(c *echo.Context) error { return c.NoContent(http.StatusOK) })
	e.POST("/push/:user", func(c *echo.Context) error { return c.JSONBlob(http.StatusOK, []byte(`{"instances":1}`)) })
	e.GET("/ws", welcomeOnly(&websocket.Upgrader{ReadBufferSize: 256, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{}}))
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

// welcomeOnly keeps a socket in one goroutine, outside the HTTP handler, whose buffers are thus freed.
func welcomeOnly(upgrader *websocket.Upgrader) echo.HandlerFunc {
	return func(c *echo.Context) error {
		response, err := echo.UnwrapResponse(c.Response())
		if err != nil {
			return err
		}
		conn, err := upgrader.Upgrade(response.ResponseWriter, c.Request(), nil)
		response.Committed = true
		if err != nil {
			return err
		}
		if err := conn.WriteMessage(websocket.TextMessage, []byte(welcomeFrame)); err != nil {
			return err
		}
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
}
