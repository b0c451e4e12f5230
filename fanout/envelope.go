package fanout

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"

	"rollcall/presence"
)

// The wire format. What instances send each other through Redis is a message: any number of envelopes, one
// after the other. An envelope is
//
//	┌─────────┬──────┬─────────┬────────┬────────┬──────┬─────────┬────┬───────┐
//	│ length  │ kind │ request │ within │ sender │ user │ exclude │ id │ frame │
//	└─────────┴──────┴─────────┴────────┴────────┴──────┴─────────┴────┴───────┘
//
//	length    uvarint, of everything behind it
//	kind      1 byte, see below
//	request   uvarint: number of the sender's request, which the reply repeats; 0: no reply is wanted
//	within    uvarint, ms: how long the receiver may collect its report; 0: it reports as soon as it has
//	          handed the frame to its sockets
//	sender    string: the instance that sent it, or empty
//	user      string, or empty
//	exclude   a socket's UUID, or empty
//	id        the UUID that clients must confirm, or empty
//	frame     the rest
//
// A string and a UUID have their length in front, as a uvarint. For example, this is {"event":"hi"} for
// alice:
//
//	1a 01 00 00 00 05 61 6c 69 63 65 00 00 7b 22 65 76 65 6e 74 22 3a 22 68 69 22 7d
//	│  │  │  │  │  └ user: "alice"   │  └ id: empty, then the frame
//	│  │  │  │  └ sender: empty      └ exclude: empty
//	│  │  │  └ within: 0
//	│  │  └ request: 0
//	│  └ kind: 1, a push
//	└ length: 26
//
// Each kind uses, besides sender:
//
//	 1 push            user, exclude, frame; request, within and id if the sender waits for a report
//	 2 emit, all       frame; request, within and id if the sender waits for a report
//	 3 emit, auth.     the same, for sockets that have a user
//	 4 audit           request. The receiver compares its map with Redis and replies with the result as JSON
//	 5 reply           request, frame. The frame is an audit, a report (see report.append), or empty if a
//	                   barrier has sent it to its own instance
//	 6 kick user       user, exclude, request, within; the frame is the reason, as text
//	 7 kick socket     exclude, which here is the socket to close; request, within; the frame is the reason
//	 8 batch           request, which here is the number of the batch. First in each message that push.lua
//	                   publishes. The number grows with each call that the sender makes in this shard
//	 9 frame           frame. It belongs to each envelope of kind 10 that follows in this message, up to the
//	                   next frame
//	10 push, shared    as push, without a frame
//
// Instances of different versions run side by side while a release is rolled out. So a number is never used
// for anything else, and an envelope of an unknown kind is counted and skipped. A change that does not fit
// this rule needs another --prefix.
type kind byte

const (
	kindPush              kind = 1
	kindEmitAll           kind = 2
	kindEmitAuthenticated kind = 3
	kindAudit             kind = 4
	kindReply             kind = 5
	kindKickUser          kind = 6
	kindKickSocket        kind = 7
	kindBatch             kind = 8
	kindFrame             kind = 9
	kindPushShared        kind = 10
)

// envelope is a frame and where it must go. The wire format above has the meaning of the fields.
type envelope struct {
	kind    kind
	request uint64
	within  time.Duration // whole milliseconds on the wire
	sender  string
	user    string
	exclude uuid.UUID // uuid.Nil: empty
	id      uuid.UUID // uuid.Nil: empty
	frame   []byte

	shared *presence.Shared // not on the wire: set if the frame is that of a kindFrame
}

var errEnvelope = errors.New("fanout: malformed envelope")

// append appends the wire form.
func (e envelope) append(b []byte) []byte {
	var scratch [160]byte
	head := append(scratch[:0], byte(e.kind))
	head = binary.AppendUvarint(head, e.request)
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
	if c.failed || len(body.rest) == 0 {
		return envelope{}, nil, errEnvelope
	}
	e.kind, body.rest = kind(body.rest[0]), body.rest[1:]
	e.request = body.number()
	e.within = time.Duration(body.number()&0xffffff) * time.Millisecond // at most hours, whatever was sent
	e.sender, e.user = string(body.bytes()), string(body.bytes())
	e.exclude, e.id = body.id(), body.id()
	e.frame = body.rest
	if body.failed {
		return envelope{}, nil, errEnvelope
	}
	return e, c.rest, nil
}

// cutter reads one field after the other. Once it has failed it reads nothing more.
type cutter struct {
	rest   []byte
	failed bool
}

func (c *cutter) fail() { c.rest, c.failed = nil, true }

func (c *cutter) number() uint64 {
	x, n := binary.Uvarint(c.rest)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.rest = c.rest[n:]
	return x
}

// bytes reads a length and as many bytes.
func (c *cutter) bytes() []byte {
	size := c.number()
	if size > uint64(len(c.rest)) {
		c.fail()
		return nil
	}
	b := c.rest[:size:size]
	c.rest = c.rest[size:]
	return b
}

func (c *cutter) id() (id uuid.UUID) {
	b := c.bytes()
	if len(b) != 0 && len(b) != len(id) {
		c.fail()
	}
	copy(id[:], b)
	return id
}
