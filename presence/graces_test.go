package presence

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shows is what others are told of a user on this instance.
func shows(s *Sockets, user string) bool { return s.Count(user).Kind != Gone }

func TestSockets_ChangeAFickleUserTwiceInAShortestStayAtMost(t *testing.T) {
	for name, onPurpose := range map[string]bool{"on purpose": true, "without a grace": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSockets(Redis{MinStay: time.Second, Keys: NewKeys("", 1)}, func(countChange) {})
				ctx, stop := context.WithCancel(t.Context())
				go s.endGraces(ctx)
				defer synctest.Wait()
				defer stop()
				changes, there := 0, false
				look := func() {
					synctest.Wait()
					if now := shows(s, "alice"); now != there {
						there = now
						changes++
					}
				}
				const seconds = 10
				for range seconds * 1000 {
					socket, _ := newSocket("alice")
					s.Add(socket)
					look()
					if s.Count("alice").Sockets != 1 {
						t.Fatal("who comes is not there at once")
					}
					s.Remove(socket, onPurpose)
					look()
					time.Sleep(time.Millisecond)
					look()
				}
				time.Sleep(time.Second)
				look()
				if there {
					t.Error("alice is there for ever")
				}
				if changes < seconds || changes > 2*(seconds+1) {
					t.Errorf("%d changes in %d s", changes, seconds)
				}
			})
		})
	}
}

func TestSockets_LetAUserGoAtOnceAfterTheShortestStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		redis := Redis{Grace: testGrace, MinStay: time.Second, Keys: NewKeys("", 1)}
		s := NewSockets(redis, func(countChange) {})
		alice, _ := newSocket("alice")
		s.Add(alice)
		time.Sleep(time.Second)
		s.Remove(alice, true)
		if shows(s, "alice") {
			t.Error("alice is still there")
		}
	})
}

func TestGraces_RunOnceForEachUserHoweverOftenSocketsDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := atomic.Int64{}
		s := NewSockets(Redis{Grace: 24 * time.Hour, Keys: NewKeys("", 1)}, func(c countChange) {
			if time.Since(c.at) > 0 {
				ended.Add(1)
			}
		})
		ctx, stop := context.WithCancel(t.Context())
		go s.endGraces(ctx)
		defer synctest.Wait()
		defer stop()
		drop := func(user string, onPurpose bool) {
			socket, _ := newSocket(user)
			s.Add(socket)
			s.Remove(socket, onPurpose)
		}
		for n := range 1000 {
			drop("alice", false)
			drop("bob", n%2 == 0)
			drop(fmt.Sprintf("cathy%d", n%10), false)
			time.Sleep(time.Second)
		}
		s.graces.mu.Lock()
		running := len(s.graces.running)
		s.graces.mu.Unlock()
		if running != 12 {
			t.Errorf("%d graces run for 12 users", running)
		}
		time.Sleep(24*time.Hour - 500*time.Second)
		synctest.Wait()
		if got := ended.Load(); got != 0 {
			t.Errorf("%d graces have ended early", got)
		}
		time.Sleep(500 * time.Second)
		synctest.Wait()
		if got := ended.Load(); got != 12 || len(s.appendUsers(nil, 0)) != 0 {
			t.Errorf("%d graces have ended, and %v are still there", got, s.appendUsers(nil, 0))
		}
	})
}
