package handlers

import (
	"runtime"
	"testing"
)

func TestWhatTheKernelKeepsForAClientIsSeenToShrink(t *testing.T) {
	t.Parallel()
	servers, clients := connectSockets(t, 1)
	s, client := servers[0], clients[0]
	for s.allSent() {
		s.sendFrame(make([]byte, 4000))
	}
	before := s.line.untaken()
	if before == 0 {
		t.Fatal("the kernel keeps nothing")
	}
	go func() {
		for {
			if _, _, err := client.ReadMessage(); err != nil {
				return
			}
		}
	}()
	for s.line.untaken() >= before {
		runtime.Gosched()
	}
}
