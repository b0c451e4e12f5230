package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"rollcall/app/redis"
	"rollcall/lua/redistest"
	"rollcall/presence"
)

// crowd is many users, each with one socket on one of several instances.
type crowd struct {
	t       *testing.T
	apps    []*App
	clients map[string]*socket
	homes   map[string]*App
	rounds  int // so that frames of different rounds differ
}

// gather connects so many users, to each instance in turn.
func gather(t *testing.T, apps []*App, users int) *crowd {
	t.Helper()
	c := &crowd{t: t, apps: apps, clients: map[string]*socket{}, homes: map[string]*App{}}
	for n := range users {
		c.join(fmt.Sprintf("user-%d", n))
	}
	return c
}

// join connects one more.
func (c *crowd) join(user string) {
	c.t.Helper()
	home := c.apps[len(c.clients)%len(c.apps)]
	c.clients[user], c.homes[user] = connect(c.t, home, user), home
}

// elsewhere returns an instance that does not have a user's socket.
func (c *crowd) elsewhere(user string) *App {
	return c.apps[(slices.Index(c.apps, c.homes[user])+1)%len(c.apps)]
}

// wantAllIsWell checks that every push and emit arrives everywhere, and that every instance reports every
// user in the right place.
func (c *crowd) wantAllIsWell() {
	c.t.Helper()
	for _, a := range c.apps {
		redistest.Eventually(c.t, "the instance to be ready", func() (answer, bool) {
			got := ask(c.t, a, "GET", "/readyz", "")
			return got, got.Status == http.StatusOK
		})
	}
	c.rounds++
	for user, client := range c.clients {
		c.wantPushWritten(user)
		client.awaitFrame("push", fmt.Sprint(c.rounds))
	}
	for n, a := range c.apps {
		audit := redistest.Eventually(c.t, "an audit of all", func() (answer, bool) {
			got := ask(c.t, a, "GET", "/audit", "")
			return got, got.Status == http.StatusOK && strings.Count(got.text, `"missing":`) == len(c.apps)
		})
		if strings.Count(audit.text, `"missing":0,"ghosts":0`) != len(c.apps) {
			c.t.Errorf("audit: %s", audit.text)
		}
		data := fmt.Sprintf("[%d,%d]", c.rounds, n)
		if got := ask(c.t, a, "POST", "/emit/all",
			`{"event":"emit","data":`+data+`}`); got.Body["instances"] != float64(len(c.apps)) {
			c.t.Fatalf("emit: %d %s", got.Status, got.text)
		}
		for _, client := range c.clients {
			client.awaitFrame("emit", data)
		}
		c.wantPresence(a)
	}
}

// wantPushWritten waits until a push is written to the user's socket, and checks that a repeat through the
// other instance gets the same answer. On a busy machine the first push may be answered before it is known
// whether it was written.
func (c *crowd) wantPushWritten(user string) {
	c.t.Helper()
	path, body := "/push/"+user+"?wait=written&timeout=5s",
		fmt.Sprintf(`{"event":"push","data":%d}`, c.rounds)
	var key http.Header
	tries := 0
	first := redistest.Eventually(c.t, "a push to be written to "+user, func() (answer, bool) {
		tries++
		key = keyed(fmt.Sprintf("%s-%d-%d", user, c.rounds, tries))
		got := ask(c.t, c.elsewhere(user), "POST", path, body, key)
		return got, strings.Contains(got.text, `"state":"online","instances":1,"sockets":{"written":1,`)
	})
	if again := askSurely(c.t, c.homes[user], path, body, key); again.text != first.text {
		c.t.Fatalf("push to %s: %s, and once more: %d %s", user, first.text, again.Status, again.text)
	}
}

// wantPresence checks that an instance reports exactly this crowd, each user in the right place.
func (c *crowd) wantPresence(a *App) {
	c.t.Helper()
	if got, want := listed(c.t, a, 7), slices.Sorted(maps.Keys(c.clients)); !slices.Equal(got, want) {
		c.t.Errorf("listed %v, want %v", got, want)
	}
	if got := c.surely(a, "/presence/count"); got.Body["present"] != float64(len(c.clients)) {
		c.t.Errorf("count: %d %s", got.Status, got.text)
	}
	if got := ask(c.t, a, "GET", "/instances", ""); len(got.Body["instances"].([]any)) != len(c.apps) {
		c.t.Errorf("instances: %d %s", got.Status, got.text)
	}
	for user, home := range c.homes {
		got := c.surely(a, "/presence/"+user)
		where, _ := got.Body["instances"].([]any)
		if got.Body["state"] != "online" || got.Body["sockets"] != 1.0 || len(where) != 1 ||
			where[0] != home.Instance || got.Body["stale"] != false {
			c.t.Errorf("%s is at %s: %d %s", user, home.Instance, got.Status, got.text)
		}
	}
}

// surely asks until the answer is not stale.
func (c *crowd) surely(a *App, path string) answer {
	c.t.Helper()
	return redistest.Eventually(c.t, path+" not to be stale", func() (answer, bool) {
		got := ask(c.t, a, "GET", path, "")
		return got, got.Status == http.StatusOK && got.Body["stale"] == false
	})
}

// wantRecovery waits until pushes reach everybody again.
func (c *crowd) wantRecovery() {
	c.t.Helper()
	for user := range c.clients {
		redistest.Eventually(c.t, "a push to "+user, func() (answer, bool) {
			got := ask(c.t, c.elsewhere(user), "POST", "/push/"+user, `{"event":"again"}`)
			return got, got.Body["state"] == "online" && got.Body["instances"] == 1.0
		})
	}
}

// awaitFrame waits for a frame, and skips others before it.
func (s *socket) awaitFrame(event, data string) {
	s.t.Helper()
	for {
		if f := s.next(); f.Event == event && sameJSON(string(f.Data), data) {
			return
		}
	}
}

func TestRedisCluster_ServesInstancesAsOneRedisDoesAlsoWhileSlotsMove(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, false)
	t.Run("as one Redis does", func(t *testing.T) { wantClusterServes(t, cluster) })
	t.Run("while slots move", func(t *testing.T) { wantSlotsMove(t, cluster) })
}

func wantClusterServes(t *testing.T, cluster *redistest.Cluster) {
	for _, node := range cluster.Nodes() {
		if err := node.Ask(append([]string{"ACL", "SETUSER", "rollcall", "on", ">hunter2"},
			strings.Fields(redis.ACLRule("rollcall:1:"))...)...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	whole, one := userURL(t, cluster.URL(), "rollcall", "hunter2"),
		userURL(t, cluster.Masters[1].URL(), "rollcall", "hunter2")
	apps := []*App{startApp(t, "--redis-url="+whole), startApp(t, "--redis-url="+whole),
		startApp(t, "--redis-url="+one)}
	c := gather(t, apps, 48)
	c.wantAllIsWell()
	for _, master := range cluster.Masters {
		leases, err := master.Ask("KEYS", "rollcall:1:*:leases").AsStrSlice()
		if err != nil || len(leases) < clusterShards/3 || len(leases) > clusterShards/3+1 {
			t.Errorf("a node has %d of %d shards, %v", len(leases), clusterShards, err)
		}
	}
	wantRefused(t, "use 64 shards", "--redis-url="+whole, "--shards=1")
	if got := ask(t, c.elsewhere("user-0"), "DELETE", "/presence/user-0", ""); got.Body["closed"] != 1.0 {
		t.Errorf("kick: %d %s", got.Status, got.text)
	}
	c.clients["user-0"].wantClose(4003)
}

func wantSlotsMove(t *testing.T, cluster *redistest.Cluster) {
	flags := []string{"--redis-url=" + cluster.URL(), "--prefix=moving:", "--shards=4"}
	c := gather(t, []*App{startApp(t, flags...), startApp(t, flags...)}, 12)
	stop, streams := make(chan struct{}), map[string]<-chan outcome{}
	for user := range c.clients {
		streams[user] = streamPushes(c.elsewhere(user), user, stop)
	}
	keys := presence.NewKeys("moving:", 4)
	for shard := range keys.Shards() {
		cluster.MoveSlot(keys.Owners(shard))
	}
	c.wantRecovery()
	close(stop)
	for user, client := range c.clients {
		sent := <-streams[user]
		if sent.failed != "" || sent.reached == 0 {
			t.Errorf("of the pushes to %s while slots moved %d of %d arrived; one failed: %s", user,
				sent.reached, sent.pushes, sent.failed)
		}
		push(t, c.elsewhere(user), user, `{"event":"last"}`, "online", 1)
		if got := client.countFrames("stream", "last"); got != sent.reached {
			t.Errorf("%s got %d pushes of %d that were said to have arrived, of %d", user, got, sent.reached,
				sent.pushes)
		}
	}
	c.wantAllIsWell()
}

// outcome is what became of many pushes.
type outcome struct {
	pushes, reached int
	failed          string // the first answer that was not a 200
}

// streamPushes pushes to a user, one push after the other, until told to stop.
func streamPushes(a *App, user string, stop <-chan struct{}) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		var s outcome
		for ; ; s.pushes++ {
			select {
			case <-stop:
				done <- s
				return
			default:
			}
			switch text, err := post(a, "/push/"+user, `{"event":"stream"}`); {
			case err != nil && s.failed == "":
				s.failed = err.Error()
			case strings.Contains(text, `"instances":1`):
				s.reached++
			}
		}
	}()
	return done
}

// post makes a POST as ask does, but may be called on any goroutine. An answer other than 200 is an error.
func post(a *App, path, body string) (string, error) {
	request, err := http.NewRequest("POST", "http://"+a.Addr+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+testKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", response.StatusCode, text)
	}
	return string(text), err
}

// countFrames counts the frames of an event up to the first of another.
func (s *socket) countFrames(event, until string) (frames int) {
	s.t.Helper()
	for {
		switch s.next().Event {
		case event:
			frames++
		case until:
			return frames
		}
	}
}

func TestRedisCluster_MayLoseAMasterWithoutAnybodyDropping(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, true)
	address := "--redis-url=" + cluster.URL()
	c := gather(t, []*App{startApp(t, address), startApp(t, address), startApp(t, address)}, 48)
	c.wantAllIsWell()
	cluster.Masters[0].Kill()
	for n := range 3 { // one or two of them in the shards that have no master now
		c.join(fmt.Sprintf("late-%d", n))
	}
	cluster.AwaitHeir(0)
	c.wantRecovery()
	c.wantAllIsWell()
}

func TestSentinels_MayFailOverWithoutAnybodyDropping(t *testing.T) {
	t.Parallel()
	wantFailover(t, redistest.StartSentinels(t, nil))
}

func TestSentinels_AndTheirServersMayAskForTLSAndPasswords(t *testing.T) {
	t.Parallel()
	security := redistest.NewSecurity(t, "pass")
	sentinels := redistest.StartSentinels(t, security)
	address, trust := "--redis-url="+sentinels.URL(), "--redis-ca-file="+security.CAFile
	user, password := "--redis-sentinel-username="+sentinels.Username,
		"--redis-sentinel-password="+sentinels.Password
	wantRefused(t, "--redis-ca-file (ROLLCALL_REDIS_CA_FILE)", address, user, password)
	wantRefused(t, "--redis-sentinel-password (ROLLCALL_REDIS_SENTINEL_PASSWORD): the Sentinels ask for one",
		address, trust)
	wantRefused(t, "do not know the user of --redis-sentinel-username", address, trust, user,
		"--redis-sentinel-password=hunter2")
	wantRefused(t, "does not know this user with this password",
		"--redis-url="+userURL(t, sentinels.URL(), "default", "hunter2"), trust, user, password)
	wantRefused(t, "it asks for a password", strings.Replace(address, "default:pass@", "", 1), trust, user,
		password)
	wantRefused(t, "watch no set of the name", strings.Replace(address, "master_set=", "master_set=not-", 1),
		trust, user, password)
	wantRefused(t, "there is a Sentinel: say whose servers", "--redis-url="+sentinels.Watchers[0].URL(),
		trust)
	startApp(t, address, trust, password) // of the user named default
	wantFailover(t, sentinels, trust)
}

func wantFailover(t *testing.T, sentinels *redistest.Sentinels, flags ...string) {
	t.Helper()
	flags = append(flags, "--redis-url="+sentinels.URL(), "--prefix=failover:",
		"--redis-sentinel-username="+sentinels.Username, "--redis-sentinel-password="+sentinels.Password)
	c := gather(t, []*App{startApp(t, flags...), startApp(t, flags...)}, 12)
	c.wantAllIsWell()
	sentinels.Master.Kill()
	c.join("late")
	sentinels.AwaitHeir()
	c.wantRecovery()
	c.wantAllIsWell()
}
