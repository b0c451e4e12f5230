package redis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// The limits of a command to the in-process Redis, which are those of Redis.
const (
	maxArguments     = 1 << 20
	maxArgumentBytes = 512 << 20
)

// guardedConn lets only well-formed commands through to the in-process Redis. Others would end the process:
// an empty command, or a length for which there is no memory.
type guardedConn struct {
	net.Conn
	reader    *bufio.Reader
	arguments int    // how many arguments of the current command are still to come
	bytes     int    // how many bytes of the current argument are still to come
	line      []byte // what is left of a line that was checked; in the reader's buffer
}

func guard(conn net.Conn) *guardedConn {
	return &guardedConn{Conn: conn, reader: bufio.NewReader(conn)}
}

// Read implements net.Conn. A command that is not well-formed is an error.
func (g *guardedConn) Read(p []byte) (n int, err error) {
	if g.bytes == 0 && len(g.line) == 0 {
		if err := g.readLine(); err != nil {
			return 0, err
		}
	}
	if len(g.line) > 0 {
		n = copy(p, g.line)
		g.line = g.line[n:]
		return n, nil
	}
	n, err = g.reader.Read(p[:min(len(p), g.bytes)])
	g.bytes -= n
	return n, err
}

// readLine reads a line that says how many arguments a command has, or how many bytes an argument.
func (g *guardedConn) readLine() error {
	line, err := g.reader.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) { // the Redis would read on for ever
		return fmt.Errorf("not a command of Redis: %.20q…", line)
	}
	if err != nil {
		return err
	}
	kind, least, most := byte('$'), 0, maxArgumentBytes
	if g.arguments == 0 {
		kind, least, most = '*', 1, maxArguments
	}
	number, isLine := bytes.CutSuffix(line, []byte("\r\n"))
	n, err := strconv.Atoi(string(bytes.TrimPrefix(number, []byte{kind})))
	if !isLine || line[0] != kind || err != nil || n < least || n > most {
		return fmt.Errorf("not a command of Redis: %.20q", line)
	}
	if g.line = line; kind == '*' { // nothing else is read until Read has handed the line out
		g.arguments = n
		return nil
	}
	g.arguments--
	g.bytes = n + len("\r\n")
	return nil
}
