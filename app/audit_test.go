package main

import (
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func TestAudit_CommandReportsAllInstancesAndFailsIfTheyDiffer(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startApp(t, "--redis-url="+redis.URL()), startApp(t, "--redis-url="+redis.URL())
	connect(t, a, "alice")
	connect(t, b, "bob")
	audit := func() (string, error) {
		var out strings.Builder
		err := (&auditCommand{URL: "http://" + a.Addr + "/", APIKey: testKey}).run(&out)
		return out.String(), err
	}
	table, err := audit()
	if err != nil || !strings.Contains(table, a.Instance) || !strings.Contains(table, b.Instance) {
		t.Errorf("%s, %v", table, err)
	}
	client := redis.Client()
	redis.Do(client, "HDEL", "rollcall:1:{0}:owners", "bob")
	if table, err := audit(); err == nil || !strings.Contains(err.Error(),
		"differences, which are being mended: 1") {
		t.Errorf("%s, %v", table, err)
	}
	wantState(t, a, "bob", "online", 1)
	if table, err := audit(); err != nil {
		t.Errorf("%s, %v", table, err)
	}
	if err := (&auditCommand{URL: "http://" + a.Addr, APIKey: "wrong"}).run(&strings.Builder{}); err == nil ||
		!strings.Contains(err.Error(), "API key") {
		t.Errorf("with a wrong key: %v", err)
	}
}
