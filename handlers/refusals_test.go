package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rollcall/handlers/sockets"
	"rollcall/presence"
)

func TestServer_SaysWhatIsWrongWithABadRequestAndDoesNothing(t *testing.T) {
	s := startServer(t, &fakes{directory: fakeDirectory{
		PageFn: func(context.Context, string, int) (presence.Answer, error) {
			return presence.Answer{}, presence.ErrCursor
		},
	}}, func(o *Options) { o.AllowAnonymous = true })
	anonymous := http.Header{"Authorization": nil}
	text := http.Header{"Content-Type": {"text/plain"}}
	big := `{"event":"x","data":"` + strings.Repeat("x", 1024) + `"}`
	bigger := `{"users":["alice"],"event":"x","data":"` + strings.Repeat("x", 600<<10) + `"}`
	const urn = "urn:uuid:f47ac10b-58cc-4372-a567-0e02b2c3d479" // another way to write a UUID
	thousandAndOne := `{"event":"x","users":["u"` + strings.Repeat(`,"u"`, 1000) + `]}`
	for _, c := range []struct {
		method, path, body string
		header             http.Header
		status             int
		code, says         string
	}{
		{"POST", "/push/alice", `{"event":`, nil, 400, "bad_json", "unexpected"},
		{"POST", "/push/alice", `hello`, nil, 400, "bad_json", "at byte 1"},
		{"POST", "/push/alice", `[1]`, nil, 400, "bad_json", "want a JSON object, not an array"},
		{"POST", "/push/alice", `{"event":7}`, nil, 400, "bad_json", "event: want a string, not a number"},
		{"POST", "/push/alice", `{"event":"x"}{}`, nil,
			400, "bad_json", "invalid character '{' after top-level value, at byte 14"},
		{"POST", "/push/alice", `{"event":"x","event":"y"}`, nil,
			400, "bad_json", `the field "event" comes twice`},
		{"POST", "/push/alice", `{"Event":"x"}`, nil, 400, "bad_json", `unknown field "Event"`},
		{"POST", "/push/alice", `{"event":"x","data":{"a":1,"a":2}}`, nil,
			400, "bad_json", `the field "a" comes twice`},
		{"POST", "/push/alice", `{"event":true}`, nil,
			400, "bad_json", "event: want a string, not a boolean"},
		{"POST", "/push/alice", `{"a/b":1}`, nil, 400, "bad_json", `unknown field "a/b"`},
		{"POST", "/push/alice", `null`, nil, 400, "bad_json", "want a JSON object, not null"},
		{"POST", "/push", `{"event":"x","users":["a",7]}`, nil,
			400, "bad_json", "users/1: want a string, not a number"},
		{"POST", "/push/alice", `{"event":"x","exlcude":"y"}`, nil, 400, "bad_json", "exlcude"},
		{"POST", "/push/alice", "{\"event\":\"x\",\"data\":\"\xff\"}", nil, 400, "bad_json", "UTF-8"},
		{"POST", "/push/alice", ` `, nil, 400, "bad_json", "empty"},
		{"POST", "/push/alice", `{}`, nil, 400, "bad_event", "is empty"},
		{"POST", "/push/alice", `{"event":"rollcall:welcome"}`, nil, 400, "bad_event", "reserved"},
		{"POST", "/push/alice", `{"event":"` + strings.Repeat("e", 65) + `"}`, nil,
			400, "bad_event", "too long"},
		{"POST", "/push/alice", `{"event":"a\u0007b"}`, nil, 400, "bad_event", "control"},
		{"POST", "/push/alice", `{"event":"x","exclude":"me"}`, nil, 400, "bad_socket", "id of a socket"},
		{"POST", "/push/alice", `{"event":"x","exclude":"` + urn + `"}`, nil,
			400, "bad_socket", "id of a socket"},
		{"POST", "/push/alice", `{"event":"x"}`, text, 415, "bad_content_type", "application/json"},
		{"POST", "/push/alice", `{"event":"x"}`, http.Header{"Content-Type": nil},
			415, "bad_content_type", "application/json"},
		{"POST", "/push/alice", big, nil, 413, "body_too_large", "1024"},
		{"POST", "/push/alice?wait=forever", `{"event":"x"}`, nil, 400, "bad_wait", "wait"},
		{"POST", "/push/alice?timeout=6s", `{"event":"x"}`, nil, 400, "bad_timeout", "5s"},
		{"POST", "/push/alice?timeout=0s", `{"event":"x"}`, nil, 400, "bad_timeout", "5s"},
		{"POST", "/push/alice?timeout=soon", `{"event":"x"}`, nil, 400, "bad_timeout", "soon"},
		{"DELETE", "/presence/alice?except=me&reason=%zz", "", nil, 400, "bad_query", "percent-encoded"},
		{"GET", "/presence?user=a;b", "", nil, 400, "bad_query", "percent-encoded"},
		{"GET", "/presence?usr=alice", "", nil, 400, "bad_query", "usr"}, // or it would list everybody
		{"GET", "/presence?limit=1&limit=2", "", nil, 400, "bad_query", "limit: given 2 times"},
		{"GET", "/ws?Token=x", "", anonymous,
			400, "bad_query", "Token"}, // or it would be anonymous
		{"POST", "/push", `{"event":"x","users":["x\ud800"]}`, nil,
			400, "bad_user", "users: a user id is UTF-8"},
		{"POST", "/push", `{"users":["\uD83E\uDD8A","x\udfff"],"event":"x"}`, nil,
			400, "bad_user", "half of a surrogate pair"},
		{"POST", "/push/a%ED%A0%80", `{"event":"x"}`, nil, 400, "bad_user", "UTF-8"},
		{"GET", "/presence?user=a%ED%A0%80", "", nil, 400, "bad_user", "UTF-8"},
		{"DELETE", "/presence/alice?exclude=me", "", nil, 400, "bad_query", "exclude"},
		{"POST", "/push/alice?wait=written&wait=acked", `{"event":"x"}`, nil, 400, "bad_query", "wait"},
		{"POST", "/emit/all?wat=written", `{"event":"x"}`, nil, 400, "bad_query", "wat"},
		{"DELETE", "/presence/alice?except=me", "", nil, 400, "bad_socket", "except"},
		{"DELETE", "/presence/alice?reason=" + strings.Repeat("x", 124), "", nil, 400, "bad_reason", "123"},
		{"DELETE", "/presence/" + strings.Repeat("u", 129), "", nil, 400, "bad_user", "too long"},
		{"DELETE", "/sockets/7", "", nil, 400, "bad_socket", "the path"},
		{"POST", "/push/", `{"event":"x"}`, nil, 400, "bad_user", "is empty"},
		{"POST", "/push/" + strings.Repeat("u", 129), `{"event":"x"}`, nil, 400, "bad_user", "too long"},
		{"POST", "/push/a%00b", `{"event":"x"}`, nil, 400, "bad_user", "control"},
		{"POST", "/push/a%C2%85b", `{"event":"x"}`, nil, 400, "bad_user", "control"},
		{"POST", "/push/a%FFb", `{"event":"x"}`, nil, 400, "bad_user", "UTF-8"},
		{"POST", "/push/alice/", `{"event":"x"}`, nil, 400, "bad_user", "%2F"},
		{"POST", "/push//alice", `{"event":"x"}`, nil, 400, "bad_user", "%2F"},
		{"POST", "/push/../emit/all", `{"event":"x"}`, nil, 400, "bad_user", "%2F"},
		{"DELETE", "/presence/alice/sockets", "", nil, 400, "bad_user", "%2F"},
		{"GET", "/presence/a%2Fb/c", "", nil, 400, "bad_user", "%2F"},
		{"GET", "/push/alice", "", nil, 405, "method_not_allowed", "method"},
		{"POST", "/push", `{"event":"x"}`, nil, 400, "bad_users", "1 to 1000"},
		{"POST", "/push", `{"event":"x","users":[]}`, nil, 400, "bad_users", "1 to 1000"},
		{"POST", "/push", thousandAndOne, nil, 400, "bad_users", "1001"},
		{"POST", "/push", `{"event":"x","users":"alice"}`, nil, 400, "bad_json", "users"},
		{"POST", "/push", `{"event":"x","users":["alice",""]}`, nil, 400, "bad_user", "is empty"},
		{"POST", "/push", bigger, nil, 413, "body_too_large", "larger"},
		{"POST", "/push", bigger[:250<<10] + `"}`, nil, 413, "data_too_large", "1024"},
		{"POST", "/emit/all", `{"event":"x","users":["a"]}`, nil, 400, "bad_json", "users"},
		{"POST", "/emit/some", `{"event":"x"}`, nil, 404, "not_found", "nothing"},
		{"GET", "/presence?limit=0", "", nil, 400, "bad_limit", "1 to 1000"},
		{"GET", "/presence?limit=1000000000", "", nil, 400, "bad_limit", "1 to 1000"},
		{"GET", "/presence?limit=99999999999999999999", "", nil, 400, "bad_limit", "1 to 1000"},
		{"GET", "/presence?limit=", "", nil, 400, "bad_limit", "1 to 1000"},
		{"GET", "/presence?limit=ten", "", nil, 400, "bad_limit", "ten"},
		{"GET", "/presence?cursor=hello", "", nil, 400, "bad_cursor", "unchanged"},
		{"GET", "/presence?cursor=cjoxOjA6", "", nil, 400, "bad_cursor", "unchanged"}, // shard 1 of 1
		{"GET", "/presence?cursor=%00", "", nil, 400, "bad_cursor", "unchanged"},
		{"GET", "/presence?user=", "", nil, 400, "bad_user", "is empty"},
		{"GET", "/presence?user=a" + strings.Repeat("&user=a", 1000), "", nil, 400, "bad_users", "1001"},
		{"POST", "/presence", `{"users":[]}`, nil, 400, "bad_users", "1 to 1000"},
		{"POST", "/presence", `{}`, nil, 400, "bad_users", "1 to 1000"},
		{"POST", "/presence", `{"users":["a"` + strings.Repeat(`,"a"`, 1000) + `]}`, nil,
			400, "bad_users", "1001"},
		{"POST", "/presence", `{"users":["a",""]}`, nil, 400, "bad_user", "is empty"},
		{"POST", "/presence", `{"users":"a"}`, nil, 400, "bad_json", "users"},
		{"POST", "/presence", `{"user":["a"]}`, nil, 400, "bad_json", `unknown field "user"`},
		{"POST", "/presence", `{"users":["a"]}`, text, 415, "bad_content_type", "application/json"},
		{"POST", "/presence?user=a", `{"users":["a"]}`, nil, 400, "bad_query", "nothing in the query"},
		{"POST", "/presence", `{"users":["` + strings.Repeat("u", 600<<10) + `"]}`, nil,
			413, "body_too_large", "bytes"},
		{"GET", "/presence/", "", nil, 400, "bad_user", "is empty"},
		{"GET", "/presence/" + strings.Repeat("u", 129), "", nil, 400, "bad_user", "too long"},
		{"GET", "/nothing/here", "", nil, 404, "not_found", "nothing"},
		{"GET", "/ws", "", anonymous, 426, "upgrade_required", "WebSocket"},
	} {
		got := s.ask(t, c.method, c.path, c.body, c.header)
		t.Run(fmt.Sprintf("%s %.40s", c.method, c.path), func(t *testing.T) {
			wantProblem(t, got, c.status, c.code, c.says)
		})
	}
}

func TestServer_SaysWhyAHandshakeIsRefused(t *testing.T) {
	f := &fakes{}
	s := startServer(t, f, func(o *Options) { o.AllowAnonymous = true })
	handshake := http.Header{"Authorization": nil, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	for _, c := range []struct {
		err        error
		status     int
		code, says string
	}{
		{&sockets.HandshakeError{Status: 400, Reason: errors.New("no key")}, 400, "bad_handshake", "no key"},
		{sockets.ErrFull, 503, "full", "connect again"},
		{sockets.ErrDraining, 503, "draining", "connect again"},
	} {
		f.sockets.ServeFn = func(string) error { return c.err }
		wantProblem(t, s.ask(t, "GET", "/ws", "", handshake), c.status, c.code, c.says)
	}
	f.sockets.ServeFn = func(string) error { return &sockets.HandshakeError{Reason: errors.New("broken")} }
	if got := s.ask(t, "GET", "/ws", "", handshake); got.Body.Len() > 0 {
		t.Errorf("a connection that broke got the answer %s", got.Body)
	}
}

func TestServer_RefusesCredentialsThatAreMissingWrongOrAmbiguous(t *testing.T) {
	s := startServer(t, &fakes{}, nil)
	for _, c := range []struct {
		path          string
		authorization []string
		status        int
		code          string
	}{
		{"/ws", nil, 401, "no_token"},
		{"/ws?token=x", nil, 401, "bad_token"},
		{"/ws?token=x&token=y", nil, 400, "bad_token"},
		{"/ws?token=x", []string{"Bearer y"}, 400, "bad_token"},
		{"/ws", []string{"Bearer x", "Bearer x"}, 400, "bad_authorization"},
		{"/ws", []string{"Bearer"}, 401, "bad_authorization"},
		{"/ws", []string{"Basic x y"}, 401, "bad_authorization"},
		{"/presence", nil, 401, "no_api_key"},
		{"/presence", []string{"Bearer wrong"}, 401, "bad_api_key"},
		{"/presence", []string{"Bearer key", "Bearer key"}, 400, "bad_authorization"},
		{"/presence", []string{"Bearer Bearer key"}, 401, "bad_authorization"},
		{"/presence/alice", nil, 401, "no_api_key"},
		{"/presence/count", nil, 401, "no_api_key"},
		{"/instances", nil, 401, "no_api_key"},
		{"/audit", nil, 401, "no_api_key"},
		{"/metrics", nil, 401, "no_api_key"},
	} {
		got := s.ask(t, "GET", c.path, "", http.Header{"Authorization": c.authorization})
		t.Run(fmt.Sprint(c.path, c.authorization), func(t *testing.T) {
			wantProblem(t, got, c.status, c.code, "")
			if scheme := got.Header().Get("WWW-Authenticate"); (c.status == 401) != (scheme == "Bearer") {
				t.Errorf("WWW-Authenticate: %q", scheme)
			}
		})
	}
	for _, path := range []string{"/push", "/push/alice", "/emit/all", "/emit/authenticated", "/presence"} {
		got := s.ask(t, "POST", path, `{"event":"x"}`, http.Header{"Authorization": nil})
		wantProblem(t, got, 401, "no_api_key", "Bearer <API key>")
		if got.Header().Get("Connection") != "close" { // or net/http would wait for the rest of the body
			t.Errorf("%s: %v", path, got.Header())
		}
	}
}

func TestServer_AnswersAllowedHostsAndHealthChecksOnly(t *testing.T) {
	s := startServer(t, &fakes{}, func(o *Options) { o.AllowedHosts = []string{"app.example"} })
	for host, status := range map[string]int{
		"app.example": 200, "APP.example:8080": 200, "localhost": 200, "127.0.0.1:1": 200, "[::1]:1": 200,
		"evil.example": 403, "app.example.evil": 403, "10.0.0.1": 403, "": 403,
	} {
		for path, status := range map[string]int{"/": status, "/healthz": 200, "/readyz": 200} {
			request := httptest.NewRequest("GET", path, nil)
			request.Host = host
			response := httptest.NewRecorder()
			if s.ServeHTTP(response, request); response.Code != status {
				t.Errorf("%s of %q: %d, want %d", path, host, response.Code, status)
			}
		}
	}
}

func TestServer_DevModeAnswersThisMachineAlone(t *testing.T) {
	s := startServer(t, &fakes{}, func(o *Options) { o.Dev = &Dev{Secret: "secret", APIKey: testKey} })
	for name, c := range map[string]struct {
		host, peer, header string
		status             int
	}{
		"localhost":      {"localhost:8080", "127.0.0.1:5000", "", 200},
		"IPv6":           {"[::1]:8080", "[::1]:5000", "", 200},
		"another name":   {"evil.example", "127.0.0.1:5000", "", 403},
		"a proxy":        {"localhost", "127.0.0.1:5000", "X-Forwarded-For", 403},
		"another proxy":  {"localhost", "127.0.0.1:5000", "Via", 403},
		"another client": {"localhost", "10.0.0.7:5000", "", 403},
	} {
		for _, path := range []string{"/dev/key", "/dev/token?user=alice"} {
			request := httptest.NewRequest("GET", path, nil)
			request.Host, request.RemoteAddr = c.host, c.peer
			if c.header != "" {
				request.Header.Set(c.header, "1")
			}
			response := httptest.NewRecorder()
			if s.ServeHTTP(response, request); response.Code != c.status {
				t.Errorf("%s, %s: %d %s", name, path, response.Code, response.Body)
			}
		}
	}
}
