package main

import "testing"

func TestFaults_UsersStayOnlineThroughARollingRestartAndGetEveryPushThatWasTaken(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 60)
	run := c.begin("rolling restart")
	for _, n := range c.nodes {
		run.replaceInstance(n)
	}
	run.finish()
	t.Log(c.report)
}
