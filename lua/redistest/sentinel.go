package redistest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Sentinels is a master with a replica, and three Sentinels that watch over them.
type Sentinels struct {
	Master, Replica *Server
	Watchers        []*Server

	// what the Sentinels themselves ask of who connects
	Username, Password string

	t        testing.TB
	security *Security
}

const masterSet = "rollcall-test"

// StartSentinels starts a deployment and waits until its Sentinels know of each other and could fail over.
// Its Sentinels ask for a user and a password of their own.
func StartSentinels(t testing.TB, security *Security) *Sentinels {
	t.Helper()
	s := &Sentinels{t: t, Username: "watcher", Password: "the-password-of-sentinels", security: security}
	// a replica need not wait for a second one
	s.Master = StartSecure(t, security, "--repl-diskless-sync-delay", "0")
	s.Replica = StartSecure(t, security, "--replicaof", "127.0.0.1", s.Master.port())
	Await(t, "the replica to be in step", s.Replica.isInStep)
	for range 3 {
		s.Watchers = append(s.Watchers, s.startWatcher(t))
	}
	for _, watcher := range s.Watchers {
		Await(t, "a Sentinel to know the replica and the other Sentinels", func() bool {
			known, err := watcher.Ask("SENTINEL", "MASTER", masterSet).AsStrMap()
			return err == nil && known["num-slaves"] == "1" && known["num-other-sentinels"] == "2" &&
				known["flags"] == "master"
		})
	}
	return s
}

func (s *Sentinels) startWatcher(t testing.TB) *Server {
	t.Helper()
	guard := &Security{}
	if s.security != nil {
		*guard = *s.security
	}
	guard.Password = s.Password
	return start(&Server{t: t, security: guard}, func(w *Server) []string {
		return []string{s.config(t, w), "--sentinel"}
	})
}

// config writes the file of a Sentinel, which keeps there what it learns.
func (s *Sentinels) config(t testing.TB, watcher *Server) string {
	t.Helper()
	lines := []string{
		"dir " + t.TempDir(), "bind 127.0.0.1", "port " + watcher.port(),
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s 2", masterSet, s.Master.port()),
		fmt.Sprintf("sentinel down-after-milliseconds %s 1000", masterSet),
		fmt.Sprintf("sentinel failover-timeout %s 5000", masterSet),
		"sentinel sentinel-pass " + s.Password,
		fmt.Sprintf("user %s on >%s &* +@all", s.Username, s.Password),
	}
	if s.security != nil && s.security.Password != "" {
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", masterSet, s.security.Password))
	}
	guards := watcher.security.args(watcher.port())
	for n := 0; n < len(guards); n += 2 {
		lines = append(lines, strings.TrimPrefix(guards[n], "--")+" "+guards[n+1])
	}
	path := filepath.Join(t.TempDir(), "sentinel.conf")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// AwaitHeir waits until the replica of the master that was killed has taken over.
func (s *Sentinels) AwaitHeir() {
	s.t.Helper()
	Await(s.t, "the replica to take over", s.Replica.isMaster)
}

// URL names all Sentinels and the set they watch, with the password of the set's servers. That of the
// Sentinels can't be in it.
func (s *Sentinels) URL() string {
	return s.security.url(url.Values{"master_set": {masterSet}}, s.Watchers...)
}
