package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func composeFile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCompose_RunsTheHAProxyConfigurationThatIsTested(t *testing.T) {
	t.Parallel()
	const indent = "      "
	_, text, found := strings.Cut("\n"+composeFile(t), "\n    content: |\n")
	if !found {
		t.Fatal("compose.yaml has no configuration in it")
	}
	text = strings.ReplaceAll("\n"+text, "\n"+indent, "\n")[1:]
	text = strings.ReplaceAll(text, "$$", "$") // which Compose would take for the beginning of a variable
	if want := proxyKinds[0].text(t); text != want {
		t.Errorf("compose.yaml has another configuration than app/proxies/haproxy.cfg. It has\n%s", text)
	}
}

func TestCompose_RedisAsksForThePassword(t *testing.T) {
	t.Parallel()
	const variable, password = "${REDIS_PASSWORD}", "cafe0123456789"
	_, command, _ := strings.Cut(composeFile(t), "command: >-\n      redis-server ")
	command, _, found := strings.Cut(command, "\n    environment:")
	if !found {
		t.Fatal("compose.yaml does not say how to start Redis")
	}
	redis := redistest.Start(t, strings.Fields(strings.ReplaceAll(command, variable, password))...)
	if got := inline(t, redis.Addr, "PING"); !strings.HasPrefix(got, "-NOAUTH") {
		t.Errorf("without the password Redis answers %s", got)
	}
	_, address, _ := strings.Cut(composeFile(t), `ROLLCALL_REDIS_URL: "`)
	address, _, _ = strings.Cut(address, `"`)
	address = mustReplace(t, mustReplace(t, address, variable, password), "redis:6379", redis.Addr)
	a := startApp(t, "--redis-url="+address)
	alice := connect(t, a, "alice")
	push(t, a, "alice", `{"event":"x"}`, "online", 1)
	alice.wantFrame("x", "null")
}

func TestCompose_PinsEveryImageByItsVersion(t *testing.T) {
	t.Parallel()
	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^(?:FROM| *image:) (\S+)`)
	images := named.FindAllStringSubmatch(composeFile(t)+string(dockerfile), -1)
	for _, image := range images {
		if !regexp.MustCompile(`:\d+\.\d+|-debian\d+:nonroot$`).MatchString(image[1]) {
			t.Errorf("%s may be any version", image[1])
		}
	}
	if len(images) != 4 {
		t.Errorf("the images are %v, want 4", images)
	}
}

func TestDocs_ACLCanBePastedAndIsEnough(t *testing.T) {
	t.Parallel()
	operations := readText(t, "../docs/operations.md")
	line := regexp.MustCompile(`(?m)^ *(ACL SETUSER rollcall .*)$`).FindStringSubmatch(operations)
	if line == nil {
		t.Fatal("docs/operations.md has no line that makes a user")
	}
	redis := redistest.Start(t)
	if got := inline(t, redis.Addr, line[1]); got != "+OK" {
		t.Fatalf("%s\nis answered with %s", line[1], got)
	}
	address := "--redis-url=" + userURL(t, redis.URL(), "rollcall", "password")
	a, log := startLogged(t, address)
	if strings.Contains(log, "WARN") {
		t.Errorf("with the whole line: %s", log)
	}
	b, _ := startLogged(t, address)
	gather(t, []*App{a, b}, 4).wantAllIsWell()
}

// inline sends a line to a Redis as it is, as redis-cli does with a pasted line, and returns the first line
// of the answer.
func inline(t *testing.T, addr, line string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
		t.Fatal(err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(answer)
}
