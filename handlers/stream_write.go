package handlers

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"io"

	"github.com/labstack/echo/v4"

	"rollcall/handlers/strict"
)

// answer answers all lines, while they come in or after the last, and reports whether the client got all
// answers.
func (s *stream) answer(ctx context.Context, c echo.Context) (all bool) {
	response := timedResponse{c.Response(), s}
	if !s.after {
		return s.writeAnswers(ctx, response, s.control.Flush)
	}
	held := heldAnswers{stream: s}
	s.writeAnswers(ctx, &held, func() error { return nil })
	beginAnswers(c)
	_, err := response.Write(held.text.Bytes())
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

// writeAnswers writes an answer for each line, and the last line of the stream. It flushes whenever it has to
// wait. all is false if the client is gone.
func (s *stream) writeAnswers(ctx context.Context, w io.Writer, send func() error) (all bool) {
	buffered := bufio.NewWriterSize(w, 16<<10)
	flush := func() error { return cmp.Or(buffered.Flush(), send()) }
	var answer []byte
	for {
		var line pendingLine
		open := false
		select {
		case line, open = <-s.lines:
		default:
			if flush() != nil {
				return false
			}
			line, open = <-s.lines
		}
		if !open {
			_, _ = buffered.Write(append(strict.Marshal(s.end), '\n')) // if it fails, so does flush
			return flush() == nil
		}
		if line.ticket != nil && buffered.Buffered() > 0 && !line.ticket.Done() && flush() != nil {
			line.forget(ctx)
			return false
		}
		answer = append(s.appendAnswer(answer[:0], ctx, line), '\n')
		s.room.Release(line.size)
		if _, err := buffered.Write(answer); err != nil {
			return false
		}
	}
}

// appendAnswer waits for the outcome of a line, and appends the answer.
func (s *stream) appendAnswer(b []byte, ctx context.Context, line pendingLine) []byte {
	if line.fault != "" {
		b = strict.AppendString(append(line.id.appendTo(append(b, '{')), `"error":`...), line.fault)
		return append(b, '}')
	}
	outcome := line.ticket.Wait(ctx)[0]
	s.server.logPush(ctx, line.pushID, line.user, outcome)
	return pushAnswer{line.id, line.pushID.String(), line.user, s.wait, outcome}.appendTo(b)
}
