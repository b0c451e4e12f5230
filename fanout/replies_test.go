package fanout

import (
	"testing"

	"rollcall/lua/redistest"
)

func TestReplyBatcher_DropsAndCountsWhatFindsNoRoom(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	idle := newReplyBatcher(a.bus.redis, a.bus.log, &a.bus.Dropped.Replies)
	idle.send("to:b", envelope{frame: make([]byte, replyBytes)}) // nobody sends it
	idle.send("to:b", envelope{})
	if got := a.bus.Dropped.Replies.Load(); got != 1 {
		t.Errorf("%d were counted", got)
	}
	idle.flush(t.Context())
	idle.send("to:b", envelope{})
	if got := a.bus.Dropped.Replies.Load(); got != 1 {
		t.Errorf("with room again %d were counted", got)
	}
}
