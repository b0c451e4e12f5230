package main

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// Package handlers tests all refusals, without a network. Here are those in which the HTTP server, a setting
// or the handshake has a part.
func TestHTTP_ABadRequestIsToldWhatIsWrongWithIt(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--max-message-bytes=1024")
	handshake := http.Header{"Authorization": nil, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	big := `{"event":"x","data":"` + strings.Repeat("x", 1024) + `"}`
	for _, c := range []struct {
		method, path, body string
		header             http.Header
		status             int
		code, says         string
	}{
		{"POST", "/push/alice", `{"event":`, nil, 400, "bad_json", "unexpected"},
		{"POST", "/push/alice", big, nil, 413, "body_too_large", "1024"},
		{"GET", "/presence?user=a%ED%A0%80", "", nil, 400, "bad_user", "UTF-8"},
		{"GET", "/presence?user=a;b", "", nil, 400, "bad_query", "percent-encoded"},
		{"POST", "/push/a%00b", `{"event":"x"}`, nil, 400, "bad_user", "control"},
		{"POST", "/push//alice", `{"event":"x"}`, nil, 400, "bad_user", "%2F"},
		{"POST", "/push/../emit/all", `{"event":"x"}`, nil, 400, "bad_user", "%2F"},
		{"GET", "/presence/a%2Fb/c", "", nil, 400, "bad_user", "%2F"},
		{"GET", "/push/alice", "", nil, 405, "method_not_allowed", "method"},
		{"GET", "/nothing/here", "", nil, 404, "not_found", "nothing"},
		{"GET", "/ws", "", http.Header{"Authorization": nil}, 426, "upgrade_required", "WebSocket"},
		{"GET", "/ws", "", handshake, 400, "bad_handshake", "websocket"},
	} {
		got := ask(t, a, c.method, c.path, c.body, c.header)
		t.Run("", func(t *testing.T) {
			wantProblem(t, got, c.status, c.code)
			if detail, _ := got.Body["detail"].(string); !strings.Contains(detail, c.says) {
				t.Errorf("%s %s: %q does not say %q", c.method, c.path, detail, c.says)
			}
		})
	}
	alice := connect(t, a, "alice") // it goes on
	push(t, a, "alice", `{"event":"x"}`, "online", 1)
	alice.wantFrame("x", "null")
}

func TestSocket_ABadFrameGetsAnErrorAndTheSocketStaysOpen(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--max-message-bytes=1024")
	alice := connect(t, a, "alice")
	for _, c := range []struct{ frame, code, ref string }{
		{`{"event":`, "bad_json", ""},
		{``, "bad_json", ""},
		{`null`, "bad_json", ""},
		{`[1]`, "bad_json", ""},
		{`"events"`, "bad_json", ""},
		{`{"event":"events","event":"events"}`, "bad_json", ""},
		{`{"ref":"1"}`, "bad_frame", "1"},
		{`{"event":7,"ref":"2"}`, "bad_frame", "2"},
		{`{"event":null,"ref":"3"}`, "bad_frame", "3"},
		{`{"event":"events","ref":7}`, "bad_frame", ""},
		{`{"event":"events","ref":"` + strings.Repeat("r", 129) + `"}`, "bad_frame", ""},
		{`{"event":"nothing","ref":"4"}`, "unknown_event", "4"},
		{`{"event":"rollcall:welcome","ref":"5"}`, "reserved_event", "5"},
		{`{"event":"rollcall:ack","data":{"id":7},"ref":"6"}`, "bad_data", "6"},
		{`{"event":"events","data":"` + strings.Repeat("x", 1024) + `"}`, "frame_too_large", ""},
	} {
		alice.send(c.frame)
		alice.wantError(c.code, c.ref)
	}
	if err := alice.conn.WriteMessage(websocket.BinaryMessage, []byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	alice.wantError("binary_frame", "")
	alice.send(`{"event":"events","data":"half of a pair: \ud83d","more":"fields are ignored"}`)
	alice.wantFrame("events", "1")
}

func TestSocket_AFrameFarOverTheLimitEndsItsOwnSocketOnly(t *testing.T) {
	t.Parallel()
	a := startApp(t, "--max-message-bytes=1024")
	alice, sibling := connect(t, a, "alice"), connect(t, a, "alice")
	alice.send(strings.Repeat("x", 5000))
	alice.wantClose(websocket.CloseMessageTooBig)
	sibling.send(`{"event":"events"}`)
	sibling.wantFrame("events", "1")
}

func TestConfig_RefusesASettingThatCannotWorkAndNamesIt(t *testing.T) {
	t.Parallel()
	for flag, says := range map[string]string{
		"--addr=nowhere":                            "want host:port",
		"--addr=0.0.0.0:0":                          "dev mode",
		"--addr=127.0.0.1:99999":                    "--addr (ROLLCALL_ADDR)",
		"--redis-url=http://127.0.0.1:1":            "--redis-url (ROLLCALL_REDIS_URL)",
		"--redis-url=redis://u:hunter2@127.0.0.1:1": "redis://u:xxxxx@127.0.0.1:1",
		"--lease=10":                                "--lease",
		"--lease=1ms":                               "want 1s to 1h",
		"--grace=-1s":                               "--grace (ROLLCALL_GRACE) is -1s",
		"--drain=2h":                                "want 0s to 1h",
		"--prefix={x}":                              "no braces",
		"--shards=-1":                               "want 0 to",
		"--client-rate=-1":                          "want 0 (no cap) to 100000",
		"--max-sockets=-1":                          "ROLLCALL_MAX_SOCKETS",
		"--max-sockets=1000000000000":               "of which some are kept",
		"--max-message-bytes=1":                     "want 256 to",
		"--jwt-public-key=/nowhere.pem":             "--jwt-public-key (ROLLCALL_JWT_PUBLIC_KEY)",
		"--allowed-origins=example.com":             "want scheme://host",
		"--api-keys=" + testKey + ",,x":             "is empty",
		"--api-keys=fifteen-letters":                "has only 15 bytes: want at least 16",
		"--jwt-secret=" + testSecret + ",short": "--jwt-secret (ROLLCALL_JWT_SECRET): " +
			"one of the comma-separated values has only 5 bytes",
		"--allowed-hosts=https://app.example": "--allowed-hosts (ROLLCALL_ALLOWED_HOSTS) is " +
			"https://app.example",
		"--allowed-hosts=app.example:443":  "without scheme, port",
		"--jwks-url=ftp://id.example/keys": "want https://",
		"--jwks-url=file:///etc/passwd":    "want https://",
		"--jwks-url=http://u:hunter2@id.example/": "--jwks-url (ROLLCALL_JWKS_URL) " +
			"is http://u:xxxxx@id.example/: want https://",
		"--what":                 "unknown flag",
		"--pprof-addr=0.0.0.0:0": "--pprof-addr (ROLLCALL_PPROF_ADDR) is 0.0.0.0:0",
		"--log-level=loud":       "--log-level",
		"--jwks-url=:":           "--jwks-url",
	} {
		a, err := tryApp(t, flag)
		if err == nil {
			a.Close()
			t.Errorf("%s was accepted", flag)
		} else if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q in it", flag, err, says)
		}
	}
	for _, missing := range []string{"--api-keys=" + testKey, "--jwt-secret=" + testSecret} {
		var c commands
		if _, err := newParser(&c).Parse([]string{"--redis-url=redis://127.0.0.1:1", missing}); err != nil {
			t.Fatal(err)
		}
		if err := c.check(); err == nil || !strings.Contains(err.Error(), "outside dev mode") {
			t.Errorf("with %s alone: %v", missing, err)
		}
	}
}

func TestBinary_PrintsItsVersionAndTakesNoneForASetting(t *testing.T) {
	t.Parallel()
	command := exec.Command(mustBinary(t), "--version")
	command.Env = append(os.Environ(), "ROLLCALL_VERSION=1.2.3") // as images have it
	said, err := command.CombinedOutput()
	if err != nil || !regexp.MustCompile(`^rollcall \S+, go1\.\S+\n$`).Match(said) {
		t.Errorf("%v: %q", err, said)
	}
}

func TestConfig_WarnsOfASecretOrKeyThatCanBeGuessed(t *testing.T) {
	t.Parallel()
	for secret, warned := range map[string]bool{strings.Repeat("x", safeSecret-1): true,
		strings.Repeat("x", safeSecret): false} {
		var logged bytes.Buffer
		c := &Config{RedisURL: "redis://127.0.0.1:1",
			JWTSecret: []string{strings.Repeat("y", safeSecret), secret}, APIKeys: []string{secret}}
		if _, _, err := newTokens(c, slog.New(slog.NewTextHandler(&logged, nil))); err != nil {
			t.Fatal(err)
		}
		got := strings.Contains(logged.String(), "--jwt-secret") &&
			strings.Contains(logged.String(), "--api-keys")
		if got != warned || !warned && logged.Len() > 0 || strings.Contains(logged.String(), "xx") {
			t.Errorf("%d bytes: %q", len(secret), logged.String())
		}
	}
}
