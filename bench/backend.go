package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"time"
)

// backend is a caller of the HTTP API, with one connection. It is leaner than http.Client, because it shares
// the cores with what it measures.
type backend struct {
	conn    net.Conn
	answers *bufio.Reader
	headers string
	request bytes.Buffer
}

// dialBackends connects so many backends, spread over servers.
func (e *env) dialBackends(n int, servers []*server) ([]*backend, error) {
	backends := make([]*backend, n)
	for i := range backends {
		addr := servers[i%len(servers)].addr
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		e.onClose(func() { conn.Close() })
		headers := fmt.Sprintf("Host: %s\r\nAuthorization: Bearer %s\r\n", addr, e.apiKey)
		backends[i] = &backend{conn: conn, answers: bufio.NewReader(conn), headers: headers}
	}
	return backends, nil
}

// post sends an event with data, and perhaps more JSON fields, each behind a comma.
func (b *backend) post(path string, data []byte, more string) (answer []byte, err error) {
	const before = `{"event":"bench","data":`
	after := more + "}"
	b.request.Reset()
	fmt.Fprintf(&b.request, "POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\n", path, b.headers)
	fmt.Fprintf(&b.request, "Content-Length: %d\r\n\r\n", len(before)+len(data)+len(after))
	fmt.Fprintf(&b.request, "%s%s%s", before, data, after)
	if err := b.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := b.conn.Write(b.request.Bytes()); err != nil {
		return nil, fmt.Errorf("POST %s: %w", path, err)
	}
	response, err := http.ReadResponse(b.answers, nil)
	if err != nil {
		return nil, fmt.Errorf("POST %s: %w", path, err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return answer, err
}

// postExpecting is post, and wants a text so many times in the answer.
func (b *backend) postExpecting(path string, data []byte, more, text string, times int) error {
	answer, err := b.post(path, data, more)
	if err == nil && bytes.Count(answer, []byte(text)) != times {
		return fmt.Errorf("POST %s: want %s %d times in %.300s", path, text, times, answer)
	}
	return err
}

const (
	streamWindow = 256 // lines without an answer: so many that neither side waits for the other
	streamChunk  = 32  // lines that are written together
)

// stream pushes line by line in one request, for a time, and returns how many.
func (b *backend) stream(duration time.Duration, next func() (user int, data []byte)) (int64, error) {
	if err := b.conn.SetDeadline(time.Now().Add(duration + 10*time.Second)); err != nil {
		return 0, err
	}
	_, err := fmt.Fprintf(b.conn, "POST /push HTTP/1.1\r\n%sContent-Type: application/x-ndjson\r\n"+
		"Transfer-Encoding: chunked\r\n\r\n", b.headers)
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	window := make(chan struct{}, streamWindow) // full: the writer waits for answers
	sent, failed := make(chan int64, 1), make(chan error, 1)
	go func() {
		lines, err := b.writeLines(time.Now().Add(duration), window, next)
		sent <- lines
		failed <- err
	}()
	answered, err := b.readAnswers(window)
	if err != nil {
		b.conn.Close() // which ends the writer too
	}
	if lines, writeErr := <-sent, <-failed; err == nil && (writeErr != nil || lines != answered) {
		err = fmt.Errorf("stream: %d lines, %d answers, %w", lines, answered, writeErr)
	}
	return answered, err
}

func (b *backend) writeLines(end time.Time, window chan<- struct{}, next func() (int, []byte)) (
	lines int64, err error,
) {
	body := httputil.NewChunkedWriter(b.conn)
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
		_, err = fmt.Fprint(b.conn, "0\r\n\r\n")
	}
	return lines, err
}

// readAnswers wants for each line the answer that one instance took it.
func (b *backend) readAnswers(window <-chan struct{}) (answers int64, err error) {
	response, err := http.ReadResponse(b.answers, nil)
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"end":"complete"`)) {
			return answers, nil
		}
		if !bytes.Contains(lines.Bytes(), []byte(`"instances":1`)) {
			return answers, fmt.Errorf("stream: %s: %s", response.Status, lines.Text())
		}
		answers++
		<-window
	}
	return answers, cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
}
