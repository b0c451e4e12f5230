package fanout

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

func TestWorker_ASocketThatHoldsItUpHoldsUpNeitherTheSubscriptionNorTheSender(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		a, b, alice := startWithAlice(t, server)
		open := alice.shut()
		var frames []string
		for n := range 100 {
			frames = append(frames, fmt.Sprint(n))
			a.wantPush("alice", frames[n], presence.Online, 1)
		}
		redistest.Await(t, "all to be queued", func() bool { return b.bus.Queued() == len(frames) })
		open()
		alice.wantFrames(frames...)
	})
}

// diary keeps who was written to, in order.
type diary struct{ written []string }

// page is a connection that writes its user's name and the frame into the diary.
type page struct {
	diary *diary
	user  string
}

func (p page) Send(messages ...presence.Message) bool {
	for _, message := range messages {
		p.diary.written = append(p.diary.written, p.user+" "+string(message.Frame))
	}
	return true
}

func (p page) Close(_ int, reason string) {
	p.diary.written = append(p.diary.written, p.user+" closed: "+reason)
}

func (p page) Reachable() {}

// still is a bus that does nothing by itself: the test gives the turns.
type still struct {
	*Bus
	diary diary
}

func newStill() *still {
	log := slog.New(slog.DiscardHandler)
	redis := presence.Redis{Keys: presence.NewKeys("x", 1), Lease: time.Second}
	mirror, sockets := presence.NewMirror(presence.MirrorOptions{Redis: redis, Log: log})
	b := NewBus(Options{
		Instance: "here", Redis: redis, Sockets: sockets, Mirror: mirror, Log: log,
	})
	b.workers = b.workers[:1] // all users share it
	return &still{Bus: b}
}

// open opens sockets of a user.
func (s *still) open(user string, sockets int) *presence.Socket {
	var last *presence.Socket
	for range sockets {
		last = &presence.Socket{ID: uuid.New(), User: user, Conn: page{&s.diary, user}}
		s.sockets.Add(last)
	}
	return last
}

// arrive has envelopes arrive in one message.
func (s *still) arrive(t *testing.T, envelopes ...envelope) {
	var message []byte
	for _, e := range envelopes {
		message = e.append(message)
	}
	s.receive(t.Context(), rueidis.PubSubMessage{Channel: "x", Message: string(message)})
}

// work gives turns until nobody waits.
func (s *still) work() {
	for s.workers[0].step() {
	}
}

func (s *still) wantWritten(t *testing.T, want ...string) {
	t.Helper()
	if got := s.diary.written; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	s.diary.written = nil
}

func pushTo(user, frame string) envelope {
	return envelope{kind: kindPush, user: user, frame: []byte(frame)}
}

func TestWorker_LetsUsersTakeTurnsAndKeepsTheOrderOfEach(t *testing.T) {
	s := newStill()
	for _, user := range []string{"mallory", "alice", "bob"} {
		s.open(user, 1)
	}
	for n := range 5 {
		s.arrive(t, pushTo("mallory", fmt.Sprint(n)))
	}
	s.arrive(t, pushTo("alice", "0"), pushTo("bob", "0"), pushTo("alice", "1"))
	s.work()
	s.wantWritten(t,
		"mallory 0", "alice 0", "bob 0", "mallory 1", "alice 1", "mallory 2", "mallory 3", "mallory 4")
	users := len(s.workers[0].users)
	if jobs, bytes := s.Queued(), s.room.bytes.Load(); jobs != 0 || bytes != 0 || users != 0 {
		t.Errorf("%d jobs with %d bytes are still counted, of %d users", jobs, bytes, users)
	}
}

func TestWorker_ServesAUserWithManySocketsInPartsAndOthersInBetween(t *testing.T) {
	s := newStill()
	s.open("mallory", 2*socketsATurn+1)
	s.open("alice", 1)
	s.arrive(t, pushTo("mallory", "0"), pushTo("mallory", "1"))
	for n := range 4 {
		s.arrive(t, pushTo("alice", fmt.Sprint(n)))
	}
	s.work()
	var before []int // how much mallory got before each of alice's
	mallorys := 0
	for _, written := range s.diary.written {
		if strings.HasPrefix(written, "alice") {
			before = append(before, mallorys)
		} else {
			mallorys++
		}
	}
	want := []int{socketsATurn, 2 * socketsATurn, 2*socketsATurn + 1, 3*socketsATurn + 1}
	if !slices.Equal(before, want) || mallorys != 2*(2*socketsATurn+1) {
		t.Errorf("before alice's pushes %v were written to mallory, of %d; want %v", before, mallorys, want)
	}
}

func TestWorker_AKickKeepsTheOrderAndNeedsNoRoomOfItsUser(t *testing.T) {
	s := newStill()
	one := s.open("mallory", 1)
	for range userJobs {
		s.arrive(t, pushTo("mallory", "x"))
	}
	s.arrive(t, pushTo("mallory", "too many"))
	s.arrive(t, envelope{kind: kindKickUser, user: "mallory", frame: []byte("flood")})
	s.arrive(t, envelope{kind: kindKickSocket, sender: "there", exclude: one.ID, frame: []byte("again")})
	s.emitter.deliver([]emitJob{<-s.emitter.queue}) // which finds the socket
	s.work()
	if dropped := s.Dropped.Overflow.Load(); dropped != 1 || len(s.diary.written) != userJobs+2 {
		t.Fatalf("%d were dropped, %d written", dropped, len(s.diary.written))
	}
	s.diary.written = s.diary.written[userJobs-1:]
	s.wantWritten(t, "mallory x", "mallory closed: flood", "mallory closed: again")
}

func TestRoom_OnlyTheFloodedUsersLosePushes(t *testing.T) {
	for name, c := range map[string]struct{ flooders, bytes int }{
		"many small pushes to one user":  {1, 1},
		"large pushes to one user":       {1, 1 << 20},
		"large pushes to many users":     {20, 1 << 20},
		"middling pushes to crowds":      {500, 20 << 10},
		"pushes to one, as large as all": {1, receiveBytes / 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStill()
			frame := strings.Repeat("x", c.bytes)
			sent, flooder := 0, func(n int) string { return fmt.Sprintf("mallory%d", n%c.flooders) }
			for s.Dropped.Overflow.Load() < int64(c.flooders) { // each has lost some
				s.arrive(t, pushTo(flooder(sent), frame))
				sent++
			}
			lost := s.Dropped.Overflow.Load()
			for n := range 100 {
				s.open(userOf(n), 1)
				s.arrive(t, pushTo(userOf(n), "x"))
			}
			if s.Dropped.Overflow.Load() != lost {
				t.Errorf("others lost %d pushes", s.Dropped.Overflow.Load()-lost)
			}
			if bytes := s.room.bytes.Load(); bytes > receiveBytes {
				t.Errorf("%d bytes wait", bytes)
			}
			s.work()
			if len(s.diary.written) != 100 {
				t.Errorf("%d pushes came to the others", len(s.diary.written))
			}
			s.arrive(t, pushTo(flooder(0), frame))
			if s.Dropped.Overflow.Load() != lost {
				t.Error("there is no room again")
			}
			s.work()
			if bytes := s.room.bytes.Load(); bytes != 0 {
				t.Errorf("%d bytes are still counted", bytes)
			}
		})
	}
}

func TestRoom_CountsASharedFrameOnce(t *testing.T) {
	s := newStill()
	const users, frames, large = 1000, 2, 1 << 20
	for range frames {
		message := []envelope{{kind: kindFrame, frame: make([]byte, large)}}
		for n := range users {
			message = append(message, envelope{kind: kindPushShared, user: userOf(n)})
		}
		s.arrive(t, message...)
	}
	dropped, bytes := s.Dropped.Overflow.Load(), s.room.bytes.Load()
	if dropped != 0 || bytes > (frames+1)*large {
		t.Errorf("%d were dropped, %d bytes are counted", dropped, bytes)
	}
	s.work()
	if bytes := s.room.bytes.Load(); bytes != 0 {
		t.Errorf("%d bytes are still counted", bytes)
	}
}

func TestBus_AShortFrameThatWaitsDoesNotKeepALongMessage(t *testing.T) {
	s := newStill()
	const messages, large = 32, 1 << 20
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	for range messages {
		s.arrive(t, pushTo("mallory", "short"), envelope{kind: 99, frame: make([]byte, large)})
	}
	if grown := int64(heap()) - int64(before); s.Queued() != messages || grown > messages*large/2 {
		t.Errorf("%d pushes wait, with %d bytes", s.Queued(), grown)
	}
	runtime.KeepAlive(s)
}
