package handlers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"

	"rollcall/fanout"
	"rollcall/handlers/panics"
)

// A stream is a POST /push of application/x-ndjson: one push on each line, one answer on each line, in the
// same order. A bad line gets an error as its answer, and the stream goes on. A client that sends faster than
// it reads the answers, or faster than pushes can be routed, has to wait.
//
//	{"user":"alice","event":"x","ref":"17"}    a line
//	{"ref":"17","id":"…","user":"alice",…}     its answer begins with its ref, or else its number
//	{"line":2,"error":"…"}                     the answer to a line that is no push
//	{"end":"complete","lines":2}               the last line of the answer
//
// The last line says that the body came to its end, or why the stream ended before. "lines" counts the lines
// that were taken. Each of them is answered above, except blank ones, and nothing after them was sent. If the
// last line is missing, the answer itself was cut off.
//
// Usually answers are sent while the body is still coming in. Go's reverse proxy, and what is built on it,
// can't do that unless full duplex is on: when the answer begins it discards what it reads of the body, and
// forwards the rest as if it were whole. For such paths there is ?answers=after: nothing is answered before
// the body has ended.

const (
	maxStreams    = 256              // open on this instance
	streamWindow  = 512              // lines of a stream that wait for their answers; then reading stops
	streamBytes   = 1 << 20          // of these lines, or one line of any size
	streamTimeout = 30 * time.Second // for each read from the client, and for each write to it
	lineExtra     = 1 << 10          // bytes that a line may have besides its data

	// with ?answers=after
	maxHeldLines   = 10_000
	maxHeldBytes   = 8 << 20  // of their answers
	maxUnreadBytes = 32 << 20 // that are read and discarded after too many lines
)

// Why a stream ended: "end" in its last line.
const (
	endComplete = "complete"       // the body came to its end
	endCut      = "cut"            // the body broke off
	endIdle     = "idle"           // nothing came for streamTimeout
	endDraining = "draining"       // this instance shuts down
	endTooMany  = "too_many_lines" // for ?answers=after
	endInternal = "internal"       // our fault
)

// isStream reports whether a POST /push is a stream.
func isStream(r *http.Request) bool { return mediaType(r) == "application/x-ndjson" }

// streamEnd is the last line of a stream's answer.
type streamEnd struct {
	End    string `json:"end"`
	Lines  int    `json:"lines"`            // that were taken
	Detail string `json:"detail,omitempty"` // why it is not complete, for people
}

// stream is one stream: readLines begins the push of each line, writeAnswers waits for the outcomes.
type stream struct {
	// static after construction
	server  *Server
	control *http.ResponseController
	wait    fanout.Wait
	timeout time.Duration
	after   bool                // ?answers=after
	lines   chan pendingLine    // from readLines to writeAnswers; capacity streamWindow; readLines closes it
	room    *semaphore.Weighted // bytes that pending lines may have: streamBytes

	held atomic.Int64 // bytes of answers that wait for the end of the body

	end streamEnd // owned by readLines, until it closes lines
}

func (s *Server) newStream(
	control *http.ResponseController, wait fanout.Wait, timeout time.Duration,
) *stream {
	return &stream{
		server: s, control: control, wait: wait, timeout: timeout,
		lines: make(chan pendingLine, streamWindow), room: semaphore.NewWeighted(streamBytes),
		end: streamEnd{
			End: endInternal, Detail: "something went wrong here, and was logged; what follows was not sent",
		},
	}
}

// stream answers a POST /push of application/x-ndjson.
func (s *Server) stream(c echo.Context) error {
	wait, timeout, err := waitFrom(c)
	if err != nil {
		return err
	}
	after := c.QueryParam("answers")
	if after != "" && after != "after" {
		return problem(http.StatusBadRequest, "bad_answers",
			"answers: want after, for all answers after the end of the body, or leave it out, not %q", after)
	}
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return problem(http.StatusServiceUnavailable, "busy",
			"%d streams are open here, which is the limit; nothing was sent, "+
				"try again in a second, or on another instance", maxStreams)
	}
	defer s.streams.Add(-1)
	opened := s.newStream(http.NewResponseController(c.Response()), wait, timeout)
	if opened.after = after != ""; !opened.after {
		if err := opened.beginDuplex(c); err != nil {
			return err
		}
	}
	opened.run(c)
	return nil
}

// beginDuplex sends the head of the answer while the body is still to be read.
func (s *stream) beginDuplex(c echo.Context) error {
	if err := s.control.EnableFullDuplex(); err != nil { // else net/http stops reading at the first answer
		return err
	}
	if c.Request().Header.Get("Expect") == "100-continue" {
		// net/http does not send it once the answer has begun, and curl would wait a second for it
		c.Response().Writer.WriteHeader(http.StatusContinue)
	}
	beginAnswers(c)
	return nil
}

// beginAnswers sends the head of the answer. From here on, errors can be told only in its lines.
func beginAnswers(c echo.Context) {
	c.Response().Header().Set("Content-Type", "application/x-ndjson")
	c.Response().Header().Set("X-Accel-Buffering", "no") // nginx would collect the answers
	c.Response().WriteHeader(http.StatusOK)
}

// run answers the lines, and returns when the stream has ended and nothing of it waits for an outcome.
func (s *stream) run(c echo.Context) {
	// The request's own context ends when a read fails, for example at a deadline. The lines that were read
	// before must be answered all the same.
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Request().Context()))
	defer cancel()
	defer context.AfterFunc(s.server.streamsEnd, s.stopReading)()
	go func() {
		defer panics.Log(s.server.options.Log, "stream")
		s.readLines(ctx, timedBody{c.Request().Body, s, ctx.Err})
	}()
	if !s.answer(ctx, c) {
		// The client is gone. Only now may reading be stopped: a read that fails ends the contexts of all
		// later requests of this connection.
		cancel()
		s.stopReading()
	}
	cancel()
	for line := range s.lines {
		line.forget(ctx)
	}
}

// timedBody gives the client streamTimeout for each read. (If the connection takes no deadlines, as in tests,
// the server's own holds.)
type timedBody struct {
	io.Reader
	*stream
	canceled func() error // returns an error if nobody waits for the lines any more
}

func (b timedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(streamTimeout))
	// stopReading may have come just before, and its deadline is gone now
	if b.server.streamsEnd.Err() != nil || b.canceled() != nil {
		return 0, os.ErrDeadlineExceeded
	}
	return b.Reader.Read(p)
}

// timedResponse gives the client streamTimeout for each write.
type timedResponse struct {
	io.Writer
	*stream
}

func (r timedResponse) Write(p []byte) (int, error) {
	_ = r.control.SetWriteDeadline(time.Now().Add(streamTimeout))
	return r.Writer.Write(p)
}

// stopReading makes a read from the client fail, also one that waits.
func (s *stream) stopReading() { _ = s.control.SetReadDeadline(time.Unix(1, 0)) }

// endWith notes why the stream ends.
func (s *stream) endWith(why, detail string, args ...any) {
	s.end.End, s.end.Detail = why, fmt.Sprintf(detail, args...)
}
