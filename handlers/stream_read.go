package handlers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"rollcall/fanout"
	"rollcall/handlers/sockets"
	"rollcall/handlers/strict"
)

// lineBody is the JSON of one line of a stream.
type lineBody struct {
	pushBody
	User string         `json:"user"`
	Ref  jsontext.Value `json:"ref"` // a string, optional; the answer repeats it
}

// lineID names a line in its answer: by its ref, or else by its number.
type lineID struct {
	number int            // from 1; 0: this is no line of a stream
	ref    jsontext.Value // nil: it has none
}

// appendTo appends the first field of an answer.
func (l lineID) appendTo(b []byte) []byte {
	switch {
	case l.ref != nil:
		return append(append(append(b, `"ref":`...), l.ref...), ',')
	case l.number > 0:
		return append(strconv.AppendInt(append(b, `"line":`...), int64(l.number), 10), ',')
	}
	return b
}

// pendingLine is a line that was read and is not answered yet: a push on its way, or what is wrong with the
// line.
type pendingLine struct {
	size   int64 // bytes of the stream's room that it takes
	id     lineID
	pushID uuid.UUID
	user   string
	ticket *fanout.Ticket // nil if there is a fault
	fault  string
}

// forget waits for the outcome of a line that nobody answers.
func (l pendingLine) forget(ctx context.Context) {
	if l.ticket != nil {
		l.ticket.Wait(ctx)
	}
}

// readLines begins the push of each line, and notes why the stream ends.
func (s *stream) readLines(ctx context.Context, body io.Reader) {
	defer close(s.lines)
	reader := bufio.NewReaderSize(body, 64<<10)
	for number := 1; ; number++ {
		line, tooLong, err := readLine(reader, s.server.options.MaxMessageBytes+lineExtra)
		blank := !tooLong && len(bytes.TrimSpace(line)) == 0
		switch {
		case blank && errors.Is(err, io.EOF):
			s.end.End, s.end.Detail = endComplete, ""
			return
		case s.mustEnd(err):
			return // this line is not sent either: it may have been cut where it happens to be valid
		case blank:
			s.end.Lines = number
			continue
		case s.after && (number > maxHeldLines || s.held.Load() > maxHeldBytes):
			s.endWith(endTooMany, "with answers=after a stream may have %d lines, and %d MiB of answers; "+
				"what follows was not sent: send it in another stream", maxHeldLines, maxHeldBytes>>20)
			_, _ = io.CopyN(io.Discard, reader, maxUnreadBytes) // many clients send all before they read
			return
		}
		size := min(int64(len(line)), streamBytes)
		if s.room.Acquire(ctx, size) != nil || !s.enqueue(ctx, s.begin(line, tooLong, number, size)) {
			return
		}
		s.end.Lines = number
	}
}

// mustEnd reports whether the stream ends before its body does, and notes why. err is what reading returned.
func (s *stream) mustEnd(err error) bool {
	switch {
	case s.server.streamsEnd.Err() != nil:
		s.endWith(endDraining,
			"this instance is shutting down; what follows was not sent: send it to another")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.endWith(endIdle, "nothing came for %v; what follows was not sent", streamTimeout)
	case err != nil && !errors.Is(err, io.EOF):
		// the error itself is not quoted: it may name addresses of our network
		s.endWith(endCut, "the body broke off, here or at a proxy on the way; what follows was not sent")
	default:
		return false
	}
	return true
}

// enqueue hands a line to writeAnswers; false if the context has ended, so that nobody answers.
func (s *stream) enqueue(ctx context.Context, line pendingLine) bool {
	select {
	case s.lines <- line:
		return true
	case <-ctx.Done():
		line.forget(ctx)
		return false
	}
}

// begin sends the push of one line on its way. size is what the line takes of the stream's room.
func (s *stream) begin(text []byte, tooLong bool, number int, size int64) pendingLine {
	line := pendingLine{size: size, id: lineID{number: number}}
	var push fanout.Push
	var err error = errLongLine
	if !tooLong {
		push, line.id.ref, err = s.parseLine(text)
	}
	if err != nil {
		line.fault = problemOf(err).Detail
		return line
	}
	line.pushID, line.user = push.ID, push.User
	line.ticket = s.server.options.Bus.Begin([]fanout.Push{push}, time.Now().Add(s.timeout))
	return line
}

// parseLine reads the push of a line, and its ref, which a line may have even if it is wrong otherwise.
func (s *stream) parseLine(text []byte) (push fanout.Push, ref jsontext.Value, err error) {
	var body lineBody
	err = decodeStrictly(text, &body)
	if err != nil {
		body.Ref = refIn(text)
	}
	ref, badRef := checkRef(body.Ref)
	switch p := checkUser("user", body.User); {
	case err != nil:
		return push, ref, err
	case badRef != nil:
		return push, nil, badRef
	case p != nil:
		return push, ref, p
	}
	push, err = s.server.newPush(body.pushBody, s.wait)
	push.User = body.User
	return push, ref, err
}

// refIn finds the ref of a line that is a JSON object with something wrong in it; nil if there is none.
func refIn(text []byte) jsontext.Value {
	var only struct {
		Ref jsontext.Value `json:"ref"`
	}
	if strict.Decode(text, &only) != "" {
		return nil
	}
	return only.Ref
}

// checkRef wants a ref to be a string of at most sockets.MaxRefBytes, without its escapes; nil if there is
// none.
func checkRef(ref jsontext.Value) (jsontext.Value, *Problem) {
	if len(ref) == 0 {
		return nil, nil
	}
	tooLong := len(ref)-len(`""`) > sockets.MaxRefBytes
	if tooLong && ref.Kind() == jsontext.KindString {
		text, _ := jsontext.AppendUnquote(nil, ref)
		tooLong = len(text) > sockets.MaxRefBytes
	}
	if tooLong || ref.Kind() != jsontext.KindString {
		return nil, problem(http.StatusBadRequest, "bad_ref",
			"ref: want a string of at most %d bytes", sockets.MaxRefBytes)
	}
	return ref, nil
}

var errLongLine = problem(http.StatusRequestEntityTooLarge, "line_too_long",
	"the line is longer than a push may be")

// readLine reads up to the next newline. A line of more than limit bytes is read to its end, but not
// returned. If err is not nil, the line may not be whole.
func readLine(r *bufio.Reader, limit int) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if !tooLong {
			line = append(line, part...)
		}
		if len(line) > limit {
			line, tooLong = nil, true
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}
