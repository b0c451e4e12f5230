package handlers

import (
	"io/fs"
	"net/http"

	"github.com/labstack/echo/v4"
)

// serveStatic serves the page and its files, each at its own path. They may load nothing from elsewhere, and nobody may frame them.
func (s *Server) serveStatic() {
	files, err := fs.ReadDir(s.options.Static, ".")
	if err != nil {
		panic("handlers: the embedded files: " + err.Error())
	}
	serve := func(name string) echo.HandlerFunc {
		return func(c echo.Context) error {
			header := c.Response().Header()
			header.Set("Content-Security-Policy", pagePolicy)
			header.Set("Referrer-Policy", "no-referrer")
			header.Set("Cache-Control", "no-cache")
			header.Set("Access-Control-Allow-Origin", "*") // for pages elsewhere to import the client: the files are the same for all
			http.ServeFileFS(c.Response(), c.Request(), s.options.Static, name)
			return nil
		}
	}
	s.get("/", serve("index.html"))
	for _, file := range files {
		s.get("/"+file.Name(), serve(file.Name()))
	}
}

// pagePolicy lets the page connect to its own server alone: 'self' covers wss:// and ws:// of the same host and port.
const pagePolicy = "default-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
