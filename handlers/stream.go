package handlers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"rollcall/fanout"
)

const (
	maxStreams    = 256              // open on this instance; one costs up to streamWindow lines
	streamWindow  = 512              // pushes of one stream that may be on their way; then its reader waits, and with it the client
	streamTimeout = 30 * time.Second // for the client to send the next line, and to read an answer
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
	id     uuid.UUID
	user   string
	ticket *fanout.Ticket
	fault  *lineProblem // nil: it is a push
}

// stream answers a POST /push of application/x-ndjson: one push a line, one answer a line, in the same order. A bad line costs its own
// answer. Who sends faster than it reads the answers, or faster than pushes can be routed, waits.
func (s *Server) stream(c *echo.Context) error {
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
	c.Response().Header().Set("Content-Type", "application/x-ndjson")
	c.Response().Header().Set("X-Accel-Buffering", "no") // for proxies that would collect the answers
	c.Response().WriteHeader(http.StatusOK)
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	lines := s.startReading(ctx, control, c.Request().Body, wait, timeout)
	err = s.writeAnswers(ctx, control, c.Response(), wait, lines)
	cancel()
	for one := range lines { // the client is gone, or all is answered
		if one.ticket != nil {
			one.ticket.Wait(ctx)
		}
	}
	return err
}

// startReading reads lines until there are no more, or the context ends; then it closes the channel.
func (s *Server) startReading(ctx context.Context, control *http.ResponseController, body io.Reader, wait fanout.Wait, timeout time.Duration) <-chan streamed {
	lines := make(chan streamed, streamWindow)
	go func() {
		defer close(lines)
		s.readLines(ctx, control, body, wait, timeout, lines)
	}()
	return lines
}

// readLines sends each line's push on its way.
func (s *Server) readLines(ctx context.Context, control *http.ResponseController, body io.Reader, wait fanout.Wait, timeout time.Duration, lines chan<- streamed) {
	reader := bufio.NewReaderSize(body, 64<<10)
	for number := 1; ; number++ {
		if reader.Buffered() == 0 {
			_ = control.SetReadDeadline(time.Now().Add(streamTimeout)) // what can't have a deadline has the server's
		}
		line, err := readLine(reader, s.options.MaxMessageBytes+lineExtra)
		if err != nil && !errors.Is(err, errLongLine) && len(line) == 0 {
			return
		}
		if len(bytes.TrimSpace(line)) == 0 && err == nil {
			continue // an empty line asks for nothing
		}
		select {
		case lines <- s.begin(line, err, number, wait, timeout):
		case <-ctx.Done():
			return
		}
	}
}

// begin sends the push of one line on its way.
func (s *Server) begin(line []byte, err error, number int, wait fanout.Wait, timeout time.Duration) streamed {
	var body streamLine
	if !errors.Is(err, errLongLine) {
		err = decodeStrictly(line, &body)
	}
	id := newID()
	var push fanout.Push
	if err == nil {
		push, err = s.pushOf(body.pushBody, id, wait)
	}
	if err == nil {
		if p := checkUser("user", body.User); p != nil {
			err = p
		}
	}
	if err != nil {
		return streamed{fault: &lineProblem{number, problemOf(err).Detail}}
	}
	push.User = body.User
	return streamed{id: id, user: body.User, ticket: s.options.Router.Begin([]fanout.Push{push}, time.Now().Add(timeout))}
}

// writeAnswers writes an answer for each line, and sends them off when there is nothing more to answer at the moment.
func (s *Server) writeAnswers(ctx context.Context, control *http.ResponseController, w io.Writer, wait fanout.Wait, lines <-chan streamed) error {
	buffered := bufio.NewWriterSize(w, 16<<10)
	var answer []byte
	flush := func() error {
		_ = control.SetWriteDeadline(time.Now().Add(streamTimeout))
		if err := buffered.Flush(); err != nil {
			return err
		}
		return control.Flush()
	}
	for {
		var one streamed
		var open bool
		select {
		case one, open = <-lines:
		default:
			if err := flush(); err != nil {
				return nil // the client is gone: there is nobody to tell
			}
			one, open = <-lines
		}
		if !open {
			_ = flush()
			return nil
		}
		answer = append(s.appendAnswer(answer[:0], ctx, one, wait), '\n')
		if _, err := buffered.Write(answer); err != nil {
			return nil
		}
	}
}

// appendAnswer waits for what became of a line, and appends that.
func (s *Server) appendAnswer(b []byte, ctx context.Context, one streamed, wait fanout.Wait) []byte {
	if one.fault != nil {
		return append(b, mustMarshal(one.fault)...)
	}
	outcome := one.ticket.Wait(ctx)[0]
	s.trace(one.id, one.user, outcome)
	return pushAnswer{one.id.String(), one.user, wait, outcome}.appendTo(b)
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
