package sockets

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/gorilla/websocket"
)

// closing notes with which code a socket is closed first, and by whom. Later close frames only answer the
// first.
type closing struct {
	noted atomic.Int32 // 0: nothing; else a code, negative if it is the client's
}

func (c *closing) note(by Closer, code int) {
	if by == ByClient {
		code = -code
	}
	c.noted.CompareAndSwap(0, int32(code))
}

// first is what was noted first. If nothing was, the connection ended by itself.
func (c *closing) first() (by Closer, code int) {
	switch noted := int(c.noted.Load()); {
	case noted == 0:
		return ByNetwork, websocket.CloseAbnormalClosure
	case noted < 0:
		return ByClient, -noted
	default:
		return ByServer, noted
	}
}

// closeCode is the code in the payload of a close frame.
func closeCode(payload []byte) int {
	if len(payload) < 2 {
		return websocket.CloseNoStatusReceived
	}
	return int(binary.BigEndian.Uint16(payload))
}
