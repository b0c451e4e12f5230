package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"rollcall/handlers/sockets"
)

// startMadeUp starts an instance in development mode that makes its own secret and key, as `make run` does.
func startMadeUp(t *testing.T) *App {
	t.Helper()
	c := parsed(t, "--addr=127.0.0.1:0", "--drain=2s")
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	c.fillDev()
	a, err := Start(t.Context(), c, sockets.Builtin(), slog.New(slog.NewTextHandler(testLog{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// parsed returns the settings that these flags make.
func parsed(t *testing.T, flags ...string) *Config {
	t.Helper()
	var c commands
	if _, err := newParser(&c).Parse(flags); err != nil {
		t.Fatal(err)
	}
	return &c.Config
}

// tokenOf asks development mode for a token.
func tokenOf(t *testing.T, a *App, user string) string {
	t.Helper()
	got := ask(t, a, "GET", "/dev/token?user="+user, "")
	made, ok := got.Body["token"].(string)
	if !ok {
		t.Fatalf("a token: %d %s", got.Status, got.text)
	}
	return made
}

// askHost makes a request without a key, with this Host.
func askHost(t *testing.T, a *App, path, host string) answer {
	t.Helper()
	recorder := httptest.NewRecorder()
	request, _ := http.NewRequest("GET", "http://"+a.Addr+path, nil)
	request.Host = host
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	_, _ = recorder.Body.ReadFrom(response.Body)
	got := answer{Status: response.StatusCode, Header: response.Header, text: recorder.Body.String()}
	_ = json.Unmarshal(recorder.Body.Bytes(), &got.Body) // nil: it is no JSON
	return got
}

func TestDevMode_IsOnByItselfOnlyIfNothingOfProductionIsGiven(t *testing.T) {
	t.Parallel()
	secret, key := "--jwt-secret="+testSecret, "--api-keys="+testKey
	redis := "--redis-url=redis://127.0.0.1:1"
	for _, c := range []struct {
		flags []string
		dev   bool
		says  string // in the refusal; empty: there is none
	}{
		{nil, true, ""},
		{[]string{secret}, false, "--redis-url (ROLLCALL_REDIS_URL): is empty"},
		{[]string{key}, false, "say --dev"},
		{[]string{"--jwt-public-key=/key.pem"}, false, "say --dev"},
		{[]string{"--jwks-url=https://id.example/keys"}, false, "say --dev"},
		{[]string{secret, key}, false, "say --dev"},
		{[]string{secret, key, "--dev"}, true, ""},
		{[]string{secret, key, "--no-dev"}, false,
			"--redis-url (ROLLCALL_REDIS_URL): is needed with --no-dev"},
		{[]string{"--no-dev"}, false, "is needed with --no-dev"},
		{[]string{redis}, false, "needed to verify tokens outside dev mode"},
		{[]string{redis, secret, key}, false, ""},
		{[]string{redis, "--dev"}, true, ""},
	} {
		config := parsed(t, c.flags...)
		err := config.check()
		if config.dev() != c.dev || (err == nil) != (c.says == "") || err != nil &&
			!strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: dev mode %v, %v; want %v, %q", c.flags, config.dev(), err, c.dev, c.says)
		}
		if config.fillDev(); err == nil && config.dev() != c.dev {
			t.Errorf("%v: dev mode is %v once its secrets are made", c.flags, config.dev())
		}
	}
}

func TestConfig_RefusesASettingThatIsSetAndEmpty(t *testing.T) {
	t.Parallel()
	var c commands
	parser := newParser(&c)
	for _, variable := range []string{"REDIS_URL", "API_KEYS", "JWT_SECRET", "JWT_AUDIENCE", "ALLOWED_HOSTS",
		"DEV"} {
		err := checkEnvironment(parser, []string{"PATH=/bin", "ROLLCALL_" + variable + "="})
		if err == nil || !strings.Contains(err.Error(), "ROLLCALL_"+variable+" is set, but empty") {
			t.Errorf("%s: %v", variable, err)
		}
	}
	// compose.yaml passes this variable on even if it is empty; an empty one lets nobody in
	if err := checkEnvironment(parser, []string{"ROLLCALL_ALLOWED_ORIGINS=", "ROLLCALL_DRAIN=10s",
		"EMPTY="}); err != nil {
		t.Error(err)
	}
	for flag, refused := range map[string]bool{"--redis-url=": true, "--api-keys=": true,
		"--allowed-origins=": false, "--lease=10s": false} {
		var c commands
		command, err := newParser(&c).Parse([]string{flag})
		if err != nil {
			t.Fatal(err)
		}
		if err := checkFlags(command); (err != nil) != refused {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func TestConfig_RefusesAMisspeltVariableAndSuggestsTheNearestName(t *testing.T) {
	t.Parallel()
	var c commands
	parser := newParser(&c)
	for misspelt, nearest := range map[string]string{
		"ROLLCALL_REDIS_URI": "ROLLCALL_REDIS_URL", "ROLLCALL_API_KEY_S": "ROLLCALL_API_KEYS",
		"ROLLCALL_ALLOW_ORIGINS": "ROLLCALL_ALLOWED_ORIGINS",
		"ROLLCALL_JWTSECRET":     "ROLLCALL_JWT_SECRET", "ROLLCALL_NO_DEV": "ROLLCALL_DEV",
	} {
		err := checkEnvironment(parser, []string{misspelt + "=x"})
		if err == nil || !strings.Contains(err.Error(), misspelt+" is no setting") ||
			!strings.Contains(err.Error(), "do you mean "+nearest+"?") {
			t.Errorf("%s: %v, want %s", misspelt, err, nearest)
		}
	}
	for _, others := range []string{
		// the latter are what Kubernetes sets for services called rollcall or rollcall-web
		"ROLLCALL_VERSION", "ROLLCALL_TEST_REDIS", "OTHER_ROLLCALL",
		"ROLLCALL_SERVICE_HOST", "ROLLCALL_SERVICE_PORT", "ROLLCALL_SERVICE_PORT_HTTP", "ROLLCALL_PORT",
		"ROLLCALL_PORT_8080_TCP",
		"ROLLCALL_PORT_8080_TCP_ADDR", "ROLLCALL_WEB_SERVICE_HOST", "ROLLCALL_WEB_PORT_8080_TCP_PROTO",
	} {
		if err := checkEnvironment(parser, []string{others + "=x"}); err != nil {
			t.Error(err)
		}
	}
}

// Otherwise an instance that is to serve in production would start in development mode.
func TestConfig_KeyOfAnAuditIsNotTakenForTheKeysOfAnInstance(t *testing.T) {
	t.Parallel()
	const audits, instances = "ROLLCALL_API_KEY=of-an-audit-0123456789",
		"ROLLCALL_API_KEYS=of-backends-0123456789"
	for _, c := range []struct {
		command     []string
		environment []string
		refused     bool
	}{
		{nil, []string{audits}, true},
		{[]string{"serve"}, []string{audits}, true},
		{nil, []string{audits, instances}, false},
		{nil, []string{instances}, false},
		{[]string{"audit", "--api-key=k"}, []string{audits}, false},
	} {
		var all commands
		command, err := newParser(&all).Parse(c.command)
		if err != nil {
			t.Fatal(err)
		}
		err = checkAuditKey(command, c.environment)
		if (err != nil) != c.refused || err != nil &&
			!strings.Contains(err.Error(), "do you mean ROLLCALL_API_KEYS?") {
			t.Errorf("%v, %v: %v", c.command, c.environment, err)
		}
	}
}

func TestInstance_ThatCannotRunSaysWhyInItsLog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		variable, flag, says string
	}{
		{"", "--addr=nowhere", "--addr (ROLLCALL_ADDR) is nowhere"},
		{"", "--what", "unknown flag"},
		{"", "--addr=127.0.0.1:99999", "invalid port"},
		{"ROLLCALL_REDIS_URL=", "--dev", "ROLLCALL_REDIS_URL is set, but empty"},
		{"ROLLCALL_REDS_URL=x", "--dev", "do you mean ROLLCALL_REDIS_URL?"},
		{"ROLLCALL_API_KEY=x", "--addr=127.0.0.1:0", "do you mean ROLLCALL_API_KEYS?"},
	} {
		command := exec.Command(mustBinary(t), c.flag)
		command.Env = append(os.Environ(), "ROLLCALL_DRAIN=1s")
		if c.variable != "" {
			command.Env = append(command.Env, c.variable)
		}
		var stderr bytes.Buffer
		command.Stderr = &stderr
		if err := command.Run(); err == nil {
			t.Errorf("%s %s: exit status 0", c.variable, c.flag)
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		var last struct{ Level, Error string }
		for _, line := range lines {
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				t.Errorf("%s %s: %q: %v", c.variable, c.flag, line, err)
			}
		}
		if last.Level != "ERROR" || !strings.Contains(last.Error, c.says) {
			t.Errorf("%s %s: %s", c.variable, c.flag, stderr.String())
		}
	}
}

func TestDevMode_IsWarnedOf(t *testing.T) {
	t.Parallel()
	for flag, warned := range map[string]bool{"--dev": true, "--no-dev": false} {
		_, log := startLogged(t, "--redis-url="+startApp(t).RedisURL, flag)
		if got := strings.Contains(log, "level=WARN msg=\"development mode"); got != warned {
			t.Errorf("%s: %s", flag, log)
		}
	}
}

func TestDevMode_ShowsNoKeyThatWasGiven(t *testing.T) {
	t.Parallel()
	given := startApp(t, "--no-dev-serve-key")
	if got := ask(t, given, "GET", "/dev/key", ""); got.Status != 200 ||
		strings.Contains(got.text, testKey) || got.Body["apiKey"] != nil {
		t.Errorf("%d %s", got.Status, got.text)
	}
	dial(t, "ws://"+given.Addr+"/ws?token="+tokenOf(t, given, "alice"), nil) // it is dev mode all the same
	if got := ask(t, startApp(t), "GET", "/dev/key", ""); got.Body["apiKey"] != testKey {
		t.Errorf("although it was told to: %d %s", got.Status, got.text)
	}
	made := startMadeUp(t)
	if got := ask(t, made, "GET", "/dev/key", ""); got.Body["apiKey"] != made.config.APIKeys[0] {
		t.Errorf("although it was made up: %d %s", got.Status, got.text)
	}
}

func TestDevMode_AnswersNobodyBehindAProxy(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for _, path := range []string{"/dev/key", "/dev/token?user=alice"} {
		for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via", "X-Forwarded-Host"} {
			wantProblem(t, ask(t, a, "GET", path, "", http.Header{name: {"203.0.113.9"}}), 403, "forwarded")
		}
		recorder, request := httptest.NewRecorder(), httptest.NewRequest("GET", "http://127.0.0.1"+path, nil)
		request.RemoteAddr = "203.0.113.9:4711"
		if a.server.ServeHTTP(recorder, request); recorder.Code != http.StatusForbidden {
			t.Errorf("%s for another machine: %d %s", path, recorder.Code, recorder.Body)
		}
	}
}

func TestDevMode_AnswersOnLocalhostOnly(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for _, host := range []string{"evil.example", "evil.example:80", "127.0.0.1.evil.example"} {
		for _, path := range []string{"/dev/key", "/dev/token?user=alice", "/ws", "/", "/presence"} {
			if got := askHost(t, a, path, host); got.Status != 403 || got.Body["code"] != "bad_host" ||
				strings.Contains(got.text, testKey) {
				t.Errorf("%s of %s: %d %s", path, host, got.Status, got.text)
			}
		}
	}
	for _, host := range []string{"localhost:8080", "[::1]:8080", "127.0.0.1"} {
		if got := askHost(t, a, "/ws", host); got.Status != http.StatusUpgradeRequired {
			t.Errorf("%s: %d %s", host, got.Status, got.text)
		}
	}
	dial(t, fmt.Sprintf("ws://%s/ws?token=%s", a.Addr, tokenOf(t, a, "alice")), nil)
	wantProblem(t, ask(t, a, "GET", "/dev/token?user=", ""), 400, "bad_user")

	strict := startApp(t, "--jwt-issuer=https://id.example", "--jwt-audience=rollcall")
	// it was made as this instance requires
	dial(t, fmt.Sprintf("ws://%s/ws?token=%s", strict.Addr, tokenOf(t, strict, "alice")), nil)

	plain := startApp(t, "--redis-url="+a.RedisURL)
	for _, path := range []string{"/dev/key", "/dev/token?user=alice"} {
		wantProblem(t, ask(t, plain, "GET", path, ""), 404, "not_found")
	}
}

func TestInstance_AnswersToAllowedHostsOnly(t *testing.T) {
	t.Parallel()
	redis := "--redis-url=" + startApp(t).RedisURL
	open, some := startApp(t, redis), startApp(t, redis, "--allowed-hosts=rollcall.example,10.0.0.7")
	for _, c := range []struct {
		host, path string
		open, some int
	}{
		{"evil.example", "/ws", 426, 403},
		{"evil.example", "/presence", 401, 403},
		{"evil.example", "/healthz", 200, 200}, // probes call an instance by its address
		{"evil.example", "/readyz", 200, 200},
		{"Rollcall.Example:8080", "/ws", 426, 426},
		{"10.0.0.7:8080", "/presence", 401, 401},
		{"localhost", "/ws", 426, 426},
	} {
		for a, want := range map[*App]int{open: c.open, some: c.some} {
			if got := askHost(t, a, c.path, c.host); got.Status != want {
				t.Errorf("%s of %s: %d %s, want %d", c.path, c.host, got.Status, got.text, want)
			}
		}
	}
}

func TestConfig_RefusesAnOriginThatNoBrowserSendsAndSuggestsTheOneItSends(t *testing.T) {
	t.Parallel()
	for origin, says := range map[string]string{
		"https://App.Example":     "https://app.example",
		"https://app.example:443": "https://app.example",
		"http://app.example:80":   "http://app.example",
		"https://app.example/":    "https://app.example",
		"https://app.example?y":   "https://app.example",
		"https://u:p@app.example": "https://app.example",
		"https://[0:0::1]:8443":   "https://[::1]:8443",
		"https://*.app.example":   "can't be left open",
		"https://bücher.example":  "xn--",
		"ftp://app.example":       "no page has such an origin",
		"wss://app.example":       "no page has such an origin",
		"app.example":             "want scheme://host",
		"null":                    "want scheme://host",
	} {
		c := parsed(t, testFlags([]string{"--allowed-origins=" + origin})...)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), "--allowed-origins") ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q in it", origin, err, says)
		}
	}
	fine := []string{"*", "https://app.example", "https://app.example:8443", "http://127.0.0.1:3000",
		"http://[::1]:3000", "chrome-extension://abcdefgh"}
	if err := parsed(t, testFlags([]string{"--allowed-origins=" + strings.Join(fine,
		",")})...).check(); err != nil {
		t.Error(err)
	}
}

func TestHandshake_OwnPageMayConnectWhateverPortItNames(t *testing.T) {
	t.Parallel()
	redis := "--redis-url=" + startApp(t).RedisURL
	a := startApp(t, redis)
	for _, c := range []struct {
		origin, host string
		status       int
	}{
		{"https://h", "h:443", 426}, {"https://h:443", "h", 426}, {"http://h", "h:80", 426},
		{"http://h:8080", "h:8080", 426}, {"https://H", "h", 426},
		{"http://h", "h:443", 403}, {"https://h", "h:80", 403}, {"https://h:8443", "h", 403},
		{"ftp://h", "h", 403}, {"https://evil", "h", 403},
	} {
		recorder, request := httptest.NewRecorder(), httptest.NewRequest("GET", "http://"+a.Addr+"/ws", nil)
		request.Host = c.host
		request.Header.Set("Origin", c.origin)
		if a.server.ServeHTTP(recorder, request); recorder.Code != c.status {
			t.Errorf("a page of %s on %s: %d %s, want %d", c.origin, c.host, recorder.Code, recorder.Body,
				c.status)
		}
	}
}

func TestConfig_HelpNamesEveryVariable(t *testing.T) {
	t.Parallel()
	said, err := exec.Command(mustBinary(t), "--help").Output()
	for _, name := range []string{"ROLLCALL_DEV_SERVE_KEY", "ROLLCALL_REQUIRE_EXP",
		"ROLLCALL_ALLOWED_HOSTS"} {
		if err != nil || !slices.Contains(strings.FieldsFunc(string(said), func(r rune) bool {
			return strings.ContainsRune(" \n($),.", r)
		}), name) {
			t.Errorf("%s: %v\n%s", name, err, said)
		}
	}
}
