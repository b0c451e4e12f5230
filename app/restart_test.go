package main

import "testing"

func TestUsersStayOnlineThroughARollingRestartAndGetEveryPushThatWasTaken(t *testing.T) {
	t.Parallel()
	w := startWorld(t, 60)
	s := w.begin("rolling restart")
	for _, n := range w.sites {
		s.replaceInstance(n)
	}
	s.settle()
	t.Log(w.report)
}
