package sockets

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

func TestDrain_SendsClientsAwayAndCutsThoseThatStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 1000)
		alice, bob := talkTo(t, s), talkTo(t, s)
		connectTo(t, s) // a client that reads nothing
		synctest.Wait()
		const limit = 5 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		began := time.Now()
		s.Drain(ctx, time.Second)
		if took := time.Since(began); took != limit || s.Number() != 0 {
			t.Errorf("%d sockets are left after %v", s.Number(), took)
		}
		for _, client := range []*talker{alice, bob} {
			if last := <-client.frames; last.Event != eventGoaway {
				t.Errorf("got %+v", last)
			}
			client.wantClose(websocket.CloseServiceRestart)
		}
	})
}
