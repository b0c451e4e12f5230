package main

import (
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rollcall/lua/redistest"
)

// socketOf returns the path of an instance's own Redis.
func socketOf(t *testing.T, a *App) string {
	t.Helper()
	u, err := url.Parse(a.RedisURL)
	if err != nil || u.Scheme != "unix" {
		t.Fatalf("the in-process Redis is at %s", a.RedisURL)
	}
	return u.Path
}

func TestOwnRedis_CanBeOpenedByItsUserOnly(t *testing.T) {
	t.Parallel()
	a, err := tryApp(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	path := socketOf(t, a)
	for name, want := range map[string]os.FileMode{path: os.ModeSocket | 0o600,
		filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want mode %v", name, info.Mode(), err, want)
		}
	}
	redistest.StartsProcess(t, "curl")
	ask := func(uid uint32) int {
		curl := exec.Command("curl", "-s", "-o", os.DevNull, "--unix-socket", path, "http://redis/")
		if os.Getuid() == 0 {
			curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		_ = curl.Run() // it can't succeed: there is no HTTP
		return curl.ProcessState.ExitCode()
	}
	const couldNotConnect, nobody = 7, 65534
	if code := ask(uint32(os.Getuid())); code == couldNotConnect {
		t.Error("its own user can't connect")
	}
	// only root can become somebody else
	if code := ask(nobody); os.Getuid() == 0 && code != couldNotConnect {
		t.Errorf("somebody else can connect: curl ended with %d", code)
	}
	connect(t, a, "alice") // HTTP did no harm
	a.Close()
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left something behind: %v", err)
	}
}

func TestOwnRedis_HasAShortPathWhereverTemporaryFilesAre(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("d", 100))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", deep)
	a := startApp(t)
	connect(t, a, "alice")
}

func TestOwnRedis_SurvivesWhatIsNoCommand(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for _, bad := range []string{
		"*0\r\n", "*-1\r\n", "*1\r\n$9223372036854775807\r\n", "*9223372036854775807\r\n", "*1\r\n$-1\r\n",
		"*1\r\n+PING\r\n", "\r\n", "\n", "PING\r\n",
		"*1\n$4\nPING\n", "*1\r\n*0\r\n", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 1<<16),
	} {
		conn, err := net.Dial("unix", socketOf(t, a))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(bad)) // it may hang up before it has read all of it
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("%.30q: answered %q", bad, answer)
		}
		conn.Close()
	}
	connect(t, a, "alice")
	push(t, a, "alice", `{"event":"x","data":"`+strings.Repeat("x", 60<<10)+`"}`, "online", 1)
}

func TestOwnRedis_ExpiresKeys(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	client := a.redis.Client
	set := client.B().Set().Key("passing").Value("x").PxMilliseconds(1).Build()
	if err := client.Do(t.Context(), set).Error(); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the key to be gone", func() (int64, bool) {
		n, err := client.Do(t.Context(), client.B().Exists().Key("passing").Build()).AsInt64()
		return n, err == nil && n == 0
	})
}
