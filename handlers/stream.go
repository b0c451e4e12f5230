package handlers

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"

	"rollcall/fanout"
)

const (
	maxStreams    = 256              // open on this instance; one costs up to streamWindow lines
	streamWindow  = 512              // pushes of one stream that may be on their way; then its reader waits, and with it the client
	streamBytes   = 1 << 20          // of their lines, unless one alone has more
	streamTimeout = 30 * time.Second // for the client to send something more, and to read an answer
	lineExtra     = 1 << 10          // bytes that a line may have besides its data
)

// streamLine is one line of a POST /push of application/x-ndjson.
type streamLine struct {
	pushBody
	User string `json:"user"`
}

// lineProblem is the answer to a line that can't be a push.
type lineProblem struct {
	Line  int    `json:"line"` // from 1
	Error string `json:"error"`
}

// streamed is a line on its way: a push, or what was wrong with it.
type streamed struct {
	size   int64 // of the stream's room that it takes, in bytes
	id     uuid.UUID
	user   string
	ticket *fanout.Ticket
	fault  *lineProblem // nil: it is a push
}

// stream answers a POST /push of application/x-ndjson: one push a line, one answer a line, in the same order. A bad line costs its own
// answer. Who sends faster than it reads the answers, or faster than pushes can be routed, waits.
func (s *Server) stream(c echo.Context) error {
	wait, timeout, err := waitFrom(c)
	if err != nil {
		return err
	}
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return problem(http.StatusServiceUnavailable, "busy", "%d streams are open here, which is as many as may; nothing was sent, try again in a second, or on another instance",
			maxStreams)
	}
	defer s.streams.Add(-1)
	control := http.NewResponseController(c.Response())
	if err := control.EnableFullDuplex(); err != nil { // or nothing more could be read after the first answer
		return err
	}
	if c.Request().Header.Get("Expect") == "100-continue" {
		c.Response().Writer.WriteHeader(http.StatusContinue) // curl would wait a second for it, for it is not sent once the answer has begun
	}
	c.Response().Header().Set("Content-Type", "application/x-ndjson")
	c.Response().Header().Set("X-Accel-Buffering", "no") // for proxies that would collect the answers
	c.Response().WriteHeader(http.StatusOK)
	// a read that fails, as it does when its time is over, ends the request's own context; but what was read is still to be answered
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Request().Context()))
	defer cancel()
	one := s.newStream(control, wait, timeout)
	defer context.AfterFunc(s.leaving, one.stopReading)()
	go func() {
		defer logPanic(s.options.Log, "stream")
		one.readLines(ctx, patientBody{c.Request().Body, one})
	}()
	if all := one.writeAnswers(ctx, patientResponse{c.Response(), one}); !all { // the client is gone
		one.stopReading() // only then: a read that fails ends the context of whatever comes through this connection later
	}
	cancel()
	for line := range one.lines {
		if line.ticket != nil {
			line.ticket.Wait(ctx)
		}
	}
	return nil
}

// stream is a POST /push of application/x-ndjson under way.
type stream struct {
	// static after construction
	server  *Server
	control *http.ResponseController
	wait    fanout.Wait
	timeout time.Duration
	lines   chan streamed       // capacity streamWindow; closed after the last
	room    *semaphore.Weighted // in bytes, for lines on their way
}

func (s *Server) newStream(control *http.ResponseController, wait fanout.Wait, timeout time.Duration) *stream {
	return &stream{server: s, control: control, wait: wait, timeout: timeout, lines: make(chan streamed, streamWindow), room: semaphore.NewWeighted(streamBytes)}
}

// patientBody gives the client time for each read. What can't have a deadline has the server's.
type patientBody struct {
	io.Reader
	*stream
}

func (b patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(streamTimeout))
	if b.server.leaving.Err() != nil { // stopReading may have come before the deadline
		return 0, os.ErrDeadlineExceeded
	}
	return b.Reader.Read(p)
}

// patientResponse gives the client time for each write.
type patientResponse struct {
	io.Writer
	*stream
}

func (r patientResponse) Write(p []byte) (int, error) {
	_ = r.control.SetWriteDeadline(time.Now().Add(streamTimeout))
	return r.Writer.Write(p)
}

// stopReading ends a read that waits for the client.
func (s *stream) stopReading() { _ = s.control.SetReadDeadline(time.Unix(1, 0)) }

// readLines sends each line's push on its way. If the stream ends otherwise than its client wants, the last answer says why.
func (s *stream) readLines(ctx context.Context, body io.Reader) {
	defer close(s.lines)
	reader := bufio.NewReaderSize(body, 64<<10)
	for number := 1; ; number++ {
		line, err := readLine(reader, s.server.options.MaxMessageBytes+lineExtra)
		blank := len(bytes.TrimSpace(line)) == 0
		if blank && errors.Is(err, io.EOF) {
			return
		}
		if why := s.whyEnds(err); why != "" {
			s.hand(ctx, streamed{fault: &lineProblem{number, why}})
			return
		}
		if blank && err == nil {
			continue // it asks for nothing
		}
		size := min(int64(len(line)), streamBytes)
		if s.room.Acquire(ctx, size) != nil || !s.hand(ctx, s.begin(line, err, number, size)) {
			return
		}
	}
}

// whyEnds says why the stream ends here; empty if it does not, or its client ends it.
func (s *stream) whyEnds(err error) string {
	switch {
	case s.server.leaving.Err() != nil:
		return "this instance is shutting down; from this line on nothing was sent: send it to another"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("the stream ends here: nothing came for %v", streamTimeout)
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLongLine):
		return "the stream ends here: " + readFault(err)
	}
	return ""
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

// begin sends the push of one line on its way. err is that of reading the line, size its part of the stream's room.
func (s *stream) begin(line []byte, err error, number int, size int64) streamed {
	var body streamLine
	if !errors.Is(err, errLongLine) {
		err = decodeStrictly(line, &body)
	}
	id := newID()
	var push fanout.Push
	if err == nil {
		push, err = s.server.pushOf(body.pushBody, id, s.wait)
	}
	if err == nil {
		if p := checkUser("user", body.User); p != nil {
			err = p
		}
	}
	if err != nil {
		return streamed{size: size, fault: &lineProblem{number, problemOf(err).Detail}}
	}
	push.User = body.User
	return streamed{size: size, id: id, user: body.User, ticket: s.server.options.Router.Begin([]fanout.Push{push}, time.Now().Add(s.timeout))}
}

// writeAnswers writes an answer for each line, and says whether that were all, or the client is gone. It sends them off whenever the next
// must be waited for.
func (s *stream) writeAnswers(ctx context.Context, w io.Writer) (all bool) {
	buffered := bufio.NewWriterSize(w, 16<<10)
	flush := func() error { return cmp.Or(buffered.Flush(), s.control.Flush()) }
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
	if one.fault != nil {
		return append(b, mustMarshal(one.fault)...)
	}
	outcome := one.ticket.Wait(ctx)[0]
	s.server.trace(one.id, one.user, outcome)
	return pushAnswer{one.id.String(), one.user, s.wait, outcome}.appendTo(b)
}

var errLongLine = problem(http.StatusRequestEntityTooLarge, "line_too_long", "the line is longer than a push may be")

// readLine reads up to the next newline. Of a line that is too long it reads all and keeps nothing.
func readLine(r *bufio.Reader, most int) (line []byte, err error) {
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if !tooLong {
			line = append(line, part...)
		}
		if len(line) > most {
			line, tooLong = nil, true
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if tooLong {
			return nil, errLongLine
		}
		return line, err
	}
}
