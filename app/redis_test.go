package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rollcall/app/redis"
	"rollcall/handlers/sockets"
	"rollcall/lua/redistest"
)

// userURL is a URL with a user in it.
func userURL(t *testing.T, address, user, password string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// wantRefused checks that an instance does not start, and that its error says how to mend that, without a
// secret.
func wantRefused(t *testing.T, says string, flags ...string) {
	t.Helper()
	a, err := tryApp(t, flags...)
	if err == nil {
		a.Close()
		t.Errorf("started with %v", flags)
		return
	}
	if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("with %v: %v\nwant %q in it", flags, err, says)
	}
}

// startLogged starts an instance and returns what it logged while it started.
func startLogged(t *testing.T, flags ...string) (*App, string) {
	t.Helper()
	var c commands
	if _, err := newParser(&c).Parse(testFlags(flags)); err != nil {
		t.Fatal(err)
	}
	var log safeBuffer
	a, err := Start(t.Context(), &c.Config, sockets.Builtin(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a, log.String()
}

// safeBuffer is a buffer for many goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// stubRedis is a server that answers INFO with this text, and knows no other commands.
func stubRedis(t *testing.T, answers map[string]string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answerCommands(conn, answers)
		}
	}()
	return listener.Addr().String()
}

// answerCommands reads commands as clients write them, and answers each by its name.
func answerCommands(conn net.Conn, answers map[string]string) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	line := func() string {
		text, _ := lines.ReadString('\n') // at the end it is empty, which is no command
		return strings.TrimSpace(text)
	}
	for {
		var words, size int
		if _, err := fmt.Sscanf(line(), "*%d", &words); err != nil {
			return
		}
		command := make([]string, words)
		for n := range command {
			if _, err := fmt.Sscanf(line(), "$%d", &size); err != nil {
				return
			}
			command[n] = line()
		}
		answer, known := answers[strings.ToUpper(command[0])]
		if !known {
			answer = fmt.Sprintf("-ERR unknown command '%s', with args beginning with: '%s'", command[0],
				strings.Join(command[1:], "' '"))
		}
		if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
			return
		}
	}
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s", len(text), text) }

func TestRedis_ThatIsTooOldIsRefusedWithWhatItIsAndWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for info, says := range map[string]string{
		"redis_version:5.0.0\r\nredis_mode:standalone\r\nrole:master": "there is version 5.0.0: " +
			"Rollcall needs Redis 6.0 or newer, or any Valkey",
		"redis_version:2.8.24\r\nredis_mode:standalone\r\nrole:master": "there is version 2.8.24",
		"redis_version:6.2.14\r\nredis_mode:cluster\r\nrole:master": "a Cluster of version 6.2.14, " +
			"and a Cluster needs Redis 7.0 or newer",
		"redis_version:7.2.4\r\nserver_name:valkey\r\nredis_mode:standalone\r\n" +
			"role:slave": "there is a replica",
	} {
		wantRefused(t, says, "--redis-url=redis://"+stubRedis(t, map[string]string{"INFO": bulk(info)}))
	}
}

func TestRedis_VersionComesFromHELLOIfINFOIsForbidden(t *testing.T) {
	t.Parallel()
	const hello = "*6\r\n$7\r\nversion\r\n$5\r\n5.9.9\r\n" +
		"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster"
	wantRefused(t, "there is version 5.9.9",
		"--redis-url=redis://"+stubRedis(t, map[string]string{"HELLO": hello}))
}

func TestRedis_PasswordIsNeverShown(t *testing.T) {
	t.Parallel()
	quoting := stubRedis(t, nil) // it does not know AUTH, and says what it was told
	for _, address := range []string{
		"redis://:hunter2@" + quoting, "redis://:hun/hunter2@" + quoting, "redis://u:12/hunter2@" + quoting,
		"redis://u:hunter2@" + quoting + "/x",
		"redis://u:%zzhunter2@" + quoting, "http://u:hunter2@" + quoting,
	} {
		wantRefused(t, "redis", "--redis-url="+address)
	}
	wantRefused(t, "redis", "--redis-url=redis://"+quoting+"?master_set=x",
		"--redis-sentinel-password=hunter2")
}

func TestRedis_ThatMayEvictIsWarnedOf(t *testing.T) {
	t.Parallel()
	const warning = "set maxmemory-policy to noeviction"
	if _, log := startLogged(t, "--redis-url="+redistest.Start(t, "--maxmemory-policy",
		"allkeys-lru").URL()); !strings.Contains(log, warning) || !strings.Contains(log, "allkeys-lru") {
		t.Errorf("no warning in %s", log)
	}
	if _, log := startLogged(t, "--redis-url="+redistest.Start(t).URL()); strings.Contains(log, "WARN") {
		t.Errorf("a warning in %s", log)
	}
}

func TestRedis_AnotherNumberOfShardsIsRefused(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	first := startApp(t, "--redis-url="+redis.URL(), "--shards=4")
	for _, shards := range []string{"--shards=3", "--shards=0", "--shards=8"} {
		wantRefused(t, "use 4 shards, this one", "--redis-url="+redis.URL(), shards)
	}
	startApp(t, "--redis-url="+redis.URL(), "--shards=3", "--prefix=other:")
	second := startApp(t, "--redis-url="+redis.URL(), "--shards=4")
	alice := connect(t, second, "alice")
	push(t, first, "alice", `{"event":"x"}`, "online", 1)
	alice.wantFrame("x", "null")
}

func TestRedis_ACredentialThatDoesNotWorkIsRefusedAndTheSettingNamed(t *testing.T) {
	t.Parallel()
	redis := redistest.StartSecure(t, &redistest.Security{Password: "pass"})
	wantRefused(t, "--redis-url (ROLLCALL_REDIS_URL) is redis://"+redis.Addr+": it asks for a password",
		"--redis-url=redis://"+redis.Addr)
	wantRefused(t, "does not know this user with this password",
		"--redis-url="+userURL(t, redis.URL(), "default", "hunter2"))
	wantRefused(t, "does not know this user with this password",
		"--redis-url="+userURL(t, redis.URL(), "bob", "hunter2"))
	startApp(t, "--redis-url="+redis.URL())
}

func TestRedis_AReplicaIsRefused(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	_, port, _ := net.SplitHostPort(master.Addr)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1", port)
	wantRefused(t, "there is a replica, which takes no writes", "--redis-url="+replica.URL())
	wantRefused(t, "several addresses are for a Cluster", "--redis-url="+master.URL()+"?addr="+replica.Addr)
}

func TestRedis_TheACLRuleIsEnoughAndAnythingLessIsExplained(t *testing.T) {
	t.Parallel()
	rule := redis.ACLRule("rollcall:1:")
	redis := redistest.Start(t)
	setUser := func(rule string) {
		if err := redis.Ask(append([]string{"ACL", "SETUSER", "rollcall", "reset", "on", ">hunter2"},
			strings.Fields(rule)...)...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	address := "--redis-url=" + userURL(t, redis.URL(), "rollcall", "hunter2")
	for _, missing := range []string{"~rollcall:1:*", "resetchannels &rollcall:1:*", "+@read", "+@write",
		"+@pubsub", "+evalsha"} {
		setUser(strings.Replace(rule, missing, "", 1))
		wantRefused(t, "ACL SETUSER rollcall "+rule, address)
	}
	setUser(rule)
	a, log := startLogged(t, address)
	if strings.Contains(log, "WARN") {
		t.Errorf("with the whole rule: %s", log)
	}
	setUser(strings.Replace(rule, "+info", "", 1))
	b, log := startLogged(t, address)
	if !strings.Contains(log, "does not say whether it may evict keys") {
		t.Errorf("without INFO: %s", log)
	}
	gather(t, []*App{a, b}, 4).wantAllIsWell()
}

func TestRedis_ATLSServerIsTrustedByItsAuthorityAlone(t *testing.T) {
	t.Parallel()
	security, other := redistest.NewSecurity(t, "pass"), redistest.NewSecurity(t, "")
	redis := redistest.StartSecure(t, security)
	address := "--redis-url=" + redis.URL()
	wantRefused(t, "--redis-ca-file (ROLLCALL_REDIS_CA_FILE)", address)
	wantRefused(t, "--redis-ca-file (ROLLCALL_REDIS_CA_FILE)", address, "--redis-ca-file="+other.CAFile)
	wantRefused(t, "name in their certificate", strings.Replace(address, "127.0.0.1", "localhost", 1),
		"--redis-ca-file="+security.CAFile)
	wantRefused(t, "if it speaks TLS there, use rediss://", strings.Replace(address, "rediss:", "redis:", 1))
	wantRefused(t, "if it does not speak TLS there, use redis://",
		"--redis-url="+strings.Replace(redistest.Start(t).URL(), "redis:", "rediss:", 1))

	apps := []*App{startApp(t, address, "--redis-ca-file="+security.CAFile),
		startApp(t, address, "--redis-ca-file="+security.CAFile)}
	gather(t, apps, 4).wantAllIsWell()
}

func TestRedis_ASettingThatCannotWorkIsRefusedAndNamed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ address, flag, says string }{
		{"redis://127.0.0.1:1", "--redis-ca-file=" + empty,
			"--redis-ca-file (ROLLCALL_REDIS_CA_FILE) is " + empty + ": it is for TLS"},
		{"rediss://127.0.0.1:1", "--redis-ca-file=" + empty, "want a PEM file"},
		{"rediss://127.0.0.1:1", "--redis-ca-file=/nowhere.pem", "/nowhere.pem: no such file"},
		{"redis://127.0.0.1:1", "--redis-sentinel-password=hunter2",
			"--redis-sentinel-password (ROLLCALL_REDIS_SENTINEL_PASSWORD): it is for Sentinels"},
		{"redis://127.0.0.1:1?master_set=x", "--redis-sentinel-username=u",
			"--redis-sentinel-password (ROLLCALL_REDIS_SENTINEL_PASSWORD): needed with"},
		{"redis://127.0.0.1:1", "--dev", "connect to redis at redis://127.0.0.1:1"},
		{"redis://127.0.0.1:1?addr=127.0.0.1:2&master_set=x", "--dev", "connection refused"},
	} {
		wantRefused(t, c.says, "--redis-url="+c.address, c.flag)
	}
}
