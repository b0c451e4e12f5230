package sockets

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"rollcall/presence"
)

func TestSocket_TakesABurstAndThenTheClientsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 1000)
		s.options.ClientRate = 50
		client := talkTo(t, s)
		for range 3 {
			for n := range 2 * s.options.ClientRate {
				client.send(fmt.Sprint(n))
				client.wantAnswer(codeUnknownEvent, fmt.Sprint(n))
			}
			client.send("beyond")
			client.wantAnswer(codeRateLimited, "beyond")
			for range 200 { // what is at most as fast as the rate is handled
				time.Sleep(time.Second / time.Duration(s.options.ClientRate))
				client.send("later")
				client.wantAnswer(codeUnknownEvent, "later")
			}
			time.Sleep(rateBurst)
		}
		if n := s.Counts.RateLimited.Load(); n != 3 {
			t.Errorf("%d frames were counted as refused", n)
		}
	})
}

func TestSocket_HoldsUpAClientThatGoesOnTooFastAndThenCloses(t *testing.T) {
	flood := func(t *testing.T, send func(*talker) error) (map[string]int, time.Duration) {
		s := startServer(t, 64<<10)
		s.options.ClientRate = 50
		client := talkTo(t, s)
		began := time.Now()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for send(client) == nil {
			}
		}()
		codes := client.wantClose(closeTooManyFrames)
		client.Close()
		<-sent
		if s.Counts.Floods.Load() != 1 {
			t.Errorf("%d floods were counted", s.Counts.Floods.Load())
		}
		return codes, time.Since(began)
	}
	large := fmt.Appendf(nil, `{"event":"x","data":%q}`, strings.Repeat("x", 60<<10))
	for name, frame := range map[string][]byte{"small": frameWith("1"), "large": large} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				codes, took := flood(t, func(client *talker) error {
					return client.WriteMessage(websocket.TextMessage, frame)
				})
				most := 50 * int(took/time.Second+1)
				handled := codes[codeUnknownEvent] + codes[codeFrameTooLarge]
				if handled > most+100 || codes[codeRateLimited] > most {
					t.Errorf("within %v: %v", took, codes)
				}
				if took < floodTime || took > floodTime+2*floodPause {
					t.Errorf("it was closed after %v", took)
				}
			})
		})
	}
	for name, kind := range map[string]int{"pings": websocket.PingMessage, "pongs": websocket.PongMessage} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				_, took := flood(t, func(client *talker) error {
					sent++
					return client.WriteControl(kind, nil, time.Time{})
				})
				if most := 100 * int(took/time.Second+3); sent > most {
					t.Errorf("%d were read within %v", sent, took)
				}
			})
		})
	}
}

func TestBucket_HasRoomForTheLargestFrameAtAnyRate(t *testing.T) {
	for _, rate := range []int{1, 50, 100_000} {
		var b bucket
		if wait := b.take(0, rate, 1<<20); wait != 0 {
			t.Errorf("at a rate of %d: wait %v", rate, wait)
		}
		if wait := b.take(rateBurst, rate, 1<<20); wait != 0 {
			t.Errorf("at a rate of %d, a burst later: wait %v", rate, wait)
		}
	}
}

func TestBucket_TakesTokensForBytes(t *testing.T) {
	var b bucket
	frames := 0
	for b.take(0, 50, 64<<10) == 0 {
		frames++
	}
	if frames != 100/5 {
		t.Errorf("%d frames of 64 KiB are a burst", frames)
	}
}

func TestSocket_TakesAwaitedConfirmationsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 1000)
		s.options.ClientRate = 1
		client := talkTo(t, s)
		socket := s.registry.all()[0]
		acked := 0
		for range 100 {
			push := uuid.New()
			told := make(chan presence.Counts, 1)
			tracker := presence.NewTracker(push, func(c presence.Counts) { told <- c })
			one := presence.NewSockets(presence.Redis{Keys: presence.NewKeys("", 1)}, nil)
			one.Add(&socket.Socket)
			message := presence.Message{Frame: frameWith("push"), Tracker: tracker}
			one.Emit([]*presence.Emit{{To: presence.Everybody, Message: message}})
			<-client.frames
			frame := fmt.Appendf(nil, `{"event":"rollcall:ack","data":{"id":%q}}`, push)
			if err := client.WriteMessage(websocket.TextMessage, frame); err != nil {
				t.Fatal(err)
			}
			acked += (<-told).Acked
		}
		if acked != 100 || s.Counts.RateLimited.Load() > 0 {
			t.Errorf("%d were counted as confirmed, %d refused", acked, s.Counts.RateLimited.Load())
		}
		for range 3 { // of a push that nobody waits for
			frame := fmt.Appendf(nil, `{"event":"rollcall:ack","data":{"id":%q}}`, uuid.New())
			if err := client.WriteMessage(websocket.TextMessage, frame); err != nil {
				t.Fatal(err)
			}
		}
		client.wantAnswer(codeRateLimited, "")
	})
}
