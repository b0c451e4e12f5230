package fanout

import (
	"encoding/binary"
	"errors"

	"github.com/google/uuid"

	"rollcall/presence"
)

// kind says what to do with an envelope. The numbers are a protocol between instances of different versions: never reuse one.
type kind byte

const (
	kindPush              kind = 1 // for the sockets of one user
	kindEmitAll           kind = 2 // for every socket
	kindEmitAuthenticated kind = 3 // for every socket that has a user
	kindAudit             kind = 4 // a question: how does your map compare with Redis?
	kindReply             kind = 5 // to a question; the frame is what the question's kind says
)

// envelope is a frame and where it must go. On the wire, ask and lengths being uvarints:
//
//	length of the rest | kind (1 byte) | ask | length, sender | length, user | 16 bytes, excluded socket (zeros: none) | frame
//
// A message is any number of envelopes, one after the other.
type envelope struct {
	kind    kind
	ask     uint64    // the sender's number of a question, which the reply gives back; 0: no question
	sender  string    // the instance that sent it
	user    string    // of a push
	exclude uuid.UUID // the socket of that user that must not get it
	frame   []byte
}

var errEnvelope = errors.New("fanout: malformed envelope")

// append appends the wire form.
func (e envelope) append(b []byte) []byte {
	size := 1 + uvarintSize(e.ask) + prefixed(len(e.sender)) + prefixed(len(e.user)) + len(e.exclude) + len(e.frame)
	b = binary.AppendUvarint(b, uint64(size))
	b = append(b, byte(e.kind))
	b = binary.AppendUvarint(b, e.ask)
	b = binary.AppendUvarint(b, uint64(len(e.sender)))
	b = append(b, e.sender...)
	b = binary.AppendUvarint(b, uint64(len(e.user)))
	b = append(b, e.user...)
	b = append(b, e.exclude[:]...)
	return append(b, e.frame...)
}

// prefixed is the size of so many bytes behind their length.
func prefixed(n int) int { return uvarintSize(uint64(n)) + n }

func uvarintSize(x uint64) int {
	var scratch [binary.MaxVarintLen64]byte
	return binary.PutUvarint(scratch[:], x)
}

// cutEnvelope reads the first envelope of a message. The frame shares the message's memory.
func cutEnvelope(message []byte) (e envelope, rest []byte, err error) {
	body, rest, ok := cutBytes(message)
	if !ok || len(body) == 0 {
		return e, nil, errEnvelope
	}
	e.kind = kind(body[0])
	ask, n := binary.Uvarint(body[1:])
	if n <= 0 {
		return e, nil, errEnvelope
	}
	e.ask = ask
	sender, body, ok := cutBytes(body[1+n:])
	if !ok {
		return e, nil, errEnvelope
	}
	user, body, ok := cutBytes(body)
	if !ok || len(body) < len(e.exclude) {
		return e, nil, errEnvelope
	}
	e.sender, e.user = string(sender), string(user)
	copy(e.exclude[:], body)
	e.frame = body[len(e.exclude):]
	return e, rest, nil
}

// cutBytes reads a length and as many bytes.
func cutBytes(b []byte) (bytes, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	end := n + int(size)
	return b[n:end:end], b[end:], true
}

func emitKind(to presence.Audience) kind {
	if to == presence.Everybody {
		return kindEmitAll
	}
	return kindEmitAuthenticated
}
