package fanout

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestEnvelope_IsReadBackInItsPlaceInTheMessage(t *testing.T) {
	var message []byte
	sent := []envelope{
		{kind: kindPush, sender: "a", user: "alice", exclude: uuid.New(), frame: []byte(`{"event":"x"}`)},
		{kind: kindEmitAll, sender: "b", frame: []byte{}},
		{kind: kindPush, user: strings.Repeat("u", 128), frame: bytes.Repeat([]byte{0, 255}, 40_000)},
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
		if len(want.frame) == 0 { // nil or not
			got.frame = want.frame
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if len(message) != 0 {
		t.Errorf("%d bytes are left", len(message))
	}
}

func FuzzEnvelope_NoMessageBreaksTheReader(f *testing.F) {
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
			if err != nil || again.user != e.user || !bytes.Equal(again.frame, e.frame) ||
				len(rest) >= len(message) || !bytes.HasSuffix(message, rest) {
				t.Fatalf("read %+v from %x, and %x is left", e, message, rest)
			}
			message = rest
		}
	})
}

func TestEnvelope_LooksOnTheWireAsDocumented(t *testing.T) {
	e := envelope{kind: kindPush, user: "alice", frame: []byte(`{"event":"hi"}`)}
	const want = "1a 01 00 00 00 05 61 6c 69 63 65 00 00 7b 22 65 76 65 6e 74 22 3a 22 68 69 22 7d"
	if got := fmt.Sprintf("% x", e.append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
