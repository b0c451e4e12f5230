package fanout

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"

	"rollcall/presence"
)

// kind says what to do with an envelope. The numbers are a protocol between instances of different versions: never reuse one. An instance
// counts and skips an envelope of a kind that it does not know. A change that would not survive that takes a new --prefix.
type kind byte

const (
	kindPush              kind = 1  // for the sockets of one user
	kindEmitAll           kind = 2  // for every socket
	kindEmitAuthenticated kind = 3  // for every socket that has a user
	kindAudit             kind = 4  // a question: how does your map compare with Redis?
	kindReply             kind = 5  // to a question; what the frame is depends on it
	kindKickUser          kind = 6  // close the sockets of one user; the frame is the reason
	kindKickSocket        kind = 7  // close the socket that exclude names, whoever has it; the frame is the reason
	kindCall              kind = 8  // for nobody: what follows was routed by this call of the sender's in this shard; ask is its number
	kindFrame             kind = 9  // for nobody: the frame of each kindPushShared that follows in this message, up to the next kindFrame
	kindPushShared        kind = 10 // kindPush, without a frame of its own
)

// CloseKicked is the close code of a socket that was kicked: do not come back.
const CloseKicked = 4003

// envelope is a frame and where it must go. A message is any number of envelopes, one after the other. On the wire an envelope is the
// length of the rest, the kind (1 byte), ask, within, sender, user, exclude, id, and the frame. Numbers are uvarints; all but the frame have
// their length in front, and what is not needed has the length 0.
type envelope struct {
	kind    kind
	ask     uint64        // the sender's number of a question, which the reply gives back; 0: nobody waits for a reply
	within  time.Duration // in which to reply with what is known then; ms on the wire
	sender  string        // the instance that sent it; empty if nobody needs to know
	user    string        // of a push
	exclude uuid.UUID     // the socket of that user that must not get it; uuid.Nil: none
	id      uuid.UUID     // of a push that clients must confirm; else uuid.Nil
	frame   []byte

	shared *presence.Shared // not on the wire: of a frame that came before it
}

var errEnvelope = errors.New("fanout: malformed envelope")

// append appends the wire form.
func (e envelope) append(b []byte) []byte {
	var scratch [160]byte
	head := append(scratch[:0], byte(e.kind))
	head = binary.AppendUvarint(head, e.ask)
	head = binary.AppendUvarint(head, uint64(e.within.Milliseconds()))
	head = appendPrefixed(head, e.sender)
	head = appendPrefixed(head, e.user)
	head = appendID(head, e.exclude)
	head = appendID(head, e.id)
	b = binary.AppendUvarint(b, uint64(len(head)+len(e.frame)))
	b = append(b, head...)
	return append(b, e.frame...)
}

func appendPrefixed(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendID(b []byte, id uuid.UUID) []byte {
	if id == uuid.Nil {
		return append(b, 0)
	}
	return append(append(b, byte(len(id))), id[:]...)
}

// cutEnvelope reads the first envelope of a message. The frame shares the message's memory.
func cutEnvelope(message []byte) (e envelope, rest []byte, err error) {
	c := cutter{rest: message}
	body := cutter{rest: c.bytes()}
	if !c.failed && len(body.rest) > 0 {
		e.kind, body.rest = kind(body.rest[0]), body.rest[1:]
		e.ask = body.number()
		e.within = time.Duration(body.number()&0xffffff) * time.Millisecond // nobody waits for hours
		e.sender, e.user = string(body.bytes()), string(body.bytes())
		e.exclude, e.id = body.id(), body.id()
		e.frame = body.rest
	} else {
		body.failed = true
	}
	if body.failed {
		return envelope{}, nil, errEnvelope
	}
	return e, c.rest, nil
}

// cutter reads one thing after the other. Once it has failed it reads nothing.
type cutter struct {
	rest   []byte
	failed bool
}

func (c *cutter) number() uint64 {
	x, n := binary.Uvarint(c.rest)
	if n <= 0 {
		c.rest, c.failed = nil, true
		return 0
	}
	c.rest = c.rest[n:]
	return x
}

// bytes reads a length and as many bytes.
func (c *cutter) bytes() []byte {
	size := c.number()
	if size > uint64(len(c.rest)) {
		c.rest, c.failed = nil, true
		return nil
	}
	b := c.rest[:size:size]
	c.rest = c.rest[size:]
	return b
}

func (c *cutter) id() (id uuid.UUID) {
	b := c.bytes()
	if len(b) != 0 && len(b) != len(id) {
		c.rest, c.failed = nil, true
	}
	copy(id[:], b)
	return id
}

func emitKind(to presence.Audience) kind {
	if to == presence.Everybody {
		return kindEmitAll
	}
	return kindEmitAuthenticated
}
