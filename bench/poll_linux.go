package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// poll reads many sockets in one goroutine, which asks the kernel for those that have something. A goroutine for each would have to be
// woken for every push, and cost as much as the server: clients share the cores with what they measure.
type poll struct {
	// static after construction
	epoll int

	rest atomic.Int64 // ns between two looks

	mu sync.Mutex
	// mu guards the following
	inboxes map[int32]*inbox // by file descriptor
}

const (
	pollEvents = 256      // sockets looked at together
	pollRead   = 64 << 10 // bytes read from one at a time
)

// startPoll begins to read, for as long as this process runs.
func startPoll() (*poll, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	p := &poll{epoll: epoll, inboxes: map[int32]*inbox{}}
	go p.run()
	return p, nil
}

// add reads a connection from now on. Nothing may have come through it that was not read yet.
func (p *poll) add(conn *websocket.Conn, box *inbox) error {
	fd, err := detach(conn)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.inboxes[int32(fd)] = box
	p.mu.Unlock()
	err = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
	if err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// detach takes the connection from Go's own poller, which would be woken for every push too.
func detach(conn *websocket.Conn) (fd int, err error) {
	defer conn.Close() // leaves the duplicate open
	raw, err := conn.NetConn().(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if errControl := raw.Control(func(original uintptr) { fd, err = syscall.Dup(int(original)) }); errControl != nil {
		err = errControl
	}
	return fd, err
}

func (p *poll) run() {
	events, buffer := make([]syscall.EpollEvent, pollEvents), make([]byte, pollRead)
	for {
		n, err := syscall.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			panic(fmt.Sprintf("epoll_wait: %v", err)) // it would never return again: what is wrong is this program
		}
		for _, event := range events[:max(0, n)] {
			p.read(event.Fd, buffer)
		}
		if n < len(events) { // or else there is more
			time.Sleep(time.Duration(p.rest.Load()))
		}
	}
}

// setRest sets how long to wait between two looks, and returns when no look is late by what was set before.
func (p *poll) setRest(rest time.Duration) { time.Sleep(time.Duration(p.rest.Swap(int64(rest)))) }

// read takes what has come for a socket.
func (p *poll) read(fd int32, buffer []byte) {
	p.mu.Lock()
	box := p.inboxes[fd]
	p.mu.Unlock()
	n, err := syscall.Read(int(fd), buffer)
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return
	case err != nil || n == 0 || !box.takeBytes(buffer[:n], func(pong []byte) { _, _ = syscall.Write(int(fd), pong) }):
		p.mu.Lock()
		delete(p.inboxes, fd)
		p.mu.Unlock()
		syscall.Close(int(fd))
		box.tally.ended.Add(1)
	}
}

// takeBytes takes frames, of which the last may come in parts, and answers pings. It reports whether the socket stays open.
func (b *inbox) takeBytes(bytes []byte, answer func(pong []byte)) (open bool) {
	if len(b.part) > 0 {
		bytes = append(b.part, bytes...)
	}
	for {
		opcode, payload, rest, whole := cutFrame(bytes)
		if !whole {
			break
		}
		switch opcode {
		case websocket.CloseMessage:
			return false
		case websocket.PingMessage:
			answer(pongFrame(payload))
		default:
			b.take(payload)
		}
		bytes = rest
	}
	b.part = append([]byte(nil), bytes...)
	return true
}

// cutFrame cuts the first frame of a server from bytes: RFC 6455, 5.2. A server does not mask, and Rollcall does not fragment.
func cutFrame(bytes []byte) (opcode int, payload, rest []byte, whole bool) {
	head := 2
	if len(bytes) < head {
		return 0, nil, bytes, false
	}
	size := int(bytes[1])
	switch {
	case size == 126 && len(bytes) >= 4:
		head, size = 4, int(binary.BigEndian.Uint16(bytes[2:]))
	case size == 127 && len(bytes) >= 10:
		head, size = 10, int(binary.BigEndian.Uint64(bytes[2:]))
	case size >= 126:
		return 0, nil, bytes, false
	}
	if len(bytes) < head+size {
		return 0, nil, bytes, false
	}
	return int(bytes[0] & 0xf), bytes[head : head+size], bytes[head+size:], true
}

// pongFrame answers a ping. A client must mask; the mask may be 0.
func pongFrame(ping []byte) []byte {
	const final, masked = 0x80, 0x80
	return append([]byte{final | websocket.PongMessage, masked | byte(len(ping)), 0, 0, 0, 0}, ping...)
}
