package handlers

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

var upgrade = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}

func TestConnect_TakesATokenFromTheQueryOrTheHeader(t *testing.T) {
	var users []string
	f := &fakes{}
	f.sockets.ServeFn = func(user string) error { users = append(users, user); return nil }
	s := startServer(t, f, func(o *Options) { o.AllowAnonymous = true })
	alice := signed(plainHeader, `{"sub":"alice"}`)
	for _, c := range []struct{ query, authorization, user string }{
		{"?token=" + alice, "", "alice"},
		{"?token=" + alice, alice, "alice"},
		{"", "Bearer " + alice, "alice"},
		{"?token=", "bearer  " + alice, "alice"},
		{"?", alice, "alice"},
		{"", "", ""},
	} {
		header := upgrade.Clone()
		if header["Authorization"] = nil; c.authorization != "" {
			header.Set("Authorization", c.authorization)
		}
		users = nil
		if s.ask(t, "GET", "/ws"+c.query, "", header); !slices.Equal(users, []string{c.user}) {
			t.Errorf("%q with the header %q: %q, want %q", c.query, c.authorization, users, c.user)
		}
	}
}

func TestConnect_RefusesPagesOfOtherOriginsAndLetsThemReadWhy(t *testing.T) {
	s := startServer(t, &fakes{}, func(o *Options) {
		o.AllowAnonymous, o.AllowedOrigins = true, []string{"https://app.example"}
	})
	for _, c := range []struct {
		origin, host string
		status       int // 426: it may connect
	}{
		{"", "h", 426}, {"https://app.example", "h", 426},
		{"https://evil.example", "h", 403}, {"https://app.example.evil", "h", 403}, {"null", "h", 403},
		// a page of the host itself, whatever way its port is written
		{"https://h", "h:443", 426}, {"https://h:443", "h", 426}, {"http://h", "h:80", 426},
		{"http://h:8080", "h:8080", 426}, {"https://H", "h", 426},
		{"http://h", "h:443", 403}, {"https://h", "h:80", 403}, {"https://h:8443", "h", 403},
		{"ftp://h", "h", 403},
	} {
		request := httptest.NewRequest("GET", "/ws", nil)
		request.Host = c.host
		if c.origin != "" {
			request.Header.Set("Origin", c.origin)
		}
		response := httptest.NewRecorder()
		s.ServeHTTP(response, request)
		header := response.Header()
		if response.Code != c.status || header.Get("Access-Control-Allow-Origin") != c.origin ||
			(header.Get("Vary") == "Origin") != (c.origin != "") ||
			header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("a page of %q on %s: %d %v, want %d", c.origin, c.host, response.Code, header, c.status)
		}
	}
}

func TestServer_IsNotReadyBeforeItsSocketsAreDrained(t *testing.T) {
	f := &fakes{}
	s := startServer(t, f, nil)
	f.sockets.DrainFn = func(over time.Duration) {
		if s.Readiness().Ready() || over != time.Minute {
			t.Errorf("ready: %+v; drained over %v", s.Readiness(), over)
		}
	}
	s.Drain(context.Background(), time.Minute)
}
