package handlers

import (
	"io/fs"
	"net/http"

	"github.com/labstack/echo/v4"
)

// pagePolicy lets the page load and connect to its own server alone: 'self' covers wss:// and ws:// of the
// same host and port. Nobody may put it into a frame.
const pagePolicy = "default-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// serveStatic serves each embedded file at a route of its own, so that metrics can name it, and index.html at
// /.
func (s *Server) serveStatic() {
	files, err := fs.ReadDir(s.options.Static, ".")
	if err != nil {
		panic("handlers: the embedded files: " + err.Error())
	}
	s.get("/", s.file("index.html"))
	for _, file := range files {
		s.get("/"+file.Name(), s.file(file.Name()))
	}
}

func (s *Server) file(name string) echo.HandlerFunc {
	return func(c echo.Context) error {
		header := c.Response().Header()
		header.Set("Content-Security-Policy", pagePolicy)
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-cache")
		header.Set("Access-Control-Allow-Origin", "*") // pages of any origin may import the client
		http.ServeFileFS(c.Response(), c.Request(), s.options.Static, name)
		return nil
	}
}
