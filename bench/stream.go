package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"time"
)

const (
	streamWindow = 256 // lines of a stream without an answer: enough that neither side waits for the other
	streamChunk  = 32  // lines that a caller writes together
)

// stream pushes line by line in one request, for a time, and returns how many. Each line is what next makes.
func (c *caller) stream(duration time.Duration, next func() (user int64, data []byte)) (int64, error) {
	if err := c.conn.SetDeadline(time.Now().Add(duration + 10*time.Second)); err != nil {
		return 0, err
	}
	_, err := fmt.Fprintf(c.conn, "POST /push HTTP/1.1\r\n%sContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", c.headers)
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	window := make(chan struct{}, streamWindow) // full: the writer waits for answers
	sent, failed := make(chan int64, 1), make(chan error, 1)
	go func() {
		lines, err := c.writeLines(time.Now().Add(duration), window, next)
		sent <- lines
		failed <- err
	}()
	answered, err := c.readAnswers(window)
	if err != nil {
		c.conn.Close() // which ends the writer too
	}
	if lines, fault := <-sent, <-failed; err == nil && (fault != nil || lines != answered) {
		err = fmt.Errorf("stream: %d lines, %d answers, %w", lines, answered, fault)
	}
	return answered, err
}

// writeLines writes lines until a moment, and then the end of the body.
func (c *caller) writeLines(end time.Time, window chan<- struct{}, next func() (int64, []byte)) (lines int64, err error) {
	body := httputil.NewChunkedWriter(c.conn)
	var chunk bytes.Buffer
	for err == nil && time.Now().Before(end) {
		chunk.Reset()
		for range streamChunk {
			window <- struct{}{}
			user, data := next()
			fmt.Fprintf(&chunk, `{"user":%q,"event":"bench","data":%s}`+"\n", userName(user), data)
			lines++
		}
		_, err = body.Write(chunk.Bytes())
	}
	if err == nil {
		_, err = fmt.Fprint(c.conn, "0\r\n\r\n")
	}
	return lines, err
}

// readAnswers wants an answer to each line that one instance took it.
func (c *caller) readAnswers(window <-chan struct{}) (answers int64, err error) {
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("stream: %s", response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"end":"complete"`)) { // the last line; whatever else comes here is no answer
			return answers, nil
		}
		if !bytes.Contains(lines.Bytes(), []byte(`"instances":1`)) {
			return answers, fmt.Errorf("stream: %s", lines.Text())
		}
		answers++
		<-window
	}
	return answers, cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
}
