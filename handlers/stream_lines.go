package handlers

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"rollcall/fanout"
)

// streamLine is one line of a stream.
type streamLine struct {
	pushBody
	User string         `json:"user"`
	Ref  jsontext.Value `json:"ref"` // a string, which is given back as it came
}

// lineName is what an answer calls its line: by the ref that its caller gave it, or else by its number.
type lineName struct {
	number int            // from 1; 0: this is no line of a stream
	ref    jsontext.Value // nil: it has none
}

// appendTo appends the first field of an answer.
func (n lineName) appendTo(b []byte) []byte {
	switch {
	case n.ref != nil:
		return append(append(append(b, `"ref":`...), n.ref...), ',')
	case n.number > 0:
		return append(strconv.AppendInt(append(b, `"line":`...), int64(n.number), 10), ',')
	}
	return b
}

// readLines sends each line's push on its way, and notes why the stream ends.
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
		case s.mustEnd(err): // if the body was cut, this line is not whole, whatever it looks like
			return
		case blank:
			s.end.Lines = number
			continue // it asks for nothing
		case s.after && (number > maxHeldLines || s.held.Load() > maxHeldBytes):
			s.ends(endTooMany, "with answers=after at most %d lines, or %d MiB of answers, fit into a stream; "+
				"what follows was not sent: send it in another", maxHeldLines, maxHeldBytes>>20)
			_, _ = io.CopyN(io.Discard, reader, maxThrown) // many clients read no answer before all is sent
			return
		}
		size := min(int64(len(line)), streamBytes)
		if s.room.Acquire(ctx, size) != nil || !s.hand(ctx, s.begin(line, tooLong, number, size)) {
			return
		}
		s.end.Lines = number
	}
}

// mustEnd says whether the stream ends here although its client did not end it; err is that of reading.
func (s *stream) mustEnd(err error) bool {
	switch {
	case s.server.leaving.Err() != nil:
		s.ends(endDraining, "this instance is shutting down; what follows was not sent: send it to another")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.ends(endIdle, "nothing came for %v; what follows was not sent", streamTimeout)
	case err != nil && !errors.Is(err, io.EOF):
		// the error is not quoted: it may name addresses that are no business of the caller
		s.ends(endCut,
			"the body broke off before its end, here or at a proxy on the way; what follows was not sent")
	default:
		return false
	}
	return true
}

// hand gives a line to the writer of answers; false if the context has ended, and nobody answers any more.
func (s *stream) hand(ctx context.Context, one streamed) bool {
	select {
	case s.lines <- one:
		return true
	case <-ctx.Done():
		if one.ticket != nil {
			one.ticket.Wait(ctx)
		}
		return false
	}
}

// begin sends the push of one line on its way. size is its part of the stream's room.
func (s *stream) begin(line []byte, tooLong bool, number int, size int64) streamed {
	one := streamed{size: size, name: lineName{number: number}}
	var push fanout.Push
	var err error = errLongLine
	if !tooLong {
		push, err = s.pushIn(line, &one)
	}
	if err != nil {
		one.fault = problemOf(err).Detail
		return one
	}
	one.id, one.user = push.ID, push.User
	one.ticket = s.server.options.Router.Begin([]fanout.Push{push}, time.Now().Add(s.timeout))
	return one
}

// pushIn reads the push in a line, and the line's ref, even if the rest is wrong.
func (s *stream) pushIn(line []byte, one *streamed) (push fanout.Push, err error) {
	var body streamLine
	err = decodeStrictly(line, &body)
	if err != nil {
		body.Ref = refIn(line)
	}
	ref, fault := checkRef(body.Ref)
	one.name.ref = ref
	if err != nil {
		return push, err
	}
	if fault != nil {
		return push, fault
	}
	if p := checkUser("user", body.User); p != nil {
		return push, p
	}
	push, err = s.server.pushOf(body.pushBody, newID(), s.wait)
	push.User = body.User
	return push, err
}

// refIn reads the ref of a line that is JSON, and something else is wrong with it; nil: it has none.
func refIn(line []byte) jsontext.Value {
	var only struct {
		Ref jsontext.Value `json:"ref"`
	}
	if decodeObject(line, &only) != "" {
		return nil
	}
	return only.Ref
}

// checkRef wants a ref to be a string of at most maxRefBytes; nil: there is none.
func checkRef(ref jsontext.Value) (jsontext.Value, *Problem) {
	if len(ref) == 0 {
		return nil, nil
	}
	long := len(ref)-len(`""`) > maxRefBytes
	if long && ref.Kind() == jsontext.KindString { // written with escapes, it may have more bytes than it means
		text, _ := jsontext.AppendUnquote(nil, ref)
		long = len(text) > maxRefBytes
	}
	if long || ref.Kind() != jsontext.KindString {
		return nil, problem(http.StatusBadRequest, "bad_ref", "ref: want a string of at most %d bytes", maxRefBytes)
	}
	return ref, nil
}

// writeAnswers writes an answer for each line and the stream's last line, and says whether that were all, or
// the client is gone. It sends them off whenever the next must be waited for.
func (s *stream) writeAnswers(ctx context.Context, w io.Writer, send func() error) (all bool) {
	buffered := bufio.NewWriterSize(w, 16<<10)
	flush := func() error { return cmp.Or(buffered.Flush(), send()) }
	var answer []byte
	for {
		var next streamed
		open := false
		select {
		case next, open = <-s.lines:
		default:
			if flush() != nil {
				return false
			}
			next, open = <-s.lines
		}
		if !open {
			_, _ = buffered.Write(append(mustMarshal(s.end), '\n')) // flush tells if it failed
			return flush() == nil
		}
		if next.ticket != nil && buffered.Buffered() > 0 && !next.ticket.Done() && flush() != nil {
			next.ticket.Wait(ctx)
			return false
		}
		answer = append(s.appendAnswer(answer[:0], ctx, next), '\n')
		s.room.Release(next.size)
		if _, err := buffered.Write(answer); err != nil {
			return false
		}
	}
}

// appendAnswer waits for what became of a line, and appends that.
func (s *stream) appendAnswer(b []byte, ctx context.Context, one streamed) []byte {
	if one.fault != "" {
		b = appendString(append(one.name.appendTo(append(b, '{')), `"error":`...), one.fault)
		return append(b, '}')
	}
	outcome := one.ticket.Wait(ctx)[0]
	s.server.trace(one.id, one.user, outcome)
	return pushAnswer{one.name, one.id.String(), one.user, s.wait, outcome}.appendTo(b)
}

var errLongLine = problem(http.StatusRequestEntityTooLarge, "line_too_long",
	"the line is longer than a push may be")

// readLine reads up to the next newline. Of a line that is too long it reads all and keeps nothing. With an
// error, the line may not be whole.
func readLine(r *bufio.Reader, most int) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if !tooLong {
			line = append(line, part...)
		}
		if len(line) > most {
			line, tooLong = nil, true
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}
