package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestFaults_AnInstanceWhoseClockIsAnHourFastChangesNothing(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 12, func(c *cluster) { c.paths[1] = buildWithWrongClock(t) })
	c.wantWrongClock(c.nodes[1])
	for _, f := range faults {
		switch f.name {
		case "clients come and go", "kill -9 of 1 of 3 instances", "FLUSHALL under load", "redis-server paused for a moment":
			c.play(f, 1)
		}
	}
}

// buildWithWrongClock builds the service with a standard library whose time.Now is an hour fast. Go asks the kernel for the time without
// a C library, so that there is nothing to preload; and the kernel has one real-time clock for all processes.
func buildWithWrongClock(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	original := filepath.Join(runtime.GOROOT(), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const reading = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reading) == 0 {
		t.Fatalf("%s does not read the clock as it used to", original)
	}
	fast := filepath.Join(dir, "time.go")
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{original: fast}})
	path := filepath.Join(dir, "rollcall")
	for file, text := range map[string][]byte{
		fast:                               []byte(strings.ReplaceAll(string(source), reading, reading+"\tsec += 3600\n")),
		filepath.Join(dir, "overlay.json"): overlay,
	} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// wantWrongClock wants an instance to believe that it started an hour from now.
func (c *cluster) wantWrongClock(n *clusterNode) {
	c.t.Helper()
	got, _, err := c.nodes[0].call("GET", "/instances", "")
	var listed struct {
		Instances []struct {
			ID        string
			StartedAt time.Time
		}
	}
	if err == nil {
		err = json.Unmarshal([]byte(got.text), &listed)
	}
	for _, instance := range listed.Instances {
		if instance.ID == n.instance().Instance && time.Until(instance.StartedAt) > 50*time.Minute {
			return
		}
	}
	c.t.Fatalf("%s should be an hour fast: %s, %v", n.instance().Instance, got.text, err)
}
