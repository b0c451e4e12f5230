package fanout

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestEnvelopesOfOneMessageAreReadBackInOrder(t *testing.T) {
	var message []byte
	sent := []envelope{
		{kind: kindPush, sender: "a", user: "alice", exclude: uuid.New(), frame: []byte(`{"event":"x"}`)},
		{kind: kindEmitAll, sender: "b", frame: []byte{}},
		{kind: kindPush, sender: "a", user: strings.Repeat("u", 128), frame: bytes.Repeat([]byte{0, 255}, 40_000)},
		{kind: 200, request: 1 << 63, within: 5 * time.Second, id: uuid.New(), sender: "from the future"},
	}
	for _, e := range sent {
		message = e.append(message)
	}
	for _, want := range sent {
		var got envelope
		var err error
		if got, message, err = cutEnvelope(message); err != nil {
			t.Fatal(err)
		}
		if got.kind != want.kind || got.request != want.request || got.within != want.within || got.id != want.id || got.sender != want.sender || got.user != want.user || got.exclude != want.exclude || !bytes.Equal(got.frame, want.frame) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if len(message) != 0 {
		t.Errorf("%d bytes are left", len(message))
	}
}

func FuzzNoMessageBreaksTheReader(f *testing.F) {
	f.Add(envelope{kind: kindPush, sender: "a", user: "alice", frame: []byte("x")}.append(nil))
	f.Add([]byte{0})
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, message []byte) {
		for len(message) > 0 {
			e, rest, err := cutEnvelope(message)
			if err != nil {
				return
			}
			again, _, err := cutEnvelope(e.append(nil))
			if err != nil || again.user != e.user || !bytes.Equal(again.frame, e.frame) || len(rest) >= len(message) || !bytes.HasSuffix(message, rest) {
				t.Fatalf("read %+v from %x, and %x is left", e, message, rest)
			}
			message = rest
		}
	})
}
