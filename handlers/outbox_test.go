package handlers

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"rollcall/presence"
)

// box is an outbox whose frames go to a slice instead of Melody.
type box struct {
	outbox
	handedOver []string
}

func newBox() *box {
	b := &box{}
	b.open([]byte("welcome"), func(frame []byte) { b.handedOver = append(b.handedOver, string(frame)) })
	return b
}

// write pretends that Melody has written the next frame.
func (b *box) write() (farewell []byte) {
	frame := b.handedOver[0]
	b.handedOver = b.handedOver[1:]
	return b.written([]byte(frame))
}

// ask pushes a frame and returns what becomes of it, when that is known.
func (b *box) ask(frame string, ack uuid.UUID) *presence.Counts {
	counts := &presence.Counts{Unanswered: -1}
	tally := presence.NewTally(ack, func(c presence.Counts) { *counts = c })
	sockets := presence.NewSockets(0, nil)
	conn := &boxConn{b}
	sockets.Add(&presence.Socket{ID: uuid.New(), Conn: conn})
	sockets.Emit(presence.Everybody, []byte(frame), tally)
	return counts
}

type boxConn struct{ box *box }

func (c *boxConn) Send([]byte) bool  { panic("not tallied") }
func (c *boxConn) Close(int, string) {}
func (c *boxConn) Reachable()        {}
func (c *boxConn) SendTallied(frame []byte, tally *presence.Tally) bool {
	taken, _ := c.box.push(frame, tally)
	return taken
}

func TestFramesLeaveInOrderHoweverFewMelodyTakesAtOnce(t *testing.T) {
	b := &box{}
	b.push([]byte("early"), nil) // before the welcome
	b.open([]byte("welcome"), func(frame []byte) { b.handedOver = append(b.handedOver, string(frame)) })
	want := []string{"welcome", "early"}
	for n := range 100 {
		b.push(fmt.Append(nil, n), nil)
		want = append(want, fmt.Sprint(n))
	}
	var got []string
	for len(b.handedOver) > 0 {
		if len(b.handedOver) > melodyBuffer {
			t.Fatalf("Melody was given %d frames at once", len(b.handedOver))
		}
		got = append(got, b.handedOver[0])
		b.write()
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestATallyIsToldWhenItsFrameIsWritten(t *testing.T) {
	b := newBox()
	b.push([]byte("other"), nil)
	counts := b.ask("x", uuid.Nil)
	b.write() // the welcome
	b.write() // other
	if counts.Unanswered != -1 {
		t.Fatalf("told too early: %+v", *counts)
	}
	b.write()
	if *counts != (presence.Counts{Written: 1}) {
		t.Errorf("%+v", *counts)
	}
}

func TestATallyIsToldWhenTheClientConfirmsHoweverEarly(t *testing.T) {
	b := newBox()
	first, second, third := uuid.New(), uuid.New(), uuid.New()
	a, c, d := b.ask("1", first), b.ask("2", second), b.ask("3", third)
	b.write()
	b.write()
	b.acked(first)
	b.acked(second) // before the word that it was written
	b.acked(uuid.New())
	b.write()
	b.write()
	b.end()
	both := presence.Counts{Written: 1, Acked: 1}
	if *a != both || *c != both || *d != (presence.Counts{Written: 1, Unanswered: 1}) {
		t.Errorf("%+v, %+v, %+v", *a, *c, *d)
	}
}

func TestWhatIsNotWrittenWhenTheSocketEndsIsGone(t *testing.T) {
	b := newBox()
	before := b.ask("x", uuid.New())
	b.end()
	after := b.ask("y", uuid.Nil)
	if gone := (presence.Counts{Gone: 1}); *before != gone || *after != gone {
		t.Errorf("%+v, %+v", *before, *after)
	}
}

func TestAFullOutboxDropsAllThatWaits(t *testing.T) {
	b := newBox()
	first := b.ask("x", uuid.Nil)
	for n := 0; ; n++ {
		if taken, full := b.push([]byte("more"), nil); full {
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
	if _, full := large.push(make([]byte, outboxBytes+1), nil); !full {
		t.Error("bytes are not counted")
	}
}

func TestAClientThatConfirmsNothingCostsBoundedMemory(t *testing.T) {
	b := newBox()
	var counts []*presence.Counts
	for range maxUnacked + 10 {
		counts = append(counts, b.ask("x", uuid.New()))
	}
	for len(b.handedOver) > 0 {
		b.write()
	}
	if len(b.receipts.unacked) != maxUnacked {
		t.Errorf("%d are tracked", len(b.receipts.unacked))
	}
	if last := counts[len(counts)-1]; *last != (presence.Counts{Written: 1, Unanswered: 1}) {
		t.Errorf("%+v", *last)
	}
}

func TestTheFarewellComesAfterAllThatWaits(t *testing.T) {
	b := newBox()
	b.push([]byte("x"), nil)
	if b.seal([]byte("last"), 1012, "") != nil {
		t.Error("said farewell too early")
	}
	if taken, full := b.push([]byte("y"), nil); taken || full {
		t.Error("a sealed box took a frame")
	}
	for _, farewell := range []bool{false, false, true} {
		if got := b.write(); (got != nil) != farewell {
			t.Errorf("farewell %v, want %v", got, farewell)
		}
	}
	idle := newBox()
	idle.write()
	if idle.seal(nil, 4003, "") == nil {
		t.Error("an idle box kept the farewell")
	}
}
