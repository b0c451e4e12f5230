package handlers

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"rollcall/presence"
)

// box is an outbox that nobody writes but the test.
type box struct{ outbox }

func newBox() *box {
	b := &box{}
	b.open([]byte("welcome"))
	return b
}

// write pretends to write what comes next.
func (b *box) write() (frame string, farewell []byte) {
	next, farewell := b.next()
	if next != nil {
		b.written(next)
	}
	return string(next), farewell
}

// writeAll pretends to write all that waits.
func (b *box) writeAll() (frames []string, farewell []byte) {
	for {
		frame, farewell := b.write()
		if frame == "" {
			return frames, farewell
		}
		frames = append(frames, frame)
	}
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

func TestFramesLeaveInOrderAndTheWelcomeFirst(t *testing.T) {
	b := &box{}
	if taken, next := b.push([]byte("early"), nil); !taken || next != noErrand {
		t.Errorf("a frame before the welcome: taken %v, then %v", taken, next)
	}
	b.open([]byte("welcome"))
	want := []string{"welcome", "early"}
	for n := range 100 {
		b.push(fmt.Append(nil, n), nil)
		want = append(want, fmt.Sprint(n))
	}
	if got, _ := b.writeAll(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestOnlyOneAtATimeIsToldToWrite(t *testing.T) {
	b := &box{}
	if !b.open([]byte("welcome")) {
		t.Fatal("nobody writes the welcome")
	}
	if _, next := b.push([]byte("x"), nil); next != noErrand {
		t.Error("a second writer, while the first has not begun")
	}
	b.write()
	b.write()
	if _, next := b.push([]byte("y"), nil); next != noErrand {
		t.Error("a second writer, while the first has not seen that nothing waits")
	}
	b.writeAll()
	if _, next := b.push([]byte("z"), nil); next != mustWrite {
		t.Error("nobody writes what came when all was written")
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
		if taken, next := b.push([]byte("more"), nil); next == mustGiveUp {
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
	if _, next := large.push(make([]byte, outboxBytes+1), nil); next != mustGiveUp {
		t.Error("bytes are not counted")
	}
}

func TestAClientThatConfirmsNothingCostsBoundedMemory(t *testing.T) {
	b := newBox()
	var counts []*presence.Counts
	for range maxUnacked + 10 {
		counts = append(counts, b.ask("x", uuid.New()))
	}
	b.writeAll()
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
	if b.seal([]byte("last"), 1012, "") {
		t.Error("a second writer")
	}
	if taken, next := b.push([]byte("y"), nil); taken || next != noErrand {
		t.Error("a sealed box took a frame")
	}
	if frames, farewell := b.writeAll(); !slices.Equal(frames, []string{"welcome", "x", "last"}) || farewell == nil {
		t.Errorf("wrote %q, farewell %q", frames, farewell)
	}
	if _, again := b.write(); again != nil {
		t.Error("said farewell twice")
	}
}

func TestAnIdleOutboxSaysFarewellAtOnceWelcomedOrNot(t *testing.T) {
	idle, early, waiting := newBox(), &box{}, &box{}
	idle.writeAll()
	waiting.push([]byte("x"), nil)
	for name, b := range map[string]*box{"idle": idle, "early": early} {
		if !b.seal(nil, 4003, "") {
			t.Errorf("%s: nobody says farewell", name)
		}
		if _, farewell := b.write(); farewell == nil {
			t.Errorf("%s: kept the farewell", name)
		}
	}
	if waiting.seal(nil, 4003, "") {
		t.Error("said farewell before what waits for the welcome")
	}
}
