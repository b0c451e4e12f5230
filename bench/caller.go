package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// caller is a backend with one connection. It is leaner than http.Client: it shares the cores with what it measures.
type caller struct {
	conn    net.Conn
	answers *bufio.Reader
	headers string
	request bytes.Buffer
}

// dialCallers connects so many callers, spread over servers.
func (s *stage) dialCallers(n int, servers []*server) ([]*caller, error) {
	callers := make([]*caller, n)
	for i := range callers {
		addr := servers[i%len(servers)].addr
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		s.atEnd(func() { conn.Close() })
		callers[i] = &caller{
			conn: conn, answers: bufio.NewReader(conn),
			headers: fmt.Sprintf("Host: %s\r\nAuthorization: Bearer %s\r\n", addr, s.apiKey),
		}
	}
	return callers, nil
}

// push pushes to one user and wants the answer that one instance took it.
func (c *caller) push(user int64, data []byte) error {
	return c.want("/push/"+userName(user), data, `"instances":1`)
}

// want makes one request with an event and its data, and wants words in the answer.
func (c *caller) want(path string, data []byte, words string) error {
	answer, err := c.post(path, data, "")
	if err == nil && !bytes.Contains(answer, []byte(words)) {
		return fmt.Errorf("POST %s: want %s, got %s", path, words, answer)
	}
	return err
}

// post makes one request with an event and its data, and perhaps more fields of JSON, each behind a comma.
func (c *caller) post(path string, data []byte, more string) (answer []byte, err error) {
	const before = `{"event":"bench","data":`
	after := more + "}"
	c.request.Reset()
	fmt.Fprintf(&c.request, "POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s%s%s",
		path, c.headers, len(before)+len(data)+len(after), before, data, after)
	if err := c.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(c.request.Bytes()); err != nil {
		return nil, fmt.Errorf("POST %s: %w", path, err)
	}
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return nil, fmt.Errorf("POST %s: %w", path, err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("POST %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("POST %s: %s: %s", path, response.Status, answer)
	}
	return answer, nil
}
