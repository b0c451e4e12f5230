package sockets

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"rollcall/presence"
)

// box is an outbox whose messages go to a slice instead of a connection.
type box struct {
	outbox
	room       bool // messages are written at once
	handedOver []string
	tracked    []*presence.Tracker
}

func newBox() *box {
	b := &box{}
	b.open([]byte("welcome"), b)
	return b
}

func (b *box) write(messages []presence.Message) bool {
	for _, message := range messages {
		b.handedOver = append(b.handedOver, string(message.Frame))
	}
	return b.room
}

func (b *box) allSent() bool { return true }

// writeAll pretends that all that was handed over is written now.
func (b *box) writeAll() (closeFrame []byte) {
	b.handedOver = nil
	return b.written()
}

func (b *box) put(frames ...string) (taken, full bool) {
	var messages []presence.Message
	for _, frame := range frames {
		messages = append(messages, presence.Message{Frame: []byte(frame)})
	}
	return b.push(messages)
}

// track pushes a frame and returns what becomes of it, when that is known.
func (b *box) track(frame string, ack uuid.UUID) *presence.Counts {
	counts := &presence.Counts{Unanswered: -1}
	tracker := presence.NewTracker(ack, func(c presence.Counts) { *counts = c })
	b.tracked = append(b.tracked, tracker)
	sockets := presence.NewSockets(presence.Redis{Keys: presence.NewKeys("", 1)}, nil)
	sockets.Add(&presence.Socket{ID: uuid.New(), Conn: &boxConn{b}})
	message := presence.Message{Frame: []byte(frame), Tracker: tracker}
	sockets.Emit([]*presence.Emit{{To: presence.Everybody, Message: message}})
	return counts
}

type boxConn struct{ box *box }

func (c *boxConn) Close(int, string) {}
func (c *boxConn) Reachable()        {}
func (c *boxConn) Send(messages ...presence.Message) bool {
	taken, _ := c.box.push(messages)
	return taken
}

func TestOutbox_KeepsTheOrderWhetherFramesWaitOrNot(t *testing.T) {
	b := &box{}
	b.put("early") // before the welcome
	b.open([]byte("welcome"), b)
	b.put("1", "2")
	b.put("3")
	var got []string
	for len(b.handedOver) > 0 {
		got = append(got, b.handedOver...)
		b.writeAll()
	}
	b.room = true
	b.put("4")
	b.put("5", "6")
	got = append(got, b.handedOver...)
	if want := []string{"welcome", "early", "1", "2", "3", "4", "5", "6"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if b.waiting != nil || b.bytes != 0 {
		t.Errorf("%d wait, with %d bytes", len(b.waiting), b.bytes)
	}
}

func TestOutbox_HandsOverMuchInParts(t *testing.T) {
	b := newBox()
	for range 10 {
		b.put(string(make([]byte, batchBytes/3)))
	}
	b.writeAll()
	if len(b.handedOver) != 4 {
		t.Errorf("%d at a time", len(b.handedOver))
	}
}

func TestOutbox_TellsATrackerWhenItsFrameIsWritten(t *testing.T) {
	b := newBox()
	counts := b.track("x", uuid.Nil)
	b.writeAll() // the welcome
	if counts.Unanswered != -1 {
		t.Fatalf("told too early: %+v", *counts)
	}
	b.writeAll()
	b.room = true
	atOnce := b.track("y", uuid.Nil)
	if written := (presence.Counts{Written: 1}); *counts != written || *atOnce != written {
		t.Errorf("%+v, %+v", *counts, *atOnce)
	}
}

func TestOutbox_TellsATrackerWhenTheClientConfirmsHoweverEarly(t *testing.T) {
	b := newBox()
	first, second, third := uuid.New(), uuid.New(), uuid.New()
	a := b.track("1", first)
	b.writeAll() // the welcome
	b.writeAll()
	c, d := b.track("2", second), b.track("3", third)
	b.ack(first)
	b.ack(second) // before the word that it was written
	b.ack(uuid.New())
	b.writeAll()
	b.writeAll()
	b.end()
	both := presence.Counts{Written: 1, Acked: 1}
	if *a != both || *c != both || *d != (presence.Counts{Written: 1, Unanswered: 1}) {
		t.Errorf("%+v, %+v, %+v", *a, *c, *d)
	}
}

func TestOutbox_ReportsAsGoneWhatIsNotWrittenWhenItEnds(t *testing.T) {
	b := newBox()
	before := b.track("x", uuid.New())
	b.end()
	after := b.track("y", uuid.Nil)
	if gone := (presence.Counts{Gone: 1}); *before != gone || *after != gone {
		t.Errorf("%+v, %+v", *before, *after)
	}
}

func TestOutbox_DropsAllThatWaitsWhenItIsFull(t *testing.T) {
	b := newBox()
	first := b.track("x", uuid.Nil)
	for n := 0; ; n++ {
		if taken, full := b.put("more"); full {
			if n != outboxMessages-2 {
				t.Errorf("full after %d more", n)
			}
			break
		} else if !taken {
			t.Fatal("not taken, and not full")
		}
	}
	if *first != (presence.Counts{Dropped: 1}) {
		t.Errorf("%+v", *first)
	}
	large := newBox()
	if _, full := large.put(string(make([]byte, outboxBytes+1))); !full {
		t.Error("bytes are not counted")
	}
}

func TestUnacked_IsBoundedForAClientThatConfirmsNothing(t *testing.T) {
	b := newBox()
	var counts []*presence.Counts
	for range maxUnacked + 10 {
		counts = append(counts, b.track("x", uuid.New()))
	}
	b.writeAll()
	b.writeAll()
	if len(b.unacked.pushes) != maxUnacked {
		t.Errorf("%d are tracked", len(b.unacked.pushes))
	}
	if last := counts[len(counts)-1]; *last != (presence.Counts{Written: 1, Unanswered: 1}) {
		t.Errorf("%+v", *last)
	}
}

func TestUnacked_ForgetsConfirmationsThatNobodyWaitsForAnyMore(t *testing.T) {
	b := newBox()
	b.writeAll() // the welcome
	for range maxUnacked {
		b.track("x", uuid.New())
	}
	b.tracked[7].Expire()
	push := uuid.New()
	counts := b.track("y", push)
	b.writeAll()
	b.ack(push)
	if *counts != (presence.Counts{Written: 1, Acked: 1}) {
		t.Errorf("%+v", *counts)
	}
	if len(b.unacked.pushes) != maxUnacked-1 {
		t.Errorf("%d are tracked", len(b.unacked.pushes))
	}
}

func TestOutbox_LetsTheCloseFrameComeAfterAllThatWaits(t *testing.T) {
	b := newBox()
	b.put("x")
	if b.seal([]byte("last"), 1012, "") != nil {
		t.Error("a close frame before all that waits")
	}
	if taken, full := b.put("y"); taken || full {
		t.Error("a sealed box took a frame")
	}
	if closeFrame := b.writeAll(); closeFrame != nil {
		t.Error("a close frame before the last frame")
	}
	if closeFrame := b.writeAll(); closeFrame == nil {
		t.Error("no close frame at the end")
	}
	idle := newBox()
	idle.writeAll()
	if idle.seal(nil, 4003, "") == nil {
		t.Error("an idle outbox has no close frame")
	}
}

func TestOutbox_LetsTheCloseFrameComeAfterTheWelcome(t *testing.T) {
	b := &box{room: true}
	if closeFrame := b.seal([]byte("goaway"), 1012, "come back"); closeFrame != nil {
		t.Error("the close frame overtakes the welcome")
	}
	if closeFrame := b.open([]byte("welcome"), b); closeFrame == nil {
		t.Error("no close frame")
	}
	if want := []string{"welcome", "goaway"}; !slices.Equal(b.handedOver, want) {
		t.Errorf("%q, want %q", b.handedOver, want)
	}
}

func TestOutbox_CopiesAFrameThatWaits(t *testing.T) {
	b := newBox()
	message := []byte("a push among many")
	frame := message[:6]
	b.push([]presence.Message{{Frame: frame}})
	copy(message, "changed")
	b.writeAll()
	if want := []string{"a push"}; !slices.Equal(b.handedOver, want) {
		t.Errorf("%q, want %q", b.handedOver, want)
	}
}
