package handlers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"

	"rollcall/fanout"
)

const (
	maxStreams    = 256              // open on this instance; one costs up to streamWindow lines
	streamWindow  = 512              // its pushes that may be on their way; then its reader waits, and with it the client
	streamBytes   = 1 << 20          // of their lines, unless one alone has more
	streamTimeout = 30 * time.Second // for the client to send something more, and to read an answer
	lineExtra     = 1 << 10          // bytes that a line may have besides its data

	maxHeldLines = 10_000   // of a stream that is answered after its end
	maxHeldBytes = 8 << 20  // of their answers
	maxThrown    = 32 << 20 // bytes that are read of it after that, and thrown away
)

// A stream is a POST /push of application/x-ndjson: one push a line, one answer a line, in the same order. A
// bad line costs its own answer. Whoever sends faster than it reads the answers, or faster than pushes can be
// routed, waits.
//
//	{"user":"alice","event":"x","ref":"17"}    a line; its answer begins with its ref, or else with its number:
//	{"ref":"17","id":…,"user":"alice",…}       a push
//	{"line":2,"error":"…"}                     a line that can't be a push
//	{"end":"complete","lines":2}               the last line of the answer
//
// The last line says that the body came to its end, or why the stream ended before. "lines" counts the lines
// that were taken: each of them is answered above (but for blank ones, which ask for nothing), and nothing
// after them was sent. If there is no such line, the answer itself was cut.
//
// Usually the answers come while the body is still being sent. Go's own reverse proxy, and what is built on
// it, can't do that unless full duplex is on: when the answer begins it throws away what it reads of the
// body, and forwards the rest as if it were whole. So with ?answers=after nothing is answered before the body
// has ended.

// The reasons for which a stream ends.
const (
	endComplete = "complete"       // its client ended it
	endCut      = "cut"            // the body ended too early
	endIdle     = "idle"           // nothing came for streamTimeout
	endDraining = "draining"       // this instance shuts down
	endTooMany  = "too_many_lines" // for ?answers=after
	endInternal = "internal"       // our fault
)

// isStream says whether a POST /push is a stream.
func isStream(r *http.Request) bool { return mediaType(r) == "application/x-ndjson" }

// ending is the last line of a stream.
type ending struct {
	End    string `json:"end"`
	Lines  int    `json:"lines"`
	Detail string `json:"detail,omitempty"` // unless it is complete
}

// stream is one that is under way.
type stream struct {
	// static after construction
	server  *Server
	control *http.ResponseController
	wait    fanout.Wait
	timeout time.Duration
	lines   chan streamed       // capacity streamWindow; closed after the last
	room    *semaphore.Weighted // in bytes, for lines on their way

	after bool         // ?answers=after; set before it begins
	held  atomic.Int64 // bytes of answers that wait for the body's end

	end ending // owned by readLines, until lines is closed
}

// streamed is a line on its way: a push, or what was wrong with it.
type streamed struct {
	size   int64 // of the stream's room that it takes, in bytes
	name   lineName
	id     uuid.UUID
	user   string
	ticket *fanout.Ticket
	fault  string // empty: it is a push
}

// stream answers a POST /push of application/x-ndjson.
func (s *Server) stream(c echo.Context) error {
	wait, timeout, err := waitFrom(c)
	if err != nil {
		return err
	}
	after, err := answersAfter(c)
	if err != nil {
		return err
	}
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return problem(http.StatusServiceUnavailable, "busy", "%d streams are open here, which is as many as may; "+
			"nothing was sent, try again in a second, or on another instance", maxStreams)
	}
	defer s.streams.Add(-1)
	one := s.newStream(http.NewResponseController(c.Response()), wait, timeout)
	if one.after = after; !after {
		// or nothing more could be read after the first answer
		if err := one.control.EnableFullDuplex(); err != nil {
			return err
		}
		if c.Request().Header.Get("Expect") == "100-continue" {
			// curl would wait a second for it: net/http does not send it once the answer has begun
			c.Response().Writer.WriteHeader(http.StatusContinue)
		}
		beginAnswers(c)
	}
	// a read that fails, as it does when its time is over, ends the request's own context; but what was read is
	// still to be answered
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Request().Context()))
	defer cancel()
	defer context.AfterFunc(s.leaving, one.stopReading)()
	go func() {
		defer logPanic(s.options.Log, "stream")
		one.readLines(ctx, patientBody{c.Request().Body, one, ctx.Err})
	}()
	if all := one.answer(ctx, c); !all { // the client is gone
		// only then: a read that fails ends the context of whatever comes through this connection later
		cancel()
		one.stopReading()
	}
	cancel()
	for line := range one.lines {
		if line.ticket != nil {
			line.ticket.Wait(ctx)
		}
	}
	return nil
}

func (s *Server) newStream(
	control *http.ResponseController, wait fanout.Wait, timeout time.Duration,
) *stream {
	return &stream{
		server: s, control: control, wait: wait, timeout: timeout,
		lines: make(chan streamed, streamWindow), room: semaphore.NewWeighted(streamBytes),
		end: ending{
			End: endInternal, Detail: "something went wrong here, and was logged; what follows was not sent",
		},
	}
}

// answersAfter says whether the caller wants all answers after the end of the body.
func answersAfter(c echo.Context) (bool, error) {
	switch c.QueryParam("answers") {
	case "":
		return false, nil
	case "after":
		return true, nil
	}
	return false, problem(http.StatusBadRequest, "bad_answers",
		"answers: want after, for all answers after the end of the body, or leave it out, not %q",
		c.QueryParam("answers"))
}

// beginAnswers sends the head of a stream's answer. What was wrong from here on, only the answer's lines can
// say.
func beginAnswers(c echo.Context) {
	c.Response().Header().Set("Content-Type", "application/x-ndjson")
	c.Response().Header().Set("X-Accel-Buffering", "no") // for proxies that would collect the answers
	c.Response().WriteHeader(http.StatusOK)
}

// answer answers all lines, while they come or after the last. It says whether the client has got all
// answers.
func (s *stream) answer(ctx context.Context, c echo.Context) (all bool) {
	if !s.after {
		return s.writeAnswers(ctx, patientResponse{c.Response(), s}, s.control.Flush)
	}
	held := heldAnswers{stream: s}
	s.writeAnswers(ctx, &held, func() error { return nil })
	beginAnswers(c)
	_, err := patientResponse{c.Response(), s}.Write(held.text.Bytes())
	return err == nil && s.control.Flush() == nil
}

// heldAnswers keeps answers until the body has ended.
type heldAnswers struct {
	text bytes.Buffer
	*stream
}

func (h *heldAnswers) Write(p []byte) (int, error) {
	h.held.Add(int64(len(p)))
	return h.text.Write(p)
}

// patientBody gives the client time for each read. What can't have a deadline has the server's.
type patientBody struct {
	io.Reader
	*stream
	over func() error // not nil: nobody answers any more
}

func (b patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(streamTimeout))
	if b.server.leaving.Err() != nil || b.over() != nil { // stopReading may have come before the deadline
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

// ends says why the stream ends; nothing after the lines that were taken is sent.
func (s *stream) ends(why, detail string, args ...any) {
	s.end.End, s.end.Detail = why, fmt.Sprintf(detail, args...)
}
